"""Compares the forecast with real training steps: ``python -m tests.bench.memory [WORDS…]`` prints the errors.

Each spec's own backend takes two steps on a CPU while every tensor is counted (``tests.bench.accounting``); then
``mla-1b`` at full size with fake tensors. With WORDS only the specs whose description has all of them, and their parts.
"""

from __future__ import annotations

import logging
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator

from profiles.spec import RunSpec
from tests.bench.accounting import forecast_fake, forecast_parts, measured, measured_fake
from tests.bench.memory_specs import full_size, whole

Parts = dict[str, int]


def main() -> None:
    logging.disable(logging.WARNING)
    _table("small, real tensors", whole(), measured, forecast_parts)
    _table("mla-1b, fake tensors", full_size(), measured_fake, forecast_fake)


def _table(
    name: str, specs: Iterator[RunSpec], real: Callable[[RunSpec], Parts], forecast: Callable[[RunSpec], Parts]
) -> None:
    errors: dict[str, list[float]] = defaultdict(list)
    parts: dict[str, list[float]] = defaultdict(list)
    for spec in specs:
        description = _description(spec)
        if not all(word in description for word in sys.argv[1:]):
            continue
        actual, predicted = real(spec), forecast(spec)
        peak, total = sum(actual.values()), sum(predicted.values())
        for group in ("all", spec.memory.strategy, spec.train.precision, spec.memory.checkpointing):
            errors[group].append(total / peak - 1)
        # Relative to the whole peak: where two moments are nearly equal, forecast and step may peak at different ones.
        for part in actual.keys() | predicted.keys():
            parts[part].append((predicted.get(part, 0) - actual.get(part, 0)) / peak)
        if sys.argv[1:]:
            print(f"{total / peak - 1:+.3%}  {description}")
            for part in sorted(actual.keys() | predicted.keys()):
                print(f"    {part:<20} measured {actual.get(part, 0):>16,} forecast {predicted.get(part, 0):>16,}")
    print(f"\n| {name} | n | median error | worst over | worst under |\n|---|---|---|---|---|")
    for group, found in {**errors, **{f"part: {part}": found for part, found in sorted(parts.items())}}.items():
        median = statistics.median(map(abs, found))
        print(f"| {group} | {len(found)} | {median:.3%} | {max(0, *found, 0):+.2%} | {min(0, *found, 0):+.2%} |")


def _description(spec: RunSpec) -> str:
    model, batch = spec.model.config, spec.batch
    return (
        f"{spec.profile} {spec.launch.backend} {spec.memory.strategy} {spec.train.precision} {spec.memory.loss}"
        f" checkpointing={spec.memory.checkpointing} {spec.train.attention} {spec.optim.name}"
        f" {batch.micro}x{batch.context} accum={spec.accum} D={model.hidden_size} v={model.v_head_dim}"
        f" q_lora={model.q_lora_rank} tied={model.tie_word_embeddings}"
    )


if __name__ == "__main__":
    main()
