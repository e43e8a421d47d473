"""Prints the events of a run as plain lines."""

from __future__ import annotations

from engine.events.metrics import STEP_METRICS
from engine.events.types import Event, Step
from tui.text.event_text import describe
from tui.text.format import formatter


class LinePrinter:
    """Prints events as plain lines; of the steps, at most two a second, so that a fast run stays readable.

    The step before any other line is always printed, the last one of the run among them.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._due = 0.0
        self._held: Step | None = None  # the newest step, if it was too soon to print it

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step):
            self._held = event
            if event.t >= self._due:
                self._due = event.t + 0.5
                self._print_held()
        elif description := describe(event):
            self._print_held()
            print(description[0], flush=True)

    def _print_held(self) -> None:
        if self._held:
            self._print_step(self._held)
        self._held = None

    def _print_step(self, event: Step) -> None:
        done = f"step {event.step}/{self._steps}" if self._steps else f"step {event.step}"
        values = {metric: getattr(event, metric.field) for metric in STEP_METRICS if metric.readout}
        shown = (
            f"{metric.title} {formatter(metric.format)(value)}"
            for metric, value in values.items()
            if value is not None or metric.name == "loss"  # None: not finite; any other was not measured
        )
        print("  ".join([done, *shown]), flush=True)
