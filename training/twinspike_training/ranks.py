"""The processes that train one run together: how a launcher's words are read, and what they tell one another (clauses DEV-*).

No cluster is started here: torchrun, `srun` and `mpirun` start processes and say in the environment which is which. The
process of rank 0 keeps the run's folder; the others see the same numbers and write nothing of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Backend, Session
from twinspike.errors import SpecError, refuse, require
from twinspike.replicas import Rendezvous, ReplicatedBackend

_TOLD = 4096
"""Bytes in which rank 0 tells the others a text."""
_PORT = 29500
"""Where processes of one machine meet if nothing says otherwise."""


def rendezvous(environ: Mapping[str, str]) -> Rendezvous | None:
    """Where the processes of a launcher meet; None outside of one, or where it started one process alone.

    Read are, in this order, what torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), what SLURM's `srun` sets
    (SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_LAUNCH_NODE_IPADDR, SLURM_JOB_ID) and what Open MPI's `mpirun` sets
    (OMPI_COMM_WORLD_RANK, _SIZE and _LOCAL_RANK). MASTER_ADDR and MASTER_PORT hold for all of them.

    Raises:
        SpecError: a number is none, or nothing says where processes of several machines meet.
    """
    for names, default in (
        (("RANK", "WORLD_SIZE", "LOCAL_RANK"), None),
        (("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"), environ.get("SLURM_LAUNCH_NODE_IPADDR")),
        (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"), None),
    ):
        # within an allocation SLURM's words are there for a shell too, which is no step of `srun`
        if (
            names[0] not in environ
            or names[1] not in environ
            or (names[0].startswith("SLURM") and "SLURM_STEP_ID" not in environ)
        ):
            continue
        rank, size, local = (_number(environ, name) for name in names)
        if size == 1:
            return None
        here = environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == str(size)
        host = environ.get("MASTER_ADDR") or default or ("127.0.0.1" if here else None)
        if host is None:
            raise refuse("MASTER_ADDR", expected="the machine of rank 0 in the environment", got="nothing")
        job = 10000 + _number(environ, "SLURM_JOB_ID") % 50000 if default and "SLURM_JOB_ID" in environ else _PORT
        port = environ.get("MASTER_PORT") or str(job)
        return Rendezvous(address=f"{host}:{port}", rank=rank, world_size=size, local_rank=local)
    return None


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "0")
    require(text.isdecimal(), name, expected="a whole number in the environment", got=text)
    return int(text)


def launched(backend: Backend, devices: int, at: Rendezvous | None, arguments: Sequence[str]) -> list[str] | None:
    """The command line by which the framework's own launcher runs this command in `devices` processes; None where none is wanted.

    Args:
        backend: of the run.
        devices: asked for.
        at: as a launcher that is at work already has told it.
        arguments: of this command.
    """
    if devices == 1 or at is not None or not isinstance(backend, ReplicatedBackend) or not backend.launcher:
        return None
    filled = [word.replace("{devices}", str(devices)) for word in backend.launcher]
    return [sys.executable, *filled, "-m", "twinspike_training.cli", *arguments]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of a run as one of them sees them."""

    rank: int = 0
    world_size: int = 1
    replicas: int = 1
    """N, the devices of all."""
    at: Rendezvous | None = None
    """Where they met, if a launcher said it."""
    ask: Callable[[NDArray[Any]], NDArray[Any]] = lambda values: values[None]
    """Every process's values."""

    @property
    def first(self) -> bool:
        """Whether this process keeps the run's folder."""
        return self.rank == 0

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is set in some process."""
        if self.world_size == 1:
            return list(flags)
        found = self.ask(np.array(flags, np.uint8))
        return [bool(found[:, i].any()) for i in range(len(flags))]

    def total(self, values: NDArray[Any]) -> NDArray[Any]:
        """Sums over the processes."""
        return np.asarray(self.ask(values).sum(axis=0))

    def told(self, function: Callable[[], str]) -> str:
        """What the function gives in the process of rank 0, which alone calls it; SpecError in all if it raises one."""
        if self.world_size == 1:
            return function()
        text, error = "", None
        if self.first:
            try:
                text = f"+{function()}"
            except SpecError as found:
                text, error = f"-{found}", found
        buffer = np.zeros(_TOLD, np.uint8)
        data = text.encode("utf-8", "surrogateescape")[:_TOLD]
        buffer[: len(data)] = np.frombuffer(data, np.uint8)
        if error is not None:
            self.ask(buffer)
            raise error
        said: str = self.ask(buffer)[0].tobytes().rstrip(b"\0").decode("utf-8", "surrogateescape")
        if said.startswith("-"):
            raise SpecError(said[1:])
        return said[1:]


class Place(msgspec.Struct, frozen=True):
    """Where a run is to be computed: a backend, as many devices of this process, and the other processes."""

    backend: Backend
    each: int
    at: Rendezvous | None

    def session(self, device: str, precision: str, compiled: bool) -> tuple[Session, Group]:
        """Open it, and meet those that run it too; SpecError if something is not there."""
        if not isinstance(self.backend, ReplicatedBackend) or (self.each == 1 and self.at is None):
            return self.backend.session(device, precision, compiled), Group()
        session = self.backend.replicated(device, precision, compiled, devices=self.each, at=self.at)
        group = Group(rank=session.rank, world_size=session.world_size, replicas=session.replicas, at=self.at, ask=session.gather)
        return session, group


def place(backend: Backend, device: str, devices: int, at: Rendezvous | None) -> Place:
    """Where a run is to be computed; comes before all else that is asked of the backend.

    Args:
        backend: of the run.
        device: of what kind.
        devices: N, of all processes; 1 under a launcher is one of each.
        at: where a launcher has its processes meet.

    Raises:
        SpecError: the backend trains on one device alone, or the processes can't share N.
    """
    size = 1 if at is None else at.world_size
    if devices == 1 and size == 1:
        return Place(backend, 1, None)
    name = f"devices of backend {backend.name!r}"
    every = size if devices == 1 else devices
    if not isinstance(backend, ReplicatedBackend):
        raise refuse(name, expected="1", got=every, do="it trains on one device alone")
    require(every % size == 0, name, expected=f"a multiple of the {size} processes", got=every)
    backend.join(device, every // size, at)
    return Place(backend, every // size, at)
