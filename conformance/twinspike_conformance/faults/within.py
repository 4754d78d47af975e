"""A session around another one that hands on everything: what a faulty session does not spoil."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Program, Session
from twinspike.config import Method, Optimizer
from twinspike.network import Network

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
