"""Says what the form of a new run shows of a profile, and which command does what the form does."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tui.text import format as fmt

if TYPE_CHECKING:
    from profiles.spec import RunSpec

# (field, the spec key that it overrides, label)
FIELDS = (
    ("micro", "batch.micro", "micro-batch"),
    ("accum", "batch.accum", "accumulation"),
    ("context", "batch.context", "context"),
    ("steps", "train.steps", "steps"),
)


def command(profile: str, changed: Sequence[str], name: str | None) -> str:
    """Return the command that launches ``profile`` with what the form has ``changed``, as ``key=value``."""
    parts = ["mla-tui", "launch", "-p", profile]
    keys = {key for _, key, _ in FIELDS}
    for text in changed:
        parts += ["-s", text.partition(".")[2] if text.partition("=")[0] in keys else text]
    return shlex.join(parts + (["--name", name] if name else []))


def values(base: RunSpec) -> dict[str, int | None]:
    """Return what the profile says for each field; None where it leaves that to the search."""
    auto = base.auto_micro
    return {
        "micro": None if auto else base.batch.micro,
        "accum": None if auto else base.accum,
        "context": base.batch.context,
        "steps": base.train.steps,
    }


def describe_step(spec: RunSpec) -> str:
    step = f"{fmt.exact(spec.batch.sequences)} × {fmt.exact(spec.batch.context)} tokens per step"
    return f"{spec.model.name}: {fmt.count(spec.model.config.params)} parameters; {step}"


def names(keys: Iterable[str]) -> set[str]:
    """Return the keys in every form a user may write: with their table and without."""
    return {name for key in keys for name in (key, key.partition(".")[2])}
