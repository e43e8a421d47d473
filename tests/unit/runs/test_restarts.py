from __future__ import annotations

from engine.events.exit_codes import is_user_error
from engine.runs.restarts import LONGEST_BACKOFF, RESTARTS, Restarts


def test_restarts_without_progress_come_slower_and_end() -> None:
    restarts = Restarts()
    answers = [restarts.next(0) for _ in range(RESTARTS + 1)]
    waits = [wait for wait in answers if wait is not None]
    assert answers == [*waits, None]
    assert waits == sorted(waits)
    assert all(0 <= wait <= LONGEST_BACKOFF for wait in waits)


def test_a_step_beyond_the_furthest_starts_the_count_anew() -> None:
    restarts = Restarts()
    for step in range(1, 100):
        further, not_further = restarts.next(step), restarts.next(step - 1)  # never more than two in a row
        assert further is not None and not_further is not None and further == not_further - 1


def test_whose_fault_an_exit_code_is() -> None:
    assert [code for code in (None, 0, 1, 2, 63, 64, 75, 137) if is_user_error(code)] == [0, 1, 2, 63]
