"""Counts live bytes while the forecast walks through a training step and books every allocation and free."""

from __future__ import annotations


class Ledger:
    """Live bytes by tensor name and by part, the peak of their total, and the parts at that peak."""

    __slots__ = ("_tensors", "live", "parts_at_peak", "peak", "total")

    def __init__(self) -> None:
        self._tensors: dict[str, tuple[str, int]] = {}
        self.live: dict[str, int] = {}  # bytes by part
        self.total = self.peak = 0
        self.parts_at_peak: dict[str, int] = {}

    def allocate(self, part: str, name: str, size: float) -> None:
        """Allocate ``size`` bytes as ``name``; a live name grows."""
        size = int(size)
        self._tensors[name] = (part, size + (self._tensors[name][1] if name in self._tensors else 0))
        self.live[part] = self.live.get(part, 0) + size
        self.total += size
        if self.total > self.peak:
            self.peak = self.total
            self.parts_at_peak = dict(self.live)

    def free(self, *names: str) -> None:
        """Free these names. Names that are not live are ignored, because not every path allocates them."""
        for name in names:
            if name in self._tensors:
                part, size = self._tensors.pop(name)
                self.live[part] -= size
                self.total -= size

    def is_live(self, name: str) -> bool:
        return name in self._tensors
