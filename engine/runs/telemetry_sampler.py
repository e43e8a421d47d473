"""Samples the machine once a second: publishes each sample live, logs the minimum and maximum of each minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from engine.events.types import Alert, Telemetry
from engine.runs.hooks import Write
from engine.runs.resource_alerts import ResourceAlerts
from engine.runs.telemetry import MinMax, Sensors

SAMPLES_PER_RECORD = 60


class TelemetrySampler:
    """``publish`` receives every sample; ``write`` logs the minutes and the alerts."""

    def __init__(self, sensors: Sensors, alerts: ResourceAlerts, write: Write, publish: Callable[[Telemetry], None]):
        self._sensors = sensors
        self._alerts = alerts
        self._write = write
        self._publish = publish
        self._device_lost = False

    async def run(self, checkpoint_bytes: Callable[[], int | None]) -> None:
        """Sample until cancelled; then log what the last minute has so far."""
        minute, started = MinMax(), time.monotonic()
        try:
            while True:
                sample = self._sensors.sample()
                minute.add(sample)
                self._publish(_telemetry(sample))
                for what, text in self._alerts.check(sample, checkpoint_bytes()):
                    self._write(Alert(what=what, text=text))
                if self._sensors.device_lost and not self._device_lost:
                    self._device_lost = True
                    text = "the driver has lost the GPU; a reboot may bring it back"
                    self._write(Alert(what="device_lost", text=text))
                if minute.samples >= SAMPLES_PER_RECORD:
                    self._write(_telemetry(minute.ranges))
                    minute = MinMax()
                # Aligned to the start, so that the time a sample takes does not add up.
                await asyncio.sleep(1.0 - (time.monotonic() - started) % 1.0)
        finally:
            if minute.samples:
                self._write(_telemetry(minute.ranges))


def _telemetry(values: Mapping[str, Any]) -> Telemetry:
    return Telemetry(time.time(), **values)
