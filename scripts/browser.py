"""Opens a page in a headless Chromium and moves its mouse, by the DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS = ("chromium-headless-shell", "chrome-headless-shell", "chromium", "google-chrome")


def find_browser() -> str | None:
    """Return the path of an installed Chromium, or None."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


class Page:
    """A page that is open; what it raises is ``RuntimeError`` with Chromium's message."""

    def __init__(self, commands: int, answers: int) -> None:
        """Chromium reads its commands from one pipe and answers in the other, both with a NUL after each."""
        self._commands, self._answers = os.fdopen(commands, "wb", 0), os.fdopen(answers, "rb")
        self._left, self._id, self._session = b"", 0, ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")

    def open(self, file: Path, width: int, scheme: str) -> None:
        """Open ``file`` in a window of ``width`` pixels as high as the page. ``scheme`` is light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._call("Emulation.setEmulatedMedia", features=[feature])
        self._resize(width, 600)
        self._call("Page.navigate", url=file.as_uri())
        while self._read().get("method") != "Page.loadEventFired":
            pass
        self._resize(width, int(self.run("document.documentElement.scrollHeight")))

    def run(self, expression: str) -> Any:
        """Return the value of a JavaScript ``expression``."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def move_mouse(self, x: float, y: float) -> None:
        """Move the mouse to a point of the window, in pixels."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self) -> bytes:
        """Return the whole page as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot")["data"])

    def close(self) -> None:
        """End the browser with all its processes."""
        self._session = ""
        with contextlib.suppress(RuntimeError, BrokenPipeError):
            self._call("Browser.close")
        self._commands.close()
        self._answers.close()

    def _resize(self, width: int, height: int) -> None:
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._id += 1
        session = {"sessionId": self._session} if self._session else {}
        self._commands.write(
            json.dumps({"id": self._id, "method": method, "params": params, **session}).encode() + b"\0"
        )
        while (answer := self._read()).get("id") != self._id:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            chunk = self._answers.read1(1 << 16)
            if not chunk:
                raise RuntimeError("the browser has ended")
            self._left += chunk
        message, _, self._left = self._left.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def open_browser(path: str) -> Iterator[Page]:
    """Start the Chromium at ``path`` and yield its page; afterwards the browser is ended."""
    # Its processes may still write there for a moment.
    with tempfile.TemporaryDirectory(prefix="mla-browser-", ignore_cleanup_errors=True) as profile:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4; what we have there may be ours.
        pipes = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (theirs_in, theirs_out)]

        def take_pipes() -> None:
            for fd, pipe in zip((3, 4), pipes, strict=True):
                os.dup2(pipe, fd)

        options = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--headless", "--remote-debugging-pipe"]
        process = subprocess.Popen(
            [path, *options, f"--user-data-dir={profile}"],
            preexec_fn=take_pipes,
            close_fds=False,  # every other one of ours is closed on exec
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (theirs_in, theirs_out, *pipes):
            os.close(fd)
        page = None
        try:
            page = Page(ours_out, ours_in)
            yield page
        finally:
            if page is not None:
                page.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
