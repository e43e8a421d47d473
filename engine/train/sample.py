"""Text from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.train import checkpoint
from profiles.errors import UserError
from profiles.spec import RunSpec


def sample(path: Path, prompt: str, *, tokens: int, temperature: float, top_p: float, seed: int) -> Iterator[str]:
    """Yield pieces of text that follow ``prompt``, as they come. Raises ``UserError``."""
    import torch
    from tokenizers import Tokenizer

    from model.generate import generate
    from model.transformer import build

    state, facts = checkpoint.load(path, ("model",))
    spec = RunSpec.from_dict(facts["spec"], str(path))
    if not (path / "tokenizer.json").is_file():
        raise UserError(f"{path}: holds no tokenizer.json; copy the one that packed the data there")
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    model = build(spec.model.config, seed=0)
    model.load_state_dict(state["model"], strict=False)
    model.tie()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    ids = tokenizer.encode(prompt).ids
    eot = tokenizer.token_to_id("<|endoftext|>")
    written: list[int] = []
    shown = ""
    stream = generate(
        model,
        ids or [eot if eot is not None else 0],
        tokens,
        context=spec.batch.context,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        eot=eot,
    )
    for token in stream:
        written.append(token)
        text = tokenizer.decode(written)
        if not text.endswith("\ufffd"):  # half of a character: wait for the rest
            yield text[len(shown) :]
            shown = text
