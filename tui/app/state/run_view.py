"""Keeps the current values and the chart series of one run, from its history and every record since."""

from __future__ import annotations

from typing import Any

from engine.events.marks import Marks
from engine.events.run_dir import is_on_other_host, last_seen
from engine.events.summary import CUT_OFF, INACTIVE, NEEDS_ATTENTION
from tui.app.state.chart_series import ChartSeries
from tui.text.event_text import phase_name

STEP_SERIES = (
    *("loss", "lr", "grad_norm", "tok_s", "step_s", "device_peak", "host_states", "mfu", "t", "val_loss"),
    *("unified_active", "unified_cache", "unified_peak", "unified_limit"),
)
TELEMETRY_SERIES = (
    *("device_used", "device_total", "device_util", "power_w", "temp_c"),
    *("rss", "ram_used", "ram_total"),
)
SERIES = [*STEP_SERIES, *TELEMETRY_SERIES]
CHART_SERIES = [
    *("loss", "val_loss", "tok_s", "t", "device_used", "rss", "ram_used"),
    *("unified_active", "unified_peak"),
]
NUMBER_SERIES = [name for name in SERIES if name not in CHART_SERIES]  # shown as numbers: a coarse history will do


class RunView:
    """A run as the monitor shows it, starting from ``RunDir.summary()``. Units are those of the records.

    ``ranks`` is the number of data-parallel ranks: each processes one micro-batch at a time. ``stop_step`` is the step
    at which the run ends early, 0 for none.
    """

    def __init__(self, summary: dict[str, Any], ranks: int = 1, stop_step: int = 0) -> None:
        self.marks = Marks()
        self._ranks = ranks
        self._host = summary.get("host")
        self._seen: float | None = summary.get("seen")  # the time of the newest record
        self.series: dict[str, ChartSeries] = {name: ChartSeries() for name in SERIES}
        self.offloaded = ChartSeries()  # host_states over time, to compare with ram_used; known since the app attached
        self.name = str(summary.get("name") or summary.get("id") or "")
        self.unified_memory = summary.get("backend") == "mlx"  # device and host share one memory
        self.phase = "starting"
        self._reason: str | None = None
        self.update_phase(summary)
        self.step: int = summary.get("step") or 0
        self.steps: int | None = summary.get("steps")
        self.stop_step = stop_step
        self.micro: int | None = summary.get("micro")
        self.accum: int | None = summary.get("accum")
        self.context: int | None = summary.get("context")
        self.attempt: int = summary.get("attempt") or 1
        self.val_loss: float | None = summary.get("val_loss")
        self.progress: tuple[int, int] | None = None
        self.connected = True
        self._step_seconds: float | None = None  # moving average

    @property
    def active(self) -> bool:
        return self.phase not in INACTIVE

    @property
    def reason(self) -> str | None:
        """Why the run is in its phase; of an active run on another host, when it was last seen."""
        return last_seen(self.phase, self._seen, str(self._host)) if self.is_remote else self._reason

    @property
    def is_remote(self) -> bool:
        """Whether the run is active on another host, as far as its files say."""
        return self.active and is_on_other_host({"host": self._host})

    @property
    def phase_name(self) -> str:
        """The phase in few cells; ``seen 17:02`` for an active run on another host, which may have died since."""
        return phase_name({"host": self._host, "phase": self.phase, "seen": self._seen})

    @property
    def last_step(self) -> int | None:
        """The step at which the run ends, or None if unknown."""
        return min(self.steps, self.stop_step or self.steps) if self.steps else None

    def update_phase(self, summary: dict[str, Any]) -> None:
        """Take phase and reason from a summary of the run."""
        self.phase, self._reason = str(summary.get("phase") or "starting"), summary.get("reason")

    def load_history(self, answer: dict[str, Any]) -> None:
        """Replace the series with those of a ``history`` answer."""
        for name, buckets in answer.get("series", {}).items():
            if name in self.series:
                self.series[name].load(buckets)
        if "marks" in answer:
            self.marks.load(answer["marks"])
        loss = self.series["loss"].points
        if loss:
            self.step = max(self.step, int(loss[-1][0]))
        recent = [p[2] for p in self.series["step_s"].points[-20:] if p[2] is not None]
        self._step_seconds = sum(recent) / len(recent) if recent else None
        if self.series["val_loss"].points:
            self.val_loss = self.series["val_loss"].last

    def apply(self, record: dict[str, Any], *, update_charts: bool = True) -> None:
        """Update the values with one record; ``update_charts=False`` for records that the history includes."""
        kind = record.get("kind")
        if "at" in record:
            self._seen = record.get("t")
        if update_charts and kind != "telemetry":
            self.marks.add(record, self.step)
        if kind == "step":
            self._step(record, update_charts)
        elif kind == "telemetry":
            if update_charts:
                self.offloaded.add(float(record["t"]), self.last("host_states"))
                for name in TELEMETRY_SERIES:
                    value = record.get(name)
                    if isinstance(value, list):  # the log keeps one minute as its minimum and maximum
                        self.series[name].add_range(float(record["t"]), value[0], value[1])
                    elif value is not None:  # a missing sensor is not a gap
                        self.series[name].add(float(record["t"]), value)
        elif kind == "val":
            # Only the main bucket has a line in the chart; the others are in the log.
            if not record.get("bucket") or record["bucket"] in ("val", "main", "all"):
                self.val_loss = record.get("loss")
                if update_charts:
                    self.series["val_loss"].add(record["step"], record.get("loss"))
        elif kind == "start":
            self._start(record, update_charts)
        elif kind in ("state", CUT_OFF):
            self.update_phase(record)
            if self.phase != "running":
                self.progress = None
        elif kind == "spec":
            stop = (record.get("values") or {}).get("train.stop_step")
            self.stop_step = stop if type(stop) is int else 0
        elif kind == "progress":
            self.progress = (int(record.get("micro_done") or 0), int(record.get("micro_of") or 0))
        elif kind == "edit":
            self._edit(record)
        elif kind == "link":
            self.connected = bool(record.get("up"))

    def _step(self, record: dict[str, Any], update_charts: bool) -> None:
        step = int(record["step"])
        self.step = step
        self.progress = None
        for name in ("micro", "accum", "context"):
            setattr(self, name, record.get(name) or getattr(self, name))
        seconds = record.get("step_s")
        if seconds:
            average = self._step_seconds
            self._step_seconds = seconds if average is None else 0.9 * average + 0.1 * seconds
        if update_charts:
            for name in STEP_SERIES:
                if name in record and name != "val_loss":
                    self.series[name].add(step, record[name])

    def _start(self, record: dict[str, Any], update_charts: bool) -> None:
        """Drop the steps that the new attempt repeats: those after the checkpoint it resumed from."""
        self.attempt = record.get("attempt") or self.attempt
        resumed = record.get("resumed_from")
        first = 0 if resumed is None else int(resumed) + 1  # step 0 is the validation before the first step
        if update_charts:
            for name in STEP_SERIES:
                self.series[name].drop_from(first)
            self.step = min(self.step, max(first - 1, 0))

    def _edit(self, record: dict[str, Any]) -> None:
        if record.get("ok"):
            for key, (_, new) in (record.get("changed") or {}).items():
                if key in ("micro", "accum", "context", "steps"):
                    setattr(self, key, new)

    def eta(self) -> float | None:
        """Return the seconds to the last step at the current speed, or None if unknown."""
        last = self.last_step
        if (
            self.phase == NEEDS_ATTENTION
            or not self.active
            or self.is_remote
            or self._step_seconds is None
            or last is None
            or self.step >= last
        ):
            return None
        return (last - self.step) * self._step_seconds

    def tokens_left(self) -> int | None:
        """Return the tokens of the remaining steps with the current batch, or None if unknown."""
        last = self.last_step
        if not (last and self.micro and self.accum and self.context):
            return None
        return max(last - self.step, 0) * self.micro * self.accum * self._ranks * self.context

    @property
    def memory(self) -> dict[str, Any]:
        """The newest ``memory`` mark (forecast parts, measured peaks), or an empty dict."""
        return self.marks.newest("memory") or {}

    def last(self, name: str) -> float | None:
        """Return the newest value of a series."""
        return self.series[name].last

    @property
    def has_device(self) -> bool:
        """Whether an accelerator reports its memory."""
        return any(p[2] is not None for p in self.series["device_used"].points[-8:])
