"""When a run is restarted, and after how long."""

from __future__ import annotations

from engine.events.exit_codes import is_user_error
from engine.runs.restarts import MAX_BACKOFF, MAX_RESTARTS, Restarts


def test_restarts_without_progress_back_off_and_end() -> None:
    restarts = Restarts()
    answers = [restarts.next_backoff(0) for _ in range(MAX_RESTARTS + 1)]
    waits = [wait for wait in answers if wait is not None]
    assert answers == [*waits, None]
    assert waits == sorted(waits)
    assert all(0 <= wait <= MAX_BACKOFF for wait in waits)


def test_progress_resets_the_count() -> None:
    restarts = Restarts()
    for step in range(1, 100):
        further, not_further = (
            restarts.next_backoff(step),
            restarts.next_backoff(step - 1),
        )  # never more than two in a row
        assert further is not None and not_further is not None and further == not_further - 1


def test_exit_codes_that_are_not_retried() -> None:
    assert [code for code in (None, 0, 1, 2, 63, 64, 75, 137) if is_user_error(code)] == [0, 1, 2, 63]
