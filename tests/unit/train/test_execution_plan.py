"""Every "auto" resolves as documented, and the fast plans train like the plain ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.execution.compiler import compile_problem, inductor_cache_dir
from engine.preflight import check_backend, slow_kernels
from engine.train.backends.torch_backend import TorchBackend
from engine.train.backends.torch_plan import resolve_plan
from profiles.errors import UserError
from profiles.registry import load
from profiles.spec import RunSpec

torch.set_num_threads(1)

SMALL = [
    *("model.hidden_size=32", "model.num_hidden_layers=2", "model.num_attention_heads=2", "model.vocab_size=64"),
    *("model.qk_nope_head_dim=8", "model.qk_rope_head_dim=8", "model.v_head_dim=16", "model.kv_lora_rank=16"),
    *("model.intermediate_size=64", "context=32", "sequences=4", "micro=2", "train.seed=3"),
    "optim.name=adamw",
]


def small(*overrides: str) -> RunSpec:
    return load("cpu_demo", [*SMALL, *overrides])


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)


@pytest.mark.parametrize(
    ("overrides", "attention", "compiled"),
    [
        (["train.compile=auto", "train.precision=bf16"], "blocked", True),
        (["train.compile=auto", "train.precision=fp32"], "sdpa", True),
        (["train.compile=off", "train.precision=bf16"], "sdpa", False),
        (["train.compile=on", "train.precision=bf16", "context=4096"], "sdpa", True),
        (["train.compile=on", "train.precision=bf16_sr", "train.attention=sdpa"], "sdpa", True),
        (["train.compile=off", "train.precision=fp32", "train.attention=blocked"], "blocked", False),
        (["train.compile=off", "train.precision=fp32", "context=1024", "data.documents=mask"], "blocked", False),
        (["train.compile=off", "train.precision=bf16", "context=512", "data.documents=mask"], "sdpa", False),
        (["train.compile=on", "train.precision=fp32", "context=1024", "data.documents=mask"], "sdpa", True),
    ],
)
def test_auto_resolves_to_the_fastest_and_a_choice_is_kept(
    overrides: list[str], attention: str, compiled: bool
) -> None:
    plan = resolve_plan(small(*overrides), "cpu")
    assert (plan.attention, plan.compiled) == (attention, compiled)


def test_on_a_card_auto_attention_is_the_library_kernel() -> None:
    assert resolve_plan(small("train.compile=on", "train.precision=bf16"), "cuda").attention == "sdpa"


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_auto_is_off_and_on_is_refused_in_one_line() -> None:
    assert not resolve_plan(small("train.compile=auto"), "cpu").compiled
    check_backend(small("train.compile=auto"))
    with pytest.raises(UserError, match=r"^train\.compile: on, but g\+\+ or .* is not installed; install .*=auto$"):
        check_backend(small("train.compile=on"))


def test_a_named_compiler_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert (compile_problem("cpu") or "").startswith("CXX=no-such-compiler is not a program; install")


def test_compiled_code_is_cached_under_the_cache_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert inductor_cache_dir() == tmp_path / "mla-tui" / "inductor"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert inductor_cache_dir() is None, "a run would end at its first import of the compiler"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    assert inductor_cache_dir() == Path("/elsewhere")


def test_head_sizes_without_a_fast_kernel_are_reported() -> None:
    def slow(device: str, attention: str, *overrides: str) -> list[str]:
        return slow_kernels(small(*overrides).model.config, device, attention)

    assert slow("cuda", "sdpa") == slow("cpu", "sdpa") == []
    wide = "model.v_head_dim=32"
    message = "model.v_head_dim: 32 is not qk_nope_head_dim + qk_rope_head_dim = 16; no flash attention kernel supports"
    for device, attention in (("cuda", "auto"), ("cuda", "sdpa"), ("cpu", "sdpa")):
        (text,) = slow(device, attention, wide)
        assert text.startswith(message)
    assert slow("cpu", "blocked", wide) == slow("cpu", "auto", wide) == []
    huge = ("model.qk_nope_head_dim=256", "model.qk_rope_head_dim=64", "model.v_head_dim=320")
    assert slow("cpu", "sdpa", *huge) == []
    (text,) = slow("cuda", "sdpa", *huge)
    assert text.startswith("model.v_head_dim: 320 is above 256")


def losses(spec: RunSpec, steps: int) -> tuple[list[float], dict[str, str], torch.Tensor]:
    backend = TorchBackend(spec)
    rng = np.random.default_rng(5)
    found = []
    for _ in range(steps):
        batch: Any = np.cumsum(rng.integers(0, 3, (4, 33)), axis=1) % 64
        for first in (0, 2):
            backend.accumulate(batch[first : first + 2], spec.tokens_per_step, last=True)
        found.append(backend.window_totals()[0])
        backend.optimizer_step(3e-3, 1.0)
    return found, backend.plan, backend.state_dict()["model"]["model.layers.1.self_attn.kv_b_proj.weight"]


def test_everything_fused_trains_like_everything_off() -> None:
    """Compiled blocks and loss, blocked attention, selective checkpointing: in fp32 equal up to rounding."""
    plain, _, weight = losses(small("train.compile=off", "memory.loss=plain", "train.attention=sdpa"), 5)
    fused = small("train.compile=on", "memory.loss=fused", "train.attention=blocked", "checkpointing=selective")
    found, plan, same = losses(fused, 5)
    assert plan["compile"] == "blocks and loss"
    assert (plan["attention"], plan["loss"], plan["checkpointing"]) == ("blocked", "fused", "selective")
    assert found == pytest.approx(plain, rel=1e-5)
    torch.testing.assert_close(same, weight, rtol=1e-3, atol=1e-5)


def test_a_bf16_stream_trains_like_fp32_within_its_rounding() -> None:
    plain, _, _ = losses(small("train.compile=off", "memory.loss=plain"), 8)
    found, plan, weight = losses(small("train.compile=off", "memory.loss=fused", "train.precision=bf16"), 8)
    assert plan["precision"] == "bf16" and weight.dtype == torch.float32
    assert found == pytest.approx(plain, rel=5e-3) and found != plain


@pytest.mark.faults  # slow: each is compiled
@pytest.mark.parametrize("attention", ["sdpa", "blocked"])
@pytest.mark.parametrize("checkpointing", ["none", "selective", "full", "offload"])
def test_compiled_every_kind_trains_like_eager(checkpointing: str, attention: str) -> None:
    options = ["train.precision=bf16", "memory.loss=fused", f"checkpointing={checkpointing}", f"attention={attention}"]
    eager, _, _ = losses(small("train.compile=off", *options), 4)
    compiled, _, _ = losses(small("train.compile=on", *options), 4)
    assert compiled == pytest.approx(eager, rel=1e-3)
