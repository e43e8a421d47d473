"""A CUDA device without a card. ``site/sitecustomize.py`` installs it in every process that imports torch.

``device.cpp`` is the device; this builds it once for each torch, and replaces what of ``torch.cuda`` asks a driver.
The card has 16 GiB, or FAKE_CUDA_MIB, and compute capability 12.0, or FAKE_CUDA_SM / 10. Attention takes torch's plain
path: the fused kernels are a card's own.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import hashlib
import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.fake_cuda.driver import CAPABILITY, NAME, TOTAL, UUID

_SOURCE = Path(__file__).with_name("device.cpp")


class Card:
    """The device of this process. Bytes that it holds and held at most, its limit, and the waits of the host."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        for size in (library.fake_cuda_allocated, library.fake_cuda_peak, library.fake_cuda_reserved):
            size.restype = ctypes.c_size_t
        library.fake_cuda_take_syncs.restype = ctypes.c_long
        self.unfinished = 0  # of the events recorded last
        self.recorded = 0
        self.set_limit(TOTAL)
        atexit.register(library.fake_cuda_end_without_destructors)

    @property
    def allocated(self) -> int:
        return int(self._library.fake_cuda_allocated())

    @property
    def peak(self) -> int:
        return int(self._library.fake_cuda_peak())

    @property
    def reserved(self) -> int:
        """What was allocated at most since the cache was emptied: an allocator keeps what it had."""
        return int(self._library.fake_cuda_reserved())

    def empty_cache(self) -> None:
        self._library.fake_cuda_empty_cache()

    def reset_peak(self) -> None:
        self._library.fake_cuda_reset_peak()

    def set_limit(self, size: int) -> None:
        """Refuse what would take more than ``size`` bytes in all, with torch's error for it."""
        self.limit = size
        self._library.fake_cuda_limit(ctypes.c_size_t(size))

    def take_syncs(self) -> int:
        """Return how often the host has waited for the card since the last call."""
        return int(self._library.fake_cuda_take_syncs())


class Event:
    """All work is done when it is launched, unless ``card.unfinished`` says otherwise."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._number = 0

    def record(self, stream: Any = None) -> None:
        card.recorded += 1
        self._number = card.recorded

    def wait(self, stream: Any = None) -> None:
        pass

    synchronize = wait

    def query(self) -> bool:
        return self._number <= card.recorded - card.unfinished

    def elapsed_time(self, later: Event) -> float:
        return 0.0


class Stream:
    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def wait_stream(self, other: Any) -> None:
        pass

    wait_event = wait_stream

    def synchronize(self) -> None:
        pass

    def record_event(self, event: Event | None = None) -> Event:
        return event or Event()

    def query(self) -> bool:
        return True


def build() -> Path:
    """Compile the device for the installed torch, unless that was done before, and return the library.

    Environments share it, so it names no folder of torch: one that is gone would leave it without torch's libraries,
    and one that is another's would give the process two torches.
    """
    torch = _torch_folder()
    compiler = ["g++", "-O1", "-w", "-std=c++20", "-shared", "-fPIC"]
    key = hashlib.sha256(_SOURCE.read_bytes() + repr((compiler, version("torch"))).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mla-tui"
    library = cache / f"fake_cuda-{key}.so"
    if not library.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = library.with_suffix(f".{os.getpid()}")
        include = [f"-I{torch}/include", f"-I{torch}/include/torch/csrc/api/include"]
        command = [*compiler, *include, str(_SOURCE), "-o", str(part), f"-L{torch}/lib", "-ltorch_cpu", "-lc10"]
        subprocess.run(command, check=True)
        part.replace(library)
    return library


def _load() -> ctypes.CDLL:
    """Load the device after torch's libraries, which it then finds by their names."""
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(_torch_folder() / "lib" / name), ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(build()), ctypes.RTLD_GLOBAL)


def _torch_folder() -> Path:
    return Path(str(find_spec("torch").origin)).parent  # type: ignore[union-attr]


def install() -> None:
    """Give the torch that was just imported its card; this module must have been imported before it."""
    import torch

    default = Stream()
    properties = SimpleNamespace(
        **{"name": NAME, "total_memory": TOTAL, "major": CAPABILITY[0], "minor": CAPABILITY[1], "gcnArchName": ""},
        **{"multi_processor_count": 84, "warp_size": 32, "regs_per_multiprocessor": 65536},
        **{"max_threads_per_multi_processor": 1536, "uuid": UUID.removeprefix("GPU-")},
    )

    @contextlib.contextmanager
    def stream(_: Any) -> Iterator[None]:
        yield

    replaced: dict[str, Any] = {
        # The device
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "_exchange_device": lambda device: 0,
        "_maybe_exchange_device": lambda device: 0,
        "get_device_name": lambda device=None: NAME,
        "get_device_capability": lambda device=None: CAPABILITY,
        "get_device_properties": lambda device=None: properties,
        "is_bf16_supported": lambda including_emulation=True: True,
        # Memory
        "mem_get_info": lambda device=None: (TOTAL - card.reserved, TOTAL),
        "memory_allocated": lambda device=None: card.allocated,
        "memory_reserved": lambda device=None: card.reserved,
        "max_memory_allocated": lambda device=None: card.peak,
        "max_memory_reserved": lambda device=None: card.reserved,
        "reset_peak_memory_stats": lambda device=None: card.reset_peak(),
        "memory_stats": lambda device=None: {"num_alloc_retries": 0},
        "empty_cache": card.empty_cache,
        "get_per_process_memory_fraction": lambda device=None: min(1.0, card.limit / TOTAL),
        "set_per_process_memory_fraction": lambda fraction, device=None: card.set_limit(round(fraction * TOTAL)),
        # Streams and events
        "synchronize": lambda device=None: None,
        "Stream": Stream,
        "Event": Event,
        "stream": stream,
        "default_stream": lambda device=None: default,
        "current_stream": lambda device=None: default,
        # The generator is the CPU's
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "initial_seed": lambda: 0,
    }
    for name, value in replaced.items():
        setattr(torch.cuda, name, value)
    torch.cuda.random.get_rng_state = replaced["get_rng_state"]
    torch.Tensor.record_stream = lambda self, stream: None  # type: ignore[method-assign, assignment]
    _install_collectives()


def _install_collectives() -> None:
    """Give one rank the collectives that DeepSpeed calls on a card: there is no NCCL here, and nothing to sum."""
    from torch import distributed
    from torch.cuda import nvtx

    init = distributed.init_process_group

    def init_process_group(backend: str, *args: Any, **given: Any) -> None:
        init("gloo", *args, **given)
        if distributed.get_world_size() > 1:
            raise RuntimeError("the fake card is for one rank")

    distributed.init_process_group = init_process_group  # type: ignore[assignment]
    for name in ("broadcast", "all_reduce", "reduce"):
        setattr(distributed, name, lambda *args, **given: None)
    for name in ("range_push", "range_pop"):
        setattr(nvtx, name, lambda *args: 0)


card = Card(_load())
