"""Defines a dark and a light theme with the colour-blind safe palette of Okabe and Ito.

Blue means fine, orange and vermillion mean attention; the phase of a run is always written as well. Text colours are
lighter than the palette in the dark theme and darker in the light one, for a contrast of at least 4.5 to 1.
"""

from __future__ import annotations

from textual.theme import Theme

# Variables that Textual does not have: $quiet for labels and notes, $faint for axes and free space, $row for the
# selected line of a list without focus.
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

# With 16 colours several colours above would become the same one: most of the light theme would be yellow on white.
# These themes use exactly the 16 colours of rich.
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
THEMES_16 = (_DARK_16, _LIGHT_16)


def theme_for(name: str, color_system: str | None) -> str:
    """Return the name of the theme to use for ``name`` on a terminal with rich's ``color_system``."""
    return f"{name}-16" if color_system == "standard" else name
