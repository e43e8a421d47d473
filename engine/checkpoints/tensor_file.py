"""A safetensors file written tensor by tensor, its checksum taken on the way.

safetensors' own ``save_file`` writes host memory as it lies, but brings every tensor of a device to the host before it
writes the first (0.8.0, ``_flatten_as_ptr``), and says nothing of what it wrote, so that all would be read again for a
checksum. Here no more than ``COPY_CHUNK`` bytes exist twice, and the whole of a tensor that is not contiguous.

The format: the length of a JSON header as 8 bytes, little-endian; the header, name → dtype, shape, offsets; the bytes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from engine.checkpoints.atomic_write import Facts, write_file
from engine.memory.forecast import COPY_CHUNK

ALIGNMENT = 8
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Facts:
    """Write ``tensors`` into the new file ``path`` and wait for the disk; its bytes and sha256. Raises ``OSError``."""
    # Wide values first: each tensor then begins at a multiple of its own width, as readers want it.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    with _beside_the_training(tensors):
        return write_file(path, _content(ordered))


def _content(tensors: list[tuple[str, Tensor]]) -> Iterator[bytes | memoryview]:
    header, at = {}, 0
    for name, tensor in tensors:
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in tensors:
        values = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        for first in range(0, values.numel(), COPY_CHUNK):
            yield values[first : first + COPY_CHUNK].cpu().numpy().data


@contextlib.contextmanager
def _beside_the_training(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Copy from a card on a stream of its own: behind what was asked of the card before now, such as the optimizer's
    step, but not behind the forward and backward that are asked of it while the file is written."""
    if not any(tensor.is_cuda for tensor in tensors.values()):
        yield
        return
    own = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    own.wait_stream(torch.cuda.default_stream())
    with torch.cuda.stream(own):
        yield
