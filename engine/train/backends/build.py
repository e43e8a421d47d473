"""Builds the backend of a run. Each backend imports its library only when it is chosen."""

from __future__ import annotations

from engine.train.backends.backend import Backend
from engine.train.backends.ranks import Ranks
from profiles.spec import RunSpec


def build_backend(spec: RunSpec, ranks: Ranks) -> Backend:
    """Return the backend of a resolved ``spec``. Raises ``UserError``."""
    if spec.launch.backend == "deepspeed":
        from engine.train.backends.deepspeed_backend import DeepSpeedBackend

        return DeepSpeedBackend(spec, ranks)
    if spec.launch.backend == "mlx":
        from engine.train.backends.mlx_backend import MLXBackend

        return MLXBackend(spec)
    from engine.train.backends.torch_backend import TorchBackend

    return TorchBackend(spec, ranks)
