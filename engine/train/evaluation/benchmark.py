"""Turns questions, texts and shards into requests to a model, and its answers into metrics.

The metrics are those of lm-evaluation-harness 0.4: ``acc`` (the likeliest choice is the right one), ``acc_norm`` and
``acc_bytes`` (likeliest per character and per byte), ``perplexity`` and exact match of LAMBADA, ``bits_per_byte``.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data.pack.vocabulary import TOKENIZER_JSON
from data.phase_folders import phase_above
from data.questions import MAX_BYTES, Question, read_questions
from data.shard_file import read_shard
from data.shards import ShardSet, bare_ids, open_shards, read_manifest
from data.text_bytes import bytes_per_token_of
from data.tokenizer import for_documents, same_ids
from engine.train.evaluation.loaded import LoadedModel, encode
from engine.train.evaluation.scoring import Answer, Request, request, rolling_requests
from profiles.errors import UserError
from profiles.printable import counted
from profiles.reader import read_text

Metrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Requests, and what the answers to them say. ``digest``: sha256 of the requests."""

    name: str
    format: str
    requests: list[Request]
    metrics: Callable[[Sequence[Answer]], Metrics]
    examples: int

    @property
    def digest(self) -> str:
        found = hashlib.sha256()
        for one in self.requests:
            found.update(one.ids.tobytes() + one.scored.to_bytes(4, "little"))
        return found.hexdigest()


def task_benchmark(loaded: LoadedModel, path: Path, format: str | None, limit: int | None) -> Benchmark:
    """Return the benchmark of a file of questions, or of its first ``limit``. Raise ``UserError``."""
    format, questions = read_questions(path, format)
    questions = questions[:limit]
    delimiter = "" if format == "lambada" else " "
    requests = [
        _pair(loaded, question.context, delimiter + choice, f"{path}: question {number}")
        for number, question in enumerate(questions, 1)
        for choice in question.choices
    ]
    metrics = _cloze if format == "lambada" else partial(_multiple_choice, questions)
    return Benchmark(path.name, format, requests, metrics, len(questions))


def text_benchmark(loaded: LoadedModel, path: Path, limit: int | None) -> Benchmark:
    """Return the benchmark of a text as one document, or of its first ``limit`` windows. Raise ``UserError``.

    As in packed data, the text of a special token is text.
    """
    try:
        text = read_text(path, MAX_BYTES)
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist; name a file of text") from None
    settings = for_documents(json.loads(loaded.tokenizer.to_str()), loaded.prefix)
    tokenizer = type(loaded.tokenizer).from_str(json.dumps(settings))
    tokenizer.encode_special_tokens = True
    ids = encode(tokenizer, text, loaded.model.config.vocab_size, str(path))
    if not ids:
        raise UserError(f"{path}: is empty; name a file of text")
    if len(ids) < loaded.context:
        raise UserError(
            f"{path}: has {counted(len(ids), 'token')}, fewer than the context of {loaded.context}; take a longer"
            " text, for bits per byte of so few say little"
        )
    requests = list(rolling_requests(ids, _prefix(loaded, str(path)), loaded.context))[:limit]
    scored = sum(one.scored for one in requests)
    cut = text if scored == len(ids) else loaded.tokenizer.decode(ids[:scored])
    return Benchmark(path.name, "text", requests, partial(_per_byte, requests, len(cut.encode())), 1)


def shard_benchmark(loaded: LoadedModel, path: Path, limit: int | None) -> Benchmark:
    """Return the benchmark of a token file, or of its first ``limit`` windows. Raise ``UserError``."""
    vocabulary = loaded.model.config.vocab_size
    phase = phase_above(path)
    _check_tokenizer(loaded, phase)
    shards = ShardSet((read_shard(path, bare_ids(read_manifest(phase), vocabulary)),))
    size = bytes_per_token_of(phase, "", shards, loaded.tokenizer)
    return _of_shards(loaded, str(path), path.name, "shard", shards, size, limit)


def split_benchmark(loaded: LoadedModel, folder: Path, split: str, limit: int | None) -> Benchmark:
    """Return the benchmark of a split of the phase in ``folder``, such as "val" or "val/code". Raise ``UserError``."""
    _check_tokenizer(loaded, folder)
    shards = open_shards(folder.parent, folder.name, split, loaded.model.config.vocab_size)
    size = bytes_per_token_of(folder, split, shards, loaded.tokenizer)
    return _of_shards(loaded, f"{folder}/{split}", f"{folder.name}/{split}", "split", shards, size, limit)


