"""Parses the filter of the list of runs: ``loss<4 lr>=1e-3 tag:moe phase:ended name:sweep letters``.

Words are separated by spaces, and a run matches if every word holds.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable

from engine.events.phases import PAUSED, PHASES, has_ended, is_active, phase_of
from engine.events.status import Summary
from profiles.errors import SpecError
from profiles.printable import brief
from tui.text.run_text import STALLED, is_stalled, phase_name

Test = Callable[[Summary], bool]


def needs_attention(run: Summary) -> bool:
    """Return whether a run failed, was cut off, is stalled, or is paused until a user answers."""
    asks = run.phase == PAUSED and (run.reason or "").startswith("out of memory")
    return asks or is_stalled(run) or phase_of(run.phase).needs_attention


def parse_filter(text: str) -> Test:
    """Return what says whether a run matches ``text``; case does not matter. Raise ``SpecError`` naming a wrong word.

    A word is a number of ``_NUMBERS`` compared, ``phase:`` and how a phase or one of ``_GROUPS`` begins,
    ``tag:`` and a whole tag, a text of ``_TEXTS`` and how it begins, or letters of the id, name, profile or phase, of a
    tag or of the note.
    """
    tests = [_word_test(word) for word in text.lower().split()]
    return lambda run: all(test(run) for test in tests)


_NUMBERS: dict[str, Callable[[Summary], float | None]] = {
    "loss": lambda run: run.loss,
    "val": lambda run: run.val_loss,
    "bits": lambda run: run.bits_per_byte,
    "lr": lambda run: run.lr,
    "tok/s": lambda run: run.tok_s,
    "step": lambda run: run.step,
    "steps": lambda run: run.steps,
    "done": lambda run: 100 * (run.step or 0) / run.steps if run.steps else None,
    "attempt": lambda run: run.attempt,
    "context": lambda run: run.context,
    "micro": lambda run: run.micro,
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
}
_TEXTS: dict[str, Callable[[Summary], str | None]] = {
    "name": lambda run: run.name or run.id,
    "profile": lambda run: run.profile,
    "backend": lambda run: run.backend,
    "host": lambda run: run.host,
}
_GROUPS: dict[str, Test] = {
    "active": lambda run: is_active(run.phase),
    "ended": lambda run: has_ended(run.phase),
    "attention": needs_attention,
    STALLED: is_stalled,
}
_COMPARISON = re.compile(r"([^<>=:]*)(<=|>=|<|>|=)(.*)")


def _word_test(word: str) -> Test:
    if (found := _COMPARISON.fullmatch(word)) is not None:
        return _number_test(word, *found.groups())
    key, colon, wanted = word.partition(":")
    if not colon:
        return lambda run: any(word in (text or "").lower() for text in _searched(run))
    if key not in ("tag", "phase", *_TEXTS):
        raise SpecError(f"filter {brief(word)}: {brief(key)} is no text of a run; phase, tag, {', '.join(_TEXTS)} are")
    if not wanted:
        raise SpecError(f"filter {brief(word)}: write what to look for after the colon")
    if key == "tag":
        return lambda run: any(wanted in (tag.lower(), f"#{tag.lower()}") for tag in run.tags)  # or as shown
    if key == "phase":
        return _phase_test(word, wanted)
    return lambda run: (_TEXTS[key](run) or "").lower().startswith(wanted)


def _number_test(word: str, key: str, sign: str, text: str) -> Test:
    if key not in _NUMBERS:
        raise SpecError(f"filter {brief(word)}: {brief(key)} is no number of a run; {', '.join(_NUMBERS)} are")
    number, compare = _NUMBERS[key], _COMPARISONS[sign]
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise SpecError(f"filter {brief(word)}: {brief(text)} is not a number; write for example {key}{sign}4 or 1e-3")
    return lambda run: (value := number(run)) is not None and compare(value, limit)


def _phase_test(word: str, wanted: str) -> Test:
    if wanted in _GROUPS:
        return _GROUPS[wanted]
    known = [*_GROUPS, *PHASES]
    if not any(name.startswith(wanted) for name in known):
        raise SpecError(f"filter {brief(word)}: no phase begins so; use {', '.join(known)}")
    groups = [matches for name, matches in _GROUPS.items() if name.startswith(wanted)]
    return lambda run: run.phase.startswith(wanted) or any(matches(run) for matches in groups)


def _searched(run: Summary) -> tuple[str | None, ...]:
    return run.id, run.name, run.profile, phase_name(run), run.phase, *(f"#{tag}" for tag in run.tags), run.note
