"""A very small run, made by the trainer itself: data with a token a byte, three steps, a checkpoint of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from engine.events.log import LogWriter
from engine.events.run_dir import RunDir
from engine.events.status import Launch, RunStatus
from engine.host.process import boot_id, host_name, process_identity
from engine.runs.store import RunStore
from profiles import registry
from tests.unit.checkpoints.facts import edit_facts

PROFILE = """
[model]
name = "test-nano"
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 16
kv_lora_rank = 16
intermediate_size = 64
vocab_size = 256
[batch]
sequences = 4
micro = 4
context = 32
[train]
steps = 3
precision = "fp32"
compile = "off"
val_every = 2
val_sequences = 4
save_every = 1
[memory]
loss = "plain"
"""
TEXT = "def f(x):\n    return x + 1  # café\n"


@dataclass(frozen=True)
class Nano:
    profile: Path
    data: Path
    out: Path  # ckpt_step_1 to ckpt_step_3

    @staticmethod
    def make(root: Path, train: bool = True) -> Nano:
        nano = Nano(root / "nano.toml", root / "shards", root / "models")
        letters = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        tokenizer = Tokenizer(models.BPE(letters, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        for split, times in (("train", 60), ("val", 20)):
            file = nano.data / "phase1" / split / f"phase1-{split}-000.bin"
            file.parent.mkdir(parents=True)
            np.array(tokenizer.encode(TEXT * times).ids, "<u2").tofile(file)
        tokenizer.save(str(nano.data / "phase1" / "tokenizer.json"))
        nano.profile.write_text(PROFILE + f"[data]\nroot = {json.dumps(str(nano.data))}\n")
        if train:
            command = ["train", "-p", str(nano.profile), "-s", f"out={json.dumps(str(nano.out))}"]
            env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
            subprocess.run([sys.executable, "-m", "tui.cli", *command], check=True, capture_output=True, env=env)
            for path in nano.out.glob("ckpt_step_*"):  # of whichever run they are copied to
                edit_facts(path, lambda facts: facts.pop("run"))
        return nano

    def run(self, store: RunStore, out: Path, phase: str = "finished", steps: int = 3) -> tuple[RunDir, LogWriter]:
        """Create a run ``nano`` with checkpoints below ``out``; the trainer of an active run is this process."""
        spec = registry.load(str(self.profile))
        spec = replace(spec, train=replace(spec.train, out=str(out), steps=steps))
        state: dict[str, Any] = {
            **{"profile": "nano", "backend": "torch", "steps": steps, "micro": 4, "accum": 1, "context": 32},
            **{"version": "0", "host": host_name(), "boot": boot_id(), "phase": phase, "attempt": 1, "started": 1.0},
        }
        if phase == "running":
            state["trainer"] = process_identity(os.getpid())
        return (run := store.create(spec, Launch(name="nano"), RunStatus(**state))), LogWriter(run.log_path, 1)