def _check_tokenizer(loaded: LoadedModel, phase: Path) -> None:
    """Raise ``UserError`` where the ids of ``phase`` are known to be of another tokenizer than the model's."""
    theirs = phase / TOKENIZER_JSON
    if not same_ids(Path(loaded.source) / TOKENIZER_JSON, theirs):
        raise UserError(
            f"{theirs}: is not the tokenizer of the model, so the ids mean other texts; pack the text with"
            f" --tokenizer {shlex.quote(loaded.source)}, or measure it with --text"
        )


def _of_shards(
    loaded: LoadedModel, source: str, name: str, format: str, shards: ShardSet, size: float | None, limit: int | None
) -> Benchmark:
    """``size``: bytes of text per token; without it there are no bits per byte."""
    context, vocabulary = loaded.context, loaded.model.config.vocab_size
    requests: list[Request] = []
    for number, shard in enumerate(shards.shards):
        for first in range(0, shard.tokens - context, context):
            if limit is not None and len(requests) == limit:
                break
            ids = shards.read(number, first, context + 1).astype(np.int64)
            if not 0 <= (worst := int(max(ids.max(), -ids.min()))) < vocabulary or ids.min() < 0:
                raise UserError(f"{shard.path}: holds the id {worst}, the model a vocabulary of {vocabulary}")
            requests.append(Request(ids, context))
    if not requests:
        raise UserError(f"{source}: has {shards.tokens} tokens, fewer than a context of {context} and one; take more")
    bytes_scored = None if size is None else size * len(requests) * context
    return Benchmark(name, format, requests, partial(_per_byte, requests, bytes_scored), len(requests))


def _pair(loaded: LoadedModel, context: str, continuation: str, source: str) -> Request:
    """Return the request for a continuation. Spaces at the end of the context belong to the continuation.

    Both are encoded together, and the ids behind those of the context alone are scored: ``_encode_pair`` of the
    harness.
    """
    stripped = context.rstrip()
    continuation, context = context[len(stripped) :] + continuation, stripped
    ids_of = partial(encode, loaded.tokenizer, vocabulary=loaded.model.config.vocab_size, source=source)
    if not context:
        before = [_prefix(loaded, source)]
        whole = [*before, *ids_of(text=continuation)]
    else:
        before, whole = ids_of(text=context), ids_of(text=context + continuation)
    scored = whole[len(before) :]
    if not 0 < len(scored) <= loaded.context:
        raise UserError(
            f"{source}: a choice of {len(scored)} tokens does not fit into the context of {loaded.context};"
            " remove the question"
        )
    return request(before, scored, loaded.context)


def _prefix(loaded: LoadedModel, source: str) -> int:
    if loaded.prefix is None:
        raise UserError(f"{source}: begins with nothing, and the model has no end-of-text token to stand there")
    return loaded.prefix


def _multiple_choice(questions: Sequence[Question], answers: Sequence[Answer]) -> Metrics:
    right: dict[str, list[bool]] = {"acc": [], "acc_norm": [], "acc_bytes": []}
    rest = iter(answers)
    for question in questions:
        found = np.array([next(rest).log_probability for _ in question.choices])
        characters = np.array([len(choice) for choice in question.choices])
        size = np.array([len(choice.encode()) for choice in question.choices])
        for name, scores in (("acc", found), ("acc_norm", found / characters), ("acc_bytes", found / size)):
            right[name].append(int(scores.argmax()) == question.gold)
    return {
        key: value
        for name, values in right.items()
        for key, value in ((name, float(np.mean(values))), (f"{name}_stderr", _stderr(values)))
    }


def _cloze(answers: Sequence[Answer]) -> Metrics:
    exact = [answer.greedy for answer in answers]
    mean = float(np.mean([answer.log_probability for answer in answers]))
    return {"acc": float(np.mean(exact)), "acc_stderr": _stderr(exact), "perplexity": math.exp(min(-mean, 700.0))}


def _stderr(values: Sequence[bool]) -> float:
    """Return the standard error of the mean."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def _per_byte(requests: Sequence[Request], size: float | None, answers: Sequence[Answer]) -> Metrics:
    """Return the loss per token in nats, and per byte of text in bits where its ``size`` in bytes is known."""
    total = -sum(answer.log_probability for answer in answers)
    loss = {"loss": total / sum(one.scored for one in requests)}
    return {"bits_per_byte": total / math.log(2) / size, **loss} if size else loss
