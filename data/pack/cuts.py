"""Cuts a long text where its tokenizer cuts it too, so that the ids of the parts are those of the whole.

A cut is made behind a letter or an ASCII digit, before a space, a line end or a punctuation mark. Tokenizers with known
patterns never have a token across it, and do not look across it:

- No known alternative matches a letter or digit and then such a character, so a match that holds the one before the cut
  ends there. Every letter and digit is in a match, so the pattern does cut there.
- A match before the cut reads at most the character behind it, and only whether that is a letter, a mark, a digit or an
  apostrophe; it is none, as at the end of a text. No match looks back, so those behind the cut do not depend on what is
  before it.
- NFC joins no such character with one before it. The letter must be in that form itself: some are taken apart into a
  letter and a mark.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_BEHIND = re.compile(
    rb"(?<=[0-9A-Za-z\x80-\xff])(?:[ \t\r\n,.;:!?()+*/]|\xe3\x80[\x81\x82]|\xef\xbc[\x81\x8c\x9a\x9b\x9f])"
)
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_OTHERS = {
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", _CONTRACTIONS, r"'(?i:[sdmt]|ll|ve|re)", r"'(?:[sdmt]|ll|ve|re)"),
    *(r"[一-龥぀-ゟ゠-ヿ]+", r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""),
    *(r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*"),
    *(r" ?[^\s\p{L}\p{N}]++[\r\n]*", r" ?[^\s\p{L}\p{N}]++[\r\n]*+", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),
    *(r" ?[\p{P}\p{S}]+[\r\n]*", r"\s*[\r\n]+", r"\s*[\r\n]", r"\s++$", r"\s+$", r"\s+(?!\S)", r"\s+", r"\s"),
}
_DIGITS = {r"\p{N}", r"\p{N}+", r" ?\p{N}+", r"\p{N}{1,3}"}
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
# Sets of alternatives that together match every letter.
_LETTERS = [
    *({alone} for alone in (r" ?\p{L}+", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"[^\r\n\p{L}\p{N}]?+\p{L}+")),
    *({alone} for alone in (r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+")),
    *(
        {rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]{up}[{_LOWER}]{low}{end}" for up, low in (("*", "+"), ("+", "*"))}
        for end in ("", f"{_CONTRACTIONS}?")
    ),
]
_KNOWN = _OTHERS | _DIGITS | {alternative for letters in _LETTERS for alternative in letters}
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def can_cut(tokenizer: dict[str, Any]) -> bool:
    """Return whether the parts of a text, encoded alone, have the ids of the whole. ``tokenizer``: its JSON."""
    stages = _flat(tokenizer.get("pre_tokenizer"), "pretokenizers")
    patterns = [_alternatives(_pattern(stage)) for stage in stages]
    return (
        all(part.get("type") == "NFC" for part in _flat(tokenizer.get("normalizer"), "normalizers"))
        and all(known <= _KNOWN for known in patterns)
        and any(known & _DIGITS for known in patterns)
        and any(letters <= known for known in patterns for letters in _LETTERS)
        and not any(_may_cross(added) for added in tokenizer.get("added_tokens") or ())
    )


def places(document: bytes, size: int) -> list[int]:
    """Return where a UTF-8 text may be cut: each the first place at least ``size`` bytes behind the one before."""
    found: list[int] = []
    place = size
    while place < len(document) - size and (match := _BEHIND.search(document, place)):
        place = match.start()
        if _is_word(document, place - 1):
            found.append(place)
            place += size
        else:
            place += 1
    return found


def _is_word(document: bytes, last: int) -> bool:
    """Return whether the character that ends at ``last`` is an ASCII digit, or a letter in NFC."""
    if document[last] < 0x80:
        return True  # as the expression has found
    first = last
    while document[first] & 0xC0 == 0x80 and last - first < 4:
        first -= 1
    letter = document[first : last + 1].decode("utf-8", "replace")
    return len(letter) == 1 and unicodedata.category(letter)[0] == "L" and unicodedata.is_normalized("NFC", letter)


def _may_cross(added: dict[str, Any]) -> bool:
    """Return whether an added token, which is found before the text is cut into words, may lie across a cut."""
    if added["special"]:
        return False  # its text is not looked for
    loose = added.get("lstrip") or added.get("rstrip") or added.get("single_word")
    return bool(loose or _BEHIND.search(added["content"].encode()))


def _flat(part: Any, inner: str) -> list[dict[str, Any]]:
    if not isinstance(part, dict):
        return []
    return [one for each in part[inner] for one in _flat(each, inner)] if part.get("type") == "Sequence" else [part]


def _pattern(stage: dict[str, Any]) -> str:
    """Return the expression that a part of a pre-tokenizer cuts by: "" if it does not, "?" if that is not known."""
    if stage["type"] == "ByteLevel" and not stage.get("add_prefix_space"):
        return _GPT2 if stage.get("use_regex", True) else ""
    if stage["type"] == "Digits":
        return r"\p{N}" if stage.get("individual_digits") else r"\p{N}+"
    if stage["type"] == "Split" and (stage["behavior"], stage["invert"]) in (("Isolated", False), ("Removed", True)):
        return str(stage["pattern"].get("Regex", "?"))
    return "?"


def _alternatives(pattern: str) -> set[str]:
    """Return the alternatives of a regular expression."""
    found, start, depth, in_class = [], 0, 0, False
    place = 0
    while place < len(pattern):
        char = pattern[place]
        if char == "\\":
            place += 1
        elif in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char == "|" and not depth:
            found.append(pattern[start:place])
            start = place + 1
        place += 1
    return {*found, pattern[start:]} - {""}
