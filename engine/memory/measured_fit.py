"""Predicts which micro-batch fits, from the forecast, the sizes that ran out of memory, and measured peaks.

The forecast is an estimate with an error. The measured peak of one micro-batch corrects it for the others, because the
difference between two sizes is forecast better than either total. A size that ran out of memory is not tried again in
as much memory.
"""

from __future__ import annotations

from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from engine.memory.search.micro import largest, micro_divisors
from profiles.spec import RunSpec

MARGIN = 0.97  # of the capacity; the rest is for fragmentation


class MeasuredFit:
    """``capacity`` below: the bytes that this process can hold of the memory that ran out."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._oom_capacity: dict[int, int] = {}  # micro → the largest capacity it did not fit in
        self._peaks: dict[int, int] = {}  # micro → bytes

    def reset(self) -> None:
        """Forget everything: another context or number of sequences needs other memory."""
        self._oom_capacity.clear()
        self._peaks.clear()

    def record_oom(self, micro: int, capacity: int) -> None:
        """Record that ``micro`` did not fit in ``capacity`` bytes."""
        self._oom_capacity[micro] = max(capacity, self._oom_capacity.get(micro, 0))

    def record_peak(self, micro: int, peak: int) -> None:
        """Record that ``micro`` ran with a peak of ``peak`` bytes."""
        self._peaks[micro] = max(peak, self._peaks.get(micro, 0))

    def smaller_micro(self, spec: RunSpec, capacity: int) -> int | None:
        """Return the largest micro below that of ``spec`` that should fit; None where there is no smaller one."""
        micro = spec.batch.micro
        smaller = [n for n in micro_divisors(spec) if n < micro]
        if not smaller:
            return None
        fitting = largest(smaller, lambda n: self.predict_peak(spec, n) <= capacity * MARGIN)
        if fitting is not None:
            return fitting
        # By the forecast nothing fits, but the run got this far: half the size is the next best guess.
        return max((n for n in smaller if n <= micro // 2), default=smaller[0])

    def larger_micro(self, spec: RunSpec, wanted: int, capacity: int) -> int | None:
        """Return the largest micro up to ``wanted`` that should fit and has not failed in this capacity, or None."""
        larger = [n for n in micro_divisors(spec) if spec.batch.micro < n <= wanted]
        for n in reversed(larger):
            failed = any(n >= micro and capacity <= tried for micro, tried in self._oom_capacity.items())
            if not failed and self.predict_peak(spec, n) <= capacity * MARGIN:
                return n
        return None

    def predict_peak(self, spec: RunSpec, micro: int) -> int:
        """Return the predicted peak of ``micro``: the forecast, corrected by its error at the nearest known micro."""
        predicted = self._forecast(spec, micro)
        if self._peaks:
            near = min(self._peaks, key=lambda n: (abs(n - micro), n))
            return self._peaks[near] + predicted - self._forecast(spec, near)
        if larger := [n for n in self._oom_capacity if n > micro]:
            near = min(larger)
            # That size needed more than its capacity, so the forecast is too low by at least the difference.
            return predicted + max(0, self._oom_capacity[near] - self._forecast(spec, near))
        return predicted

    def _forecast(self, spec: RunSpec, micro: int) -> int:
        parts = forecast(spec.with_batch(micro=micro), self._hardware)
        return parts.host_total if self._hardware.device == "cpu" else parts.device_total
