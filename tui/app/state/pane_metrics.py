"""Lists the metrics of which the monitor can have a pane besides loss, VRAM, RAM offload and tokens/s."""

from __future__ import annotations

from engine.events.metrics import METRICS

# Series that have a pane on the first page, or a place in one
_ON_FIRST_PAGE = (
    *("loss", "val_loss", "bits_per_byte", "tok_s", "tokens"),
    *("device_used", "device_total", "rss", "host_states", "ram_used", "ram_total"),
)
PANE_METRICS = {
    name: metric for name, metric in METRICS.items() if name not in _ON_FIRST_PAGE and not name.startswith("unified_")
}
