"""Formats of what a run writes while it is active, for ``test_parsed_files.py``: log, commands, data, markers."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from data.fingerprint import fingerprint
from data.shard_file import write_shard
from data.shards import open_shards
from engine.checkpoints import checkpoint
from engine.events.commands import CommandReader
from engine.events.log import LogWriter, read_all
from engine.events.log_index import LogIndex
from engine.events.metrics import SERIES
from engine.events.requests import SetRequest
from engine.events.status import Launch, RunStatus
from engine.events.types import State
from engine.events.wire import RpcError, decode_call, decode_event, decode_message, encode_answer
from engine.runs.store import RunStore
from engine.train.data_check import recorded_data
from engine.train.edits import edited
from engine.train.oom.markers import pop_marker
from engine.train.replay import data_of_step
from profiles import registry
from profiles.errors import UserError
from profiles.spec import RunSpec
from tests.unit.mutants import Format, dump_json
from tui.app.state.packs import Pack, last_phase
from tui.app.state.run_view import RunView
from tui.cli.line_printer import LinePrinter
from tui.text.event_text import describe

VOCABULARY = 512
STEPS = 40
EVENTS: dict[str, dict[str, Any]] = {
    "first": {"kind": "start", "plan": {"loss": "fused"}, "params": 10, "device": "cpu", "versions": {"torch": "2"}},
    "val": {"kind": "val", "step": 0, "loss": 3.0, "bucket": "val", "tokens": 64, "sources": {"web": 2.0}},
    "step": {"kind": "step", "step": 1, "loss": 3.0, "lr": 1e-3, "tok_s": 10.5, "step_s": 0.5, "micro": 4, "accum": 2},
    "telemetry": {"kind": "telemetry", "rss": [1, 2], "ram_used": 3},
    "micro": {"kind": "edit", "id": "a" * 12, "ok": True, "changed": {"micro": [4, 2], "accum": [2, 4]}, "step": 1},
    "context": {"kind": "edit", "ok": True, "changed": {"context": [128, 64], "sequences": [8, 4]}, "step": 2},
    "spec": {"kind": "spec", "step": 1, "values": {"batch.micro": 2, "optim.lr_scale": 0.5}},
    "rewind": {"kind": "rewind", "step": 3, "cursor": {"epoch": 0, "position": 9, "seed": 1}, "why": "NaN"},
    "checkpoint": {"kind": "checkpoint", "ok": True, "path": "/x/ckpt_step_4", "step": 4, "bytes": 12, "seconds": 0.5},
    "alert": {"kind": "alert", "what": "nan", "text": "step 5"},
    "oom": {"kind": "oom", "where": "backward", "wanted": 1 << 30, "parts": {"weights": 1}, "action": "micro 2"},
    "memory": {"kind": "memory", "parts": {"weights": 12}, "measured": {"host": 14}, "micro": 2},
    "log": {"kind": "log", "level": "warning", "text": "said", "rank": 1},
    "exit": {"kind": "exit", "code": None, "signal": "SIGKILL", "why": "killed"},
    "again": {"kind": "start", "attempt": 2, "resumed_from": 4, "data": {"digest": "0" * 16, "new_segment": True}},
    "state": {"kind": "state", "phase": "paused", "reason": "", "id": "b" * 12},
}


def formats(root: Path) -> dict[str, Format]:
    """Write a valid file of every format below ``root``, the folder with the data of its run."""
    phase = root / "p"
    (phase / "train").mkdir(parents=True)
    write_shard(phase / "train" / "a.bin", np.arange(4096, dtype="<u2") % VOCABULARY)
    spec = registry.load("cpu_demo", [f"data.root={root}", "data.phase=p", f"steps={STEPS}", "val_every=0"])
    return {
        **_of_a_run(RunStore(root / "home"), spec, phase),
        **_of_the_app(root),
        "marker": _marker(root / "markers"),
        "pointer": _pointer(root / "checkpoints"),
    }


def dump_lines(content: Any) -> bytes:
    """Write a line of JSON for each value, as a log has them."""
    lines = content.values() if isinstance(content, dict) else [content]
    return b"".join(dump_json(line) + b"\n" for line in lines)


def _of_a_run(store: RunStore, spec: RunSpec, phase: Path) -> dict[str, Format]:
    run = store.create(spec, Launch(name="mine"), RunStatus(phase="running"))
    now = fingerprint(phase, {"train": open_shards(phase.parent, "p", "train", VOCABULARY).shards})
    record = run.data_path(now.digest)
    record.write_bytes(dump_json(now.to_dict()))
    other = store.create(spec, Launch(name="other"), RunStatus(phase="running"))
    log = LogWriter(other.log_path, 1)
    log.write(State(phase="running"))
    log.close()
    logged = {name: {"t": 1.5 + k, "attempt": 1, **event} for k, (name, event) in enumerate(EVENTS.items())}
    logged["first"] = {**logged["first"], "data": {"digest": now.digest}}
    set_micro = {"changes": {"micro": 2, "batch.context": 64}, "unlock": True, "force": True}
    commands = {
        "set": {"kind": "command", "t": 1.0, "id": "c" * 12, "request": {"method": "set", **set_micro}, "by": "app"},
        "stop": {"kind": "command", "t": 2.0, "id": "d" * 12, "request": {"method": "stop", "save": False}, "by": "me"},
    }

    def read_log() -> None:
        (run.path / "history.bin").unlink(missing_ok=True)
        index = LogIndex(run)
        index.catch_up()
        answer = index.history.answer(index.offset, list(SERIES), 100, None, None, marks=True)
        decode_message(encode_answer(1, answer))
        index.close()
        view, show = RunView(run.summary()), LinePrinter(8)
        view.load_history(answer)
        for at, event in read_all(run.log_path):
            view.apply(at, event)
            describe(event)
            show(event)
        view.eta()
        for step in (1, 3, STEPS):
            with contextlib.suppress(UserError):
                data_of_step(run, step)
        data_of_step(run, 5)

    def read_commands() -> None:
        for command in CommandReader(other.commands_path, other.log_path).poll():
            if isinstance(command.request, SetRequest):
                edited(spec, command.request.changes, unlock=command.request.unlock)

    def read_request() -> None:
        line = wire.read_bytes()
        with contextlib.suppress(ValueError):
            decode_message(line)
        decode_event(line)
        with contextlib.suppress(RpcError):
            call = decode_call(line)
            call.sender(), call.request()

    request = {"jsonrpc": "2.0", "id": 1, "method": "event", "params": {**logged["step"], "at": 7}}
    wire = phase.parent / "request"
    return {
        "log": Format(run.log_path, logged, dump_lines, read_log),
        "commands": Format(other.commands_path, commands, dump_lines, read_commands),
        "request": Format(wire, request, dump_json, read_request),
        "data record": Format(record, now.to_dict(), dump_json, lambda: recorded_data(run, now.digest)),
    }


def _of_the_app(root: Path) -> dict[str, Format]:
    """The file that says which process packs a phase."""
    process = {"pid": (1 << 22) + 1, "start_ticks": 1}
    pack = Pack(root, "q")

    def read() -> Any:
        pack.stop()
        return last_phase(root), pack.is_alive(), pack.command

    path = root / ".q-pack.json"
    return {"app pack": Format(path, {"process": process, "command": "mla-tui data pack"}, dump_json, read)}


def _marker(out: Path) -> Format:
    out.mkdir()
    valid = {"where": "backward", "wanted": 1 << 30, "text": "no memory", "micro": 2}

    def read() -> str:
        found = pop_marker(out, 4)
        return json.dumps([found.where, found.wanted, found.text]) if found else ""

    return Format(out / ".oom.1", valid, dump_json, read)


def _pointer(out: Path) -> Format:
    (out / "ckpt_step_5").mkdir(parents=True)
    dump = lambda content: str(content.get("to") if isinstance(content, dict) else content).encode("utf-8", "replace")  # noqa: E731
    return Format(out / "latest", {"to": "ckpt_step_5"}, dump, lambda: checkpoint.latest(out))
