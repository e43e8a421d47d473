"""Makes the pictures of a report (``make report-pictures``), as a real Chromium shows it on a phone and on a desktop.

python -m scripts.report_pictures FOLDER
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.demo_home import DemoHome, demo_home, wait_for

BROWSERS = ("chromium-headless-shell", "chrome-headless-shell", "chromium", "google-chrome")
WIDTHS = (390, 1280)  # pixels
SCHEMES = {"light": 1, "dark": 0}  # as Chromium numbers them
_MEASURE = "<script>document.title = document.documentElement.scrollHeight</script>"


def main(folder: Path) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"report-pictures: no browser: none of {', '.join(BROWSERS)} is installed")
    folder.mkdir(parents=True, exist_ok=True)
    with demo_home() as demo, tempfile.TemporaryDirectory() as pages:
        page = Path(pages) / "report.html"
        write_report(demo, page)
        for width in WIDTHS:
            for scheme in SCHEMES:
                picture = folder / f"report-{width}-{scheme}.png"
                take(browser, page, width, scheme, picture)
                print(f"{picture}: {picture.stat().st_size / 1024:.0f} KB", file=sys.stderr)


def write_report(demo: DemoHome, page: Path) -> None:
    """Write the report of two runs, of which the second was edited while it lived."""
    demo.launch("first", "steps=150", "lr=3e-3")
    demo.run("watch", "first")
    demo.launch("second", "steps=150", "lr=6e-3")
    wait_for("step 60", lambda: (json.loads(demo.run("status", "second", "--json"))["step"] or 0) >= 60)
    demo.run("set", "second", "micro=2", "lr_scale=0.5")
    demo.run("watch", "second")
    demo.run("report", "first", "second", "-o", str(page))


def take(browser: str, page: Path, width: int, scheme: str, picture: Path) -> None:
    """Write the picture of a whole page, ``width`` pixels wide."""
    options = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options.append(f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}")

    def run(page: Path, height: int, *more: str) -> str:
        argv = [browser, *options, f"--window-size={width},{height}", *more, page.as_uri()]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout

    measured = page.with_name("measured.html")
    measured.write_text(page.read_text(encoding="utf-8") + _MEASURE, encoding="utf-8")
    height = re.search(r"<title>(\d+)</title>", run(measured, 600, "--dump-dom"))
    assert height, "the page did not run its script"
    run(page, int(height[1]), f"--screenshot={picture.resolve()}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m scripts.report_pictures FOLDER")
    main(Path(sys.argv[1]))
