"""Turns what the prompt of the checkpoints screen holds into the arguments of ``mla-tui``, or the spec to resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from profiles.errors import SpecError, UserError
from profiles.paths import expand
from profiles.printable import brief
from tui.text import format as fmt

if TYPE_CHECKING:
    from engine.checkpoints.inventory import SavedCheckpoint
    from profiles.spec import RunSpec


def input_error(topic: str, text: str, number: int | None) -> str:
    """Return what is wrong with the input, as far as this process can tell; else an empty text."""
    from engine.checkpoints.atomic_write import check_new_dir, check_new_file

    if topic == "sample" and not number:
        return "tokens: write a number from 1 up"
    if topic == "export":
        if not text or text.startswith("-"):
            return "export to: name a new folder, or a new file that ends in .gguf"
        check = check_new_file if text.endswith(".gguf") else check_new_dir  # as the command decides
        try:
            check(expand(text, "export to"))
        except UserError as error:
            return str(error)
        except OSError as error:
            return f"export to: {brief(text)}: {error.strerror}"
    return ""


def spec_of(checkpoint: SavedCheckpoint) -> RunSpec:
    from engine.checkpoints import checkpoint as checkpoints

    return checkpoints.spec_of(Path(checkpoint.path))


def resumed_spec(checkpoint: SavedCheckpoint, steps: int | None) -> RunSpec:
    """Return the spec that ``mla-tui launch --resume`` would run. Raises ``UserError``."""
    from profiles.registry import with_overrides

    spec = spec_of(checkpoint)
    steps = spec.train.steps if steps is None else steps
    if steps <= checkpoint.step:
        raise SpecError(f"steps: the checkpoint is at step {fmt.exact(checkpoint.step)}; write a larger number")
    return spec if steps == spec.train.steps else with_overrides(spec, [f"train.steps={steps}"])


def arguments(checkpoint: SavedCheckpoint, topic: str, text: str, number: int | None) -> list[str]:
    """Return the arguments of ``mla-tui`` for what the prompt describes."""
    if topic == "sample":
        return ["sample", checkpoint.path, f"--prompt={text}", *([] if number is None else ["-n", str(number)])]
    if topic == "export":
        return ["export", checkpoint.path, text.strip()]
    name = ["--name", text.strip()] if text.strip() else []
    steps = [] if number in (None, spec_of(checkpoint).train.steps) else ["-s", f"steps={number}"]
    return ["launch", "--resume", checkpoint.path, *steps, *name]
