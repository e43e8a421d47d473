"""Every format that the program parses: a valid file, how to change it, and the functions that read it.

Used by ``test_parsed_files.py``. A mutant is a valid file with some fields deleted, renamed, nested or given another
value, or with changed bytes; sometimes it is no such file at all.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from data.cursor import Cursor
from data.fingerprint import fingerprint
from data.pack.journal import Progress, StateFolder
from data.pack.request import Request
from data.pack.target import check_target, recorded_val
from data.shard_file import write_shard
from data.shards import open_shards
from data.summary import token_texts
from engine.checkpoints import checkpoint
from engine.checkpoints.evals import read_results
from engine.checkpoints.inventory import inventory
from engine.checkpoints.resume_source import checkpoint_data
from engine.events.labels import FILE, read_labels
from engine.events.log import LogWriter
from engine.events.log_index import LogIndex
from engine.events.status import Launch, RunStatus
from engine.events.types import State, Step
from engine.execution.deepspeed_config import deepspeed_config, generate
from engine.host.process import is_alive
from engine.host.struct_json import encode, to_dict
from engine.memory.calibration import MeasuredPeak, calibrate, load_past_runs, record_run
from engine.memory.hardware import Hardware, detect_hardware
from engine.runs import hooks
from engine.runs.store import RunStore
from engine.train.models import pretrained
from model.hf import to_hf_config
from model.shapes import parameter_shapes
from profiles import registry
from profiles.model_config import NAMED_MODELS
from profiles.spec import RunSpec
from tui.app import settings
from tui.app.state.spec_diff import differences, flat_spec
from tui.text.eval_text import result_lines

SHAPE = replace(NAMED_MODELS["mla-tiny"], hidden_size=32, num_hidden_layers=1, intermediate_size=64, vocab_size=512)
Dump = Callable[[Any], bytes]


@dataclass(frozen=True, repr=False)
class Format:
    """``read`` must return, or raise ``UserError``; ``messages``: it returns lines for the user."""

    path: Path
    valid: dict[str, Any]
    dump: Dump
    read: Callable[[], Any]
    messages: bool = False


def dump_json(content: Any) -> bytes:
    return json.dumps(content).encode()


def dump_toml(content: Any) -> bytes:
    """Write tables of the first level as such, all others inline. What TOML does not have becomes something like it."""
    if not isinstance(content, dict):
        return _toml(content).encode()
    plain = [f"{_key(key)} = {_toml(value)}" for key, value in content.items() if not isinstance(value, dict)]
    for table, inner in content.items():
        if isinstance(inner, dict):
            plain += [f"[{_key(table)}]", *(f"{_key(key)} = {_toml(value)}" for key, value in inner.items())]
    return "\n".join(plain).encode("utf-8", "surrogatepass")


def _key(key: str) -> str:
    return key if key.isascii() and key.isidentifier() else json.dumps(key)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value)  # inf and nan are TOML
    return json.dumps(value)


def dump_header(content: Any) -> bytes:
    """Write the header of a safetensors file, and as many bytes as the valid one has."""
    text = json.dumps(content).encode()
    size = 4 * sum(math.prod(shape) for shape in parameter_shapes(SHAPE).values())
    return len(text).to_bytes(8, "little") + text + b"\0" * size


def deep(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


JUNK = [
    *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64 + 1, -(2**63), 10**400),
    *(0.5, -0.0, 1e308, 5e-324, float("inf"), float("nan")),
    *("", "x" * 5000, "a\nb\x1b[2J", "\ud800", "\udcff", "a\0b", "\u202e", "../x", "-x", "/", ".", "latest", "7", "é"),
    *([], {}, [[]], [None], {"": 0}, deep(20), deep(31), deep(40), deep(100), ["x"] * 300),
]
KEYS = ["", "x\ny", "\x1b", "a.b", "__proto__", "k" * 3000, "é", "start", "name"]
RAW = [b"", b"\0" * 64, b"[" * 9000, b'{"a":' * 9000, b"9" * 9000, b"a." * 9000, b"\xff\xfe{}", b"\xef\xbb\xbf{}"]


def mutants(form: Format) -> SearchStrategy[bytes]:
    """Valid files with up to three fields deleted, renamed, nested or replaced, or with changed bytes; or no such file.

    The simplest is the valid file itself, so a failing one shrinks to the few changes that matter.
    """
    edits = st.lists(EDITS, max_size=3).map(lambda edits: form.dump(_edited(form.valid, edits)))
    at = st.integers(0, 1 << 16)
    byte = st.builds(_with_other_bit, edits, at, st.integers(0, 7))
    cut = st.builds(lambda data, end: data[: end % (len(data) + 1)], edits, at)
    twice = st.builds(
        lambda data, end, start: data[: end % (len(data) + 1)] + data[start % (len(data) + 1) :], edits, at, at
    )
    return st.one_of(edits, edits, edits, byte, cut, twice, st.sampled_from(RAW) | st.binary(max_size=64))


@dataclass(frozen=True)
class Edit:
    """A change of one place, counted among all of a file."""

    place: int
    what: str
    key: str
    junk: Any


WHAT = ("replace", "replace", "replace", "delete", "rename", "add", "list", "table")
DRAWN = (
    *(st.integers(-9, 99), st.integers(0, 1 << 60), st.floats(-1, 1e6)),
    st.characters(exclude_categories=()).map(lambda character: 3 * character),
)
EDITS = st.builds(
    Edit,
    *(st.integers(0, 399), st.sampled_from(WHAT), st.sampled_from(KEYS)),
    st.one_of(st.sampled_from(range(len(JUNK))).map(lambda number: JUNK[number]), *DRAWN),
)


def _with_other_bit(data: bytes, at: int, bit: int) -> bytes:
    at %= max(len(data), 1)
    return data[:at] + bytes(byte ^ 1 << bit for byte in data[at : at + 1]) + data[at + 1 :]


def _edited(content: Any, edits: list[Edit]) -> Any:
    content = copy.deepcopy(content)
    for edit in edits:
        places = list(_places(content))
        if not places:
            return copy.deepcopy(edit.junk)
        holder, key = places[edit.place % len(places)]
        match edit.what:
            case "delete":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[edit.key] = holder.pop(key)
            case "add" if isinstance(holder, dict):
                holder[edit.key] = copy.deepcopy(edit.junk)
            case "list":
                holder[key] = [holder[key]]
            case "table":
                holder[key] = {"a": holder[key]}
            case _:
                holder[key] = copy.deepcopy(edit.junk)
    return content


def _places(content: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    if depth < 6 and isinstance(content, (dict, list)):
        for key in list(content)[:40] if isinstance(content, dict) else range(min(len(content), 8)):
            yield content, key
            yield from _places(content[key], depth + 1)


def formats(root: Path) -> dict[str, Format]:
    """Write a valid file of every format below ``root``; XDG_CONFIG_HOME and MLA_TUI_HOME are there already."""
    spec = registry.load("cpu_demo")
    return {
        **_toml_formats(root),
        **_run_formats(RunStore(), spec),
        **_checkpoint_formats(root / "out", spec),
        **_data_formats(root / "data"),
        **_hugging_face_formats(root / "hf"),
        "deepspeed": _deepspeed(root / "ds.json"),
        "calibration": _calibration(root / "calibration.json", spec),
    }


def _toml_formats(root: Path) -> dict[str, Format]:
    tables = {key: value for key, value in registry.load("cpu_demo").to_dict().items() if isinstance(value, dict)}
    tables["model"] = {key: value for key, value in tables["model"].items() if value is not None}
    tables["launch"] = {"nodes": 1, "hosts": "a,b"}
    profile = {"extends": "cpu_demo", "description": "a profile", **tables}
    on_event = {"finished": "echo 1", "failed": "echo 2", "oom": "echo 3"}
    app = {
        "theme": "dark",
        "refresh": 2.0,
        "low_bandwidth": True,
        "bell": False,
        "keys": {"maximize": "Z", "help": "F1"},
    }
    mine, mixed = root / "mine.toml", root / "mixed.toml"
    mixture = {"extends": "cpu_demo", "data": {"root": "/x", "documents": "mask", "sources": {"web": 0.7, "code": 3}}}
    return {
        "profile": Format(mine, profile, dump_toml, lambda: registry.load(str(mine))),
        "mixture": Format(mixed, mixture, dump_toml, lambda: registry.load(str(mixed))),
        "hooks": Format(hooks.hooks_path(), {"on_event": on_event}, dump_toml, hooks.load),
        "settings": Format(settings.settings_path(), app, dump_toml, lambda: settings.load()[1], messages=True),
    }


def _run_formats(store: RunStore, spec: RunSpec) -> dict[str, Format]:
    state = RunStatus(phase="running", profile="cpu_demo", attempt=1, host="h", boot="b", started=1.5, steps=3)
    process = {"pid": (1 << 22) + 1, "start_ticks": 1, "attempt": 1}
    run = store.create(spec, Launch(name="mine", share_device=True), state)
    log = LogWriter(run.log_path, 1)
    log.write(State(phase="running"))
    log.write(Step(step=1, loss=2.0))
    log.close()
    labels = {"tags": ["moe", "sweep"], "note": "best so far", "name": "shown"}
    last = {"code": 1, "signal": None, "why": "", "attempt": 1}
    facts = {**json.loads(run.state_path.read_text()), "supervisor": process, "trainer": process, "exit": last}
    facts |= {"at": 0, "hooks_at": 0, "live": {"batch.micro": 4}, "checkpoint": "/x/ckpt_step_1", "step": 1}

    def read_state() -> Any:
        index = LogIndex(run)
        index.catch_up()
        index.close()
        hooks.has_pending(run)
        store.find(run.id)
        return json.dumps([to_dict(summary) for summary in store.summaries()]), run.live_spec()

    def read_spec() -> Any:
        differences([flat_spec(run), {}])
        return encode(run.summary()), run.name, inventory(run)

    return {
        "state": Format(run.state_path, facts, dump_json, read_state),
        "spec": Format(run.path / "spec.json", json.loads((run.path / "spec.json").read_text()), dump_json, read_spec),
        "labels": Format(run.path / FILE, labels, dump_json, lambda: encode(read_labels(run.path))),
        "trainer": Format(run.trainer_identity_path, process, dump_json, lambda: is_alive(run.trainer_identity())),
    }


def _checkpoint_formats(out: Path, spec: RunSpec) -> dict[str, Format]:
    state = {"model": {"w": torch.ones(2)}, "optimizer": {"step": torch.ones(1)}}
    cursor = {**Cursor(1, 256).to_dict(), "segments": [{"context": 128, "sequences": 5}]}
    cursor["sources"] = [{"source": "web", "epoch": 1, "position": 3}]
    shard = {"name": "web/a.bin", "bytes": 4, "tokens": 2, "dtype": "uint16", "header": 0}
    shard |= {"blocks": 64, "sampled": "0", "sha256": ""}
    facts = {"spec": spec.to_dict(), "cursor": cursor, "val_loss": 2.5, "best": [2.5, 5], "tokens": 9}
    facts |= {
        "versions": {"mla-tui": "0.2.0"},
        "data": {"splits": {"train": [shard]}, "tokenizer": "", "weights": {"web": 1.5}},
    }
    path, _ = checkpoint.save(out, 5, state, facts, None)

    def dump_facts(content: Any) -> bytes:
        """Write them with a manifest whose checksum matches."""
        data = dump_json(content)
        manifest = json.loads(whole)
        manifest["files"]["trainer.json"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (path / "manifest.json").write_text(json.dumps(manifest))
        return data

    def read() -> Any:
        checkpoint.latest(out), checkpoint.best_step(out)
        facts = checkpoint.metadata(path)
        checkpoint.verify(path)
        read_data, read_spec = checkpoint_data(path), checkpoint.spec_of(path)
        return read_data, read_spec, Cursor.from_dict(facts.get("cursor")).tokens

    whole = (path / "manifest.json").read_bytes()
    evals = {"results": [{"name": "a", "format": "arc", "metrics": {"acc": 0.5, "acc_stderr": 0.1}, "examples": 4}]}
    return {
        "facts": Format(path / "trainer.json", json.loads((path / "trainer.json").read_bytes()), dump_facts, read),
        "manifest": Format(path / "manifest.json", json.loads(whole), dump_json, read),
        "evals": Format(path / "evals.json", evals, dump_json, lambda: result_lines(read_results(path))),
    }


def _data_formats(root: Path) -> dict[str, Format]:
    phase = root / "p"
    (phase / "train").mkdir(parents=True)
    write_shard(phase / "train" / "a.bin", torch.arange(64, dtype=torch.int32).numpy().astype("uint16"))
    manifest = {"dtype": "uint16", "vocab_size": 300, "name": "x", "sha256": {"train/a.bin": "0"}}
    vocab = {chr(97 + i): i for i in range(26)} | {"ab": 26}
    tokenizer = {
        **{"version": "1.0", "truncation": None, "padding": None, "normalizer": None},
        "added_tokens": [
            {
                **{"id": 27, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False},
                **{"normalized": False, "special": True},
            }
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            **{"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None},
            **{"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False},
            **{"vocab": vocab, "merges": [["a", "b"]]},
        },
    }

    def read_data() -> Any:
        return fingerprint(phase, {"train": open_shards(root, "p", "train", 512).shards})

    return {
        "dataset": Format(phase / "dataset.json", manifest, dump_json, read_data),
        **_pack_formats(root / "packed"),
        "tokenizer": Format(root / "tokenizer.json", tokenizer, dump_json, lambda: token_texts(root, [0, 26, 27, 99])),
    }


def _pack_formats(root: Path) -> dict[str, Format]:
    """A data set that a pack adds to, and the journal of an unfinished one."""
    phase, journal = root / "p", root / ".q-packing" / "progress.json"
    phase.mkdir(parents=True)
    (phase / "tokenizer.json").write_text("{}")
    (phase / "documents.blake2b").write_bytes(bytes(48))
    (phase / "sources.jsonl").write_text("")
    StateFolder(journal.parent).close()
    counts = {"documents": 1, "tokens": 9, "bytes": 30, "bytes_per_token": 3.3}
    manifest = {
        **{"kind": "text", "vocab_size": 300, "dtype": "uint16", "eot_id": 0, "eot": "<|endoftext|>"},
        "tokenizer": {"file": "tokenizer.json", "sha256": hashlib.sha256(b"{}").hexdigest(), "pattern": None},
        "splits": {"train": {**counts, "documents": 2}, "val": counts},
        "sources": [{"path": "texts", "files": 3, "bytes": 90, "documents": 3}],
        "packs": [{"sources": ["texts"], "options": {"val": 0.5}}],
        "sha256": {"train/p-train-000.bin": "0"},
    }
    skipped = {"empty": {"count": 2, "files": ["a.txt"]}}
    progress = {
        **Progress(given=[{"files": 1, "bytes": 2, "documents": 1}]).to_dict(),
        "format": 2,
        "skipped": skipped,
        "position": [1, 2],
    }

    def append() -> None:
        existing = check_target(Request(("texts",), root, "p", append=True))
        recorded_val(existing.manifest if existing else {})

    def read_journal() -> None:
        state = StateFolder(journal.parent)
        try:
            Progress.from_dict(state.read(journal.name) or {}, journal)
        finally:
            state.close()

    return {
        "packed": Format(phase / "dataset.json", manifest, dump_json, append),
        "journal": Format(journal, progress, dump_json, read_journal),
    }


def _hugging_face_formats(folder: Path) -> dict[str, Format]:
    folder.mkdir()
    entries, start = {}, 0
    for name, shape in parameter_shapes(SHAPE).items():
        end = start + 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    config = to_hf_config(SHAPE, 256)
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(entries, "a.safetensors")}
    other = folder.with_name("indexed")
    other.mkdir()
    (other / "a.safetensors").write_bytes(dump_header(entries))

    def check(path: Path) -> Callable[[], Any]:
        return lambda: pretrained.check_tensors(path, SHAPE, str(path))

    return {
        "hf config": Format(folder / "config.json", config, dump_json, lambda: pretrained.read_config(folder)),
        "safetensors": Format(folder / "model.safetensors", entries, dump_header, check(folder)),
        "index": Format(other / pretrained.INDEX, index, dump_json, check(other)),
    }


def _deepspeed(path: Path) -> Format:
    spec = registry.load("pretrain_5080", [f"launch.deepspeed_config={path}"])
    read = lambda: json.dumps(deepspeed_config(spec, bf16=True, device="cuda"))  # noqa: E731
    return Format(path, generate(spec, bf16=True, device="cuda"), dump_json, read)


def _calibration(path: Path, spec: RunSpec) -> Format:
    machine: Hardware = detect_hardware()
    record_run(spec, machine, MeasuredPeak(host=400_000_000), run="mine", home=path.parent)
    runs = json.loads(path.read_text()) if path.exists() else {"format": 2, "runs": {}}

    def read() -> Any:
        return calibrate(spec, machine, load_past_runs(machine, path.parent)).description

    return Format(path, runs, dump_json, read)
