"""Checks our writer of safetensors files: the safetensors library reads them bit-equal, and writing copies nothing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from engine.checkpoints import tensor_file

TENSORS = {
    "matrix": torch.randn(7, 5),
    "narrow": torch.randn(3, 3).to(torch.bfloat16),
    "half": torch.randn(5).to(torch.float16),
    "wide": torch.randn(2, 2, dtype=torch.float64),
    "codes": torch.arange(256, dtype=torch.int32).to(torch.uint8),
    "counts": torch.tensor([1, -1, 2**40]),
    "flags": torch.tensor([True, False, True]),
    "nothing": torch.zeros(0, 4),
    "number": torch.tensor(3.5),
    "a part": torch.randn(6, 8)[1:4],
    "turned": torch.randn(4, 9).t(),
    "nan and \u00e9": torch.tensor([float("nan"), float("inf"), -0.0]),
}


def raw_bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())


def test_safetensors_reads_the_file_bit_equal(tmp_path: Path) -> None:
    path = tmp_path / "file"
    facts = tensor_file.write_tensors(path, TENSORS)
    content = path.read_bytes()
    assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    loaded = load_file(path)
    assert loaded.keys() == TENSORS.keys()
    with safe_open(path, "pt") as opened:
        for name, tensor in TENSORS.items():
            for found in (loaded[name], opened.get_tensor(name)):
                assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), name
                assert raw_bytes(found) == raw_bytes(tensor), name


def test_a_file_without_tensors_can_be_read(tmp_path: Path) -> None:
    tensor_file.write_tensors(tmp_path / "file", {})
    assert load_file(tmp_path / "file") == {}


def test_tensors_larger_than_a_chunk_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_file, "COPY_CHUNK", 10)
    tensor_file.write_tensors(tmp_path / "file", TENSORS)
    assert all(raw_bytes(tensor) == raw_bytes(TENSORS[name]) for name, tensor in load_file(tmp_path / "file").items())


PEAK = """
import resource, sys, torch
from pathlib import Path
from engine.checkpoints.tensor_file import COPY_CHUNK, write_tensors
tensors = {f"{i}": torch.ones(1 << 24) for i in range(4)}
write_tensors(Path(sys.argv[1]), {"0": torch.ones(10)})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_tensors(Path(sys.argv[1]), tensors)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 <= COPY_CHUNK)
"""


def test_no_copy_of_the_tensors_is_made(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path / "file")], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")
