"""A backend over many devices, as one backend: its processes are started here and asked in step.

Whoever asks hands over global batches and gets global answers, so that every check of networks holds many devices against the
same specification as one. What must be the same on every rank is compared to the bit on the way; operations are those of one
device. The processes meet at an address of this machine.
"""

from __future__ import annotations

import pickle
import socket
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Backend, Capabilities, Evaluation, Metrics, Program, Session
from twinspike.config import Method, Optimizer
from twinspike.errors import SpecError, require
from twinspike.network import Network
from twinspike.parameters import State
from twinspike.replicas import Rendezvous, portion, share
from twinspike_conformance.judges.alike import DifferError, joined, same
from twinspike_conformance.run.child import started

Values = NDArray[Any]


class Opening(msgspec.Struct, frozen=True):
    """What a process is to open."""

    backend: str
    """As the user gave it."""
    device: str
    precision: str
    compiled: bool
    devices: int
    at: Rendezvous | None


@final
class Replicated:
    """A backend, each session of which trains over `devices` devices of this machine."""

    def __init__(self, inner: Backend, given: str, devices: int, processes: int | None = None) -> None:
        """Refuse what can't be.

        Args:
            inner: the backend.
            given: what it is loaded from in each process.
            devices: N.
            processes: that share them; by default as few as the backend offers.

        Raises:
            SpecError: it offers no replicas, or not so many of them.
        """
        offered = inner.capabilities().replicas
        require(
            offered != "none",
            f"replicas of backend {inner.name!r}",
            expected="a backend that trains over many devices",
            got="none",
        )
        require(devices >= 1, "devices", expected="a whole number >= 1", got=devices)
        self.name = f"{inner.name} over {devices} devices"
        self.devices = devices
        self._inner, self._given = inner, given
        self._processes = processes or (1 if offered == "devices" else devices)
        require(devices % self._processes == 0, "devices", expected=f"a multiple of {self._processes} processes", got=devices)

    def capabilities(self) -> Capabilities:
        """As of one device."""
        return self._inner.capabilities()

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> Session:
        """Start the processes and wait until each has opened its part; SpecError as theirs."""
        one = self._inner.session(device, precision, compiled)
        count, each = self._processes, self.devices // self._processes
        address = f"127.0.0.1:{_free_port()}"
        openings = [
            Opening(self._given, device, precision, compiled, each, Rendezvous(address=address, rank=r, world_size=count))
            for r in range(count)
        ]
        return ReplicatedOver(one, Team([_Worker(opening) for opening in openings]), self.devices)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Worker:
    """One process, asked by pickles: both ends are the suite's own."""

    def __init__(self, opening: Opening) -> None:
        self._popen = started("twinspike_conformance.run.replica")
        self.tell(opening)

    def tell(self, what: object) -> None:
        assert self._popen.stdin is not None
        with suppress(OSError):  # it has ended, which the next look for an answer tells
            pickle.dump(what, self._popen.stdin)
            self._popen.stdin.flush()

    def hear(self) -> tuple[str, Any]:
        assert self._popen.stdout is not None
        try:
            found: tuple[str, Any] = pickle.load(self._popen.stdout)
        except (EOFError, pickle.UnpicklingError):
            return "ended", f"its process ended with status {self._popen.wait()}"
        return found

    def end(self) -> None:
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._popen.kill()
        self._popen.wait()


@final
class Team:
    """The processes of a session, in order of rank; they end with it."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self._workers = tuple(workers)
        self._dropped: list[int] = []
        weakref.finalize(self, _end, self._workers)
        self.answers()

    def __len__(self) -> int:
        return len(self._workers)

    def ask(self, what: str, program: int, each: Sequence[Any]) -> list[Any]:
        """Ask every process for the same, each with arguments of its own."""
        dropped, self._dropped = self._dropped, []
        for worker, arguments in zip(self._workers, each, strict=True):
            worker.tell((what, program, arguments, dropped))
        return self.answers()

    def drop(self, handle: int) -> None:
        """Have the processes forget a state."""
        self._dropped.append(handle)

    def answers(self) -> list[Any]:
        """Every process's answer; what one raised is raised."""
        found = [worker.hear() for worker in self._workers]
        for rank, (kind, value) in enumerate(found):
            if kind == "refused":
                raise SpecError(value)
            if kind != "answer":
                raise DifferError(f"process {rank}: {value}")
        return [value for _, value in found]


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.end()


