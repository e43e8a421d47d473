"""Connects the ranks of a run: one process per device, all of which run the same steps in the same order.

Rank 0 makes every decision: it alone reads commands and writes the log and the checkpoints, and it broadcasts the
results. The launcher (torchrun, deepspeed, Slurm) sets the variables by which ranks find each other: RANK, WORLD_SIZE,
LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
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
    """An error of rank 0, raised on the other ranks. Only rank 0 reports it."""


class Ranks(Protocol):
    rank: int
    size: int
    local_size: int  # ranks on this machine

    def run_on_rank_zero(self, body: Callable[[], T]) -> T:
        """Run ``body`` on rank 0 alone; return its result, or raise its ``UserError``, on every rank."""

    def all_reduce(self, value: Tensor) -> None:
        """Sum ``value`` over all ranks, in place."""

    def sum_over_ranks(self, value: float) -> float:
        """Return the sum of every rank's ``value``."""

    def gather(self, values: list[float]) -> list[list[float]]:
        """Return every rank's ``values``, as many as here, in the order of the ranks."""

    def close(self) -> None:
        """Leave the process group."""


class SingleRank:
    """The only rank of a run. Needs no torch."""

    rank, size, local_size = 0, 1, 1

    def run_on_rank_zero(self, body: Callable[[], T]) -> T:
        return body()

    def all_reduce(self, value: Tensor) -> None:
        pass

    def sum_over_ranks(self, value: float) -> float:
        return value

    def gather(self, values: list[float]) -> list[list[float]]:
        return [values]

    def close(self) -> None:
        pass


class ProcessGroup:
    """Several ranks: NCCL sums tensors on cards, gloo does everything else."""

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
                    f"launch.gpus_per_node: rank {local} of this machine has no card of its own, the machine has"
                    f" {torch.cuda.device_count()}; start as many ranks as there are cards"
                )
            torch.cuda.set_device(local)
        if (name := _interface_to(os.environ.get("MASTER_ADDR", ""))) is not None:
            # By default both use the address of the host name, which may not reach the other machines.
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
        self._gloo = distributed.new_group(backend="gloo")  # Python objects and scalars do not go over NCCL
        store = distributed.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
        self._heartbeat = Heartbeat(store, self.rank, self.size)
        self._heartbeat.start()

    def run_on_rank_zero(self, body: Callable[[], T]) -> T:
        outcome: list[Any] = [None, None]  # result, error
        if self.rank == 0:
            try:
                outcome[0] = body()
            except UserError as error:
                outcome[1] = error
        self._distributed.broadcast_object_list(outcome, src=0, group=self._gloo)
        if outcome[1] is not None:
            raise outcome[1] if self.rank == 0 else RankZeroError(str(outcome[1]))
        return cast(T, outcome[0])

    def all_reduce(self, value: Tensor) -> None:
        self._distributed.all_reduce(value)

    def sum_over_ranks(self, value: float) -> float:
        import torch

        summed = torch.tensor(value, dtype=torch.float64)
        self._distributed.all_reduce(summed, group=self._gloo)
        return float(summed)

    def gather(self, values: list[float]) -> list[list[float]]:
        import torch

        own = torch.tensor(values, dtype=torch.float64)
        found = [torch.empty_like(own) for _ in range(self.size)]
        self._distributed.all_gather(found, own, group=self._gloo)
        return [one.tolist() for one in found]

    def close(self) -> None:
        self._heartbeat.stop()
        self._distributed.destroy_process_group()


def join_ranks() -> Ranks:
    """Join the other ranks, if the launcher started any. Raises ``UserError``."""
    return ProcessGroup() if world_size() > 1 else SingleRank()


def world_size() -> int:
    """Return the number of ranks, as set by the launcher. Raises ``UserError``."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdigit() or text == "0":
        raise UserError(f"WORLD_SIZE={text}: is not a number of ranks; unset it, or start with torchrun")
    return int(text)


def local_world_size() -> int:
    """Return the number of ranks on this machine. DeepSpeed's launcher sets LOCAL_SIZE instead."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or world_size())


def _interface_to(host: str) -> str | None:
    """Return the network interface that routes to ``host``; None where it is unknown."""
    import psutil

    try:
        family, kind, *_, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # a datagram socket only chooses a route, it sends nothing
            address_of_route = probe.getsockname()[0]
    except OSError:
        return None
    interfaces = psutil.net_if_addrs().items()
    names = (name for name, addresses in interfaces if address_of_route in {a.address for a in addresses})
    return next(names, None)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
