"""This process among those that train together: the few collectives that a replicated step needs (clauses DEV-*).

Every rank adds its samples' contributions to the loss and to the gradients, so that sums over ranks are those of the global
batch: nothing is averaged. Gradients go in one flat all-reduce after the backward pass. What must be equal on every rank to the
bit and is computed from several ranks' numbers is gathered and combined by each in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist

from twinspike.errors import SpecError, refuse, require
from twinspike.replicas import Rendezvous

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others in one collective; one whose process ends is missed at once."""


@final
class Ranks:
    """The processes of a group, one device each."""

    def __init__(self, device: torch.device, at: Rendezvous | None) -> None:
        """Join the others, or the group that this process has joined already.

        Raises:
            SpecError: the others can't be met.
        """
        self._owned = not dist.is_initialized()
        if self._owned:
            _join(device, at)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        if at is not None and (at.rank, at.world_size) != (self.rank, self.world_size):
            here = f"process {self.rank} of {self.world_size}, as the group has it that this process is in already"
            raise refuse("rendezvous", expected=here, got=f"process {at.rank} of {at.world_size}")
        with self._met():
            self._hosts = dist.new_group(backend="gloo", timeout=PATIENCE)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one format by their sums over the ranks."""
        self._flat(tensors, dist.all_reduce)

    def gathered(self, tensor: Tensor) -> Tensor:
        """Every rank's tensor, along a new first axis."""
        found = tensor.new_empty(self.world_size, *tensor.shape)
        with self._met():
            dist.all_gather(list(found.unbind(0)), tensor.contiguous())
        return found

    def first_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one format by those of rank 0."""
        self._flat(tensors, lambda flat: dist.broadcast(flat, 0))

    def _flat(self, tensors: Sequence[Tensor], collective: Callable[[Tensor], object]) -> None:
        """Replace tensors by what one collective makes of all of them."""
        flat = torch.cat([t.reshape(-1) for t in tensors])
        with self._met():
            collective(flat)
        for t, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            t.copy_(part.view(t.shape))

    def gather(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Every process's values, by way of the hosts."""
        mine = torch.from_numpy(np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8).copy())
        found = torch.empty(self.world_size, mine.numel(), dtype=torch.uint8)
        with self._met():
            dist.all_gather(list(found.unbind(0)), mine, group=self._hosts)
        return np.frombuffer(found.numpy().tobytes(), values.dtype).reshape(self.world_size, *values.shape)

    def check_shares(self, samples: int) -> None:
        """Refuse parts of a batch that are not of one size (clause DEV-1)."""
        found = self.gather(np.array([samples], np.int64)).ravel().tolist()
        require(len(set(found)) == 1, "batch", expected="as many samples on every rank", got=found)

    def close(self) -> None:
        """Leave a group that was joined here."""
        if self._owned and dist.is_initialized():
            dist.destroy_process_group()

    @contextmanager
    def _met(self) -> Iterator[None]:
        """Say in one line that another process is gone."""
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, SpecError):
                raise
            said = " ".join(str(error).split())
            raise refuse(
                f"process {self.rank} of {self.world_size}",
                expected="an answer of every other one",
                got=said[:100],
                do="one of them has ended or hangs; see what it said, and go on from the last checkpoint",
            ) from None


def _join(device: torch.device, at: Rendezvous | None) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if at is None or at.world_size == 1:
        store = dist.HashStore()  # type: ignore[attr-defined]  # torch's stubs leave it out
        dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=PATIENCE)
        return
    host = at.address.rpartition(":")[0]
    if host in ("localhost", "127.0.0.1", "::1"):
        # gloo looks the machine's own name up, which need not lead anywhere
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if os.uname().sysname == "Linux" else "lo0")
    try:
        dist.init_process_group(
            backend, init_method=f"tcp://{at.address}", rank=at.rank, world_size=at.world_size, timeout=PATIENCE
        )
    except (RuntimeError, ValueError, OSError) as error:
        got = " ".join(str(error).split())[:100]
        raise refuse("rendezvous", expected=f"{at.world_size} processes to meet at {at.address}", got=got) from None
