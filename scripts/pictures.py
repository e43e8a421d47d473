"""Makes the pictures of README (``make pictures``): walks through the app with a real run in a real tmux.

    python -m scripts.pictures FOLDER

Everything is in a temporary home. The screen of tmux becomes SVG, cell by cell; names of this machine are taken out.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

from engine.memory.hardware import cpu_name
from scripts.demo_home import ROOT, demo_home, wait_for
from scripts.tmux_session import TmuxSession

SIZE = (100, 30)
CELL, LINE, PT = 8.4, 18, 14
BACK, FORE = "#121212", "#e0e0e0"
Cell = tuple[str, tuple[str, str, bool]]
"""A character, its colours and whether it is bold."""


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with demo_home() as demo:
        terminal = TmuxSession(demo.command, demo.env, ROOT, wait_for)
        try:
            for name, lr in (("warm-up", "3e-3"), ("higher-rate", "6e-3")):
                demo.launch(name, "steps=12", f"lr={lr}")
                demo.run("watch", name)
            demo.launch("demo", "steps=3000", "save_every=20")
            walk(terminal, lambda name: save(terminal, folder / f"{name}.svg", demo.home))
        finally:
            terminal.close()


def walk(terminal: TmuxSession, picture: Callable[[str], None]) -> None:
    """Open the screens that README shows, and take a picture of each."""
    terminal.open(size=SIZE)
    terminal.wait_text(r"demo .*running +\d\d+/3000.*[▁-█]{4}.*\n.*[▁-█]{4}.*\n.*[▁-█]{4}")
    picture("home")
    terminal.keys("n")
    terminal.wait_text(r"-p \w+")
    terminal.keys("End")
    terminal.wait_text(r"-p gpu_fast")
    terminal.keys("k", "k", "k")
    terminal.wait_text(r"-p pretrain_5080")
    terminal.wait_text(r"weights [\d.]+ GiB")
    picture("new-run")
    terminal.keys("q")
    terminal.wait_text("mla-tui · runs")
    terminal.keys("Enter")
    terminal.wait_text(r"1–([3-9]\d|\d{3,}) \(")
    picture("monitor")
    terminal.keys("e")
    terminal.wait_text(r"available to this run[\s\S]*tokens/s")
    terminal.keys("2")
    terminal.wait_text(r"micro +2 +accum +2 ")
    picture("tuning")
    terminal.keys("Enter")
    terminal.wait_text(r"micro 4 → 2")
    terminal.keys("z")
    terminal.wait_text(r"(?m)^ 1 loss (?!.* 2 no GPU)")
    picture("zoom")
    terminal.keys("q")
    terminal.wait_text("mla-tui · runs")
    for key in ("j", "Space", "j", "Space", "c"):
        terminal.keys(key)
    terminal.wait_text(r"A━+ +\S+ +\w+ .*\d\.\d[\s\S]*B━+ +\S+ +\w+ .*\d\.\d")
    picture("compare")
    terminal.keys("q")
    terminal.wait_text("mla-tui · runs")
    terminal.keys("q")
    terminal.wait_end()


def save(terminal: TmuxSession, path: Path, home: str) -> None:
    screen = terminal.escapes()
    screen = screen.replace(cpu_name(), "a CPU".rjust(len(cpu_name())))
    for name in (platform.node(), home, str(ROOT), str(Path.home())):
        assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", screen), f"{path.name} names this machine: {name}"
    path.write_text(svg(screen.splitlines()))
    print(f"{path}: {path.stat().st_size / 1024:.0f} KB", file=sys.stderr)


def svg(lines: list[str]) -> str:
    """Draw ``lines`` with their escapes: a box for each background, a text for each stretch of one style."""
    width, height = SIZE[0] * CELL, SIZE[1] * LINE
    boxes, texts = [], []
    for y, line in enumerate(lines):
        cells = _cells(line)
        for left, wide, back, _ in _runs(cells, lambda cell: cell[1][1]):
            if back != BACK:
                boxes.append(f'<rect x="{left}" y="{y * LINE}" width="{wide}" height="{LINE}" fill="{back}"/>')
        for left, wide, (fore, _, bold), text in _runs(cells, lambda cell: cell[1]):
            if text.strip():
                weight = ' font-weight="bold"' if bold else ""
                place = f'x="{left}" y="{y * LINE + PT}" textLength="{wide}"'
                texts.append(f'<text {place} fill="{fore}"{weight}>{escape(text)}</text>')
    font = "font-family=\"'DejaVu Sans Mono',Menlo,Consolas,monospace\""
    space = 'xml:space="preserve"'  # some viewers ignore the CSS property white-space
    box = f'viewBox="0 0 {width:.0f} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {space} {box} {font} font-size="{PT}">'
    body = "\n".join([f'<rect width="100%" height="100%" fill="{BACK}"/>', *boxes, *texts])
    return f"{head}\n<style>text{{white-space:pre}}</style>\n{body}\n</svg>\n"


def _runs(cells: list[Cell], key: Callable[[Cell], Any]) -> Iterator[tuple[str, str, Any, str]]:
    """Yield each stretch of cells with one ``key``: its left edge and width in pixels, the key, the text."""
    x = 0
    for value, run in groupby(cells, key):
        text = "".join(char for char, _ in run)
        yield f"{x * CELL:.1f}", f"{len(text) * CELL:.1f}", value, text
        x += len(text)


def _cells(line: str) -> list[Cell]:
    text = Text.from_ansi(line)
    styles = [Style.null()] * len(text.plain)
    for span in text.spans:
        for i in range(span.start, min(span.end, len(styles))):
            styles[i] += span.style if isinstance(span.style, Style) else Style.parse(span.style)
    return [(char, _colours(style)) for char, style in zip(text.plain, styles, strict=True)]


def _colours(style: Style) -> tuple[str, str, bool]:
    fore, back = (
        usual if color is None or color.is_default else color.get_truecolor(MONOKAI).hex
        for color, usual in ((style.color, FORE), (style.bgcolor, BACK))
    )
    return (back, fore, bool(style.bold)) if style.reverse else (fore, back, bool(style.bold))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m scripts.pictures FOLDER")
    main(Path(sys.argv[1]))
