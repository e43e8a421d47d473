"""Records of the log as sentences and lines."""

from __future__ import annotations

from typing import Any

import pytest

from engine.events.types import Edit, Exit, State, Step
from tui.cli.line_printer import LinePrinter
from tui.text.event_text import describe


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"code": None, "signal": "SIGKILL", "why": "killed (SIGKILL)"}, "killed (SIGKILL)"),
        ({"code": None, "signal": "SIGKILL", "why": "killed by the kernel"}, "killed by the kernel (SIGKILL)"),
        ({"code": 1, "signal": None, "why": "the loss is NaN"}, "the loss is NaN (exit code 1)"),
        ({"code": 0, "signal": None, "why": ""}, "exit code 0"),
    ],
)
def test_an_exit_names_reason_and_signal_once(record: dict[str, Any], sentence: str) -> None:
    described = describe(Exit(**record))
    assert described is not None
    assert described[0] == f"trainer exited: {sentence}"


def test_a_refused_edit_says_why_and_no_more() -> None:
    why = "set stop_step: 1 is behind the run, which is at step 110; use a later one"
    assert describe(Edit(id="x", ok=False, changed={}, step=110, by="app", why=why)) == (f"edit refused: {why}", "warn")


def test_a_printed_step_has_the_metrics_that_were_measured(capsys: pytest.CaptureFixture[str]) -> None:
    show = LinePrinter(10)
    show(Step(t=1.0, step=3, loss=None, tok_s=1000.0, attn_logit=6.5))
    show(Step(t=2.0, step=4, loss=2.0, tok_s=1000.0))
    assert capsys.readouterr().out.splitlines() == [
        "step 3/10  loss –  tok/s 1000  attn logit 6.500",
        "step 4/10  loss 2.000  tok/s 1000",
    ]


def test_the_step_before_another_line_is_always_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show = LinePrinter(10)
    for step, t in ((1, 1.0), (2, 1.1), (3, 1.2)):  # a run that stops at step 3
        show(Step(t=t, step=step, loss=2.0))
    show(State(t=1.3, phase="finished", reason=""))
    show(State(t=1.4, phase="paused", reason=""))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["step 1/10  loss 2.000", "step 3/10  loss 2.000"]
    assert lines[2].startswith("finished") and lines[3].startswith("paused")
