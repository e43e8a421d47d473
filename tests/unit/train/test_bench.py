"""Benchmarks: FLOP counts, the parts of a result, and which grids are refused. No test depends on a time."""

from __future__ import annotations

import importlib.util
import json
import math
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from engine.events.types import Step
from engine.memory.hardware import Hardware
from engine.train.measure.bench import measure
from engine.train.measure.grid import Budget, Cell, build_cell, grid_cells, measure_cell, parse_grid, write_random_shard
from engine.train.measure.matmul_peak import MATMUL_KINDS, matmul_peak
from model.flops import attention_flops_per_token, flops_per_token, matmul_flops_per_token, products
from model.loss import resolve_loss
from model.transformer import build
from profiles.errors import SpecError, UserError
from profiles.model_config import NAMED_MODELS, ModelConfig
from tests.gpu.search import longest
from tui.cli.commands.bench import table

TINY = NAMED_MODELS["mla-tiny"]
NANO = ModelConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=16,
    kv_lora_rank=16,
    intermediate_size=64,
    vocab_size=256,
)
NANO_KEYS = [f"model.{name}={getattr(NANO, name)}" for name in list(NANO.__dataclass_fields__)[:9]]
MLX = ["mlx"] if importlib.util.find_spec("mlx") else []
WITHOUT_MICRO = ["model.name=nano", *NANO_KEYS, "sequences=4", "context=16", "optim.name=adamw"]
SMALL = [*WITHOUT_MICRO, "micro=2"]


def a_cell(*changes: str, synthetic: bool = True) -> Cell:
    return build_cell("cpu_demo", [*SMALL, *changes], {}, synthetic)


# -- FLOPs


def test_every_matrix_of_the_model_is_counted_once() -> None:
    shapes = [tuple(p.shape) for name, p in build(NANO, 1).named_parameters() if p.dim() == 2 and "embed" not in name]
    counted = [(p.outputs, p.inputs) for p in products(NANO) for _ in range(p.times)]
    assert sorted(counted) == sorted(shapes)
    latent = replace(NANO, q_lora_rank=24)
    assert {(32, 24), (24, 32)} <= {(p.inputs, p.outputs) for p in products(latent)}


def test_flops_by_hand() -> None:
    # A layer of mla-tiny: q 192×192, kv_a 192×96, kv_b 64×288, o 192×192, three of 192×512; head 192×4096.
    layer = 192 * 192 + 192 * 96 + 64 * 288 + 192 * 192 + 3 * 192 * 512
    assert matmul_flops_per_token(TINY) == 6 * (4 * layer + 192 * 4096)
    # Scores and values: 2 × 256 × 64 for each of 3 heads, 4 layers; halved by the mask, three times with backward.
    assert attention_flops_per_token(TINY, 256) == 3 * (2 * 256 * 64 * 2 * 3 * 4) // 2
    assert flops_per_token(TINY, 256) == matmul_flops_per_token(TINY) + attention_flops_per_token(TINY, 256)


def test_a_tied_head_counts_as_a_product() -> None:
    tied = replace(TINY, tie_word_embeddings=True)
    assert flops_per_token(tied, 64) == flops_per_token(TINY, 64)


@pytest.mark.parametrize("config", [NANO, replace(NANO, q_lora_rank=24), TINY])
def test_torch_counts_the_same(config: ModelConfig) -> None:
    batch, context = 2, 32
    model, loss = build(config, 1), resolve_loss("plain")
    tokens_BT = torch.randint(config.vocab_size, (batch, context))
    # The math kernel computes the full square, whatever the mask.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss(model, tokens_BT, tokens_BT).backward()
    whole_square = 2 * attention_flops_per_token(config, context)
    assert counter.get_total_flops() == batch * context * (matmul_flops_per_token(config) + whole_square)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", *MLX])
def test_the_matmul_peak_covers_every_product_in_every_kind(device: str, dtype: torch.dtype) -> None:
    flop_s, rows = matmul_peak(NANO, 64, dtype, device, 0.01)
    assert {(row.product, row.kind) for row in rows} == {(p, kind) for p in products(NANO) for kind in MATMUL_KINDS}
    assert all(row.tokens == 64 and row.seconds > 0 for row in rows)
    rates = [row.flop_s for row in rows]
    assert min(rates) <= flop_s <= max(rates)  # a mean of theirs


# -- one measurement


