"""The backend: what is claimed, and sessions that run the operations' rows and networks."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from twinspike import Capabilities, Method, Network, Optimizer, read_marks
from twinspike.checks import (
    check_claim,
    check_cotangents,
    check_differentiable,
    check_finite,
    check_operation,
    shapes_of,
)
from twinspike.errors import require
from twinspike.operations import OPERATIONS, operation
from twinspike_mlx.arrays import on_cpu, to_mlx, to_numpy
from twinspike_mlx.operations import ROWS, Arrays
from twinspike_mlx.program import Program

Values = NDArray[Any]


@final
class MlxBackend:
    """Every operation and network in float32 on MLX's CPU.

    float64 is not claimed: MLX computes its exponential and its convolution in float32. Compiled sessions are not: for a step of
    the smallest network `mx.compile` takes some 40 s, four hundred times what the step takes. GPUs are not: nobody has run the
    suite on one.
    """

    name = "mlx"

    def capabilities(self) -> Capabilities:
        """See the class."""
        return Capabilities(
            operations=frozenset(ROWS),
            networks=True,
            precisions=frozenset({"f32-ieee"}),
            devices=("cpu",),
            compiled=False,
            versions={"mlx": version("mlx"), "numpy": np.__version__, "twinspike-mlx": version("twinspike-mlx")},
            specification="0.1.0",
            conformance=read_marks(Path(__file__).parent / "marks"),
        )

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> Session:
        """Open the CPU; SpecError for another device, precision or mode."""
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        return Session(device, precision, compiled)


@final
class Session:
    """Operations on float32 arrays of MLX."""

    def __init__(self, device: str, precision: str, compiled: bool) -> None:
        self.device, self.precision, self.compiled = device, precision, compiled

    def flags(self) -> dict[str, str]:
        """None: no setting of MLX decides results on the CPU."""
        return {}

    @on_cpu
    def from_numpy(self, values: NDArray[np.generic]) -> mx.array:
        """A copy, floats as float32, whole numbers as int64."""
        return to_mlx(values)

    @on_cpu
    def to_numpy(self, tensor: mx.array) -> Values:
        """A copy."""
        return to_numpy(tensor)

    @on_cpu
    def forward(self, operation: str, config: Any, inputs: Mapping[str, mx.array]) -> Arrays:
        """Outputs by name; SpecError if config or inputs don't fit the row."""
        _check(operation, config, inputs)
        outputs = ROWS[operation](config, inputs)
        mx.eval(outputs)
        return outputs

    @on_cpu
    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, mx.array], cotangents: Mapping[str, mx.array]
    ) -> tuple[Arrays, Arrays]:
        """Outputs, and gradients of the differentiable inputs that were given, of one forward pass."""
        _check(operation, config, inputs)
        check_differentiable(operation)
        moving = [name for name in OPERATIONS[operation].differentiable if name in inputs]

        def run(*arrays: mx.array) -> list[mx.array]:
            return list(ROWS[operation](config, {**inputs, **dict(zip(moving, arrays, strict=True))}).values())

        shapes = shapes_of(ROWS[operation](config, inputs))  # MLX is lazy: known before anything is computed
        check_cotangents(operation, shapes_of(cotangents), {k: g.dtype == mx.float32 for k, g in cotangents.items()}, shapes)
        seeds = [cotangents[k] if k in cotangents else mx.zeros(shape) for k, shape in shapes.items()]
        values, gradients = mx.vjp(run, [inputs[name] for name in moving], seeds)
        mx.eval(values, gradients)
        return dict(zip(shapes, values, strict=True)), dict(zip(moving, gradients, strict=True))

    def program(self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False) -> Program:
        """The network, ready to train; `recompute` changes no result, and nothing here."""
        return Program(network, method, optimizer)


def _check(name: str, config: Any, inputs: Mapping[str, mx.array]) -> None:
    operation(name)
    for key, value in inputs.items():
        require(isinstance(value, mx.array), f"{name}.{key}", expected="an array of this session", got=type(value).__name__)
    floating = {key: mx.issubdtype(value.dtype, mx.floating) for key, value in inputs.items()}
    check_operation(name, config, shapes_of(inputs), floating)
    check_finite(name, lambda key: bool(mx.isfinite(inputs[key]).all().item()))


backend = MlxBackend()
