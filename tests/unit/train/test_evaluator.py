"""A run scores questions while it trains, keeps the checkpoint that is best at them, and its losses do not change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.checkpoints import checkpoint, retention
from engine.events.history import History
from engine.events.types import Eval
from engine.preflight import check_evals, resolve_spec
from engine.train.evaluation.evaluator import Evaluator
from engine.train.loop import Trainer
from profiles.errors import UserError
from tests.unit.train.evaluation_files import write_tasks
from tests.unit.train.test_live_edits import set_at
from tests.unit.train.test_samples import tokenizer, trained, trainer_of, warnings
from tests.unit.train.tiny_runs import MakeSpec, RecordingReporter
from tui.text.event_text import describe

__all__ = ["tokenizer"]


def settings(folder: Path, *names: str) -> tuple[str, ...]:
    files = write_tasks(folder)
    for path in files.values():  # short enough for the context of 32
        lines = path.read_text().splitlines()
        path.write_text("\n".join(lines[:2]))
    (folder / "arc.jsonl").write_text(_question("a", ["b", "c"], "A") + "\n" + _question("d", ["e", "f"], "B"))
    (folder / "lambada.jsonl").write_text('{"text": "one two"}\n')
    return ("eval_every=2", f"eval_tasks={json.dumps([str(folder / f'{name}.jsonl') for name in names])}")


def _question(question: str, texts: list[str], key: str) -> str:
    return json.dumps({"question": question, "choices": {"text": texts, "label": ["A", "B"]}, "answerKey": key})


def test_evaluations_are_logged_drawn_and_change_no_loss(nano: MakeSpec, tokenizer: Path, tmp_path: Path) -> None:
    common = ("steps=4", "save_every=2", "val_every=2", "precision=bf16_sr")
    without = trained(nano(*common), tmp_path / "without")
    log = trained(nano(*common, *settings(tmp_path / "tasks", "arc", "lambada")), tmp_path / "with")
    assert log.losses() == without.losses() and not warnings(log)
    found = [event for event in log.events if isinstance(event, Eval)]
    assert [event.step for event in found] == [2, 4]
    for event in found:
        assert event.tasks and event.tasks.keys() == {"arc.jsonl", "lambada.jsonl"} and not event.cut
        parts = [event.tasks["arc.jsonl"]["acc_norm"], event.tasks["lambada.jsonl"]["acc"]]
        assert event.accuracy == pytest.approx(sum(part or 0.0 for part in parts) / 2)
        assert (said := describe(event)) and said[0].startswith(f"evaluation at step {event.step}: accuracy ")
    history = History(tmp_path / "unused")
    history.add_events(enumerate(log.events))
    assert list(history.series["eval_acc"].x) == [2, 4]
    assert list(history.series["val_loss"].x) == [0, 2, 4]  # an evaluation is no validation that was not finite


def test_without_time_nothing_is_claimed(
    nano: MakeSpec, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = nano("steps=2", *settings(tmp_path / "tasks", "arc"))
    log = RecordingReporter()
    trainer = trainer_of(spec, tmp_path / "out", log)
    unlimited = trainer.timed_work.run
    monkeypatch.setattr(trainer.timed_work, "run", lambda name, work, seconds, free: unlimited(name, work, 0.0, free))
    trainer.run(None, None)
    (event,) = (event for event in log.events if isinstance(event, Eval))
    assert event.cut and event.accuracy is None and not event.tasks


def test_the_checkpoint_with_the_highest_accuracy_is_kept(
    nano: MakeSpec, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The accuracy is given here: the smallest model would have to learn for it to differ."""
    given = {2: 0.5, 4: 0.75, 6: 0.25, 8: 0.5}
    monkeypatch.setattr(Evaluator, "run", lambda self, step: setattr(self, "accuracy", given.get(step, self.accuracy)))
    spec = nano("steps=8", "save_every=2", "val_every=0", "keep=1", "keep_best=eval_acc")
    trained(spec, tmp_path / "out")
    assert checkpoint.steps(tmp_path / "out") == [4, 8]
    assert retention.best_step(checkpoint.latest(tmp_path / "out")) == 4
    with pytest.raises(UserError, match="has the highest accuracy of the evaluations; it is kept"):
        retention.check_delete(tmp_path / "out", 4)
    resumed: Trainer = trainer_of(nano("steps=10", "keep=1", "save_every=2"), tmp_path / "out", RecordingReporter())
    resumed.run(checkpoint.latest(tmp_path / "out"), None)
    assert resumed.saver.best is None or resumed.saver.best[1] == 10  # an accuracy is not taken for a loss


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("eval_every=2",), "train.eval_tasks: is empty"),
        (("eval_every=2", 'eval_tasks=["/none.jsonl"]'), "/none.jsonl is no regular file"),
        (("keep_best=eval_acc",), "train.keep_best: eval_acc needs evaluations"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_the_launch(
    nano: MakeSpec, tmp_path: Path, more: tuple[str, ...], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        check_evals(nano(*more))


def test_a_question_that_is_wrong_or_too_long_is_known_before_the_first_step(
    nano: MakeSpec, tokenizer: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tasks.jsonl"
    asked = ("eval_every=2", f"eval_tasks={json.dumps([str(path)])}")
    path.write_text(_question("a", ["b", "c"], "A") + "\nhello\n")
    with pytest.raises(UserError, match=r"tasks\.jsonl:2: is not valid JSON"):
        check_evals(nano(*asked))
    path.write_text(_question("a", ["b" * 40, "c"], "A"))
    check_evals(nano(*asked))  # how many tokens a choice has is known where the model is built
    log = RecordingReporter()
    with pytest.raises(UserError, match="question 1: a choice of 41 tokens does not fit into the context of 32"):
        trainer_of(nano("steps=2", *asked), tmp_path / "out", log).run(None, None)
    assert not log.losses()


def test_an_edit_starts_evaluations(nano: MakeSpec, tokenizer: Path, tmp_path: Path) -> None:
    """A restart replays it; without questions it is refused."""
    spec = nano("steps=6", "save_every=4", *settings(tmp_path / "tasks", "arc"), "eval_every=0")
    log = trained(spec, tmp_path / "out", respond=set_at(3, {"eval_every": 2}))
    assert [event.step for event in log.events if isinstance(event, Eval)] == [4, 6]
    assert [memory["measured"] is None for memory in log.of("memory")] == [True, False]  # no new forecast
    log._respond = lambda record: []
    trainer_of(spec, tmp_path / "out", log).run(tmp_path / "out" / "ckpt_step_4", None)
    assert [event.step for event in log.events if isinstance(event, Eval)] == [4, 6, 6]
    refused = trained(nano("steps=4"), tmp_path / "none", respond=set_at(1, {"train.eval_every": 2}))
    (edit,) = refused.of("edit")
    assert not edit["ok"] and "train.eval_tasks: is empty" in edit["why"]


def test_a_run_keeps_the_absolute_paths_of_its_questions(nano: MakeSpec) -> None:
    spec = resolve_spec(nano("eval_every=2", 'eval_tasks=["some/tasks.jsonl"]'))
    assert spec.train.eval_tasks == (str(Path.cwd() / "some" / "tasks.jsonl"),)
