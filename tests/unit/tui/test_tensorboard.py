"""The event files that ``mla-tui tensorboard`` writes, read back."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.events.log import LogWriter
from engine.events.types import Start, State, Step, Val
from engine.runs.store import RunStore
from tests.unit.tui.conftest import Make, step_record
from tui.cli.main import main
from tui.cli.tensorboard_file import EventFile, crc32c


def messages(content: bytes) -> Iterator[bytes]:
    """Yield the messages of a file whose lengths and checksums fit."""

    def masked(data: bytes) -> int:
        crc = crc32c(data)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    while content:
        (length,) = struct.unpack("<Q", content[:8])
        message, rest = content[12 : 12 + length], content[12 + length :]
        assert struct.unpack("<I", content[8:12])[0] == masked(content[:8])
        assert struct.unpack("<I", rest[:4])[0] == masked(message)
        yield message
        content = rest[4:]


def test_the_checksum_is_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_an_event_is_what_tensorflow_writes() -> None:
    stream = io.BytesIO()
    file = EventFile(stream, 1.0)
    file.add(2.0, 300, [("loss", 0.5)])
    file.restart(3.0, 7)
    version, scalar, restart = messages(stream.getvalue())
    assert version == b"\x09" + struct.pack("<d", 1.0) + b"\x1a\x0dbrain.Event:2"
    value = b"\x0a\x04loss\x15" + struct.pack("<f", 0.5)
    assert scalar == b"\x09" + struct.pack("<d", 2.0) + b"\x10\xac\x02\x2a\x0d\x0a\x0b" + value
    assert restart == b"\x09" + struct.pack("<d", 3.0) + b"\x10\x07\x3a\x02\x08\x01"


def test_a_run_is_written_with_its_restart(
    store: RunStore, make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, writer = make_run("one", 5, phase="running")
    writer.write(Val(step=5, loss=2.25))
    with contextlib.closing(LogWriter(run.log_path, attempt=2)) as second:
        second.write(Start(resumed_from=3))
        second.write(Step(**step_record(4, 9.0)))
    assert main(["tensorboard", "one", str(tmp_path / "tb")]) == 0
    out, err = capsys.readouterr()
    path = tmp_path / "tb" / "one" / f"events.out.tfevents.0.{run.id}"
    assert (out, err) == (f"{path}\n", "6 steps\n")
    found = list(messages(path.read_bytes()))
    assert len(found) == 1 + 5 + 1 + 1 + 1
    assert b"val_loss\x15" + struct.pack("<f", 2.25) in found[6]
    assert found[7].endswith(b"\x10\x04\x3a\x02\x08\x01")
    assert b"loss\x15" + struct.pack("<f", 9.0) in found[8] and b"mfu" not in found[8]
    again = path.read_bytes()
    assert main(["tensorboard", "one", str(tmp_path / "tb")]) == 0  # replaces it
    assert path.read_bytes()[40:] == again[40:]
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    events = accumulator.EventAccumulator(str(path.parent))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("loss")][-1] == (4, 9.0)


def test_an_active_run_is_followed_to_its_end(store: RunStore, make_run: Make, tmp_path: Path) -> None:
    run, writer = make_run("one", 2, phase="running")
    done: list[int] = []
    follow = threading.Thread(target=lambda: done.append(main(["tensorboard", "one", str(tmp_path), "--follow"])))
    follow.start()
    writer.write(Step(**step_record(3)))
    writer.write(State(phase="finished", reason=""))
    follow.join(60)
    assert done == [0]
    assert len(list(messages((tmp_path / "one" / f"events.out.tfevents.0.{run.id}").read_bytes()))) == 4


def test_a_folder_that_cannot_be_written_is_named(
    store: RunStore, make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("one", 2)
    (tmp_path / "file").write_text("")
    assert main(["tensorboard", "one", str(tmp_path / "file" / "tb")]) == 1
    err = capsys.readouterr().err
    assert "; name another folder" in err and err.count("\n") == 1
