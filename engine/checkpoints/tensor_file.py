"""Writes a safetensors file tensor by tensor and computes its checksum on the way.

safetensors' own ``save_file`` copies every tensor of a device to the host before it writes the first (0.8.0,
``_flatten_as_ptr``), and a checksum would need to read the file back. Here at most ``COPY_CHUNK`` bytes are copied at a
time, or one whole tensor if it is not contiguous.

The format: the length of a JSON header as 8 bytes, little-endian; the header, name → dtype, shape, offsets; the bytes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from engine.checkpoints.atomic_write import FileInfo, write_file
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


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> FileInfo:
    """Write ``tensors`` to the new file ``path`` and fsync it; return its size and sha256. Raises ``OSError``."""
    # Wide values first, so that each tensor begins at a multiple of its own width, as readers expect.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    with _side_stream(tensors):
        return write_file(path, _content(ordered))


def _content(tensors: list[tuple[str, Tensor]]) -> Iterator[bytes | memoryview]:
    header, start = {}, 0
    for name, tensor in tensors:
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in tensors:
        values = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        for first in range(0, values.numel(), COPY_CHUNK):
            yield values[first : first + COPY_CHUNK].cpu().numpy().data


@contextlib.contextmanager
def _side_stream(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Copy from a card on a separate CUDA stream: after the work queued so far, such as the optimizer's step, but not
    after the forward and backward that are queued while the file is written."""
    if not any(tensor.is_cuda for tensor in tensors.values()):
        yield
        return
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.default_stream())
    with torch.cuda.stream(stream):
        yield
