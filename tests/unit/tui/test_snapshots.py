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
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from engine.events.phases import is_active
from engine.events.run_dir import RunDir
from tests.unit.tui import screen_text
from tests.unit.tui.scenes import NOW, SCENES, SIZES, Scene, Size, World
from tui.app.app import MlaApp

FOLDER = Path(__file__).parent / "snapshots"
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


async def settled(pilot: Pilot[Any], app: MlaApp, size: Size, *patterns: str) -> Screen:
    """Return the screen once it is of ``size``, shows the ``patterns`` and no longer changes."""
    before: Screen = []
    for _ in range(400):
        now = screen_text.cells(app)
        has_size = [len(row) for row in now] == [size[0]] * size[1]
        if has_size and now == before and all(re.search(pattern, screen_text.text(now)) for pattern in patterns):
            return now
        before = now
        await pilot.pause(0.05)
    pytest.fail(f"{patterns} did not appear in {size}:\n{screen_text.text(before)}")


async def draw(world: World, run: RunDir | None, scene: Scene, sizes: Sequence[Size]) -> dict[Size, Screen]:
    """Return the screen of a scene in each size; it is built up in the first, the terminal is resized to the others."""
    app = MlaApp(world.store, run.id if run else None)
    screens: dict[Size, Screen] = {}
    async with AsyncExitStack() as opened:
        server = None
        if run is not None and is_active(run.summary().phase):
            server = await opened.enter_async_context(world.served(run))
        pilot = await opened.enter_async_context(app.run_test(size=sizes[0], notifications=True))
        for pattern, *keys in scene.presses:
            await settled(pilot, app, sizes[0], pattern)
            await pilot.press(*keys)
        if scene.lost and server is not None:
            await server.close()
        for size in sizes:
            if size != sizes[0]:
                await pilot.resize_terminal(*size)
            screens[size] = await settled(pilot, app, size, *scene.patterns(size))
    return screens


def snapshot(screen: Screen, plain: Screen | None, home: Path) -> str:
    """Return a screen as text; without colours (``plain``) only the styles may differ."""
    parts = [screen_text.text(screen), "\ncolours\n", screen_text.styles(screen)]
    if plain is not None:
        assert screen_text.text(plain) == screen_text.text(screen), "NO_COLOR changes the text"
        parts += ["\nNO_COLOR\n", screen_text.styles(plain)]
    return "".join(parts).replace(str(home), "/tmp/mla-snapshot"[: len(str(home))])


@pytest.mark.parametrize("scene", SCENES, ids=[scene.name for scene in SCENES])
async def test_a_screen_equals_its_snapshots(world: World, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    run = scene.build(world)
    world.now = NOW
    screens = await draw(world, run, scene, SIZES)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = await draw(world, run, scene, SIZES[:1])
    found: list[str] = []
    for size, screen in screens.items():
        now = snapshot(screen, plain.get(size), world.folder)
        path = FOLDER / file_name(scene, size)
        if WRITE:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(now)
        before = path.read_text() if path.exists() else ""
        found += difflib.unified_diff(before.splitlines(), now.splitlines(), str(path), "now", lineterm="")
    assert not found, "\n".join(found)


def file_name(scene: Scene, size: Size) -> str:
    return "{}-{}x{}.txt".format(scene.name, *size)


def test_there_is_no_snapshot_without_a_scene() -> None:
    expected = {file_name(scene, size) for scene in SCENES for size in SIZES}
    obsolete = [path for path in FOLDER.iterdir() if path.name not in expected]
    if WRITE:
        for path in obsolete:
            path.unlink()
    else:
        assert obsolete == []
