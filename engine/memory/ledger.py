"""A ledger of what is alive: the forecast walks through a training step as the program does and books every tensor."""

from __future__ import annotations


class Ledger:
    """Bytes that are made and dropped by name, the most that were ever alive at once, and of which parts."""

    __slots__ = ("_held", "at_peak", "live", "peak", "total")

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, int]] = {}
        self.live: dict[str, int] = {}
        self.total = self.peak = 0
        self.at_peak: dict[str, int] = {}  # the parts at the moment of the peak

    def make(self, part: str, name: str, size: float) -> None:
        """``size`` bytes come alive as ``name``; a name that is alive grows."""
        size = int(size)
        self._held[name] = (part, size + (self._held[name][1] if name in self._held else 0))
        self.live[part] = self.live.get(part, 0) + size
        self.total += size
        if self.total > self.peak:
            self.peak = self.total
            self.at_peak = dict(self.live)

    def drop(self, *names: str) -> None:
        """They are gone; names that are not alive are ignored, for not every path makes them."""
        for name in names:
            if name in self._held:
                part, size = self._held.pop(name)
                self.live[part] -= size
                self.total -= size

    def holds(self, name: str) -> bool:
        return name in self._held
