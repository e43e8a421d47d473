"""Lists the packed files of a dataset, split by split."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tui.app.widgets import columns
from tui.app.widgets.canvas import Row
from tui.app.widgets.selectable_list import SelectableList
from tui.text import format as fmt


class ShardList(SelectableList):
    COMPONENT_CLASSES: ClassVar[set[str]] = {"shards--bad"}

    def __init__(self) -> None:
        super().__init__(id="shards")
        self.files: list[dict[str, Any]] = []

    def show(self, splits: list[dict[str, Any]]) -> None:
        """Show the files of all splits of a ``data.summary``."""
        self.files = [{"split": split["split"], **file} for split in splits for file in split["files"]]
        self.styles.height = len(self.files) + 1
        self.redraw()

    @property
    def selected(self) -> dict[str, Any] | None:
        return self.files[self.cursor] if 0 <= self.cursor < len(self.files) else None

    def count(self) -> int:
        return len(self.files)

    def _columns(self, width: int) -> list[tuple[str, int, str]]:
        """Return (key, width, title) of each column; a negative width aligns right."""
        right = [("tokens", -12 if width >= 72 else -7, "tokens"), ("sequences", -9, "sequences")]
        if width >= 72:
            right += [("bytes", -9, "size"), ("dtype", 7, "dtype")]
        name = width - 2 - sum(abs(cells) + 1 for _, cells, _ in right) - 10
        return [("split", 9, "split"), ("name", min(max(name, 8), 48), "file"), *right]

    def header(self, width: int) -> Row | None:
        if not self.files:
            return None
        return columns.header_row(self._columns(width))

    def row(self, index: int, width: int) -> Row:
        file = self.files[index]
        damaged = bool(file["problem"])
        tokens = fmt.exact if width >= 72 else fmt.count
        return columns.row(
            self._columns(width),
            {
                "split": (file["split"], "list--dim"),
                "name": (Path(file["path"]).name, "shards--bad" if damaged else ""),
                "tokens": ("damaged", "shards--bad") if damaged else (tokens(file["tokens"]), ""),
                "sequences": (fmt.exact(file["sequences"]), ""),
                "bytes": (fmt.size(file["bytes"]), ""),
                "dtype": (file["dtype"] or fmt.NOTHING, "list--dim"),
            },
        )
