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
        "faint": "#8a8a8a",
        "row": "#d0d0d0",
    },
)
THEMES = (_DARK, _LIGHT)
