"""Makes a small model and question files in four published formats, the same on every machine.

The text is the Zen of Python, which Python's module ``this`` holds. The model is not trained: what is compared is how
answers are scored.
"""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import io
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from data.pack.training import train_tokenizer
from engine.checkpoints import checkpoint
from model.transformer import build
from profiles import registry
from profiles.model_config import NAMED_MODELS

CONTEXT = 64
CONFIG = dataclasses.replace(
    NAMED_MODELS["mla-tiny"],
    vocab_size=320,
    hidden_size=64,
    num_hidden_layers=2,
    intermediate_size=128,
    initializer_range=0.1,
)


def zen() -> list[str]:
    """The lines of the Zen of Python."""
    with contextlib.redirect_stdout(io.StringIO()):
        text = import_module("this").s
    return [line for line in codecs.decode(text, "rot13").splitlines() if line]


def write_model(out: Path, seed: int = 11) -> Path:
    """Save a checkpoint of the model below ``out``, with a tokenizer, and return its path."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = out / "tokenizer.json"
    tokenizer.write_text(train_tokenizer(["\n".join(zen())] * 4, 300))
    spec = registry.load("cpu_demo", [f"context={CONTEXT}", "sequences=8", "micro=8"])
    spec = dataclasses.replace(spec, model=dataclasses.replace(spec.model, name="zen", config=CONFIG))
    weights = {name: p.detach() for name, p in build(CONFIG, seed).named_parameters()}
    return checkpoint.save(out, 7, {"model": weights, "optimizer": {}}, {"spec": spec.to_dict()}, tokenizer)[0]


def write_tasks(folder: Path) -> dict[str, Path]:
    """Write a question file in each format and a text; return them by format."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = zen()
    rows: dict[str, list[dict[str, Any]]] = {"hellaswag": [], "arc": [], "piqa": [], "lambada": []}
    for i in range(len(lines) - 4):
        right, others = lines[i + 1], [lines[(i + k) % len(lines)] for k in (5, 8, 11)]
        place = i % 4
        choices = [*others[:place], f"{right} [title] é", *others[place:]]
        first, _, rest = lines[i].partition(" ")
        rows["hellaswag"].append(
            {
                "activity_label": "Zen [header] of",
                "ctx_a": first,
                "ctx_b": rest,
                "endings": choices,
                "label": str(place),
            }
        )
        rows["arc"].append(
            {"question": lines[i], "choices": {"text": choices, "label": [*"ABCD"]}, "answerKey": "ABCD"[place]}
        )
        rows["piqa"].append({"goal": lines[i], "sol1": choices[0], "sol2": choices[1], "label": place % 2})
        rows["lambada"].append({"text": " ".join(lines[: i + 1])})  # the later ones are longer than the context
    for name, content in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in content))
    (folder / "text.txt").write_text("\n".join(lines))
    return {name: folder / f"{name}.jsonl" for name in rows} | {"text": folder / "text.txt"}
