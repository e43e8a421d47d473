"""What a backend lacks is reported before anything is launched, in one line, with the fix."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from engine.checks import libraries
from engine.execution import compiler, dependencies
from engine.execution.deepspeed_config import deepspeed_config
from engine.execution.torch_build import torch_architectures, torch_cuda_version
from engine.preflight import check_backend, check_memory, report_slow, resolve_spec
from engine.runs.store import RunStore
from profiles.errors import UserError
from profiles.install_command import install_extra, install_package, install_torch
from profiles.registry import load
from tests.unit import fake_nvml
from tests.unit.fake_nvml import Card


def refused(*more: str) -> str:
    with pytest.raises(UserError) as caught:
        check_backend(resolve_spec(load("cpu_demo", list(more))))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_deepspeed_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "installed_version", lambda package: None)
    assert refused("backend=deepspeed") == (
        f"launch.backend: deepspeed: deepspeed is not installed; install it with {install_extra('deepspeed')},"
        " or use --backend torch"
    )


def test_deepspeed_that_loses_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "installed_version", lambda package: "0.18.9")
    text = refused("backend=deepspeed")
    assert "deepspeed 0.18.9 loses gradients with an offloaded optimizer; install deepspeed>=0.19.5" in text


def test_a_missing_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    text = refused("backend=deepspeed")
    assert "its optimizer is built on first use, but g++ or clang++ or c++ is not installed" in text


def test_a_missing_ninja(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(dependencies, "find_spec", lambda name: None if name == "ninja" else found(name))
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "ninja" else f"/usr/bin/{name}")
    install = install_package("ninja")
    assert f"built with ninja, which is missing; install it with {install}" in refused("backend=deepspeed")


def test_mlx_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "find_spec", lambda name: None)
    assert refused("backend=mlx").startswith("launch.backend: mlx: mlx is not installed; install it with ")


@pytest.mark.parametrize(
    ("built_for", "architectures", "driver", "message"),
    [
        (None, (), 13000, "this machine has an NVIDIA GPU, but torch is built without CUDA; install a torch wheel"),
        (None, (), 13000, install_torch("cu130")),
        (None, (), 12080, "/whl/cu128"),
        (None, (), 11080, "; update the driver to one of CUDA 12.6 or later"),
        ((13, 0), (), 12040, "torch is built for CUDA 13.0, the driver supports up to 12.4; update the driver, or"),
        ((12, 8), (), 12040, None),
        ((12, 8), ("sm_90", "sm_120"), 13000, None),
        ((12, 4), ("sm_80", "sm_90", "compute_90"), 13000, None),  # the driver compiles PTX for it
        ((12, 4), ("sm_80", "sm_90"), 13000, "torch is built for sm_80, sm_90, the GPU is sm_120; install a torch"),
        ((13, 0), ("sm_121",), 13000, "the GPU is sm_120; install a torch wheel with: "),
    ],
)
def test_a_gpu_that_torch_cannot_use(
    built_for: Any, architectures: tuple[str, ...], driver: int, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, [Card("GPU-a", capability=(12, 0))])
    monkeypatch.setattr("pynvml.nvmlSystemGetCudaDriverVersion", lambda: driver)
    monkeypatch.setattr(dependencies, "torch_cuda_version", lambda: built_for)
    monkeypatch.setattr(dependencies, "torch_architectures", lambda: architectures)
    found = dependencies.cuda_mismatch()
    assert found is None if message is None else found is not None and message in found


@pytest.mark.parametrize(
    ("manager", "missing", "fix"),
    [
        ("apt-get", "triton", "triton is not installed; install it with "),
        ("apt-get", "gcc", "is not installed; install it with sudo apt install gcc"),
        ("apt-get", "Python.h", "; install Python's headers with sudo apt install python3."),
        ("dnf", "Python.h", "; install Python's headers with sudo dnf install python3."),
        ("", "gcc", "is not installed; install it with the system's package manager: gcc"),
    ],
)
def test_a_launch_says_why_compile_is_off_and_what_turns_it_on(
    manager: str, missing: str, fix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_nvml.install(monkeypatch, [Card("GPU-a")])
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compiler, "find_spec", lambda name: None if missing == "triton" else name)
    programs = {manager, *(() if missing == "gcc" else ("gcc",))}
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in programs else None)
    (tmp_path / "Python.h").touch()
    headers = tmp_path / "none" if missing == "Python.h" else tmp_path
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(headers)})
    lines: list[str] = []
    for choice in ("off", "auto"):
        report_slow(load("cpu_demo", [f"train.compile={choice}", "backend=torch"]), lines.append)
    assert len(lines) == 1 and "\n" not in lines[0]
    assert lines[0].startswith("train.compile: auto is off on this machine") and fix in lines[0]


def test_doctor_says_what_a_card_lacks_and_what_fixes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_nvml.install(monkeypatch, [Card("GPU-a", capability=(12, 0))])
    monkeypatch.setattr("pynvml.nvmlSystemGetCudaDriverVersion", lambda: 12080)
    monkeypatch.setattr(dependencies, "torch_cuda_version", lambda: (12, 6))
    monkeypatch.setattr(dependencies, "torch_architectures", lambda: ("sm_80", "sm_90"))
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    monkeypatch.setattr(platform, "release", lambda: "6.6.87.2-microsoft-standard-WSL2")
    store = RunStore(tmp_path)
    found = {one.check: one for check in (libraries.python_and_torch, libraries.cuda) for one in check(store)}
    assert (found["CUDA"].level, found["WSL"].level, found["torch.compile"].level) == ("error", "warn", "warn")
    assert found["CUDA"].fix.endswith(install_torch("cu128"))
    assert found["torch.compile"].fix == f"install it with {install_package('triton')}"
    assert "pin_memory" in found["WSL"].fix


def test_a_torch_without_cuda_has_code_for_no_gpu() -> None:
    assert (torch_cuda_version(), torch_architectures()) == (None, ()) or len(torch_architectures()) > 0


def test_offload_under_wsl_is_warned_of_its_pinned_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_nvml.install(monkeypatch, [Card("GPU-a", total=1 << 40, free=1 << 40)])
    monkeypatch.setattr(platform, "release", lambda: "6.6.87.2-microsoft-standard-WSL2")
    lines: list[str] = []
    for strategy in ("device", "offload"):
        spec = load("cpu_demo", [f"strategy={strategy}"])
        check_memory(spec, tmp_path, lines.append, insists=False)
    assert len(lines) == 1 and "pin" in lines[0]
    given = json.loads(lines[0].partition("with ")[2].partition(" in it")[0])
    config = tmp_path / "ds.json"
    config.write_text(json.dumps(given))
    offloaded = load("cpu_demo", ["strategy=offload", f"launch.deepspeed_config={config}"])
    made = deepspeed_config(offloaded, bf16=True, device="cuda")
    assert made["zero_optimization"]["offload_optimizer"]["pin_memory"] is False


def test_auto_picks_the_backend_for_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(*more: str) -> str:
        return resolve_spec(load("cpu_demo", ["optim.name=adamw", *more])).launch.backend

    assert backend() == "torch"
    assert backend("strategy=offload") == "deepspeed"
    assert backend("strategy=offload", "backend=torch") == "torch"
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert backend() == "mlx"
    assert backend("optim.name=muon") == "torch"  # which alone has it
    monkeypatch.setattr(dependencies, "find_spec", lambda name: None)
    assert backend() == "torch"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["backend=deepspeed", "strategy=device"], "memory.strategy: device is not supported by --backend deepspeed"),
        (
            ["backend=deepspeed", "precision=bf16_sr"],
            "train.precision: bf16_sr is not supported by --backend deepspeed",
        ),
        (["backend=mlx", "strategy=offload"], "memory.strategy: offload is not supported by --backend mlx"),
        (
            ["backend=mlx", "checkpointing=selective"],
            "memory.checkpointing: selective is not supported by --backend mlx",
        ),
        (["backend=mlx", "train.attention=blocked"], "train.attention: blocked is not supported by --backend mlx"),
        (["backend=mlx", "gpus_per_node=2", "micro=4"], "2 ranks are not supported by --backend mlx"),
        (
            ["backend=torch", "strategy=offload", "optim.name=adamw"],
            "offload needs --backend deepspeed; use that, or -s memory.strategy=device or states8bit",
        ),
        (
            ["backend=torch", "strategy=offload", "optim.name=adamw", 'memory.allow=["bf16_sr"]', "precision=bf16_sr"],
            "offload needs --backend deepspeed; use -s memory.strategy=device",
        ),
        (
            ["backend=torch", "strategy=offload", "optim.name=muon"],
            "offload needs --backend deepspeed; use that, or -s memory.strategy=device",
        ),
    ],
)
def test_what_a_backend_cannot_do(more: list[str], message: str) -> None:
    said = refused(*more)
    assert message in said
    assert "states8bit" not in said or "states8bit" in message
