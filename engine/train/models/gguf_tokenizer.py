"""Converts a ``tokenizer.json`` to the keys of a GGUF file, where llama.cpp splits and merges text in the same way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from data.pack.training import PATTERN as QWEN2
from data.tokenizer import its_errors
from profiles.errors import UserError
from profiles.printable import brief

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # token types of GGUF
# Regular expression that splits text into words: its name in llama.cpp.
_PRE_TYPES = {
    QWEN2: "qwen2",
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    ): "llama-bpe",
}
_BYTE_LEVEL = "gpt-2"  # the pattern of ByteLevel itself
_WAY_OUT = "export without it: --no-tokenizer"


def tokenizer_keys(tokenizer: Tokenizer, vocab_size: int, end: int | None, file: str) -> dict[str, Any]:
    """Return the keys below ``tokenizer.ggml.`` for a model of ``vocab_size`` ids, more than the tokenizer may have.

    ``end`` is the id that ends a text. ``file`` names the tokenizer in messages. Raise ``UserError`` where llama.cpp
    would give a text other ids.
    """
    settings = json.loads(tokenizer.to_str())
    pre = _pre_type(settings, file)
    added = {token["id"]: token for token in settings.get("added_tokens") or ()}
    words = {id: word for word, id in tokenizer.get_vocab(with_added_tokens=True).items()}
    words |= {id: token["content"] for id, token in added.items()}
    tokens = [words.get(id, f"[PAD{id}]") for id in range(vocab_size)]
    kinds = [_kind(id, words, added) for id in range(vocab_size)]
    start = _start(tokenizer, file)
    return {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": kinds,
        "merges": [" ".join(pair) if isinstance(pair, list) else pair for pair in settings["model"]["merges"]],
        "add_bos_token": start is not None,
        **({} if start is None else {"bos_token_id": start}),
        **({} if end is None else {"eos_token_id": end}),
    }


def _pre_type(settings: Mapping[str, Any], file: str) -> str:
    """Return llama.cpp's name for how the tokenizer splits text. Raise ``UserError`` where it has none."""
    model = settings["model"]
    kind = model.get("type")
    if kind != "BPE" or model.get("byte_fallback") or model.get("unk_token") or model.get("continuing_subword_prefix"):
        raise UserError(f"{file}: is a tokenizer of type {brief(kind)}; GGUF takes byte-level BPE; {_WAY_OUT}")
    normalizer = settings.get("normalizer")
    if normalizer and normalizer.get("type") != "NFC":  # as llama.cpp's own converter, which leaves NFC out
        raise UserError(f"{file}: changes text ({brief(normalizer.get('type'))}), llama.cpp does not; {_WAY_OUT}")
    pre = settings.get("pre_tokenizer") or {}
    parts = pre.get("pretokenizers") if pre.get("type") == "Sequence" else [pre]
    *splits, last = parts or [{}]
    if last.get("type") != "ByteLevel":
        raise UserError(f"{file}: is not byte-level; GGUF takes byte-level BPE; {_WAY_OUT}")
    if last.get("add_prefix_space"):
        raise UserError(f"{file}: puts a space before a text, llama.cpp does not; {_WAY_OUT}")
    if not splits and last.get("use_regex", True):
        return _BYTE_LEVEL
    if len(splits) == 1 and not last.get("use_regex", True) and splits[0].get("type") == "Split":
        split = splits[0]
        pattern = split.get("pattern", {}).get("Regex")
        isolated = split.get("behavior") == "Isolated" and not split.get("invert")
        if isolated and pattern in _PRE_TYPES:
            return _PRE_TYPES[pattern]
    raise UserError(f"{file}: splits text by a pattern that llama.cpp has no name for; {_WAY_OUT}")


def _kind(id: int, words: Mapping[int, str], added: Mapping[int, Mapping[str, Any]]) -> int:
    if id not in words:
        return UNUSED
    if id not in added:
        return NORMAL
    return CONTROL if added[id].get("special") else USER_DEFINED


def _start(tokenizer: Tokenizer, file: str) -> int | None:
    """Return the id that the tokenizer puts before a text, or None. Raise ``UserError`` for any other addition."""
    with its_errors(f"{file}: cannot encode a text", _WAY_OUT):
        bare, whole = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
    before = whole[: len(whole) - len(bare)]
    if len(before) > 1 or whole[len(before) :] != bare:
        raise UserError(f"{file}: puts more than one token around a text, llama.cpp does not; {_WAY_OUT}")
    return before[0] if before else None
