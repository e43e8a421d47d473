"""The frame of a dialog: it scrolls to what has the focus, and its lower border names the keys."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widget import Widget

_BORDER = 6  # cells of the lower border that its text cannot have


class Dialog(Vertical):
    """In a small terminal the keys stay on screen, whatever is scrolled. Page Up and Page Down show the rest."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup", "page_up", show=False),
        Binding("pagedown", "page_down", show=False),
    ]

    def __init__(self, *keys: str, id: str | None = None) -> None:
        """``keys`` are texts that name the keys, the longest first: the first that fits is shown."""
        super().__init__(id=id)
        self._keys = keys
        self._wanted: Widget | None = None  # what is kept on screen
        self._place: tuple[int, ...] = ()  # its line in the dialog, its height and that of the dialog

    def show_keys(self, *keys: str) -> None:
        self._keys = keys
        self._name_keys()

    def on_mount(self) -> None:
        self.screen.screen_layout_refresh_signal.subscribe(self, self._follow)

    def reveal(self, widget: Widget) -> None:
        """Keep ``widget`` on screen until another one gets the focus."""
        self._wanted, self._place = widget, ()
        self.call_after_refresh(self._follow)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self.reveal(event.widget)

    def on_resize(self) -> None:
        self._name_keys()

    def _follow(self, _: object = None) -> None:
        """Scroll to what is wanted once it has another place; what the user scrolls stays."""
        if self._wanted is not None:
            place = self._wanted.region.y + self.scroll_offset.y, self._wanted.size.height, self.size.height
            if place != self._place:
                self._place = place
                self._wanted.scroll_visible(animate=False)

    def _name_keys(self) -> None:
        room = self.outer_size.width - _BORDER
        self.border_subtitle = next((text for text in self._keys if cell_len(text) <= room), self._keys[-1])


class TextDialog(Dialog, can_focus=True):
    """A dialog of text alone: the arrows scroll it too."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "scroll_up", show=False),
        Binding("down", "scroll_down", show=False),
    ]
