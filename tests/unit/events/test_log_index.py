"""The log index: loads the cache, reads the rest of the log, and gives the same result with any damaged cache."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from engine.events import log as log_module
from engine.events import log_index as log_index_module
from engine.events.decode import decode
from engine.events.log import LogWriter
from engine.events.log_index import LogIndex
from engine.events.metrics import SERIES
from engine.events.run_dir import RunDir
from engine.events.status import RunStatus
from engine.events.types import Start, State, Step, Telemetry
from engine.host.struct_json import write_struct
from tests.events import points

if TYPE_CHECKING:
    from tests.unit.conftest import Make

STEPS = 300


@pytest.fixture
def run(make_run: Make) -> RunDir:
    """A run that was restarted once, with a cache of all but its last records."""
    run = make_run()
    log = LogWriter(run.log_path, 1)
    log.write(Start(resumed_from=None))
    for step in range(1, STEPS + 1):
        log.write(Step(step=step, loss=1 / step, tok_s=100.0 + step, host_states=1 << 30))
    log.write(Telemetry(device_used=[1, 2], ram_used=[3, 4]))
    LogWriter(run.log_path, 2).write(Start(resumed_from=STEPS - 20))
    open_index(run).save()
    log = LogWriter(run.log_path, 2)
    for step in range(STEPS - 19, STEPS + 1):
        log.write(Step(step=step, loss=2.0, tok_s=1.0))
    log.write(State(phase="paused", reason="asked"))
    return run


def open_index(run: RunDir) -> LogIndex:
    log_index = LogIndex(run)
    log_index.catch_up()
    return log_index


def all_series(log_index: LogIndex) -> dict[str, Any]:
    return {name: points(found) for name, found in log_index.history.query(list(SERIES), 1 << 20).items()}


def from_log_only(run: RunDir) -> dict[str, Any]:
    """Return the series built from the log without the cache."""
    cache = run.path / "history.bin"
    away = cache.with_name("away")
    if cache.exists():
        cache.rename(away)
    try:
        log_index = open_index(run)
    finally:
        if away.exists():
            away.rename(cache)
    assert log_index.warnings == []
    return all_series(log_index)


def test_only_what_the_cache_does_not_cover_is_read(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, first = from_log_only(run), open_index(run)
    assert all_series(first) == truth
    assert truth["loss"][-1] == [STEPS, 2, 2, 2]
    assert (first.state.phase, first.state.step, first.warnings) == ("paused", STEPS, [])
    first.save()
    write_struct(run.state_path, first.state)
    parsed: list[bytes] = []

    def noted(line: bytes) -> Any:
        parsed.append(line)
        return decode(line)

    monkeypatch.setattr(log_module, "decode", noted)
    again = open_index(run)
    assert (all_series(again), again.state, again.offset) == (truth, first.state, run.log_path.stat().st_size)
    assert parsed == []


def test_state_and_cache_may_cover_different_offsets(run: RunDir) -> None:
    truth = open_index(run)
    half = LogIndex(run)
    half.poll()
    for at in (0, 1, half.offset // 2, half.offset, half.offset + 10_000):
        write_struct(run.state_path, RunStatus(phase="running", at=at) if at != half.offset else half.state)
        found = open_index(run)
        assert all_series(found) == all_series(truth)
        if at not in (1, half.offset // 2):
            assert found.state.step == STEPS
            assert found.state.phase == "paused"


def test_a_restart_after_the_cache_was_saved_removes_repeated_steps(run: RunDir) -> None:
    open_index(run).save()
    log = LogWriter(run.log_path, 3)
    log.write(Start(resumed_from=7))
    log.write(Step(step=8, loss=3.0))
    found = open_index(run)
    assert all_series(found) == from_log_only(run)
    assert all_series(found)["loss"][-2:] == [[7, 1 / 7, 1 / 7, 1 / 7], [8, 3, 3, 3]]


def flip(content: bytes, rng: random.Random) -> bytes:
    bit = rng.randrange(8 * len(content))
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a flipped bit": flip,
    "a torn end": lambda content, rng: content[: rng.randrange(len(content))],
    "nothing in it": lambda content, rng: b"",
    "zeros": lambda content, rng: bytes(len(content)),
    "more than it": lambda content, rng: content + b"x",
    "another file": lambda content, rng: b"\x7fELF" + rng.randbytes(5000),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_rebuilt_from_the_log_with_a_warning(run: RunDir, damage: str) -> None:
    cache, truth = run.path / "history.bin", from_log_only(run)
    whole = cache.read_bytes()
    seed = random.SystemRandom().randrange(1 << 32)
    rng = random.Random(seed)
    for _ in range(40):
        cache.write_bytes(DAMAGE[damage](whole, rng))
        found = open_index(run)
        assert all_series(found) == truth, f"seed {seed}"
        assert len(found.warnings) == 1 and "history.bin" in found.warnings[0], f"seed {seed}"
    found.save()
    assert open_index(run).warnings == []


def test_the_cache_of_another_log_is_not_used(run: RunDir, make_run: Make) -> None:
    open_index(run).save()
    other = make_run()
    log = LogWriter(other.log_path, 1)
    for step in range(1, 2 * STEPS):
        log.write(Step(step=step, loss=9.0, tok_s=9.0))
    (other.path / "history.bin").write_bytes((run.path / "history.bin").read_bytes())
    found = open_index(other)
    assert all_series(found)["loss"][0] == [1, 9, 9, 9]
    assert "made from another log" in found.warnings[0]


def test_a_cache_longer_than_the_log_is_not_used(run: RunDir) -> None:
    open_index(run).save()
    size = run.log_path.stat().st_size
    os.truncate(run.log_path, size // 3)
    found = open_index(run)
    assert all_series(found) == from_log_only(run)
    assert "another log" in found.warnings[0]


def test_damaged_lines_are_reported_once(run: RunDir) -> None:
    with open(run.log_path, "ab") as file:
        first = file.tell()
        file.write(b'{"t":1,"kind":"step","step":"x"}\n#\n')
    found = open_index(run)
    assert found.warnings == [f"events.jsonl: skipped 2 or more damaged lines, the first at byte {first}"]
    found.save()
    write_struct(run.state_path, found.state)
    assert open_index(run).warnings == []


def test_a_cache_that_cannot_be_written_is_ignored(run: RunDir) -> None:
    (run.path / "history.bin").unlink()
    (run.path / "history.bin").mkdir()
    found = open_index(run)
    found.save()
    assert all_series(found)["loss"][-1] == [STEPS, 2, 2, 2]
    assert not list(run.path.glob(".history*"))


def test_the_cache_is_saved_periodically(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_index_module, "SAVE_EVERY", 2000)
    log_index, cache = open_index(run), run.path / "history.bin"
    log_index.save()
    written, log = [], LogWriter(run.log_path, 2)
    for step in range(STEPS + 1, STEPS + 101):
        log.write(Step(step=step, loss=1.0))
        log_index.poll()
        log_index.save_if_due()
        written.append(cache.stat().st_ino)
    assert 2 <= len(set(written)) < 20
