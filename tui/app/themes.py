"""A dark and a light theme from the palette of Okabe and Ito, whose colours people of every colour vision tell apart.

Blue says well, orange and vermillion say look here; the phase of a run is always a word as well. Texts are lighter than
the palette in the dark and darker in the light: each has a contrast of at least 4.5 to 1 with what it stands on.
"""

from __future__ import annotations

from textual.theme import Theme

# Beyond Textual's own: $quiet for what stands beside a value, $faint for axes and empty space, $row for the line the
# cursor is on while something else has the focus.
_DARK = Theme(
    name="dark",
    dark=True,
    primary="#0072b2",
    secondary="#cc79a7",
    accent="#e69f00",
    success="#56b4e9",
    warning="#f0e442",
    error="#d55e00",
    foreground="#e4e4e4",
    background="#121212",
    surface="#1e1e1e",
    panel="#262626",
    variables={
        "text-primary": "#56b4e9",
        "text-secondary": "#d797ba",
        "text-accent": "#e69f00",
        "text-success": "#56b4e9",
        "text-warning": "#f0e442",
        "text-error": "#ff8a3d",
        "part-2": "#12b886",
        "quiet": "#9e9e9e",
        "faint": "#6c6c6c",
        "row": "#3a3a3a",
    },
)
_LIGHT = Theme(
    name="light",
    dark=False,
    primary="#0072b2",
    secondary="#a3477f",
    accent="#a85b00",
    success="#005f96",
    warning="#7a6400",
    error="#b03a00",
    foreground="#1c1c1c",
    background="#ffffff",
    surface="#eeeeee",
    panel="#e4e4e4",
    variables={
        "text-primary": "#005f96",
        "text-secondary": "#8f3a6e",
        "text-accent": "#8a4b00",
        "text-success": "#005f96",
        "text-warning": "#6b5800",
        "text-error": "#a33600",
        "part-2": "#00775a",
        "quiet": "#585858",
        "faint": "#757575",
        "row": "#d0d0d0",
    },
)
THEMES = (_DARK, _LIGHT)

# Where there are 16 colours, the nearest to a colour above is often another's: most of the light theme would be the
# same yellow, on white. So there these stand in, each exactly one of the 16 as rich knows them.
_DARK_16 = Theme(
    name="dark-16",
    dark=True,
    primary="#0000aa",
    secondary="#ff55ff",
    accent="#ffff55",
    success="#55ffff",
    warning="#ffff55",
    error="#aa0000",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#000000",
    variables={
        "text-primary": "#55ffff",
        "text-secondary": "#ff55ff",
        "text-accent": "#ffff55",
        "text-success": "#55ffff",
        "text-warning": "#ffff55",
        "text-error": "#ff5555",
        "part-2": "#00aaaa",
        "quiet": "#aaaaaa",
        "faint": "#555555",
        "row": "#555555",
    },
)
_LIGHT_16 = Theme(
    name="light-16",
    dark=False,
    primary="#0000aa",
    secondary="#aa00aa",
    accent="#aa0000",
    success="#0000aa",
    warning="#aa00aa",
    error="#aa0000",
    foreground="#000000",
    background="#ffffff",
    surface="#ffffff",
    panel="#ffffff",
    variables={
        "text-primary": "#0000aa",
        "text-secondary": "#5555ff",
        "text-accent": "#aa0000",
        "text-success": "#0000aa",
        "text-warning": "#aa00aa",
        "text-error": "#aa0000",
        "part-2": "#555555",
        "quiet": "#555555",
        "faint": "#555555",
        "row": "#aaaaaa",
    },
)
FEW_COLOURS = (_DARK_16, _LIGHT_16)


def drawn(name: str, color_system: str | None) -> str:
    """The theme that stands for ``name`` on a terminal with rich's ``color_system``."""
    return f"{name}-16" if color_system == "standard" else name
