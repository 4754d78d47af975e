"""What an adapter says, and the backend that is made of it, for the conformance suite and for the field's own judge.

An adapter is two functions on tensors of its framework. It maps every option by the argument that its library documents for it,
refuses what the library can't express, and corrects nothing. What is asked for beside the answer, the potential before its
reset, it may only watch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, Protocol, final

import twinspike
from twinspike.checks import check_claim, check_cotangents, check_operation, shapes_of
from twinspike.config import Neuron
from twinspike.errors import refuse, require

Tensor = Any
Tensors = dict[str, Tensor]
Function = Callable[[Tensors], Tensors]


class Engine(Protocol):
    """What the judge needs of a framework: arrays in and out, and gradients."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions whose versions are told."""

    def from_numpy(self, values: Any, precision: str) -> Tensor:
        """A copy, floats in the precision's format."""

    def to_numpy(self, tensor: Tensor) -> Any:
        """A copy."""

    def floating(self, tensor: Tensor) -> bool:
        """Whether its numbers are floats."""

    def forward(self, function: Function, inputs: Mapping[str, Tensor], precision: str) -> Tensors:
        """Outputs by name."""

    def vjp(
        self, function: Function, inputs: Mapping[str, Tensor], cotangents: Mapping[str, Tensor], precision: str
    ) -> tuple[Tensors, Tensors]:
        """Outputs, and the gradients of all inputs; a missing cotangent is 0."""


class Adapter(Protocol):
    """One library."""

    @property
    def name(self) -> str:
        """Of the library."""

    @property
    def distribution(self) -> str:
        """Its package at the index."""

    @property
    def engine(self) -> Engine:
        """Its framework."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that it is judged in."""

    @property
    def operations(self) -> frozenset[str]:
        """Of `lif` and `spike`, those that it has."""

    @property
    def watches_difference(self) -> bool:
        """Whether the potentials that it tells may be off by two roundings, as u - threshold plus the threshold is."""

    def lif(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """s and u (T, B, C, *d) and v (B, C, *d) from x and, where given, v, decay, threshold.

        Raises:
            SpecError: the library can't express it.
        """

    def spike(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """s from u, both of any shape.

        Raises:
            SpecError: the library can't express it.
        """


@final
class Session:
    """The adapter's operations on the CPU in one precision."""

    def __init__(self, adapter: Adapter, device: str, precision: str, compiled: bool) -> None:
        self.device, self.precision, self.compiled = device, precision, compiled
        self._adapter = adapter

    def flags(self) -> dict[str, str]:
        """None that concerns these operations."""
        return {}

    def from_numpy(self, values: Any) -> Tensor:
        """A copy, floats in the session's format."""
        return self._adapter.engine.from_numpy(values, self.precision)

    def to_numpy(self, tensor: Tensor) -> Any:
        """A copy."""
        return self._adapter.engine.to_numpy(tensor)

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Tensor]) -> Tensors:
        """Outputs by name; SpecError for another operation, or what the library can't express."""
        return self._adapter.engine.forward(self._function(operation, config, inputs), inputs, self.precision)

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Tensor], cotangents: Mapping[str, Tensor]
    ) -> tuple[Tensors, Tensors]:
        """Outputs, and gradients by the framework's own differentiation; a missing cotangent is 0."""
        function = self._function(operation, config, inputs)
        outputs = {"s": tuple(inputs["u" if operation == "spike" else "x"].shape)}
        if operation == "lif":
            outputs["v"] = outputs["s"][1:]
        floating = {name: self._adapter.engine.floating(value) for name, value in cotangents.items()}
        check_cotangents(operation, shapes_of(cotangents), floating, outputs)
        return self._adapter.engine.vjp(function, inputs, cotangents, self.precision)

    def program(self, network: Any, method: Any, optimizer: Any, *, recompute: bool = False) -> Any:
        """SpecError: whole networks are not offered."""
        raise refuse(f"program of backend {self._adapter.name!r}", expected="operations only", got="a network")

    def _function(self, operation: str, config: Any, inputs: Mapping[str, Tensor]) -> Function:
        offered = self._adapter.operations
        what = f"operation of backend {self._adapter.name!r}"
        require(operation in offered, what, expected=" or ".join(sorted(offered)), got=operation)
        floating = {name: self._adapter.engine.floating(value) for name, value in inputs.items()}
        check_operation(operation, config, shapes_of(inputs), floating)
        call = self._adapter.lif if operation == "lif" else self._adapter.spike
        return lambda leaves: call(config, leaves)


@final
class FieldBackend:
    """An adapter behind the contract of a backend, so that `python -m twinspike_conformance` judges it as any."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.name = f"twinspike_field.adapters.{adapter.name}:backend"

    def capabilities(self) -> twinspike.Capabilities:
        """The adapter's operations in its precisions on the CPU."""
        return twinspike.Capabilities(
            operations=self.adapter.operations,
            networks=False,
            precisions=frozenset(self.adapter.precisions),
            devices=("cpu",),
            compiled=False,
            versions={name: version(name) for name in (self.adapter.distribution, *self.adapter.engine.packages)},
            specification=twinspike.__version__,
        )

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> Session:
        """SpecError for a device, precision or mode that is not claimed."""
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        return Session(self.adapter, device, precision, compiled)


def constant(neuron: Neuron, inputs: Mapping[str, Tensor], *names: str) -> None:
    """Refuse learned quantities that the library has none of."""
    for name in names:
        require(name not in inputs, f"neuron.{name}_scope", expected="constant", got="a tensor")


def only(neuron: Neuron, **wanted: object) -> None:
    """Refuse a neuron with other options than the library has: each named one must be what is given."""
    for name, value in wanted.items():
        got = getattr(neuron, name)
        require(got == value, f"neuron.{name}", expected=str(value).lower(), got=got)