class ReplicatedOver:
    """Operations of one device; programs over all."""

    def __init__(self, one: Session, team: Team, replicas: int) -> None:
        self._one, self._team, self.replicas = one, team, replicas
        self.device, self.precision, self.compiled = one.device, one.precision, one.compiled
        self.flags, self.from_numpy, self.to_numpy = one.flags, one.from_numpy, one.to_numpy
        self.forward, self.vjp = one.forward, one.vjp
        self._programs = 0

    def program(self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False) -> Program:
        """A program on every rank."""
        self._programs += 1
        given = (network, method, optimizer, recompute)
        self._team.ask("program", self._programs, [given] * len(self._team))
        return ReplicatedProgram(self._one, self._team, self.replicas, self._programs, network)


class _State:
    """A state that the processes hold."""

    def __init__(self, team: Team, handle: int) -> None:
        self.handle = handle
        weakref.finalize(self, team.drop, handle)


class ReplicatedProgram:
    """One program on all ranks; what it is given and what it gives are global."""

    def __init__(self, one: Session, team: Team, replicas: int, number: int, network: Network) -> None:
        self._one, self._team, self._replicas, self._number, self._network = one, team, replicas, number, network

    def load(self, values: Mapping[str, Values]) -> _State:
        """The same on every rank."""
        return _State(self._team, same("handle", self._ask("load", dict(values))))

    def dump(self, state: _State) -> State:
        """Every rank's, which must be the same."""
        found: State = same("state", self._ask("dump", state.handle))
        return found

    def train_step(self, state: _State, images: Values, labels: Values, learning_rate: float) -> tuple[_State, Metrics]:
        """A step of the global batch; the ranks report the same, and come to the same state."""
        parts = self._parts(images, labels)
        found = self._team.ask("train_step", self._number, [(state.handle, *part, learning_rate) for part in parts])
        handle = same("handle", [after for after, _ in found])
        return _State(self._team, handle), self._metrics([metrics for _, metrics in found])

    def gradients(self, state: _State, images: Values, labels: Values) -> tuple[dict[str, Values], Metrics]:
        """Gradients of the global batch."""
        found = self._team.ask("gradients", self._number, [(state.handle, *part) for part in self._parts(images, labels)])
        return same("gradients", [gradients for gradients, _ in found]), self._metrics([metrics for _, metrics in found])

    def evaluate(self, state: _State, images: Values) -> Evaluation:
        """Each process's portion, put together; one without samples is not asked for anything."""
        axis = int(self._network.event)
        samples, count = images.shape[axis], len(self._team)
        sizes = [len(range(samples)[portion(samples, count, r)]) for r in range(count)]
        parts = [_along(images, portion(samples, count, r), axis) for r in range(count)]
        each = [(state.handle, part if size else None) for part, size in zip(parts, sizes, strict=True)]
        asked = zip(self._team.ask("evaluate", self._number, each), sizes, strict=True)
        found = [(answer, size) for answer, size in asked if size]
        rates = sum(answer["spike_rates"] * size for answer, size in found) / samples
        fields = {name: np.concatenate([answer[name] for answer, _ in found], axis=1) for name in ("logits_ann", "logits_snn")}
        tensors = {name: self._one.from_numpy(value) for name, value in (fields | {"spike_rates": np.asarray(rates)}).items()}
        return Evaluation(**tensors)

    def trace(
        self, state: _State, images: Values, *, training: bool = False, labels: Values | None = None
    ) -> dict[str, dict[str, Values]]:
        """The ranks' outputs and the gradients towards them one after another, and the gradients of parameters."""
        parts = self._parts(images, labels)
        found = self._team.ask("trace", self._number, [(state.handle, x, training, y) for x, y in parts])
        return joined(found)

    def _ask(self, what: str, argument: Any) -> list[Any]:
        return self._team.ask(what, self._number, [(argument,)] * len(self._team))

    def _parts(self, images: Values, labels: Values | None) -> list[tuple[Values, Values | None]]:
        """Each process's part of a batch: those of its ranks."""
        axis = int(self._network.event)
        share(images.shape[axis] if images.ndim > axis else 0, self._replicas, 0)
        pieces = [share(images.shape[axis], len(self._team), r) for r in range(len(self._team))]
        return [(_along(images, piece, axis), None if labels is None else labels[piece]) for piece in pieces]

    def _metrics(self, found: list[dict[str, Values]]) -> Metrics:
        return Metrics(**{name: self._one.from_numpy(value) for name, value in same("metrics", found).items()})


def _along(values: Values, piece: slice, axis: int) -> Values:
    return values[:, piece] if axis else values[piece]
