"""Generates text with a checkpoint and counts tokens and seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from data.tokenizer import its_errors, load_tokenizer
from engine.checkpoints import checkpoint
from engine.train.models.end_token import end_token
from engine.train.models.pretrained import check_tensors
from model.generate import Sampling, generate
from model.latent_cache import LatentCache
from model.transformer import MLATransformer
from profiles.errors import UserError


class GeneratedText:
    """A text being generated: iterate over its pieces. The counts cover what was generated so far."""

    def __init__(self, ids: Iterator[int], tokenizer: Tokenizer, prompt_tokens: int, context: int) -> None:
        self._ids = ids
        self._tokenizer = tokenizer
        self._context = context
        self.prompt_tokens = prompt_tokens
        self.tokens = 0
        self.prefill_seconds = 0.0  # up to the first token
        self.decode_seconds = 0.0  # of all tokens after the first

    @property
    def tokens_per_second(self) -> float | None:
        """The decoding speed. The first token is part of prefill."""
        return (self.tokens - 1) / self.decode_seconds if self.tokens > 1 else None

    @property
    def exceeds_context(self) -> bool:
        """Whether the text is longer than the context, so that the last token was sampled from a part of it."""
        return min(self.prompt_tokens, self._context) + self.tokens - 1 > self._context

    def __iter__(self) -> Iterator[str]:
        stream = DecodeStream(skip_special_tokens=True)  # holds incomplete UTF-8 characters back
        for token in self._timed():
            if piece := stream.step(self._tokenizer, token):
                yield piece

    def _timed(self) -> Iterator[int]:
        while True:
            start = time.perf_counter()
            token = next(self._ids, None)
            seconds = time.perf_counter() - start
            if self.prefill_seconds:
                self.decode_seconds += seconds
            else:
                self.prefill_seconds = seconds
            if token is None:
                return
            self.tokens += 1
            yield token


class TextGenerator:
    """A checkpoint loaded for generation, on the GPU if there is one.

    Raises UserError where the checkpoint ``path`` is damaged or has no tokenizer.
    """

    def __init__(self, path: Path) -> None:
        state, metadata = checkpoint.load(path, ("model",))
        spec = checkpoint.spec_of(path)
        check_tensors(path, spec.model.config, str(path))
        self._tokenizer = load_tokenizer(path / "tokenizer.json")
        self._end = end_token(metadata, self._tokenizer)
        self._vocabulary = spec.model.config.vocab_size
        with torch.device("meta"):
            self._model = MLATransformer(spec.model.config)
        self._model.load_state_dict(state["model"], strict=False, assign=True)
        self._model.tie()
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.cache = LatentCache(self._model, spec.batch.context)

    def generate(self, prompt: str, tokens: int, sampling: Sampling) -> GeneratedText:
        """Return a text of up to ``tokens`` tokens that continues ``prompt``, which may be empty.

        Texts share one cache: starting a second one ends the first. Raises UserError if the prompt is not UTF-8, or has
        a token that the model does not.
        """
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"prompt: is not UTF-8 text from character {error.start} on") from None
        with its_errors("prompt: the checkpoint's tokenizer.json cannot encode it", "take another prompt"):
            ids = self._tokenizer.encode(prompt).ids or [self._end or 0]
        if (highest := max(ids)) >= self._vocabulary:
            raise UserError(
                f"prompt: the tokenizer gives it the id {highest}, the model has a vocabulary of {self._vocabulary};"
                " the checkpoint's tokenizer.json belongs to another model"
            )
        stream = generate(self._model, ids, tokens, self.cache, sampling, self._end)
        return GeneratedText(stream, self._tokenizer, len(ids), self.cache.context)
