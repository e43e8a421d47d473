"""The processes of one run: one rank a device, all of which do the same steps in the same order.

Every decision is rank 0's: it alone reads commands, writes the log and the checkpoints; the others hear of it here.
Finding each other is left to who started them (torchrun, deepspeed, Slurm), by the variables all of them set: RANK,
WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from profiles.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class RankZeroError(UserError):
    """What rank 0 could not do, on the others: one of them is enough to tell it."""


class Ranks(Protocol):
    rank: int
    size: int
    local_size: int  # ranks on this machine

    def run_on_rank_zero(self, body: Callable[[], T]) -> T:
        """What ``body`` returns on rank 0, where alone it runs; every rank raises the ``UserError`` it raised there."""

    def all_reduce(self, value: Tensor) -> None:
        """Add up ``value`` over all ranks, in place."""

    def sum_over_ranks(self, value: float) -> float:
        """The sum of what every rank gave."""

    def close(self) -> None:
        """Nothing follows."""


class SingleRank:
    """A process on its own; needs no torch."""

    rank, size, local_size = 0, 1, 1

    def run_on_rank_zero(self, body: Callable[[], T]) -> T:
        return body()

    def all_reduce(self, value: Tensor) -> None:
        pass

    def sum_over_ranks(self, value: float) -> float:
        return value

    def close(self) -> None:
        pass


class ProcessGroup:
    """Several ranks: tensors on a card are summed by NCCL, all else goes by gloo."""

    def __init__(self) -> None:
        import torch
        from torch import distributed

        from engine.train.backends.heartbeat import Heartbeat

        self._distributed = distributed
        local = int(os.environ.get("LOCAL_RANK", "0"))
        cuda = torch.cuda.is_available()
        if cuda:
            if local >= torch.cuda.device_count():
                raise UserError(
                    f"launch.gpus_per_node: rank {local} of this machine has no card of its own, it shows"
                    f" {torch.cuda.device_count()}; start as many ranks as there are cards"
                )
            torch.cuda.set_device(local)
        if (name := _interface_towards(os.environ.get("MASTER_ADDR", ""))) is not None:
            # Left to themselves both take the address of the host's name, which need not lead to the others.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
        try:
            distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        except distributed.DistNetworkError as error:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise UserError(
                f"{where}: the ranks cannot meet there: {_first_line(error)}; choose another port"
            ) from None
        except (distributed.DistError, ValueError) as error:
            raise UserError(f"the ranks cannot meet: {_first_line(error)}; see the addresses and firewalls") from None
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()
        self.local_size = local_world_size()
        self._words = distributed.new_group(backend="gloo")  # a card has no part in words
        store = distributed.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
        self._pulse = Heartbeat(store, self.rank, self.size)
        self._pulse.start()

    def run_on_rank_zero(self, body: Callable[[], T]) -> T:
        said: list[Any] = [None, None]
        if self.rank == 0:
            try:
                said[0] = body()
            except UserError as error:
                said[1] = error
        self._distributed.broadcast_object_list(said, src=0, group=self._words)
        if said[1] is not None:
            raise said[1] if self.rank == 0 else RankZeroError(str(said[1]))
        return cast(T, said[0])

    def all_reduce(self, value: Tensor) -> None:
        self._distributed.all_reduce(value)

    def sum_over_ranks(self, value: float) -> float:
        import torch

        summed = torch.tensor(value, dtype=torch.float64)
        self._distributed.all_reduce(summed, group=self._words)
        return float(summed)

    def close(self) -> None:
        self._pulse.stop()
        self._distributed.destroy_process_group()


def join_ranks() -> Ranks:
    """Meet the other ranks, where whoever started this process says there are any. Raises ``UserError``."""
    return ProcessGroup() if world_size() > 1 else SingleRank()


def world_size() -> int:
    """How many ranks this run has, by what its launcher says. Raises ``UserError``."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdigit() or text == "0":
        raise UserError(f"WORLD_SIZE={text}: is no number of ranks; unset it, or start with torchrun")
    return int(text)


def local_world_size() -> int:
    """How many of them are on this machine; the launcher of deepspeed has a name of its own for it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or world_size())


def _interface_towards(host: str) -> str | None:
    """The network interface by which ``host`` is reached; None where that cannot be told."""
    import psutil

    try:
        family, kind, *_, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # of a datagram socket: nothing is sent, a route is chosen
            own = probe.getsockname()[0]
    except OSError:
        return None
    names = (name for name, held in psutil.net_if_addrs().items() if own in {one.address for one in held})
    return next(names, None)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
