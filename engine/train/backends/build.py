"""Builds the backend of a run. Each backend imports its library only when it is chosen."""

from __future__ import annotations

from engine.train.backends.backend import Backend
from engine.train.backends.ranks import Ranks
from profiles.spec import RunSpec


def build_backend(spec: RunSpec, ranks: Ranks, document_end: int | None = None) -> Backend:
    """Return the backend of a resolved ``spec``. Raises ``UserError``.

    ``document_end``: the id that ends a document, with ``data.documents = "mask"``.
    """
    if (document_end is None) != (spec.data.documents == "join"):
        raise ValueError(f"data.documents is {spec.data.documents}, and the id that ends a document {document_end}")
    if spec.launch.backend == "deepspeed":
        from engine.train.backends.deepspeed_backend import DeepSpeedBackend

        return DeepSpeedBackend(spec, ranks, document_end)
    if spec.launch.backend == "mlx":
        from engine.train.backends.mlx_backend import MLXBackend

        return MLXBackend(spec, document_end)
    from engine.train.backends.torch_backend import TorchBackend

    return TorchBackend(spec, ranks, document_end)
