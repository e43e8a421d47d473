from __future__ import annotations

from engine.events.exit_codes import is_user_error
from engine.runs.restarts import LONGEST_BACKOFF, RESTARTS, Restarts


def test_restarts_without_progress_come_slower_and_end() -> None:
    restarts = Restarts()
    waits = [restarts.next(0) for _ in range(RESTARTS + 1)]
    assert waits[-1] is None
    assert waits[:-1] == sorted(waits[:-1])
    assert all(0 <= wait <= LONGEST_BACKOFF for wait in waits[:-1])


def test_a_step_beyond_the_furthest_starts_the_count_anew() -> None:
    restarts = Restarts()
    for step in range(1, 100):
        assert restarts.next(step) == restarts.next(step - 1) - 1  # one further, one not: never more than two in a row


def test_whose_fault_an_exit_code_is() -> None:
    assert [code for code in (None, 0, 1, 2, 63, 64, 75, 137) if is_user_error(code)] == [0, 1, 2, 63]
