"""Writes the model card of an export: the README.md that model hubs show, filled from the checkpoint and its run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.checkpoints.evals import EvalResult
from engine.events.log import read_all
from engine.events.types import Start, Step, Val
from engine.events.valid_records import valid_records
from engine.train.models.export_source import ExportSource
from profiles.printable import counted, one_line

MODEL_CARD = "README.md"
_ROWS = 12  # of the curve
_OPTIMIZER = (
    "name",
    "lr",
    "muon_lr",
    "schedule",
    "warmup",
    "decay",
    "final_lr",
    "beta1",
    "beta2",
    "weight_decay",
    "clip",
)


Row = tuple[int, int | None, float | None, float | None]  # of the curve: step, tokens, loss, validation loss


@dataclass(frozen=True, slots=True)
class _Logged:
    """What the log of a run knows beyond its checkpoint."""

    start: Start | None
    curve: list[Row]


def model_card(source: ExportSource, name: str, log: Path | None) -> str:
    """Return the Markdown of the model card of ``source``, which is exported as ``name``.

    ``log``: the log of the run, where there is one; without it the card has no curve and no hardware.
    """
    logged = _read(log, source.step) if log else _Logged(None, [])
    parts = [
        _FRONT_MATTER,
        f"# {one_line(name)}\n\n{_summary(source)}",
        _table("Architecture", _architecture(source)),
        _table("Data", _data(source)),
        _table("Recipe", _recipe(source, logged)),
        _curve(logged),
        _scores(source.scores()),
        _USE,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# No license is named: only who trained it can choose one.
_FRONT_MATTER = "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- mla\n- deepseek_v3\n---"
_USE = """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=50, do_sample=True)[0]))
```

It continues text and has not been trained to follow instructions. Nothing was measured beyond the figures above."""


def _summary(source: ExportSource) -> str:
    parameters = sum(tensor.numel() for tensor in source.tensors.values())
    seen = f", {source.metadata['tokens']:,} tokens" if source.metadata.get("tokens") else ""
    version = (source.metadata.get("versions") or {}).get("mla-tui", "")
    decay = f"{source.spec.optim.ema:g}"
    averaged = f" Its weights are an average of those of the run, exponential with decay {decay} a step (`optim.ema`)."
    return (
        f"A language model with multi-head latent attention (`DeepseekV3ForCausalLM`, without experts) and"
        f" {parameters:,} parameters, pre-trained for {counted(source.step, 'step')}{seen} with mla-tui"
        f" {one_line(str(version))}." + (averaged if source.ema else "")
    )


def _architecture(source: ExportSource) -> Iterator[tuple[str, Any]]:
    config = source.spec.model.config
    yield "layers", config.num_hidden_layers
    yield "width", config.hidden_size
    yield "feed-forward width", config.intermediate_size
    yield "heads", config.num_attention_heads
    yield (
        "head widths (nope, rope, value)",
        (f"{config.qk_nope_head_dim}, {config.qk_rope_head_dim}, {config.v_head_dim}"),
    )
    yield "latent width of keys and values", config.kv_lora_rank
    yield "latent width of queries", config.q_lora_rank or "none"
    yield "vocabulary", f"{config.vocab_size:,}"
    yield "context", f"{source.spec.batch.context:,}"
    if config.yarn_factor != 1.0:
        yield "YaRN", f"factor {config.yarn_factor:g} of {config.yarn_original_context:,}"
    yield "head", "tied to the embedding" if config.tie_word_embeddings else "its own"


def _data(source: ExportSource) -> Iterator[tuple[str, Any]]:
    spec, data = source.spec, source.metadata.get("data") or {}
    phases = [f"{one_line(name)} ({weight:g})" for name, weight in spec.data.sources.items()]
    yield "data set", ", ".join(phases) or one_line(spec.data.phase)
    train = [
        shard for split, shards in (data.get("splits") or {}).items() if split.endswith("train") for shard in shards
    ]
    if train:
        total = sum(shard["tokens"] for shard in train)
        yield "tokens of the data set", f"{total:,} in {counted(len(train), 'shard')}"
        if seen := source.metadata.get("tokens"):
            yield "epochs", f"{seen / max(total, 1):.2f}"
    if data.get("tokenizer"):
        yield "sha256 of the tokenizer", f"`{data['tokenizer']}`"
    yield "documents", {"mask": "each attends to itself alone"}.get(spec.data.documents, "joined, not masked")


def _recipe(source: ExportSource, logged: _Logged) -> Iterator[tuple[str, Any]]:
    spec, optim = source.spec, source.spec.optim
    yield "profile", one_line(spec.profile)
    yield "steps", f"{source.step:,} of {spec.train.steps:,}"
    tokens = spec.batch.sequences * spec.batch.context
    yield "tokens a step", f"{tokens:,}: {spec.batch.sequences} sequences of {spec.batch.context:,}"
    for key in _OPTIMIZER:
        yield f"optim.{key}", getattr(optim, key)
    yield "precision", spec.train.precision
    yield "seed", spec.train.seed
    yield "backend", f"{spec.launch.backend}, {spec.memory.strategy}, checkpointing {spec.memory.checkpointing}"
    if logged.start is not None:
        yield "hardware", one_line(logged.start.device or "unknown")
    versions: dict[str, Any] = source.metadata.get("versions") or {}
    yield "versions", ", ".join(f"{one_line(str(key))} {one_line(str(versions[key]))}" for key in sorted(versions))


def _curve(logged: _Logged) -> str:
    if not logged.curve:
        return ""
    rows = [
        f"| {step:,} | {_number(tokens)} | {_loss(loss)} | {_loss(val)} |" for step, tokens, loss, val in logged.curve
    ]
    return (
        "## Curve\n\nCross-entropy in nats a token.\n\n| step | tokens | training | validation |\n|---|---|---|---|\n"
        + ("\n".join(rows))
    )


def _scores(results: list[EvalResult]) -> str:
    if not results:
        return ""
    rows = [
        f"| {one_line(result.name)} | {result.format} | "
        + ", ".join(f"{one_line(key)} {value:.4g}" for key, value in result.metrics.items())
        + f" | {result.examples:,} |"
        for result in results
    ]
    return "## Scores\n\n| on | format | result | examples |\n|---|---|---|---|\n" + "\n".join(rows)


def _table(title: str, rows: Iterator[tuple[str, Any]]) -> str:
    return f"## {title}\n\n| | |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows)


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _read(log: Path, last: int) -> _Logged:
    """Return the newest start, and the losses at up to ``_ROWS`` of the steps that were validated, and at ``last``."""
    start, step = None, None
    for _, event in read_all(log):
        if isinstance(event, Start):
            start = event
    rows: dict[int, Row] = {}
    for record in valid_records(log):
        if record.step > last:
            break
        if isinstance(record, Step):
            step = record
            if record.step == last:
                rows[last] = (last, record.tokens, record.loss, None)
        elif isinstance(record, Val):
            tokens, loss = (step.tokens, step.loss) if step and step.step == record.step else (None, None)
            rows[record.step] = (record.step, tokens, loss, record.loss)
    curve = [rows[number] for number in sorted(rows)]
    if len(curve) > _ROWS:
        curve = [curve[i * (len(curve) - 1) // (_ROWS - 1)] for i in range(_ROWS)]
    return _Logged(start, curve)
