"""Trains mla-tiny by several recipes on the same text, tokens and seeds, and prints bits per byte on its val split."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from engine.events.types import Event, Val
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from engine.train.reporter import SilentReporter
from engine.train.run_state import RunState
from profiles.registry import load
from tests.bench.measure import MLA_TUI

SEEDS = (1, 2, 3)
SKIPPED = {"site-packages", "test", "tests", "__pycache__"}
# 200 steps of 1024 tokens: a minute each on one core.
SHORT = [
    *("steps=200", "warmup=20", "sequences=4", "micro=4", "val_every=200", "val_sequences=128", "save_every=0"),
    "optim.name=adamw",
]
WSD = ["optim.schedule=wsd"]
RECIPES: dict[str, list[str]] = {
    "cosine": [],
    "cosine, lr 6e-3": ["optim.lr=6e-3"],
    "cosine to zero": ["optim.final_lr=0"],
    "linear": ["optim.schedule=linear"],
    "wsd to zero": [*WSD, "optim.final_lr=0"],
    "muon per head": ["optim.name=muon"],
    "muon per head, 160 steps": ["optim.name=muon", "steps=160"],  # a step costs 1.25 of AdamW's: equal time
}

DEMO: dict[str, list[str]] = {
    "adamw": ["optim.name=adamw"],
    "muon": [],
    "muon, 260 steps": ["steps=260", "val_every=260"],  # a step costs 1.09 to 1.16 of AdamW's: equal time
}

EMA = "optim.ema=0.98"  # about the last 50 of 200 steps
AVERAGED: dict[str, list[str]] = {
    "cosine": [EMA],
    "wsd without a decay": [*WSD, "optim.decay=1", EMA],
    "muon": ["optim.name=muon", EMA],
}

# 24 million parameters, as many tokens as the short runs: 10 minutes a recipe on one core.
LARGER = [
    *("model.hidden_size=512", "model.num_hidden_layers=7", "model.num_attention_heads=8"),
    *("model.kv_lora_rank=128", "model.intermediate_size=1408", "val_every=50", "optim.lr=1e-3"),
]


class Collected(SilentReporter):
    """Keeps the last validation's bits per byte, and prints those before it."""

    def __init__(self) -> None:
        self.bits_per_byte = 0.0

    def record(self, event: Event) -> None:
        if isinstance(event, Val) and event.bits_per_byte:
            self.bits_per_byte = event.bits_per_byte
            print(f"step {event.step}: {event.bits_per_byte:.4f} bits per byte", flush=True)


def bench_recipes(home: Path) -> None:
    """Train every recipe on every seed, and print the table."""
    common = [*SHORT, f"data.root={pack_sources(home)}"]
    print_table(list(measure(RECIPES, SEEDS, common, home / "models")))


def bench_larger(home: Path) -> None:
    """Train a model of 24 million parameters by two of the recipes on one seed, and print every validation."""
    common = [*SHORT, *LARGER, f"data.root={pack_sources(home)}"]
    two = {name: RECIPES[name] for name in ("cosine", "muon per head")}
    print_table(list(measure(two, SEEDS[:1], common, home / "models")))


def bench_average(home: Path) -> None:
    """Compare the last weights of short runs with the average of their weights, on the whole val split."""
    shards = pack_sources(home)
    common = [*SHORT, "val_every=0", "save_every=200", f"data.root={shards}"]
    for name, seed, _, _ in measure(AVERAGED, SEEDS, common, home / "models"):
        checkpoint = home / "models" / f"{name}-{seed}" / "ckpt_step_200"
        command = [MLA_TUI, "eval", str(checkpoint), "--data", str(shards / "phase1"), "--json"]
        for weights, option in (("last", []), ("average", ["--ema"])):
            done = subprocess.run([*command, *option], check=True, capture_output=True, text=True)
            print(f"{name}, seed {seed}, {weights} weights: {done.stdout.strip()}", flush=True)


def pack_sources(home: Path) -> Path:
    """Pack the sources as the set phase1 with a vocabulary of 4 096 ids; return the root of the sets."""
    shards = home / "shards"
    pack = [MLA_TUI, "data", "pack", str(copy_sources(home / "text")), "--out", str(shards)]
    subprocess.run([*pack, "--train-tokenizer", "4096"], check=True)
    return shards


def bench_demo(home: Path) -> None:
    """Train ``cpu_demo`` as it is, and with AdamW, on every seed, and print the table."""
    print_table(list(measure(DEMO, SEEDS, ["val_every=300", "save_every=0"], home / "models")))


def copy_sources(target: Path) -> Path:
    """Link the sources of the standard library and of sympy, which torch installs, without tests: 28 MB."""
    sympy = find_spec("sympy")
    assert sympy and sympy.submodule_search_locations
    for name, root in (("stdlib", sysconfig.get_path("stdlib")), ("sympy", sympy.submodule_search_locations[0])):
        for folder, folders, files in os.walk(root):
            folders[:] = sorted({*folders} - SKIPPED)
            place = target / name / Path(folder).relative_to(root)
            for file in sorted(files):
                if file.endswith(".py"):
                    place.mkdir(parents=True, exist_ok=True)
                    (place / file).symlink_to(Path(folder) / file)
    return target


def measure(
    recipes: Mapping[str, Sequence[str]], seeds: Sequence[int], common: Sequence[str], out: Path
) -> Iterator[tuple[str, int, float, float]]:
    """Train ``cpu_demo`` with the settings ``common`` and those of each recipe, on each seed and one thread.

    Yield recipe, seed, bits per byte and seconds of CPU time.
    """
    torch.set_num_threads(1)
    os.nice(15)
    for seed in seeds:
        for name, overrides in recipes.items():
            spec = load("cpu_demo", [*common, f"train.seed={seed}", *overrides])
            log, begun = Collected(), time.process_time()
            Trainer(RunState(spec), build_backend(spec, SingleRank()), log, out / f"{name}-{seed}").run(None, None)
            found = (name, seed, log.bits_per_byte, time.process_time() - begun)
            print(json.dumps(found), flush=True)
            yield found


def print_table(found: Sequence[tuple[str, int, float, float]]) -> None:
    """Print for each recipe the mean, lowest and highest bits per byte, and its CPU time relative to the first's.

    ``paired``: the mean difference from the first recipe on the same seed, and its lowest and highest.
    """
    first = {seed: (bits, seconds) for name, seed, bits, seconds in found if name == found[0][0]}
    print(f"{'recipe':28}{'bits per byte':>15}{'lowest':>9}{'highest':>9}{'paired':>10}{'from':>9}{'to':>9}{'CPU':>7}")
    for name in dict.fromkeys(row[0] for row in found):
        rows = [row for row in found if row[0] == name]
        bits = [row[2] for row in rows]
        against = [row[2] - first[row[1]][0] for row in rows]
        cpu = statistics.median(row[3] / first[row[1]][1] for row in rows)
        print(
            f"{name:28}{statistics.mean(bits):15.4f}{min(bits):9.4f}{max(bits):9.4f}"
            f"{statistics.mean(against):+10.4f}{min(against):+9.4f}{max(against):+9.4f}{cpu:7.2f}"
        )
