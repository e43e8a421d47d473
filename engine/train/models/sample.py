"""Text from a checkpoint, and how fast it came."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from engine.checkpoints import checkpoint
from model.generate import Sampling, generate
from model.latent_cache import LatentCache
from model.transformer import MLATransformer
from profiles.errors import UserError
from profiles.spec import RunSpec


class Text:
    """One text while it is written: iterate over its pieces; the counts are those of what has come so far."""

    def __init__(self, ids: Iterator[int], tokenizer: Tokenizer, prompt_tokens: int, context: int) -> None:
        self._ids = ids
        self._tokenizer = tokenizer
        self._context = context
        self.prompt_tokens = prompt_tokens
        self.tokens = 0
        self.prompt_seconds = 0.0  # from the call to the first token
        self.decode_seconds = 0.0  # for all tokens after the first

    @property
    def tokens_per_second(self) -> float | None:
        """Of decoding alone: the first token comes with the reading of the prompt."""
        return (self.tokens - 1) / self.decode_seconds if self.tokens > 1 else None

    @property
    def outgrown(self) -> bool:
        """Whether the last token was drawn without the whole text in sight, as ``generate`` says."""
        return min(self.prompt_tokens, self._context) + self.tokens - 1 > self._context

    def __iter__(self) -> Iterator[str]:
        stream = DecodeStream(skip_special_tokens=True)  # holds half a character back until the rest has come
        for token in self._timed():
            if piece := stream.step(self._tokenizer, token):
                yield piece

    def _timed(self) -> Iterator[int]:
        while True:
            begun = time.perf_counter()
            token = next(self._ids, None)
            seconds = time.perf_counter() - begun
            if self.prompt_seconds:
                self.decode_seconds += seconds
            else:
                self.prompt_seconds = seconds
            if token is None:
                return
            self.tokens += 1
            yield token


class Writer:
    """A checkpoint made ready to write: weights and cache on the GPU where there is one.

    Raises UserError where ``path`` is no whole checkpoint or has no tokenizer beside its weights.
    """

    def __init__(self, path: Path) -> None:
        state, facts = checkpoint.load(path, ("model",))
        spec = RunSpec.from_dict(facts["spec"], str(path))
        self._tokenizer = _tokenizer(path / "tokenizer.json")
        with torch.device("meta"):
            self._model = MLATransformer(spec.model.config)
        self._model.load_state_dict(state["model"], strict=False, assign=True)
        self._model.tie()
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.cache = LatentCache(self._model, spec.batch.context)

    def write(self, prompt: str, tokens: int, sampling: Sampling) -> Text:
        """Up to ``tokens`` tokens that follow ``prompt``; an empty one begins a new text.

        One text at a time: a second one takes the cache from the first. Raises UserError for a prompt that is not text.
        """
        eot = self._tokenizer.token_to_id("<|endoftext|>")
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"prompt: it is not UTF-8 text from character {error.start} on") from None
        ids = self._tokenizer.encode(prompt).ids or [eot if eot is not None else 0]
        stream = generate(self._model, ids, tokens, self.cache, sampling, eot)
        return Text(stream, self._tokenizer, len(ids), self.cache.context)


def _tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise UserError(f"{path.parent}: holds no tokenizer.json; copy the one that packed the data there")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise UserError(f"{path}: is not a tokenizer: {error}") from None
