"""Backend, session and program over `twinspike.reference`: checks and copies here, meaning there.

Tensors are float64 and int64 NumPy arrays, a program's state is a dict of them. What is handed in is
never modified and never aliased by what comes out.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

import twinspike
from twinspike.backend import Capabilities, Evaluation, Metrics
from twinspike.checks import (
    check_batch,
    check_claim,
    check_cotangents,
    check_differentiable,
    check_finite,
    check_images,
    check_operation,
    check_rate,
    shapes_of,
)
from twinspike.config import Method, Optimizer
from twinspike.errors import require
from twinspike.network import Network
from twinspike.operations import OPERATIONS, operation
from twinspike.parameters import State, check_state, layout
from twinspike.reference import step

Tensor = NDArray[Any]
Tensors = dict[str, Tensor]


@contextmanager
def _arithmetic() -> Iterator[None]:
    """Hold NumPy to go on with what overflows, as other backends do, whatever its user has set."""
    with np.errstate(all="ignore"):
        yield


@final
class NumpyBackend:
    """The reference as a backend."""

    name = "numpy"

    def capabilities(self) -> Capabilities:
        """Every operation and network, in f64 on the CPU, never compiled."""
        return Capabilities(
            operations=frozenset(OPERATIONS),
            networks=True,
            precisions=frozenset({"f64"}),
            devices=("cpu",),
            compiled=False,
            versions={"python": platform.python_version(), "numpy": np.__version__, "twinspike": twinspike.__version__},
            specification=twinspike.__version__,
        )

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> NumpySession:
        """Open the CPU; `precision` must be given as `f64`.

        Raises:
            SpecError: any other device, precision or mode.
        """
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        return NumpySession(device, precision, compiled)


@final
class NumpySession:
    """Operations on float64 arrays."""

    def __init__(self, device: str, precision: str, compiled: bool) -> None:
        self.device = device
        self.precision = precision
        self.compiled = compiled

    def flags(self) -> dict[str, str]:
        """None: NumPy has no settings that decide results."""
        return {}

    @_arithmetic()
    def from_numpy(self, values: NDArray[np.generic]) -> Tensor:
        """A copy: floats as float64, integers as int64."""
        return _stored(values)

    def to_numpy(self, tensor: Tensor) -> Tensor:
        """A copy."""
        return np.array(tensor)

    @_arithmetic()
    def forward(self, operation: str, config: Any, inputs: Mapping[str, Tensor]) -> Tensors:
        """Outputs by name; SpecError if config or inputs don't fit the operation's row."""
        _check(operation, config, inputs)
        return dict(OPERATIONS[operation].forward(config, inputs))

    @_arithmetic()
    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Tensor], cotangents: Mapping[str, Tensor]
    ) -> tuple[Tensors, Tensors]:
        """Outputs, and the gradients of the differentiable inputs that were given.

        Raises:
            SpecError: config, inputs or cotangents don't fit the row, or it has no gradient.
        """
        outputs = self.forward(operation, config, inputs)
        check_differentiable(operation)
        shapes, floating = shapes_of(cotangents), {name: g.dtype == np.float64 for name, g in cotangents.items()}
        check_cotangents(operation, shapes, floating, shapes_of(outputs), "float64")
        adjoint = OPERATIONS[operation].adjoint
        assert adjoint is not None
        return outputs, dict(adjoint(config, inputs, cotangents))

    def program(self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False) -> NumpyProgram:
        """The network, ready to train; `recompute` changes no result, and nothing here."""
        return NumpyProgram(network, method, optimizer)


@final
class NumpyProgram:
    """One network with a method and an optimizer; a state is a dict named as `parameters.layout` says."""

    def __init__(self, network: Network, method: Method, optimizer: Optimizer) -> None:
        self._network = network
        self._method = method
        self._optimizer = optimizer
        self._layout = layout(network, method, optimizer)

    @_arithmetic()
    def load(self, values: Mapping[str, NDArray[np.generic]]) -> State:
        """A checked copy in float64; SpecError if a name, shape or value does not fit."""
        check_state(values, self._layout)
        return {entry.name: _stored(values[entry.name]) for entry in self._layout}

    def dump(self, state: State) -> State:
        """A copy."""
        return {name: np.array(value) for name, value in state.items()}

    @_arithmetic()
    def train_step(self, state: State, images: NDArray[Any], labels: NDArray[Any], learning_rate: float) -> tuple[State, Metrics]:
        """One optimizer step on one batch, and a retraction where due; SpecError if the batch does not fit."""
        check_batch(self._network, self._method, images, labels)
        check_rate(learning_rate)
        after, metrics = step.train_step(self._network, self._method, self._optimizer, state, images, labels, learning_rate)
        # one memory layout whatever made the array: BLAS rounds differently by layout, and a resumed run must not
        return {name: _stored(value) for name, value in after.items()}, metrics

    @_arithmetic()
    def gradients(self, state: State, images: NDArray[Any], labels: NDArray[Any]) -> tuple[Tensors, Metrics]:
        """Gradient for every trained entry, by name; SpecError if the batch does not fit."""
        check_batch(self._network, self._method, images, labels)
        by_name, _, metrics = step.gradients(self._network, self._method, state, images, labels)
        return {entry.name: by_name[entry.name] for entry in self._layout if entry.trained}, metrics

    @_arithmetic()
    def evaluate(self, state: State, images: NDArray[Any]) -> Evaluation:
        """Both twins in evaluation mode; SpecError if the images don't fit."""
        check_images(self._network, self._method, images)
        return step.evaluate(self._network, self._method, state, images)

    @_arithmetic()
    def trace(
        self, state: State, images: NDArray[Any], *, training: bool = False, labels: NDArray[Any] | None = None
    ) -> dict[str, Tensors]:
        """Both twins' inner values by layer, and with labels their gradients; SpecError if the batch does not fit."""
        if labels is None:
            check_images(self._network, self._method, images)
        else:
            check_batch(self._network, self._method, images, labels)
        return step.trace(self._network, self._method, state, images, training=training, labels=labels)


def _stored(values: NDArray[Any]) -> Tensor:
    """A contiguous copy in the storage format."""
    kind = np.asarray(values).dtype.kind
    require(kind in "fiu", "array", expected="floats or integers", got=str(np.asarray(values).dtype))
    return np.array(values, dtype=np.float64 if kind == "f" else np.int64, order="C")


def _check(name: str, config: Any, inputs: Mapping[str, Tensor]) -> None:
    operation(name)
    for key, value in inputs.items():
        what = f"{name}.{key}"
        require(isinstance(value, np.ndarray), what, expected="an array of this session", got=type(value).__name__)
        require(value.dtype in (np.float64, np.int64), what, expected="float64 or int64", got=str(value.dtype))
    floating = {key: value.dtype.kind == "f" for key, value in inputs.items()}
    check_operation(name, config, shapes_of(inputs), floating)
    check_finite(name, lambda key: bool(np.isfinite(inputs[key]).all()))