@pytest.fixture
def spec(tmp_path: Path) -> Any:
    small = a_cell().spec
    small = replace(small, data=replace(small.data, root=str(tmp_path)), train=replace(small.train, out=str(tmp_path)))
    write_random_shard(tmp_path / "phase1" / "train" / "random-000.bin", small)
    return small


@pytest.mark.parametrize(("backend", "device"), [("torch", "cpu"), *((mlx, mlx) for mlx in MLX)])
def test_a_result_has_its_parts_and_they_agree(spec: Any, tmp_path: Path, backend: str, device: str) -> None:
    found = measure(replace(spec, launch=replace(spec.launch, backend=backend)), steps=4)
    json.dumps(found, allow_nan=False)
    assert found["device"] == device and found["plan"]["backend"] == backend
    assert (found["params"], found["tokens_per_step"]) == (NANO.params, 64)
    step = found["step_s"]
    assert step["steps"] == 4 and 0 < step["min"] <= step["median"] <= step["max"]
    assert found["tok_s"] == pytest.approx(64 / step["median"])
    assert list(found["split_s"]) == ["data", "forward", "backward", "optimizer"]
    assert all(seconds > 0 for seconds in found["split_s"].values())
    assert (found["peak"]["device"] is None) == (device == "cpu") and found["peak"]["host"] >= 0
    fraction = found["tok_s"] * found["flops_per_token"] / found["matmul_peak_flop_s"]
    assert found["matmul_peak_fraction"] == pytest.approx(fraction)
    assert [path.name for path in tmp_path.iterdir()] == ["phase1"]  # a benchmark saves nothing
    told = " ".join("\n".join(table([{**found, "changes": {}, "model": "nano", "data": "synthetic"}])).split())
    assert f"; {backend} {found['versions'][backend]}; data" in told and ("fwd with bwd" in told) == (backend == "mlx")


def test_phases_are_not_timed_while_whole_steps_are(spec: Any) -> None:
    from engine.train.backends.torch_backend import TorchBackend
    from engine.train.measure.bench import Meter

    backend = TorchBackend(spec)
    others: list[str] = []
    backend.phases.listen(others.append)  # as the out-of-memory handler might: a benchmark displaces no listener
    meter = Meter(backend, 2, 0.0)
    for _ in range(3):
        backend.phases.enter("forward")
        meter.record(Step(step=1, data_s=0.0, device_peak=None))
        assert not meter.commands() and not meter.splits
    meter.record(Step(step=1, data_s=0.0, device_peak=None))
    for phase in ("forward", "backward", "forward", "backward", "reduce", "optimizer", "idle"):
        backend.phases.enter(phase)
    meter.record(Step(step=1, data_s=1e-9, device_peak=None))
    assert len(meter.warmup) == len(meter.steps) == 2
    (split,) = meter.splits
    assert set(split) == {"data", "forward", "backward", "optimizer"}
    assert others == ["forward"] * 3 + ["forward", "backward", "forward", "backward", "reduce", "optimizer", "idle"]


# -- in a process of its own


def test_a_cell_is_measured_in_a_process_of_its_own() -> None:
    ticks: list[float] = []
    found = measure_cell(a_cell(), Budget(steps=2), ticks.append)
    assert "error" not in found, found
    assert (found["model"], found["micro"], found["accum"], found["context"]) == ("nano", 2, 2, 16)
    assert found["data"] == "synthetic" and found["cap_bytes"] is None
    assert ticks == sorted(ticks)


