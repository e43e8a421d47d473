"""Returns the FLOP/s that a device is published to reach in dense matrix products, to compare a run with.

Figures are for bf16 operands and fp32 sums, without sparsity, at the boost clock:

- GeForce: the "Peak BF16 Tensor TFLOPS with FP32 Accumulate" in the appendices of NVIDIA's whitepapers on GA102 (30),
  Ada (40) and RTX Blackwell (50). They are SMs × 512 × boost clock, half of the figures with FP16 sums.
- A100, H100, H200: NVIDIA's data sheets, which print H100 and H200 with sparsity, twice as much as here.
- M1 and M2: Apple's announcements, of the chip with all its GPU cores. These GPUs compute bf16 at the rate of fp32. Of
  later chips Apple publishes no such figure.
"""

from __future__ import annotations

from dataclasses import dataclass

PUBLISHED, MEASURED = "published", "measured"


@dataclass(frozen=True, slots=True)
class Peak:
    """FLOP/s of dense matrix products, and its source: ``PUBLISHED`` or ``MEASURED``."""

    flops_per_s: float
    source: str


# TFLOP/s by the whole name that the driver reports. A part of a name would also fit the laptop's card, half as fast.
_BF16 = {
    "NVIDIA GeForce RTX 5090": 209.5,
    "NVIDIA GeForce RTX 5080": 112.6,
    "NVIDIA GeForce RTX 5070 Ti": 87.9,
    "NVIDIA GeForce RTX 4090": 165.2,
    "NVIDIA GeForce RTX 4080": 97.5,
    "NVIDIA GeForce RTX 3090": 71.0,
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-PCIE-40GB": 312.0,
    "NVIDIA A100 80GB PCIe": 312.0,
    "NVIDIA H100 80GB HBM3": 989.4,  # the SXM module
    "NVIDIA H100 PCIe": 756.5,
    "NVIDIA H100 NVL": 835.5,
    "NVIDIA H200": 989.4,
    "NVIDIA H200 NVL": 835.5,
    "Apple M1": 2.6,
    "Apple M1 Pro": 5.2,
    "Apple M1 Max": 10.4,
    "Apple M2": 3.6,
    "Apple M2 Pro": 6.8,
    "Apple M2 Max": 13.6,
}


def peak(device_name: str, dtype: str) -> Peak | None:
    """Return the published peak of a device; None where none is known. ``dtype``: bf16 or fp32."""
    figure = _BF16.get(device_name) if dtype == "bf16" else None
    return None if figure is None else Peak(figure * 1e12, PUBLISHED)
