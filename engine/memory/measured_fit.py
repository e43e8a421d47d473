"""Which micro-batch fits, learnt from the forecast, from what ran out of memory and from what was measured to fit.

The forecast alone is an estimate with an error. What a micro-batch really peaked at corrects it for all others, whose
difference to that one is forecast better than their sum; and what has failed once is never tried again by itself.
"""

from __future__ import annotations

from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from profiles.spec import RunSpec

MARGIN = 0.97  # of the capacity; the rest is for what fragments


class MeasuredFit:
    """``capacity`` everywhere below: bytes of the memory that ran out which this process could have in all."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._failed: dict[int, int] = {}  # micro → the capacity it did not fit in
        self._peaks: dict[int, int] = {}

    def reset(self) -> None:
        """The run has become another (its context, its sequences): nothing learnt holds."""
        self._failed.clear()
        self._peaks.clear()

    def record_oom(self, micro: int, capacity: int) -> None:
        """``micro`` did not fit in ``capacity`` bytes."""
        self._failed[micro] = max(capacity, self._failed.get(micro, 0))

    def record_peak(self, micro: int, peak: int) -> None:
        """``micro`` has been run and held at most ``peak`` bytes."""
        self._peaks[micro] = max(peak, self._peaks.get(micro, 0))

    def smaller_micro(self, spec: RunSpec, capacity: int) -> int | None:
        """The micro to go on with after that of ``spec`` has failed; None where it is as small as it can be."""
        micro = spec.batch.micro
        smaller = [n for n in micro_divisors(spec) if n < micro]
        if not smaller:
            return None
        fitting = [n for n in smaller if self.predict_peak(spec, n) <= capacity * MARGIN]
        if fitting:
            return fitting[-1]
        # By the forecast nothing fits, and yet the run has come this far: half as much is the next best guess.
        return max((n for n in smaller if n <= micro // 2), default=smaller[0])

    def larger_micro(self, spec: RunSpec, wanted: int, capacity: int) -> int | None:
        """A larger micro, up to ``wanted``, that should fit and has not failed in as much; None where there is none."""
        larger = [n for n in micro_divisors(spec) if spec.batch.micro < n <= wanted]
        for n in reversed(larger):
            tried = any(n >= micro and capacity <= had for micro, had in self._failed.items())
            if not tried and self.predict_peak(spec, n) <= capacity * MARGIN:
                return n
        return None

    def predict_peak(self, spec: RunSpec, micro: int) -> int:
        """Bytes ``micro`` would peak at: forecast, and moved by the error at the nearest micro that is known."""
        told = self._forecast(spec, micro)
        if self._peaks:
            near = min(self._peaks, key=lambda n: (abs(n - micro), n))
            return self._peaks[near] + told - self._forecast(spec, near)
        if below := [n for n in self._failed if n > micro]:
            near = min(below)
            # It needed more than the capacity, whatever the forecast said: at least that much is missing in it.
            return told + max(0, self._failed[near] - self._forecast(spec, near))
        return told

    def _forecast(self, spec: RunSpec, micro: int) -> int:
        parts = forecast(spec.with_batch(micro=micro), self._hardware)
        return parts.host_total if self._hardware.device == "cpu" else parts.device_total


def micro_divisors(spec: RunSpec) -> list[int]:
    """Every micro that cuts the step of ``spec`` into equal parts, ascending."""
    each = spec.batch.sequences // spec.ranks
    return [n for n in range(1, min(each, 4096) + 1) if each % n == 0]
