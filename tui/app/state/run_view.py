"""Keeps the current values and the chart series of one run, from its history and every record since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from engine.events.marks import Marks
from engine.events.metrics import BY_STEP, METRICS, SERIES, STEP_SERIES, TELEMETRY_SERIES, TIME, VAL_FIELDS, VAL_LOSS
from engine.events.phases import RECOVERING, RUNNING, STARTING, has_ended, is_active, makes_steps
from engine.events.planned import Planned
from engine.events.run_dir import is_on_other_host, last_seen
from engine.events.series import Series
from engine.events.status import Summary
from engine.events.status_updates import stalled_after
from engine.events.types import (
    Checkpoint,
    CutOff,
    Edit,
    Eval,
    Event,
    Link,
    Memory,
    Progress,
    RankStats,
    Spec,
    Start,
    State,
    Step,
    Telemetry,
    Val,
)
from engine.events.wire import HistoryAnswer
from tui.app.state import outlook
from tui.text.run_text import phase_name

CHART_SERIES = [TIME, *(name for name, metric in METRICS.items() if metric.chart)]
NUMBER_SERIES = [name for name in SERIES if name not in CHART_SERIES]  # shown as numbers: a coarse history will do
_MAIN_BUCKETS = (None, "", "val", "main", "all")  # of validation; only they have a line in the chart


class Stretch(NamedTuple):
    """A part of the run, from the step after ``begin`` on, and what the spec says in it."""

    begin: int
    stop_step: int = 0  # at which the run ends early, 0 for none
    save_every: int = 0
    tokens: int = 0  # of a step, 0 if unknown

    @classmethod
    def of(cls, begin: int, values: Mapping[str, Any]) -> Stretch:
        """Return the stretch in which these ``values`` of the spec hold."""
        stop_step, save_every = _known(values, "train.stop_step"), _known(values, "train.save_every")
        return cls(begin, stop_step, save_every, _known(values, "batch.sequences") * _known(values, "batch.context"))


def _known(values: Mapping[str, Any], key: str) -> int:
    """Return a whole number of the spec, 0 if it is not there."""
    value = values.get(key)
    return value if type(value) is int else 0


class RunView:
    """A run as the monitor shows it, starting from ``RunDir.summary()``. Units are those of the records.

    ``ranks`` is the number of data-parallel ranks: each processes one micro-batch at a time. ``live`` are values of the
    spec that edits can change, by key, and ``later`` edits that the run will make again, as in a ``spec`` record.
    """

    def __init__(
        self,
        summary: Summary,
        ranks: int = 1,
        live: Mapping[str, Any] | None = None,
        later: Sequence[Planned] = (),
    ) -> None:
        self.marks = Marks()
        self._ranks = ranks
        self._summary = summary
        self._seen: float | None = summary.seen  # the time of the newest record
        self.series: dict[str, Series] = {name: Series() for name in SERIES}
        self.offloaded = Series()  # host_states over time, to compare with ram_used; known since the app attached
        self.name = summary.name or summary.id
        self.unified_memory = summary.backend == "mlx"  # device and host share one memory
        self.loaded = False  # its history was read
        self.phase = STARTING
        self._reason: str | None = None
        self.update_phase(summary.phase, summary.reason)
        self.step: int = summary.step or 0
        self.steps: int | None = summary.steps
        self.micro: int | None = summary.micro
        self.accum: int | None = summary.accum
        self.context: int | None = summary.context
        self.attempt: int = summary.attempt or 1
        self.val_loss: float | None = summary.val_loss
        self.started: float | None = summary.started
        self.ended: float | None = summary.ended
        self.smooth_loss: float | None = None
        self.progress: tuple[int, int] | None = None
        self.rank_stats: RankStats | None = None  # of a run with several ranks
        self.connected = True
        self.stalled = summary.stalled
        self._step_seconds: float | None = None  # moving average
        self._seconds_aside = 0.0  # of a step, beside its training
        self.restarts_at = summary.restarts_at  # the step at which a restart goes on, None for the first
        self._values: Mapping[str, Any] = {}  # of the spec, as they are now
        self._live(live or {}, later)

    @property
    def active(self) -> bool:
        return is_active(self.phase)

    @property
    def reason(self) -> str | None:
        """Why the run is in its phase; of an active run on another host, when it was last seen."""
        return last_seen(self.phase, self._seen, str(self._summary.host)) if self.is_remote else self._reason

    @property
    def is_remote(self) -> bool:
        """Whether the run is active on another host, as far as its files say."""
        return self.active and is_on_other_host(self._summary)

    @property
    def phase_name(self) -> str:
        """The phase in few cells, as ``run_text.phase_name`` says."""
        return phase_name(replace(self._summary, phase=self.phase, seen=self._seen, stalled=self.stalled))

    @property
    def last_step(self) -> int | None:
        """The step at which the run ends, or None if unknown."""
        return min(self.steps, self._stretches[-1].stop_step or self.steps) if self.steps else None

    def update_phase(self, phase: str | None, reason: str | None) -> None:
        self.phase, self._reason = phase or STARTING, "" if phase == RUNNING else reason

    def load_history(self, answer: HistoryAnswer) -> None:
        """Replace the series with those of a ``history`` answer."""
        self.loaded = True
        for name, buckets in answer.series.items():
            if name in self.series:
                self.series[name] = Series(buckets)
                self.series[name].newest = answer.newest.get(name)
        if answer.marks is not None:
            self.marks.load(answer.marks, answer.memory)
        loss = self.series["loss"]
        if loss.x and makes_steps(self._summary.phase):  # else the summary knows which steps are lost
            self.step = max(self.step, int(loss.x[-1]))
        self.smooth_loss = self._smoothed()
        recent = [mean for _, _, mean, _ in self.series["step_s"].points[-20:] if mean is not None]
        self._step_seconds = sum(recent) / len(recent) if recent else None
        self._measure_aside()
        if self.series[VAL_LOSS].x and not self._is_lost(VAL_LOSS):
            self.val_loss = self.series[VAL_LOSS].newest

    def _is_lost(self, name: str) -> bool:
        """Whether a restart will drop the newest value of a series: the run is back at the step of its checkpoint."""
        series = self.series[name]
        return name in BY_STEP and bool(series.x) and series.x[-1] > self.step

    def _smoothed(self) -> float | None:
        """Return the smoothed loss at the step of the run."""
        return outlook.smoothed([point for point in self.series["loss"].points if point[0] <= self.step])

    def apply(self, at: int | None, event: Event, *, update_charts: bool = True) -> None:
        """Update the values with one event; ``at`` is its offset in the log, None for one that is not logged.

        ``update_charts=False`` for events that the history includes.
        """
        if at is not None:
            self._seen = event.t
        if update_charts and not isinstance(event, Telemetry):
            self.marks.add(event, self.step)
        self.stalled = stalled_after(event, self.stalled)
        match event:
            case Step():
                self._step(event, update_charts)
            case Telemetry() if update_charts:
                self._telemetry(event)
            case Val(bucket=bucket) if bucket in _MAIN_BUCKETS:
                self.val_loss = event.loss
                if update_charts:
                    _add_val(self.series, event)
            case Eval() if update_charts:
                _add_val(self.series, event)
            case Start():
                self._start(event, update_charts)
            case State() | CutOff():
                self.update_phase(event.phase, event.reason)
                self.ended = event.t if has_ended(event.phase) else None
                if self.phase != RUNNING:
                    self.progress = None
                if self.phase == RECOVERING and update_charts:
                    self.step = min(self.step, self.restarts_at or 0)
                    self.smooth_loss = self._smoothed()
                    self.val_loss = None if self._is_lost(VAL_LOSS) else self.val_loss
            case Checkpoint(ok=True):
                self.restarts_at = event.step
            case Spec():
                self.accum = event.accum or self.accum
                self._live(event.values or {}, event.later or ())
            case RankStats():
                self.rank_stats = event
            case Progress():
                self.progress = (event.micro_done or 0, event.micro_of or 0)
            case Edit(ok=True):
                for key in ("micro", "accum", "context", "steps"):
                    if key in event.changed:
                        setattr(self, key, event.changed[key][1])
            case Link():
                self.connected = event.up

    def _step(self, event: Step, update_charts: bool) -> None:
        self.step = event.step
        self.progress = None
        self.micro = event.micro or self.micro
        self.accum = event.accum or self.accum
        self.context = event.context or self.context
        if event.step_s:
            average = self._step_seconds
            self._step_seconds = event.step_s if average is None else 0.9 * average + 0.1 * event.step_s
        if update_charts:
            add_step(self.series, event)
            self.smooth_loss = outlook.smoothed([(event.step, event.loss, event.loss, event.loss)], self.smooth_loss)
            if any(every and event.step % every == 0 for every in self._cadences):
                self._measure_aside()

    @property
    def _cadences(self) -> list[int]:
        """After how many steps something is done beside training, the longest first."""
        names = ("val_every", "eval_every", "sample_every", "save_every")
        return sorted((_known(self._values, f"train.{name}") for name in names), reverse=True)

    def _measure_aside(self) -> None:
        """Measure what a step takes beside its training, over the longest cadence that has been seen twice."""
        found = (outlook.seconds_aside(self.series["t"], self.series["step_s"], every) for every in self._cadences)
        self._seconds_aside = next((seconds for seconds in found if seconds is not None), 0.0)

    def _telemetry(self, event: Telemetry) -> None:
        self.offloaded.add(event.t, self.last("host_states"), self.last("host_states"))
        for name in TELEMETRY_SERIES:
            value = getattr(event, name)
            if value is not None:  # a missing sensor is not a gap
                low, high = value if isinstance(value, list) else (value, value)
                self.series[name].add(event.t, low, high)

    def _start(self, event: Start, update_charts: bool) -> None:
        """Drop the steps that the new attempt repeats: those after the checkpoint it resumed from."""
        self.attempt = event.attempt or self.attempt
        self.restarts_at = event.resumed_from
        last = -1 if event.resumed_from is None else event.resumed_from  # step 0: validation before the first step
        if update_charts:
            for name in BY_STEP:
                self.series[name].truncate(last)
            self.step = min(self.step, max(last, 0))
            self.smooth_loss = self._smoothed()
        self.val_loss = self.series[VAL_LOSS].newest

    def _live(self, values: Mapping[str, Any], later: Sequence[Planned]) -> None:
        """Update what is shown of the spec to the values that a restart continues with, or that an edit has made."""
        self.micro = _known(values, "batch.micro") or self.micro
        self.context = _known(values, "batch.context") or self.context
        values = self._values = {**self._values, **values}
        self._stretches = [Stretch.of(0, values)]
        for planned in later:
            values = {**values, **planned.values}
            self._stretches.append(Stretch.of(planned.step, values))
        self.steps = _known(values, "train.steps") or self.steps

    def eta(self) -> float | None:
        """Return the seconds to the last step at the current speed, with validation and the like; None if unknown."""
        last = self.last_step
        if not self._makes_steps or self._step_seconds is None or last is None or self.step >= last:
            return None
        return (last - self.step) * (self._step_seconds + self._seconds_aside)

    def tokens_left(self) -> int | None:
        """Return the tokens of the remaining steps, or None if unknown."""
        last, of_step, tokens = self.last_step, self._tokens_of_step, 0
        if not (last and of_step):
            return None
        at = min(self.step, last)
        for one in self._stretches:
            if at < one.begin <= last:
                tokens += (one.begin - at) * of_step
                at, of_step = one.begin, one.tokens or of_step
        return tokens + (last - at) * of_step

    def next_save(self) -> int | None:
        """Return the step of the next checkpoint; None if it saves none on the way, or is at its end."""
        last = self.last_step
        ends = [one.begin for one in self._stretches[1:]]
        for one, end in zip(self._stretches, [*ends, last], strict=True):
            at = max(self.step, one.begin)
            if one.save_every and (last is None or at < last):
                step = (at // one.save_every + 1) * one.save_every
                if end is None or step <= end or end == last:
                    return step if last is None else min(step, last)  # a run is saved at its end
        return None

    def tokens_a_day(self) -> float | None:
        """Return the tokens of a day at the current speed, with validation and the like; None if unknown."""
        of_step, seconds = self._tokens_of_step, self._step_seconds
        if not (self._makes_steps and of_step and seconds):
            return None
        return of_step * 86400 / (seconds + self._seconds_aside)

    @property
    def _makes_steps(self) -> bool:
        return makes_steps(self.phase) and not self.is_remote and self.stalled is None

    @property
    def _tokens_of_step(self) -> int | None:
        if not (self.micro and self.accum and self.context):
            return None
        return self.micro * self.accum * self._ranks * self.context

    def elapsed(self, now: float) -> float | None:
        """Return the seconds since the start, up to the end of an ended run; None if unknown."""
        end = now if self.active else self.ended
        return None if self.started is None or end is None else outlook.seconds_between(self.started, end)

    @property
    def memory(self) -> Memory | None:
        """The newest forecast of memory, and the peaks measured."""
        return self.marks.memory

    def last(self, name: str) -> float | None:
        """Return the newest value of a series."""
        return self.series[name].newest

    def at_step(self, name: str) -> float | None:
        """Return the value of a series at the step of the run: the newest, None where a restart will drop that."""
        return None if self._is_lost(name) else self.last(name)

    @property
    def has_device(self) -> bool:
        """Whether an accelerator reports its memory."""
        return any(p[2] is not None for p in self.series["device_used"].points[-8:])


def add_step(series: Mapping[str, Series], event: Step) -> None:
    """Add a step to the series there are of it. A loss of None was not finite; another metric was not measured."""
    for name in STEP_SERIES:
        value = getattr(event, name)
        if name in series and (value is not None or name == "loss"):
            _add_at_step(series[name], event.step, value)


def _add_val(series: Mapping[str, Series], event: Val | Eval) -> None:
    """Add what was measured after a step. A loss of None was not finite; another metric was not measured."""
    for name, field in VAL_FIELDS.items():
        value = getattr(event, field, None)
        if value is not None or (name == VAL_LOSS and isinstance(event, Val)):
            _add_at_step(series[name], event.step, value)


def _add_at_step(series: Series, step: int, value: float | None) -> None:
    if series.x and step <= series.x[-1]:
        series.truncate(step - 1)
    series.add(step, value, value)
