"""Says in one line what a run reads of its data: sequences, epochs, and tokens that are in no sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.text.format import exact

if TYPE_CHECKING:
    from data.usage import DataUsage
    from profiles.spec import RunSpec

_MUCH_UNUSED = 0.1  # of the tokens
_MANY_EPOCHS = 4.0  # up to here repeated text is nearly as good as new (Muennighoff and others, 2023)


def usage_line(spec: RunSpec) -> str:
    """Return the line for a run of ``spec``. Raises ``UserError`` if its data cannot be opened."""
    from data.splits import data_usage

    return describe_usage(data_usage(spec), spec.train.last_step)


def describe_usage(usage: DataUsage, steps: int) -> str:
    """Return the line; it begins with "warning" if much is unused or repeated, or files are not what they seem."""
    texts = [
        f"data: {_counted(usage.sequences, 'sequence')} of {exact(usage.context + 1)} tokens",
        f"{_counted(steps, 'step')} read {_read(usage)}",
    ]
    if usage.unused:
        short = f" ({exact(usage.short)} of {exact(usage.shards)} shards too short)"
        texts.append(f"{exact(usage.unused)} of {exact(usage.tokens)} tokens unused{short if usage.short else ''}")
    if usage.ignored:
        texts.append(f"{_counted(usage.ignored, 'token file')} below or beside the folder train not read")
    if usage.missing:
        texts.append(f"{_counted(usage.missing, 'shard')} listed in dataset.json missing (see: mla-tui data verify)")
    if usage.blank:
        texts.append(
            f"{_counted(len(usage.blank), 'shard')} ending in one id alone, as an unfinished copy does: {_names(usage)}"
        )
    if usage.miscounted:
        texts.append(f"dataset.json miscounts {' and '.join(usage.miscounted)} (see: mla-tui data verify)")
    if usage.copies:
        texts.append(f"{_counted(usage.copies, 'shard')} the same as an earlier one")
    if usage.leaked:
        texts.append(f"{_counted(usage.leaked, 'shard')} of val also in train")
    if usage.evident:
        texts.append(f"ids read as the {usage.evident} that they show; dataset.json may name another dtype")
    warns = usage.unused > _MUCH_UNUSED * usage.tokens or usage.epochs > _MANY_EPOCHS
    warns = warns or bool(
        usage.ignored or usage.missing or usage.blank or usage.miscounted or usage.copies or usage.leaked
    )
    return ("warning: " if warns else "") + "; ".join(texts)


def _names(usage: DataUsage) -> str:
    return usage.blank[0] + (" …" if len(usage.blank) > 1 else "")


def _read(usage: DataUsage) -> str:
    if not usage.sources:
        return _epochs(usage.epochs)
    return ", ".join(f"{_epochs(s.epochs)} of {s.name} ({s.fraction:.3g})" for s in usage.sources)


def _counted(count: int, name: str) -> str:
    return f"{exact(count)} {name}{'' if count == 1 else 's'}"


def _epochs(epochs: float) -> str:
    if epochs >= 9.95:
        return f"{exact(round(epochs))} epochs"
    text = f"{epochs:.2g}" if epochs >= 0.001 else "less than 0.001"
    return f"{text} epoch{'' if text == '1' else 's'}"
