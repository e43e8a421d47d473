"""Writes styled text at places of the screen, and of each style only what differs from the one before.

A colour of 24 bits costs up to 19 bytes. Where a few digits change, colours and resets are four fifths of what would be
sent over ssh; with this they are a third.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from textual.strip import Strip

from tui.text.narrow import graphemes, is_narrow

_ATTRIBUTES = {
    **{"bold": "1", "dim": "2", "italic": "3", "underline": "4", "blink": "5", "blink2": "6", "reverse": "7"},
    **{"conceal": "8", "strike": "9", "underline2": "21", "frame": "51", "encircle": "52", "overline": "53"},
}
_SEEN_ON_SPACES = {_ATTRIBUTES[name] for name in ("underline", "reverse", "strike", "underline2", "overline")}
_SYSTEMS = {"standard": ColorSystem.STANDARD, "256": ColorSystem.EIGHT_BIT, "truecolor": ColorSystem.TRUECOLOR}
_RESET = "\x1b[0m"
_FIRST_PICTOGRAM = "\U0001f000"  # from here on, and where several characters are drawn as one, terminals disagree


class _Codes(NamedTuple):
    """The attributes and the codes of both colours that are set; ``39`` and ``49`` are the terminal's own."""

    attributes: frozenset[str] = frozenset()
    foreground: str = "39"
    background: str = "49"


_PLAIN = _Codes()


@lru_cache(maxsize=1024)
def _codes(style: Style, system: ColorSystem) -> _Codes:
    attributes = frozenset(code for name, code in _ATTRIBUTES.items() if getattr(style, name))
    foreground = style.color.downgrade(system).get_ansi_codes() if style.color else (_PLAIN.foreground,)
    background = style.bgcolor.downgrade(system).get_ansi_codes(False) if style.bgcolor else (_PLAIN.background,)
    return _Codes(attributes, ";".join(foreground), ";".join(background))


class Pen:
    """Collects what is written; ``finish`` returns it. What a terminal shows is the same as with full styles."""

    def __init__(self, console: Console) -> None:
        self._system = _SYSTEMS.get(console.color_system or "", ColorSystem.TRUECOLOR)
        self._out: list[str] = []
        self._now = _PLAIN
        self._at = 0, 0  # column and line of what is written next
        self._is_there = False  # whether the cursor is known to be there

    def move_to(self, x: int, y: int) -> None:
        """Continue at a column and line, from 0; forwards in a line this costs fewer bytes."""
        if not self._is_there or self._at[1] != y or self._at[0] > x:
            self._out.append(f"\x1b[{y + 1};{x + 1}H")
        elif self._at[0] < x:
            self._out.append(f"\x1b[{x - self._at[0]}C")
        self._at, self._is_there = (x, y), True

    def write(self, strip: Strip, start: int = 0, stop: int | None = None) -> None:
        """Write the cells of a strip from ``start`` to ``stop``, by default all."""
        width = strip.cell_length
        start, stop = max(start, 0), width if stop is None else min(stop, width)
        self.move_to(*self._at)
        if is_narrow(strip.text):
            self._write_narrow(strip, start, stop)
            self._at = self._at[0] + stop - start, self._at[1]
        else:
            self._write_placed(strip.crop(start, stop))

    def _write_placed(self, strip: Strip) -> None:
        """Write a strip with characters of whose width terminals disagree: the cursor is placed again behind one."""
        for text, style, control in strip:
            if control:
                continue
            self._set(_codes(style, self._system) if style else _PLAIN, text)
            for drawn, width in graphemes(text):
                self.move_to(*self._at)
                self._out.append(drawn)
                self._at = self._at[0] + width, self._at[1]
                self._is_there = len(drawn) == 1 and drawn < _FIRST_PICTOGRAM

    def _write_narrow(self, strip: Strip, start: int, stop: int) -> None:
        """Write characters ``start`` to ``stop``. Cropped strips would cost a third of the time of a whole update."""
        at = 0
        for text, style, control in strip:
            before, at = at, at if control else at + len(text)
            if at <= start or before == at:
                continue
            if before >= stop:
                break
            if before < start or at > stop:
                text = text[max(start - before, 0) : stop - before]
            self._set(_codes(style, self._system) if style else _PLAIN, text)
            self._out.append(text)

    def finish(self) -> str:
        """Return everything, with the style of the terminal set back to its own."""
        if self._now != _PLAIN:
            self._out.append(_RESET)
        return "".join(self._out)

    def _set(self, wanted: _Codes, text: str) -> None:
        """Set what ``text`` needs of a style. Spaces have no foreground, unless a line or the reverse shows it."""
        now, blank = self._now, text.isspace() and not _SEEN_ON_SPACES & (wanted.attributes | self._now.attributes)
        if blank:
            wanted = now._replace(background=wanted.background)
        if wanted == now:
            return
        changed = []
        if not now.attributes <= wanted.attributes:
            changed.append("0")
            now = _PLAIN
        changed += sorted(wanted.attributes - now.attributes)
        changed += [wanted.foreground] if wanted.foreground != now.foreground else []
        changed += [wanted.background] if wanted.background != now.background else []
        self._out.append(f"\x1b[{';'.join(changed)}m")
        self._now = wanted
