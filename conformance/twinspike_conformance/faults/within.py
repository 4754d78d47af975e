"""A session, and a program, around another one that hand on everything: what a faulty one does not spoil."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Evaluation, Metrics, Program, Session
from twinspike.config import Method, Optimizer
from twinspike.network import Network
from twinspike.parameters import Entry, State

Tensors = dict[str, Any]
Values = NDArray[np.generic]


class Within:
    """Answers as the session within."""

    def __init__(self, inner: Session) -> None:
        self.inner = inner
        self.device, self.precision, self.compiled = inner.device, inner.precision, inner.compiled

    def flags(self) -> dict[str, str]:
        """As the session within."""
        return self.inner.flags()

    def from_numpy(self, values: Values) -> Any:
        """As the session within."""
        return self.inner.from_numpy(values)

    def to_numpy(self, tensor: Any) -> Values:
        """As the session within."""
        return self.inner.to_numpy(tensor)

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Any]) -> Tensors:
        """As the session within."""
        return self.inner.forward(operation, config, inputs)

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Any], cotangents: Mapping[str, Any]
    ) -> tuple[Tensors, Tensors]:
        """As the session within."""
        return self.inner.vjp(operation, config, inputs, cotangents)

    def program(self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False) -> Program:
        """As the session within."""
        return self.inner.program(network, method, optimizer, recompute=recompute)


class ProgramWithin:
    """Answers as the program within."""

    entries: tuple[Entry, ...] = ()
    """Layout of the state, once the session has said it."""

    def __init__(self, inner: Program) -> None:
        self.inner = inner

    def load(self, values: Mapping[str, Values]) -> Any:
        """As the program within."""
        return self.inner.load(values)

    def dump(self, state: Any) -> State:
        """As the program within."""
        return self.inner.dump(state)

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> tuple[Any, Metrics]:
        """As the program within."""
        return self.inner.train_step(state, images, labels, learning_rate)

    def gradients(self, state: Any, images: Values, labels: Values) -> tuple[dict[str, Values], Metrics]:
        """As the program within."""
        return self.inner.gradients(state, images, labels)

    def evaluate(self, state: Any, images: Values) -> Evaluation:
        """As the program within."""
        return self.inner.evaluate(state, images)

    def trace(
        self, state: Any, images: Values, *, training: bool = False, labels: Values | None = None
    ) -> dict[str, dict[str, Values]]:
        """As the program within."""
        return self.inner.trace(state, images, training=training, labels=labels)
