"""Reads questions from JSON Lines files in the published formats of HellaSwag, ARC, PIQA and LAMBADA.

Contexts and choices are worded as the tasks ``hellaswag``, ``arc_easy``, ``piqa`` and ``lambada_openai`` of
lm-evaluation-harness word them, so that scores can be compared with published ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles.errors import SpecError, UserError
from profiles.printable import brief
from profiles.reader import Table, parse_json, read_text

MAX_BYTES = 256 << 20
_REMEDY = "repair or remove the line"


@dataclass(frozen=True, slots=True)
class Question:
    """A context and its choices, of which number ``gold`` is right. A cloze question has one choice."""

    context: str
    choices: tuple[str, ...]
    gold: int


Reader = Callable[[Table, str, Path, int], Question]  # the line, its name in messages, its file, its number from 0


def read_questions(path: Path, format: str | None) -> tuple[str, list[Question]]:
    """Return the format and the questions of a file; the fields of its first line decide if ``format`` is None.

    Raise ``UserError`` for a file that is empty or no regular file, and for a line with a missing or wrong field.
    """
    try:
        text = read_text(path, MAX_BYTES)
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist; name a file of JSON lines") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: is empty; name a file of JSON lines")
    questions = []
    for place, (number, line) in enumerate(lines):
        where = f"{path}:{number}"
        content = parse_json(line, where, _REMEDY)
        format = format or _recognised(content, where)
        questions.append(READERS[format](Table(content, where, _REMEDY), where, path, place))
    assert format is not None  # there is at least one line
    return format, questions


def _recognised(content: Mapping[str, Any], where: str) -> str:
    fitting = (name for name, fields in FIELDS.items() if fields <= content.keys())
    if (found := next(fitting, None)) is None:
        raise SpecError(
            f"{where}: its fields {brief(', '.join(content))} are those of no known format:"
            f" name it with --format {'|'.join(READERS)}"
        )
    return found


def _hellaswag(line: Table, where: str, path: Path, place: int) -> Question:
    context = f"{line.text('activity_label')}: {line.text('ctx_a')} {line.text('ctx_b').capitalize()}"
    endings = _texts(line, "endings", line.content.get("endings"))
    return Question(
        _without_brackets(context),
        tuple(map(_without_brackets, endings)),
        _index(line, "label", line.content.get("label"), len(endings)),
    )


def _without_brackets(text: str) -> str:
    """Return a text of HellaSwag without the marks of WikiHow, as the harness cleans it."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _arc(line: Table, where: str, path: Path, place: int) -> Question:
    """Both layouts: that of the published files (question.stem), and that of the Hugging Face data set."""
    if isinstance(line.content.get("question"), dict):
        question = line.table("question")
        stem, listed = question.text("stem"), question.content.get("choices")
        if not isinstance(listed, list) or not all(isinstance(choice, dict) for choice in listed):
            raise question.fault("choices", "a list of choices")
        given: list[Any] = [[choice.get(key) for choice in listed] for key in ("text", "label")]
    else:
        stem, choices = line.text("question"), line.table("choices")
        given = [choices.content.get("text"), choices.content.get("label")]
    texts, labels = (_texts(line, "choices", values) for values in given)
    if len(labels) != len(texts) or len({*labels}) < len(labels):
        raise UserError(
            f"{where}: choices: {len(texts)} texts with the labels {brief(', '.join(labels))}: each needs one of its"
            f" own; {_REMEDY}"
        )
    key = line.text("answerKey")
    if key not in labels:
        raise line.fault("answerKey", f"one of the labels {brief(', '.join(labels))}")
    return Question(f"Question: {stem}\nAnswer:", tuple(texts), labels.index(key))


def _piqa(line: Table, where: str, path: Path, place: int) -> Question:
    """The label is in the line, or as published in a file of one label a line beside it: NAME-labels.lst."""
    label = line.content["label"] if "label" in line.content else _label_beside(line, path, place)
    choices = (line.text("sol1"), line.text("sol2"))
    return Question(f"Question: {line.text('goal')}\nAnswer:", choices, _index(line, "label", label, 2))


def _label_beside(line: Table, path: Path, place: int) -> str:
    beside = path.with_name(f"{path.stem}-labels.lst")
    try:
        labels = read_text(beside, MAX_BYTES).split()
    except FileNotFoundError:
        raise line.fault("label", f"here or in {beside.name}") from None
    if place >= len(labels):
        raise UserError(f"{beside}: has {len(labels)} labels, fewer than {path.name} has questions; take a whole copy")
    return labels[place]


def _lambada(line: Table, where: str, path: Path, place: int) -> Question:
    context, space, word = line.text("text").rpartition(" ")
    if not space or not word or not context.strip():
        raise line.fault("text", "text whose last word follows a space")
    return Question(context, (f" {word}",), 0)


def _texts(line: Table, key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) and text for text in value):
        raise UserError(f"{line.fault(key, 'a list of texts')}")
    return value


def _index(line: Table, key: str, value: Any, count: int) -> int:
    """Return the number of the right choice, which files write as a number or as text."""
    number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}", value) else value
    if type(number) is not int or not 0 <= number < count:
        raise line.fault(key, f"a number from 0 to {count - 1}, the number of the right choice")
    return number


READERS: dict[str, Reader] = {"hellaswag": _hellaswag, "arc": _arc, "piqa": _piqa, "lambada": _lambada}
FIELDS = {
    "hellaswag": {"ctx_a", "ctx_b", "endings"},
    "arc": {"question", "answerKey"},
    "piqa": {"goal", "sol1", "sol2"},
    "lambada": {"text"},
}
