"""Every screen in every state, as text beside this file, so that what a change does to them stands in its diff.

``make snapshots`` (MLA_SNAPSHOTS=write) writes them anew; look at ``git diff tests/unit/tui/snapshots`` then. A new
screen or state is one line in ``scenes.SCENES``.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from engine.events.run_dir import RunDir
from tests.unit.tui import picture
from tests.unit.tui.scenes import NOW, SCENES, Scene, World
from tui.app.app import MlaApp

FOLDER = Path(__file__).parent / "snapshots"
LOOKS = [(scene, size) for scene in SCENES for size in scene.sizes]
WRITE = os.environ.get("MLA_SNAPSHOTS") == "write"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    home = Path(tempfile.mkdtemp(prefix="mla-", dir="/tmp"))  # its length is always the same
    made = World(home, monkeypatch)
    yield made
    monkeypatch.undo()
    made.close()
    shutil.rmtree(home)


Screen = list[list[picture.Cell]]


async def look(world: World, run: RunDir | None, scene: Scene, size: tuple[int, int]) -> Screen:
    """The screen once it shows what it is to show and nothing changes any more."""
    app = MlaApp(world.store, run.id if run else None)

    async def until(pattern: str) -> Screen:
        patterns = (pattern, scene.wide if size[0] >= 160 else "")
        before: Screen = []
        for _ in range(400):
            now = picture.cells(app)
            if now == before and all(re.search(pattern, picture.text(now)) for pattern in patterns):
                return now
            before = now
            await pilot.pause(0.05)
        pytest.fail(f"{patterns} did not come:\n{picture.text(before)}")

    async with AsyncExitStack() as opened:
        server = None
        if run is not None and not run.ended():
            server = await opened.enter_async_context(world.looked_after(run))
        pilot = await opened.enter_async_context(app.run_test(size=size))
        for pattern, *keys in scene.presses:
            await until(pattern)
            await pilot.press(*keys)
        if scene.lost and server is not None:
            await server.close()
        return await until(scene.until)


def told(screen: Screen, plain: Screen, home: Path) -> str:
    assert picture.text(plain) == picture.text(screen), "NO_COLOR changes what stands there"
    parts = [picture.text(screen), "\ncolours\n", picture.styles(screen), "\nNO_COLOR\n", picture.styles(plain)]
    return "".join(parts).replace(str(home), "/tmp/mla-snapshot"[: len(str(home))])


@pytest.mark.parametrize(("scene", "size"), LOOKS, ids=[f"{scene.name}-{x}x{y}" for scene, (x, y) in LOOKS])
async def test_a_screen_is_as_it_was_seen_last(
    world: World, scene: Scene, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    run = scene.build(world)
    world.now = NOW
    screen = await look(world, run, scene, size)
    monkeypatch.setenv("NO_COLOR", "1")
    now = told(screen, await look(world, run, scene, size), world.folder)
    path = FOLDER / "{}-{}x{}.txt".format(scene.name, *size)
    if WRITE:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(now)
    before = path.read_text() if path.exists() else ""
    diff = difflib.unified_diff(before.splitlines(), now.splitlines(), str(path), "now", lineterm="")
    assert now == before, "\n".join(diff)


def test_there_is_no_snapshot_of_a_screen_that_is_gone() -> None:
    wanted = {"{}-{}x{}.txt".format(scene.name, *size) for scene, size in LOOKS}
    gone = [path for path in FOLDER.iterdir() if path.name not in wanted]
    if WRITE:
        for path in gone:
            path.unlink()
    else:
        assert gone == []
