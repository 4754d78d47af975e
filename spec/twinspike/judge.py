"""What holds a real training step against the clauses: the step as it was taken, the verdict on it, and how a judge is found.

Training knows no judge but by this protocol, as it knows backends: one is registered under an entry point of group
`twinspike.judges` and loaded when a run asks for it. The conformance suite registers its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.config import Method, Optimizer
from twinspike.errors import SpecError, require
from twinspike.network import Network
from twinspike.parameters import State
from twinspike.precision import PrecisionName

GROUP = "twinspike.judges"

Values = NDArray[Any]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One optimizer step, on the host: what it started from, what it made, and the backend's own trace of its batch."""

    network: Network
    method: Method
    optimizer: Optimizer
    precision: PrecisionName
    before: State
    """As `Program.dump` gave it before the step."""
    images: Values
    labels: NDArray[np.int64]
    learning_rate: float
    """That the clauses give for this step (SCH-*), whatever the step was called with."""
    trace: Mapping[str, Mapping[str, Values]]
    """`Program.trace` of the batch from the state before, in training, with labels."""
    replicas: int = 1
    """N, the devices that shared the batch (DEV-1); images, labels and trace are those of all."""
    metrics: Mapping[str, float]
    """What the step reported, by the fields of `Metrics`."""
    after: State


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one step."""

    comparisons: int
    """Arrays compared."""
    worst: float
    """Largest error/bound; at most 1 where the step is right."""
    at: str
    """The quantity that `worst` is of."""
    open: int = 0
    """Comparisons that were not made since rounding turned a decision between trace and step, so that both may be right."""
    failure: str | None = None
    """None of a step that is right; else the first wrong quantity in the order of the data, what it should have been, and
    the clauses that it breaks, in one line."""


class Judge(Protocol):
    """A function that judges steps."""

    def __call__(self, step: Step, *, sample: int, seed: int) -> Verdict:
        """Hold one step against the clauses.

        Args:
            step: as it was taken.
            sample: samples, and channels where samples are not independent, that large layers are judged by; 0: all of them.
            seed: which ones are drawn.
        """


def load_judge() -> Judge:
    """The registered judge.

    Raises:
        SpecError: there is none, or it can't be loaded.
    """
    found = tuple(entry_points(group=GROUP))
    do = "install twinspike anew (pip install -e . in its folder): an installation from before there were judges names none"
    require(len(found) == 1, "judge", expected=f"one entry point of group {GROUP}", got=[entry.name for entry in found], do=do)
    try:
        judge: Judge = found[0].load()
    except (ImportError, AttributeError) as error:
        raise SpecError(f"judge {found[0].value!r} can't be loaded: {' '.join(str(error).split())}") from error
    return judge
