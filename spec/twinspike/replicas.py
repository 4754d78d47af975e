"""Many devices: how a batch is split among the ranks, how processes find one another, and what a session over them is.

A replica is one device with a copy of the whole state; replicas are ranked from 0. A process drives one replica or several in
consecutive ranks, and hands its programs its own part of each batch: the parts of all processes, in order, are the global batch
(clauses DEV-*). The framework's own means connect processes; nothing here starts one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np

from twinspike.backend import Session, Values
from twinspike.errors import require


class Rendezvous(msgspec.Struct, frozen=True, kw_only=True):
    """Where the processes of a run meet, and which of them this one is, as a launcher tells it."""

    address: str
    """HOST:PORT, at which the process of rank 0 listens."""
    rank: int
    """Of this process, in [0, world_size)."""
    world_size: int
    """Number of processes, >= 1."""
    local_rank: int = 0
    """Of this process among those on its machine."""

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        fits = bool(host) and port.isdecimal() and 0 < int(port) < 65536
        require(fits, "rendezvous.address", expected="HOST:PORT", got=self.address)
        require(self.world_size >= 1, "rendezvous.world_size", expected="a whole number >= 1", got=self.world_size)
        inside = 0 <= self.rank < self.world_size
        require(inside, "rendezvous.rank", expected=f"0 to {self.world_size - 1}", got=self.rank)
        require(self.local_rank >= 0, "rendezvous.local_rank", expected="a whole number >= 0", got=self.local_rank)


class ReplicatedSession(Session, Protocol):
    """A session of which every program trains over many devices; operations run on the first of this process's own.

    Of a program `train_step`, `gradients` and `trace` take this process's part of the global batch, in every process at once,
    and `load` the same state in each. Gradients, metrics and states are the global ones, the same everywhere; a trace's outputs
    and the gradients towards them are those of the part. `evaluate` is of the images that it is given, and waits for nobody.
    """

    rank: int
    """Of this process, from 0."""
    world_size: int
    """Number of processes."""
    replicas: int
    """N, the devices of all processes."""

    def gather(self, values: Values) -> Values:
        """Every process's values, in order of rank along a new first axis; all call it with the same shape and dtype."""

    def close(self) -> None:
        """Leave the other processes; nothing of the session may be used afterwards."""


@runtime_checkable
class ReplicatedBackend(Protocol):
    """A backend whose capabilities say that it offers replicas."""

    name: str
    launcher: tuple[str, ...]
    """Words after the interpreter's by which the framework's own launcher starts `{devices}` processes on this machine.

    None where one process drives them all.
    """

    def join(self, device: str, devices: int, at: Rendezvous | None) -> None:
        """What a process must do before anything else is asked of the framework; arguments as of `replicated`."""

    def replicated(
        self,
        device: str = "cpu",
        precision: str = "f32-ieee",
        compiled: bool = False,
        *,
        devices: int = 1,
        at: Rendezvous | None = None,
    ) -> ReplicatedSession:
        """Open devices of this process, together with those of the others.

        Args:
            device: of what kind.
            precision: a profile's name.
            compiled: as of `Backend.session`.
            devices: of this process; more than 1 only where the capabilities say `devices`.
            at: where the processes meet; None where this one is alone, or has joined the framework's own group of processes.

        Raises:
            SpecError: they are not there, or the others can't be met.
        """


def share(batch: int, replicas: int, rank: int, what: str = "batch") -> slice:
    """The samples of the global batch that a rank has (clause DEV-1).

    Args:
        batch: B.
        replicas: N.
        rank: in [0, N).
        what: the name under which an error speaks of the batch.

    Raises:
        SpecError: N does not divide B.
    """
    require(batch % replicas == 0, what, expected=f"a multiple of the {replicas} devices", got=f"{batch} samples")
    each = batch // replicas
    return slice(rank * each, (rank + 1) * each)


def portion(samples: int, parts: int, index: int) -> slice:
    """The part of one process of samples that are evaluated: consecutive, sizes differ by 1 at most, each in one part (DEV-7)."""
    return slice(index * samples // parts, (index + 1) * samples // parts)


def joined(key: str, parts: Iterable[Values]) -> Values:
    """The ranks' parts of one entry of a layer's trace as that of the global batch (clause DEV-1).

    Args:
        key: an output or the gradient towards it, not that of a parameter, which is whole on every rank (clause DEV-2).
        parts: by rank; samples are on axis 0 of the artificial twin's and on axis 1, behind time, of the spiking twin's.
    """
    return np.concatenate([*parts], axis=0 if key in ("ann", "g_ann") else 1)


class Gathers(Protocol):
    """What can ask every process."""

    def gather(self, values: Values) -> Values:
        """As of `ReplicatedSession`."""


def digest(state: Mapping[str, Values]) -> bytes:
    """Of a state's names, formats and bits, 32 bytes."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = np.ascontiguousarray(state[name])
        found.update(f"{name} {value.dtype} {value.shape}".encode())
        found.update(value.data)
    return found.digest()


def check_same(processes: Gathers, digest: bytes, what: str) -> None:
    """Refuse what is not the same in every process (clause DEV-5).

    Args:
        processes: all of them.
        digest: of what this process has, of the same length in each.
        what: the name under which an error speaks of it.

    Raises:
        SpecError: naming the first process that has something else than that of rank 0.
    """
    found = processes.gather(np.frombuffer(digest, np.uint8))
    other = next((rank for rank, row in enumerate(found) if row.tobytes() != found[0].tobytes()), None)
    require(other is None, what, expected="the same in every process", got=f"another in process {other} than in process 0")
