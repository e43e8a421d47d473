"""No other user can read a run's state or connect to it, and other users' files are never taken for ours."""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.events import wire
from engine.events.log import LogWriter
from engine.events.log_index import LogIndex
from engine.events.requests import HelloRequest
from engine.events.run_dir import RunDir
from engine.events.status import Launch, RunStatus
from engine.events.types import Event, State
from engine.host import private_dirs
from engine.host.files import write_json
from engine.host.process import spawn_detached
from engine.runs.server import Server
from engine.runs.store import RunStore
from profiles import registry
from profiles.errors import UserError

if TYPE_CHECKING:
    from tests.unit.conftest import Make

NOBODY = 65534
ROOT = Path(__file__).parents[3]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_nobody(*attempts: Callable[[], object]) -> list[str]:
    """Make each attempt as another user; return the names of the errors, or what the attempts returned."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        results = []
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            for attempt in attempts:
                try:
                    results.append(repr(attempt()))
                except OSError as error:
                    results.append(type(error).__name__)
        finally:
            os.write(writer, json.dumps(results).encode())
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answers: list[str] = json.loads(pipe.read())
    os.waitpid(child, 0)
    return answers


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, like /tmp or a shared disk; the parents of ``tmp_path`` are closed."""
    folder = Path(tempfile.mkdtemp(prefix="mla-tui-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def create(store: RunStore) -> RunDir:
    return store.create(registry.load("cpu_demo"), Launch(), RunStatus(phase="running"))


def refusal(attempt: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        attempt()
    (line,) = str(caught.value).splitlines()
    return line


@as_root
async def test_another_user_can_neither_list_nor_read_nor_connect(open_folder: Path) -> None:
    store = RunStore(open_folder / "home")
    run = create(store)
    LogWriter(run.log_path, 1).write(State(phase="running", reason=""))
    server = Server(_Run(run))
    await server.start()

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(run.socket_path))

    tried = (
        lambda: os.listdir(store.home),
        lambda: os.listdir(run.path),
        run.log_path.read_bytes,
        run.state_path.read_bytes,
        connect,
    )
    assert as_nobody(lambda: os.listdir(open_folder)) == ["['home']"]
    assert as_nobody(*tried) == ["PermissionError"] * 5
    # Each file is private too, in case the user opens the folders.
    for folder in (store.home, store.runs, run.path):
        folder.chmod(0o755)
    assert as_nobody(*tried[2:]) == ["PermissionError"] * 3
    await server.close()


class _Run:
    """A run for the server to serve; nothing may be asked of it."""

    def __init__(self, run: RunDir) -> None:
        self.run_dir = run
        self.index = LogIndex(run)

    def request_stop(self, id: str) -> None:
        raise AssertionError

    def kill_trainer(self, id: str) -> None:
        raise AssertionError

    def on_event(self, event: Event) -> None:
        raise AssertionError


@as_root
async def test_another_user_who_can_connect_gets_no_answer(open_folder: Path) -> None:
    import asyncio

    store = RunStore(open_folder / "home")
    run = create(store)
    server = Server(_Run(run))
    await server.start()
    for path, bits in ((store.home, 0o755), (store.runs, 0o755), (run.path, 0o755), (run.socket_path, 0o666)):
        path.chmod(bits)

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(run.socket_path))
            client.sendall(wire.encode_request(1, HelloRequest()))
            return client.recv(1 << 16)

    (answer,) = await asyncio.to_thread(as_nobody, ask)
    assert answer in ("b''", "ConnectionResetError", "BrokenPipeError")
    assert b"version" in await asyncio.to_thread(ask)
    await server.close()


@pytest.mark.parametrize("which", ["home", "runs"])
def test_a_symbolic_link_is_no_state_directory(store: RunStore, tmp_path: Path, which: str) -> None:
    place = store.home if which == "home" else store.runs
    place.parent.mkdir(exist_ok=True)
    (tmp_path / "elsewhere").mkdir()
    place.symlink_to(tmp_path / "elsewhere")
    for attempt in (store.ids, store.summaries, lambda: store.find("latest"), lambda: create(store)):
        assert refusal(attempt).startswith(f"{place}: is a symbolic link")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_dangling_link_is_no_state_directory(store: RunStore) -> None:
    store.home.symlink_to("nowhere")
    assert "is a symbolic link" in refusal(lambda: create(store))


def test_a_linked_run_is_ignored_and_named(store: RunStore, make_run: Make, tmp_path: Path) -> None:
    run, other = make_run("mine"), make_run("other")
    os.rename(other.path, tmp_path / other.id)
    other.path.symlink_to(tmp_path / other.id)
    assert store.ids() == [run.id]
    assert refusal(lambda: store.find(other.id)).startswith(f"{other.path}: is a symbolic link")
    assert [line.partition(":")[0] for line in store.foreign_entries()] == [str(other.path)]


@as_root
@pytest.mark.parametrize("which", ["home", "runs", "run"])
def test_another_users_directory_is_refused(store: RunStore, make_run: Make, which: str) -> None:
    run = make_run()
    place = {"home": store.home, "runs": store.runs, "run": run.path}[which]
    os.chown(place, NOBODY, NOBODY)
    message = refusal(lambda: store.find(run.id))
    assert message.startswith(f"{place}: belongs to nobody, not to you; set MLA_TUI_HOME to")
    if which == "run":
        assert store.ids() == []
    else:
        assert refusal(lambda: create(store)) == message


def test_a_parent_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "disk")
    store = RunStore(tmp_path / "state" / "mla-tui")
    run = create(store)
    assert store.find("latest").id == run.id


