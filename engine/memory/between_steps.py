"""Forecasts what memory a run leaves free between two steps, and what generating text takes of it."""

from __future__ import annotations

from engine.memory.forecast import forecast, temporary_bytes, weight_width
from engine.memory.hardware import Hardware
from profiles.spec import RunSpec


def free_between_steps(spec: RunSpec, hardware: Hardware, capacity: int) -> int:
    """Return the bytes free between two steps of a rank that can hold ``capacity`` bytes on its device.

    On a CPU, and in unified memory, that is host memory. Negative where the run itself takes more.
    """
    parts = _parts(spec, hardware)
    return capacity - sum(parts.values()) + temporary_bytes(parts)


def generation_bytes(spec: RunSpec, hardware: Hardware, tokens: int) -> int:
    """Return the bytes that generating from a prompt of ``tokens`` takes at most.

    The latent cache of one whole context, and the prompt's part of what training takes for one sequence. Generation
    saves nothing for a backward, so it stays below that.
    """
    config, context = spec.model.config, spec.batch.context
    width = weight_width(spec, hardware)
    cache = config.num_hidden_layers * context * config.cached_values_per_token * width
    of_one = temporary_bytes(_parts(spec.with_batch(micro=1), hardware))
    return cache + of_one * min(tokens, context) // context


def _parts(spec: RunSpec, hardware: Hardware) -> dict[str, int]:
    """Return the forecast of one rank: on a card the device's parts, else those of the host too."""
    predicted = forecast(spec, hardware)
    if hardware.device == "cuda":
        return predicted.device
    ranks = spec.launch.gpus_per_node
    return predicted.device | {part: size // ranks for part, size in predicted.host.items()}
