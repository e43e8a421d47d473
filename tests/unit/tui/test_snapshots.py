"""Compares every screen in every state with a stored text, so that a diff shows what a change does to the screens.

``make snapshots`` (MLA_SNAPSHOTS=write) rewrites them; then review ``git diff tests/unit/tui/snapshots``. A new screen
or state is one line in ``scenes.SCENES``.
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

from engine.events.phases import is_active
from engine.events.run_dir import RunDir
from tests.unit.tui import screen_text
from tests.unit.tui.scenes import NOW, SCENES, Scene, World
from tui.app.app import MlaApp

FOLDER = Path(__file__).parent / "snapshots"
CASES = [(scene, size) for scene in SCENES for size in scene.sizes]
WRITE = os.environ.get("MLA_SNAPSHOTS") == "write"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    home = Path(tempfile.mkdtemp(prefix="mla-", dir="/tmp"))  # of constant length
    made = World(home, monkeypatch)
    yield made
    monkeypatch.undo()
    made.close()
    shutil.rmtree(home)


Screen = list[list[screen_text.Cell]]


async def draw(world: World, run: RunDir | None, scene: Scene, size: tuple[int, int]) -> Screen:
    """Return the screen once it shows the expected patterns and no longer changes."""
    app = MlaApp(world.store, run.id if run else None)

    async def until(pattern: str) -> Screen:
        patterns = (pattern, scene.wide if size[0] >= 160 else "")
        before: Screen = []
        for _ in range(400):
            now = screen_text.cells(app)
            if now == before and all(re.search(pattern, screen_text.text(now)) for pattern in patterns):
                return now
            before = now
            await pilot.pause(0.05)
        pytest.fail(f"{patterns} did not appear:\n{screen_text.text(before)}")

    async with AsyncExitStack() as opened:
        server = None
        if run is not None and is_active(run.summary().phase):
            server = await opened.enter_async_context(world.served(run))
        pilot = await opened.enter_async_context(app.run_test(size=size))
        for pattern, *keys in scene.presses:
            await until(pattern)
            await pilot.press(*keys)
        if scene.lost and server is not None:
            await server.close()
        return await until(scene.until)


def snapshot(screen: Screen, plain: Screen, home: Path) -> str:
    assert screen_text.text(plain) == screen_text.text(screen), "NO_COLOR changes the text"
    parts = [
        screen_text.text(screen),
        "\ncolours\n",
        screen_text.styles(screen),
        "\nNO_COLOR\n",
        screen_text.styles(plain),
    ]
    return "".join(parts).replace(str(home), "/tmp/mla-snapshot"[: len(str(home))])


@pytest.mark.parametrize(("scene", "size"), CASES, ids=[f"{scene.name}-{x}x{y}" for scene, (x, y) in CASES])
async def test_a_screen_equals_its_snapshot(
    world: World, scene: Scene, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    run = scene.build(world)
    world.now = NOW
    screen = await draw(world, run, scene, size)
    monkeypatch.setenv("NO_COLOR", "1")
    now = snapshot(screen, await draw(world, run, scene, size), world.folder)
    path = FOLDER / "{}-{}x{}.txt".format(scene.name, *size)
    if WRITE:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(now)
    before = path.read_text() if path.exists() else ""
    diff = difflib.unified_diff(before.splitlines(), now.splitlines(), str(path), "now", lineterm="")
    assert now == before, "\n".join(diff)


def test_there_is_no_snapshot_without_a_scene() -> None:
    expected = {"{}-{}x{}.txt".format(scene.name, *size) for scene, size in CASES}
    obsolete = [path for path in FOLDER.iterdir() if path.name not in expected]
    if WRITE:
        for path in obsolete:
            path.unlink()
    else:
        assert obsolete == []
