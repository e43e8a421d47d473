"""Records of the log as sentences."""

from __future__ import annotations

from typing import Any

import pytest

from engine.events.types import Exit
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