def test_an_open_directory_is_closed_when_a_run_is_created(store: RunStore) -> None:
    store.runs.mkdir(parents=True)
    for folder in (store.home, store.runs):
        folder.chmod(0o775)
    assert store.ids() == []  # reading changes nothing
    assert mode(store.home) == 0o775
    run = create(store)
    assert [mode(folder) for folder in (store.home, store.runs, run.path)] == [0o700] * 3


def test_created_parents_have_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        private_dirs.make_private_dir(tmp_path / "a" / "b", parents=True)
    finally:
        os.umask(before)
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (0o755, 0o700)


def test_only_the_owner_can_read_the_files_of_a_run(make_run: Make) -> None:
    before = os.umask(0)
    try:
        run = make_run()
        LogWriter(run.log_path, 1).write(State(phase="running", reason=""))
        write_json(run.trainer_identity_path, {})
        spawn_detached(["true"], run.console_path, run.path).wait()
    finally:
        os.umask(before)
    assert {path.name: oct(mode(path)) for path in run.path.iterdir() if mode(path) & 0o077} == {}


# -- nothing on disk is code


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: word.value for word in node.keywords if word.arg}


def unsafe(source: str) -> list[str]:
    """Return what in ``source`` reads, or could read, a pickle from disk."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [
            m for m in modules if m.partition(".")[0] in ("pickle", "cPickle", "dill", "shelve", "marshal", "joblib")
        ]
    for name, words in calls(tree):
        safely = words.get("weights_only")
        if name == "torch.load" and not (isinstance(safely, ast.Constant) and safely.value is True):
            found.append("torch.load without weights_only=True")
        if "allow_pickle" in words:
            found.append(f"{name} with allow_pickle")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_the_search_finds_unsafe_calls(source: str) -> None:
    assert unsafe(source)


def test_nothing_is_unpickled() -> None:
    files = [
        path for package in ("tui", "engine", "model", "data", "profiles") for path in (ROOT / package).rglob("*.py")
    ]
    assert len(files) > 50
    assert {str(path.relative_to(ROOT)): found for path in files if (found := unsafe(path.read_text()))} == {}
