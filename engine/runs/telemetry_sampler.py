"""The supervisor's look at the machine, once a second: shown live, logged as a minute's lowest and highest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from engine.runs.hooks import Write
from engine.runs.resource_alerts import ResourceAlerts
from engine.runs.telemetry import Minute, Telemetry

MINUTE = 60


class TelemetrySampler:
    """``show`` is given every sample; ``write`` logs minutes and alerts."""

    def __init__(
        self, telemetry: Telemetry, alarms: ResourceAlerts, write: Write, show: Callable[[dict[str, Any]], None]
    ):
        self._telemetry = telemetry
        self._alarms = alarms
        self._write = write
        self._show = show
        self._lost = False

    async def go_on(self, checkpoint_bytes: Callable[[], int | None]) -> None:
        """Measure until cancelled; what the last minute gathered is logged then too."""
        minute, started = Minute(), time.monotonic()
        try:
            while True:
                sample = self._telemetry.sample()
                minute.add(sample)
                self._show({"t": time.time(), "kind": "telemetry", **sample})
                for what, text in self._alarms.check(sample, checkpoint_bytes()):
                    self._write("alert", what=what, text=text)
                if self._telemetry.device_lost and not self._lost:
                    self._lost = True
                    text = "the card is lost to its driver; it may take a boot to get it back"
                    self._write("alert", what="device_lost", text=text)
                if minute.samples >= MINUTE:
                    self._write("telemetry", **minute.spans)
                    minute = Minute()
                # A fixed beat: the time a sample takes does not add up.
                await asyncio.sleep(1.0 - (time.monotonic() - started) % 1.0)
        finally:
            if minute.samples:
                self._write("telemetry", **minute.spans)
