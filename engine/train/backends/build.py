"""Which class does the arithmetic of a run; each imports its library only where it is chosen."""

from __future__ import annotations

from engine.train.backends.backend import Backend
from engine.train.backends.ranks import Ranks
from profiles.spec import RunSpec


def build_backend(spec: RunSpec, ranks: Ranks) -> Backend:
    """The backend of a resolved ``spec``. Raises ``UserError``."""
    if spec.launch.backend == "deepspeed":
        from engine.train.backends.deepspeed_backend import DeepSpeedBackend

        return DeepSpeedBackend(spec, ranks)
    if spec.launch.backend == "mlx":
        from engine.train.backends.mlx_backend import MLXBackend

        return MLXBackend(spec)
    from engine.train.backends.torch_backend import TorchBackend

    return TorchBackend(spec, ranks)
