"""Every format that the program parses: a valid file, and the functions that read it.

Used by ``test_parsed_files.py``; ``mutants.py`` changes the files.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from data.cursor import Cursor
from data.fingerprint import fingerprint
from data.pack.journal import Progress, StateFolder
from data.pack.request import Request
from data.pack.target import check_target, recorded_val
from data.shard_file import write_shard
from data.shards import open_shards
from data.summary import token_texts
from engine.checkpoints import checkpoint, retention
from engine.checkpoints.evals import read_results, weights_id
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
from profiles.model_config import ModelConfig
from profiles.spec import RunSpec
from tests.unit.mutants import Format, dump_json, dump_toml
from tui.app import settings
from tui.app.state.spec_diff import differences, flat_spec
from tui.text.eval_text import result_lines

# As small as it can be, because hypothesis keeps every file that it has drawn.
SHAPE = ModelConfig(
    hidden_size=4,
    num_hidden_layers=1,
    num_attention_heads=1,
    qk_nope_head_dim=2,
    qk_rope_head_dim=2,
    v_head_dim=4,
    kv_lora_rank=4,
    intermediate_size=4,
    vocab_size=8,
)


def dump_header(content: Any) -> bytes:
    """Write the header of a safetensors file, and as many bytes as the valid one has."""
    text = json.dumps(content).encode()
    size = 4 * sum(math.prod(shape) for shape in parameter_shapes(SHAPE).values())
    return len(text).to_bytes(8, "little") + text + b"\0" * size


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
        checkpoint.latest(out), retention.best_step(checkpoint.latest(out))
        facts = checkpoint.metadata(path)
        checkpoint.verify(path)
        read_data, read_spec = checkpoint_data(path), checkpoint.spec_of(path)
        return read_data, read_spec, Cursor.from_dict(facts.get("cursor")).tokens

    whole = (path / "manifest.json").read_bytes()
    evals = {
        "results": [
            {
                "name": "a",
                "format": "arc",
                "metrics": {"acc": 0.5, "acc_stderr": 0.1},
                "examples": 4,
                "weights": weights_id(path),
            }
        ]
    }
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
        "format": 3,
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
    config = to_hf_config(SHAPE, 7)
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