def limited(limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def test_out_of_memory_is_a_result(tmp_path: Path) -> None:
    large = a_cell("model.vocab_size=60000", "model.hidden_size=8192").spec  # 4 GB of embeddings
    (tmp_path / "spec.json").write_text(json.dumps(large.to_dict()))
    done = subprocess.run(
        [sys.executable, "-m", "engine.train.measure.bench", str(tmp_path / "spec.json")],
        capture_output=True,
        text=True,
        preexec_fn=limited(2 << 30),
    )
    assert json.loads(done.stdout) == {"error": "out of memory"}, done.stderr


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(timeout=0.0), "not measured: took more than 0 s"),
        (Budget(cap_gib=1.0), "--cap-gib: this machine shows no CUDA device to cap"),
    ],
)
def test_an_error_is_returned_as_the_result(budget: Budget, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert measure_cell(a_cell(), budget)["error"] == message


def test_what_host_memory_cannot_hold_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would kill it, or another program."""
    small = Hardware("small", "cpu", None, None, 1 << 28, 1 << 28)
    monkeypatch.setattr("engine.train.measure.grid.detect_hardware", lambda cards=1: small)
    monkeypatch.setattr(subprocess, "Popen", None)
    assert measure_cell(a_cell(), Budget())["error"].startswith("does not fit: ")


def test_an_interrupt_while_the_process_starts_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(subprocess.Popen[bytes]):
        """Started, and interrupted before anyone has it in hand."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    started: list[Interrupted] = []
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_cell(a_cell(), Budget(seconds=600))
    (process,) = started
    assert process.poll() == -signal.SIGKILL


# -- grids


def test_a_grid_is_every_combination_in_order() -> None:
    found = grid_cells("cpu_demo", WITHOUT_MICRO, ["micro=1,4", "loss=plain,fused"], synthetic=True)
    assert [tuple(cell.changes.values()) for cell in found] == [
        ("1", "plain"),
        ("1", "fused"),
        ("4", "plain"),
        ("4", "fused"),
    ]
    assert [(cell.spec.batch.micro, cell.spec.memory.loss) for cell in found[:2]] == [(1, "plain"), (1, "fused")]
    assert len(grid_cells("cpu_demo", SMALL, [], synthetic=True)) == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("micro", "key=value"),
        ("=4", "key=value"),
        ("", "key=value"),
        ("micro=", "empty"),
        ("micro=1,,2", "empty"),
        ("mirco=1", "did you mean batch.micro"),
        ("micro=0", "0 is not in 1..4096"),
        ("micro=two", "'two' is not a number"),
        ("compile=maybe", "'maybe' is not one of"),
    ],
)
def test_an_invalid_grid_is_refused_in_one_line(option: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        grid_cells("cpu_demo", SMALL, [option], synthetic=True)
    assert str(caught.value).startswith("--grid") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_same_key_twice_is_refused_in_any_spelling() -> None:
    with pytest.raises(SpecError, match="given twice"):
        parse_grid(["micro=1", "batch.micro=2"])


def test_an_invalid_cell_is_refused_before_any_is_measured() -> None:
    with pytest.raises(SpecError, match="micro: 3"):
        grid_cells("cpu_demo", WITHOUT_MICRO, ["micro=1,3"], synthetic=True)
    with pytest.raises(UserError, match="muon is not supported by --backend mlx"):
        grid_cells(
            "cpu_demo",
            [*WITHOUT_MICRO[:-1], "micro=2", "optim.name=muon"],
            ["launch.backend=torch,mlx"],
            synthetic=True,
        )


def test_more_ranks_than_the_one_that_is_measured_are_refused() -> None:
    with pytest.raises(UserError, match=r"2 ranks, and bench measures one; use .* -s gpus_per_node=1 -s sequences=2"):
        grid_cells("cpu_demo", SMALL, ["gpus_per_node=2"], synthetic=True)


def test_damaged_data_is_refused_and_missing_data_is_replaced_by_random_tokens(tmp_path: Path) -> None:
    root = f"data.root={tmp_path}"
    assert a_cell(root, synthetic=False).data == "synthetic"
    shard = tmp_path / "phase1" / "train" / "x.bin"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"")
    with pytest.raises(UserError, match=r"x\.bin: empty shard.*--synthetic"):
        a_cell(root, synthetic=False)
    assert a_cell(root).data == "synthetic"


@given(
    st.dictionaries(
        st.sampled_from(["micro", "context", "seed", "workers"]),
        st.lists(st.integers(1, 99).map(str), min_size=1, max_size=4),
        max_size=3,
    )
)
def test_parse_grid_reads_keys_and_values(grid: dict[str, list[str]]) -> None:
    assert parse_grid([f"{key} = {', '.join(values)}" for key, values in grid.items()]) == grid


# -- the longest that fits


@given(st.integers(0, 300_000), st.sampled_from([64, 8192, 32768]), st.sampled_from([32768, 262144]))
def test_the_search_finds_the_largest_that_fits(border: int, start: int, limit: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= border

    good, bad = longest(fits, start, limit, grain=64)
    assert len(tried) == len(set(tried)) <= 2 + math.log2(limit) and all(size % 64 == 0 for size in tried)
    assert max(tried) <= limit
    assert good is None or good <= border
    assert bad is None or bad > border
    if good is None:
        assert border < 64
    elif bad is None:
        assert good == limit
    else:
        assert bad - good <= max(good // 8, 64)


def test_the_search_returns_what_it_knows_when_time_is_up() -> None:
    answers = iter([True, False, None])
    assert longest(lambda size: next(answers), 128, 4096) == (128, 256)
    assert longest(lambda size: None, 128, 4096) == (None, None)
