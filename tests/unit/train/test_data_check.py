"""A run that continues has the data it has read so far, or its user has accepted the change."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.fingerprint import Fingerprint
from data.splits import fingerprint_of, open_splits
from engine.checkpoints import checkpoint
from engine.checkpoints.resume_source import check_same_data, checkpoint_data
from engine.events import commands
from engine.events.exit_codes import EXIT_NEEDS_ATTENTION, is_user_error
from engine.events.requests import ResumeRequest
from engine.events.status import Launch, RunStatus
from engine.host.files import read_json, write_json
from engine.runs.store import RunStore
from engine.train.data_check import check_data_is_there, check_data_of_run
from engine.train.main import exit_status_of
from engine.train.run_state import RunState
from profiles.errors import NeedsAttentionError, UserError
from profiles.spec import RunSpec
from tests.unit.train.tiny_runs import MakeSpec


def data_fingerprint(spec: RunSpec) -> Fingerprint:
    return fingerprint_of(spec, open_splits(spec))


class Case:
    """A run with a checkpoint, and its shards."""

    def __init__(self, spec: RunSpec, folder: Path) -> None:
        self.spec = spec
        self.shards = Path(spec.data.root) / "phase1" / "train"
        tensors = {"model": {"w": torch.zeros(1)}, "optimizer": {"m": torch.zeros(1)}}
        facts = {"step": 7, "val_loss": None, **RunState(spec).to_facts()}
        self.saved, _ = checkpoint.save(folder / "out", 7, tensors, facts, folder / "none")
        self.run = RunStore(folder / "home").create(spec, Launch(), RunStatus(phase="running", attempt=1))

    def add_shard(self, name: str) -> None:
        np.arange(500, dtype="<u2").tofile(self.shards / name)

    def check(self) -> bool:
        """As a restart from the checkpoint does; then it logs its start."""
        now = data_fingerprint(self.spec)
        before = check_data_of_run(self.run, now, self.saved)
        write_json(self.run.state_path, {**read_json(self.run.state_path), "data": now.digest})
        return before is not None


@pytest.fixture
def case(nano: MakeSpec, tmp_path: Path) -> Case:
    return Case(nano(), tmp_path)


def test_the_same_data_is_no_change(case: Case) -> None:
    assert not case.check() and not case.check()


def test_a_change_is_accepted_once_and_another_one_is_asked_for_again(case: Case) -> None:
    case.check()
    case.add_shard("a.bin")
    with pytest.raises(NeedsAttentionError, match=r"^the data has changed: train/a.bin is new$"):
        case.check()
    accepted = commands.append(case.run.commands_path, ResumeRequest(data_changed=True), "test")
    assert case.check()
    case.run.log_path.write_text(f'{{"t": 1, "kind": "state", "attempt": 1, "phase": "running", "id": "{accepted}"}}\n')
    assert case.check()  # a restart before the next checkpoint: accepted already, still a new segment
    case.add_shard("b.bin")
    with pytest.raises(NeedsAttentionError, match=r"changed: train/b.bin is new$"):
        case.check()
    for name in ("a.bin", "b.bin"):
        (case.shards / name).unlink()
    assert not case.check()  # that of the checkpoint again


def test_a_lost_record_of_the_data_is_no_consent(case: Case) -> None:
    case.saved = None  # type: ignore[assignment]  # the run has not saved yet
    case.check()
    case.add_shard("a.bin")
    for record in case.run.path.glob("data-*.json"):
        record.unlink()
    with pytest.raises(NeedsAttentionError, match="are not those that the run has read"):
        case.check()


def test_a_launch_from_a_checkpoint_asks_too(case: Case) -> None:
    case.add_shard("a.bin")
    now = data_fingerprint(case.spec)
    with pytest.raises(UserError, match=r"^--resume .*/ckpt_step_7: .* train/a.bin is new; .* --data-changed$"):
        check_same_data(now, case.saved, accepted=False)
    assert check_same_data(now, case.saved, accepted=True)


def test_data_that_is_gone_needs_attention(case: Case) -> None:
    (case.shards.parent / "val").rename(case.shards.parent / "elsewhere")
    code, why = exit_status_of(lambda: check_data_is_there(case.spec))
    assert code == EXIT_NEEDS_ATTENTION and not is_user_error(code)
    assert str(case.shards.parent) in why


def test_files_that_come_while_a_run_trains_are_not_read(case: Case, nano: MakeSpec) -> None:
    state = RunState(case.spec)
    case.add_shard("0.bin")  # before the others
    read = [state.read_batch()[0]]
    state.set_spec(nano("context=16"))  # an edit windows the data again
    assert state.data == checkpoint_data(case.saved)
    read.append(state.read_batch()[0])
    assert all(int(batch.max()) < 256 for batch in read)
