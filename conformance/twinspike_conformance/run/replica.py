"""One process of a `replicas.Team`: opens its part, then answers what it is asked; states stay here under numbers."""

from __future__ import annotations

import os
import pickle
import sys
from itertools import count
from typing import Any, BinaryIO

import msgspec
import numpy as np

from twinspike.backend import Evaluation, Metrics
from twinspike.errors import SpecError
from twinspike.replicas import ReplicatedBackend, ReplicatedSession
from twinspike_conformance.raised import said
from twinspike_conformance.run.opening import load


def main() -> None:
    """Answer until nothing more is asked."""
    asked, answers = os.fdopen(os.dup(sys.stdin.fileno()), "rb"), os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a backend prints
    try:
        serve(asked, answers)
    except (EOFError, BrokenPipeError):
        os._exit(0)  # nobody asks any more, and whoever waits for this rank has ended too


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    """Read what to open, open it, and answer."""

    def answer(kind: str, value: Any) -> None:
        pickle.dump((kind, value), answers)
        answers.flush()

    given = pickle.load(asked)
    try:
        backend = load(given.backend)
        assert isinstance(backend, ReplicatedBackend)
        form = given.device, given.precision, given.compiled
        rank = Rank(backend.replicated(*form, devices=given.devices, at=given.at))
        answer("answer", None)
    except SpecError as error:
        answer("refused", str(error))
        return
    except Exception as error:  # whatever a backend raises as it is opened
        answer("raised", said(error))
        return
    while True:
        what, program, arguments, dropped = pickle.load(asked)
        for handle in dropped:
            rank.states.pop(handle, None)
        try:
            answer("answer", getattr(rank, what)(program, *arguments))
        except SpecError as error:
            answer("refused", str(error))
        except Exception as error:  # whatever an implementation raises is its answer
            answer("raised", said(error))


class Rank:
    """The programs and states of one process."""

    def __init__(self, session: ReplicatedSession) -> None:
        self._session = session
        self._programs: dict[int, Any] = {}
        self.states: dict[int, Any] = {}
        self._handles = count()

    def program(self, number: int, *given: Any) -> None:
        """Prepare a program under a number."""
        network, method, optimizer, recompute = given
        self._programs[number] = self._session.program(network, method, optimizer, recompute=recompute)

    def load(self, number: int, values: Any) -> int:
        """As `Program.load`; the state's number."""
        return self._kept(self._programs[number].load(values))

    def dump(self, number: int, handle: int) -> Any:
        """As `Program.dump`."""
        return self._programs[number].dump(self.states[handle])

    def train_step(self, number: int, handle: int, *batch: Any) -> tuple[int, Any]:
        """As `Program.train_step`, on this process's part."""
        state, metrics = self._programs[number].train_step(self.states[handle], *batch)
        return self._kept(state), self._numbers(metrics)

    def gradients(self, number: int, handle: int, *batch: Any) -> tuple[Any, Any]:
        """As `Program.gradients`, likewise."""
        found, metrics = self._programs[number].gradients(self.states[handle], *batch)
        return found, self._numbers(metrics)

    def evaluate(self, number: int, handle: int, images: Any) -> Any:
        """As `Program.evaluate`; nothing of no images."""
        return None if images is None else self._numbers(self._programs[number].evaluate(self.states[handle], images))

    def trace(self, number: int, handle: int, images: Any, training: bool, labels: Any) -> Any:
        """As `Program.trace`, likewise."""
        return self._programs[number].trace(self.states[handle], images, training=training, labels=labels)

    def _kept(self, state: Any) -> int:
        handle = next(self._handles)
        self.states[handle] = state
        return handle

    def _numbers(self, found: Metrics | Evaluation) -> dict[str, Any]:
        return {name: np.array(self._session.to_numpy(value)) for name, value in msgspec.structs.asdict(found).items()}


if __name__ == "__main__":
    main()
