"""Stores one series of a run as buckets in bounded memory: the history first, then one point per record."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tui.app.state.raster import Point

_MAX_BUCKETS = 4096  # twice the dot columns of the widest terminal


class ChartSeries:
    """Points ``(x, low, mean, high)`` ordered by x; x is the last step (or the unix time) of the bucket.

    ``counts[i]`` is the number of steps in bucket i, so that the number of steps stays exact while buckets merge.
    """

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.counts: list[int] = []

    def load(self, buckets: Sequence[Sequence[float | None]]) -> None:
        """Replace the points with a history answer: ``[[x, min, mean, max], …]``, several steps per bucket.

        The answer does not contain the number of steps per bucket. All buckets but the last are equally wide, so the
        median distance between neighbours is that width; a larger distance is a hole and is not counted.
        """
        self.points = [(float(b[0] or 0.0), b[1], b[2], b[3]) for b in buckets]
        distances = sorted(b[0] - a[0] for a, b in zip(self.points, self.points[1:], strict=False))
        width = max(int(distances[len(distances) // 2]) if distances else 1, 1)
        self.counts = []
        previous = 0.0
        for x, *_ in self.points:
            self.counts.append(max(1, min(int(x - previous), width)))
            previous = x

    def add(self, x: float, value: float | None) -> None:
        """Add one measurement; None or a non-finite number is a gap. A repeated x drops everything from it on first."""
        gap = value is None or not math.isfinite(value)
        self._append((x, None, None, None) if gap else (x, value, value, value))

    def add_range(self, x: float, low: float, high: float) -> None:
        """Add a measurement of which only minimum and maximum are known."""
        self._append((x, low, (low + high) / 2, high))

    def _append(self, point: Point) -> None:
        if self.points and point[0] <= self.points[-1][0]:
            self.drop_from(point[0])
        self.points.append(point)
        self.counts.append(1)
        if len(self.points) > _MAX_BUCKETS:
            self._compact()

    def drop_from(self, x: float) -> None:
        """Drop every bucket that contains ``x`` or anything later."""
        keep = len(self.points)
        while keep and self.points[keep - 1][0] >= x:
            keep -= 1
        del self.points[keep:], self.counts[keep:]

    @property
    def last(self) -> float | None:
        """The newest value, or None if there is none or it is a gap."""
        return self.points[-1][2] if self.points else None

    def coverage(self) -> tuple[int, int, int] | None:
        """Return first step, last step and the number of distinct steps, for a series over steps."""
        if not self.points:
            return None
        first = int(self.points[0][0]) - self.counts[0] + 1
        return first, int(self.points[-1][0]), sum(self.counts)

    def _compact(self) -> None:
        """Merge pairs of neighbours in the older half; the newer half keeps its resolution.

        A gap stays a gap: it merges only with another gap.
        """
        middle = len(self.points) // 2
        points: list[Point] = []
        counts: list[int] = []
        for i, point in enumerate(self.points):
            if i < middle and i % 2 and (points[-1][2] is None) == (point[2] is None):
                points[-1] = _merge(points[-1], counts[-1], point, self.counts[i])
                counts[-1] += self.counts[i]
            else:
                points.append(point)
                counts.append(self.counts[i])
        self.points, self.counts = points, counts


def _merge(a: Point, n: int, b: Point, m: int) -> Point:
    if a[2] is None or b[2] is None:
        return (b[0], None, None, None)
    low = min(v for v in (a[1], b[1], a[2], b[2]) if v is not None)
    high = max(v for v in (a[3], b[3], a[2], b[2]) if v is not None)
    return (b[0], low, (a[2] * n + b[2] * m) / (n + m), high)
