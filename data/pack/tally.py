"""Counts what a pack leaves out, by reason, and names the first files of each."""

from __future__ import annotations

from typing import Any

from profiles.printable import counted

_NAMED = 3  # files of a reason


class Tally:
    """How many documents were skipped for each reason, and in which files the first of them were."""

    def __init__(self, content: dict[str, Any] | None = None) -> None:
        """``content`` is what ``to_dict`` returned."""
        self._counts: dict[str, int] = {reason: each["count"] for reason, each in (content or {}).items()}
        self._files: dict[str, list[str]] = {reason: list(each["files"]) for reason, each in (content or {}).items()}

    def add(self, reason: str, path: str) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + 1
        self._name(reason, path)

    def merge(self, later: Tally) -> None:
        """Add what ``later`` counted, in files behind those of this one."""
        for reason, count in later._counts.items():
            self._counts[reason] = self._counts.get(reason, 0) + count
            for path in later._files[reason]:
                self._name(reason, path)

    def to_dict(self) -> dict[str, Any]:
        return {
            reason: {"count": count, "files": self._files[reason]} for reason, count in sorted(self._counts.items())
        }

    def lines(self) -> list[str]:
        """Return a line for each reason."""
        return [
            f"skipped {counted(count, 'document')}: {reason} ({', '.join(files[:_NAMED])}"
            f"{', …' if len(files) > _NAMED else ''})"
            for reason, count in sorted(self._counts.items())
            for files in [self._files[reason]]
        ]

    def _name(self, reason: str, path: str) -> None:
        files = self._files.setdefault(reason, [])
        if path not in files and len(files) <= _NAMED:  # one more: it says that there are more
            files.append(path)
