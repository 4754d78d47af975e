"""Faults of training that no crash and no loss curve tells: each a right run in which one thing goes wrong from a step on.

After the silent errors that TrainCheck (Jiang et al., OSDI 2025) and TTrace (Jiang et al., arXiv 2506.09280) collected, and the
faults of use that this method knows of, restated for joint training: `docs/training-faults.md` is the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from numpy.typing import NDArray

from twinspike.backend import Program
from twinspike.parameters import STEP, decays, layout, slots
from twinspike.reference.optimizer import optimizer_step
from twinspike_conformance.faults.backend import load_mutant
from twinspike_training import loop
from twinspike_training.run import Ready

TRAINCHECK, TTRACE, HERE = "TrainCheck: ", "TTrace: ", "this method: "
"""Where a fault was seen."""
State = dict[str, Any]
Arrays = dict[str, NDArray[Any]]


class Course:
    """A program of the NumPy backend that takes right steps until one, and from there on those that `wrong` takes."""

    def __init__(self, ready: Ready, wrong: Callable[..., Any], first: int) -> None:
        self.ready, self.right, self.wrong, self.first = ready, ready.program, wrong, first
        self.memory: dict[str, Any] = {}
        """What `wrong` keeps from step to step."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.right, name)

    def train_step(self, state: State, images: Any, labels: Any, rate: float) -> Any:
        if int(state[STEP]) + 1 >= self.first:
            return self.wrong(self, state, images, labels, rate)
        self.memory |= {"state": state, "images": images, "labels": labels, "rate": rate}
        self.memory["gradients"], self.memory["metrics"] = self.right.gradients(state, images, labels)
        return self.right.train_step(state, images, labels, rate)

    def moved(self, state: State, images: Any, labels: Any, rate: float, gradients: Arrays) -> Any:
        """A step with other gradients, right in all else."""
        after, metrics = self.right.train_step(state, images, labels, rate)
        config = self.ready.config
        for entry in layout(self.ready.network, config.method, config.optimizer):
            if entry.trained:
                names = {slot: f"optimizer/{slot}/{entry.name}" for slot in slots(config.optimizer)}
                kept = {slot: state[name] for slot, name in names.items()}
                given = state[entry.name], gradients[entry.name], rate, int(state[STEP]) + 1, kept
                p, moved = optimizer_step(config.optimizer, *given, decays=decays(entry, config.optimizer))
                after = {**after, entry.name: p, **{names[slot]: value for slot, value in moved.items()}}
        return after, metrics


class Fault(msgspec.Struct, frozen=True):
    """One fault; exactly one of the ways in which it is put into a run is given."""

    id: str
    says: str
    """What goes wrong, in one line."""
    after: str
    """Where it was seen."""
    seen: str
    """By what: a part of the line that certified training ends with; or, in brackets, what tells it in its place."""
    step: Callable[..., Any] | None = None
    """In the place of `train_step` from `first` on."""
    mutant: str = ""
    """A fault of the suite's corpus that program and trace have from `first` on."""
    data: Callable[..., Iterator[Any]] | None = None
    """In the place of `train_batches`."""
    rate: Callable[..., float] | None = None
    """In the place of `learning_rate` in the loop."""
    load: Callable[[State], State] | None = None
    """What a resumed session makes of the state that it loads."""
    evaluate: Callable[..., Any] | None = None
    """In the place of the program's `evaluate`."""
    patch: Callable[[pytest.MonkeyPatch], None] | None = None
    """What it changes of the training package, for the whole run."""
    changes: tuple[str, ...] = ()
    """Of the run's config."""

    @property
    def blind(self) -> bool:
        """Whether certified training can't see it."""
        return self.seen.startswith("(")

    def put(self, patch: pytest.MonkeyPatch, first: int) -> None:
        """Put it into the runs that are started from here on; from step `first`, counted from 1, where it is one of steps."""
        right = loop.prepare

        def prepare(*given: Any, **named: Any) -> Ready:
            ready = right(*given, **named)
            if self.data is not None:
                return msgspec.structs.replace(ready, dataset=_Shelf(ready.dataset, self.data, first))  # type: ignore[arg-type]
            return msgspec.structs.replace(ready, program=self._program(ready, first))

        if self.patch is not None:
            self.patch(patch)
        elif self.rate is not None:
            patch.setattr(loop, "learning_rate", self.rate)
        else:
            patch.setattr(loop, "prepare", prepare)

    def _program(self, ready: Ready, first: int) -> Program:
        if self.mutant:
            config = ready.config
            session = load_mutant(f"mutant:{self.mutant}").session("cpu", config.precision, False)
            return _Switched(ready.program, session.program(ready.network, config.method, config.optimizer), first)  # type: ignore[return-value]
        course: Any = Course(ready, self.step or (lambda course, *given: course.right.train_step(*given)), first)
        if self.load is not None:
            course.load = lambda values: ready.program.load(self.load(dict(values)))  # type: ignore[misc]
        if self.evaluate is not None:
            course.evaluate = lambda state, images: self.evaluate(ready, state, images)  # type: ignore[misc]
        return course  # type: ignore[no-any-return]


class _Switched:
    """One program until a step, another from there on; their states are the same dicts."""

    def __init__(self, right: Program, wrong: Program, first: int) -> None:
        self._right, self._wrong, self._first = right, wrong, first

    def __getattr__(self, name: str) -> Any:
        if name in ("load", "dump"):
            return getattr(self._right, name)

        def call(state: State, *given: Any, **named: Any) -> Any:
            program = self._wrong if int(state[STEP]) + 1 >= self._first else self._right
            return getattr(program, name)(state, *given, **named)

        return call


class _Shelf:
    """A data set whose epochs are others."""

    def __init__(self, right: Any, wrong: Callable[..., Iterator[Any]], first: int) -> None:
        self._right, self._wrong, self._first = right, wrong, first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._right, name)

    def train_batches(self, seed: int, epoch: int, size: int, *, start: int = 0, drop_last: bool = True, **alone: int) -> Any:
        length = self._right.steps_per_epoch(size, drop_last=drop_last)
        right = self._right.train_batches(seed, epoch, size, start=start, drop_last=drop_last)
        wrong = self._wrong(self._right, seed, epoch, size, start)
        for place in range(start, length):
            batches = next(right), next(wrong)
            yield batches[epoch * length + place + 1 >= self._first]


def with_gradients(change: Callable[[Course, Arrays], Arrays]) -> Callable[..., Any]:
    """A step with other gradients."""

    def step(course: Course, state: State, images: Any, labels: Any, rate: float) -> Any:
        own = course.right.gradients(state, images, labels)[0]
        result = course.moved(state, images, labels, rate, change(course, dict(own)))
        course.memory["gradients"] = own
        return result

    return step


def afterwards(change: Callable[[Course, State, State], State]) -> Callable[..., Any]:
    """A right step whose state is changed: from the state before and after to another after."""

    def step(course: Course, state: State, images: Any, labels: Any, rate: float) -> Any:
        after, metrics = course.right.train_step(state, images, labels, rate)
        return change(course, state, dict(after)), metrics

    return step


def on_another(change: Callable[[Course, State, Any, Any], Any]) -> Callable[..., Any]:
    """A right step on another batch, or from other parameters."""

    def step(course: Course, state: State, images: Any, labels: Any, rate: float) -> Any:
        return course.moved(state, images, labels, rate, change(course, state, images, labels))

    return step
