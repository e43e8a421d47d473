"""The reverse reader: the log is read in blocks, in both directions, and both give the same events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.events import reverse_reader
from engine.events.log import read_all
from engine.events.reverse_reader import METRICS, events_before, events_from
from engine.events.types import Log, Step
from engine.host.struct_json import encode
from tests.events import as_json

lines = st.one_of(
    st.builds(lambda n: encode(Step(1.0, step=n)).decode(), st.integers(0, 99)),
    st.builds(lambda s: encode(Log(1.0, text=s)).decode(), st.text(max_size=40)),
    st.builds(lambda s: json.dumps(as_json(Log(1.0, text='says "kind":"' + s))), st.text(max_size=300)),
    st.sampled_from(["", "{torn", '{"kind":"state","t":1,"phase":"running"}', '{"kind":"telemetry","t":1}', "x" * 700]),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(lines, max_size=40), st.integers(1, 300), st.booleans(), st.data())
def test_both_directions_read_the_same_events(
    tmp_path: Path, texts: list[str], block: int, torn: bool, data: st.DataObject
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes("\n".join([*texts, "" if not torn else '{"kind":"lo']).encode())
    offsets = [0]
    for text in texts:
        offsets.append(offsets[-1] + len(text.encode()) + 1)
    start, end = sorted((data.draw(st.sampled_from(offsets)), data.draw(st.sampled_from(offsets))))
    truth = [(at, r) for at, r in read_all(path) if not isinstance(r, METRICS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reverse_reader, "BLOCK", block)
        back = [pair for _, events in events_before(path, end) for pair in events]
        assert back[::-1] == [pair for pair in truth if pair[0] < end]
        on = [pair for _, events in events_from(path, start, end) for pair in events]
        assert on == [pair for pair in truth if start <= pair[0] < end]


def test_a_missing_log_has_no_events(tmp_path: Path) -> None:
    assert list(events_before(tmp_path / "none", 100)) == []
    assert list(events_from(tmp_path / "none", 0, 100)) == []
