"""Right backends: the reference in float32, rounding by other rules, which the suite must not accuse."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

import twinspike
from twinspike.backend import Capabilities
from twinspike.checks import check_claim, check_operation
from twinspike.errors import refuse, require
from twinspike.operations import OPERATIONS
from twinspike_conformance.judges import variant
from twinspike_conformance.strength.rounding import InnocentNumpy, Rules, innocent

Values = NDArray[Any]
Tensors = dict[str, Any]

PRECISION = "f32-ieee"

VARIANTS: dict[str, Rules | None] = {
    "plain": None,
    "permuted": Rules(order=0),
    "fused": Rules(fused=True),
    "flushed": Rules(flushed=True),
    "all": Rules(order=0, fused=True, flushed=True),
}
"""Name -> how it rounds; None is NumPy's own float32. Orders are seeds, and every example has another."""

SCATTER = (
    variant.Edit("layers", "for i in range(windows.shape[4]):", "for i in reversed(range(windows.shape[4])):"),
    variant.Edit("layers", "for j in range(windows.shape[5]):", "for j in reversed(range(windows.shape[5])):"),
)
"""A sum that the reference writes as a loop, in another order."""


@cache
def _modules(ordered: bool, plain: bool) -> dict[str, ModuleType]:
    return variant.load(SCATTER if ordered else (), np if plain else InnocentNumpy())


@final
class InnocentBackend:
    """The reference in float32, rounding by some rules."""

    def __init__(self, name: str, rules: Rules | None) -> None:
        self.name, self.rules = f"reference in float32, {name}", rules

    def capabilities(self) -> Capabilities:
        """Every operation in float32 on the CPU."""
        return Capabilities(
            operations=frozenset(OPERATIONS),
            networks=False,
            precisions=frozenset({PRECISION}),
            devices=("cpu",),
            compiled=False,
            versions={"numpy": np.__version__, "twinspike": twinspike.__version__},
        )

    def session(self, device: str = "cpu", precision: str = PRECISION, compiled: bool = False) -> InnocentSession:
        """SpecError for what is not claimed."""
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        return InnocentSession(self.rules)


class Float32Arrays:
    """What sessions over plain arrays on the CPU, floats in float32, have alike."""

    device, compiled = "cpu", False

    def flags(self) -> dict[str, str]:
        """None."""
        return {}

    def from_numpy(self, values: Values) -> Values:
        """A copy in float32 or int64."""
        return np.array(values, np.float32 if values.dtype.kind == "f" else np.int64)

    def to_numpy(self, tensor: Values) -> Values:
        """A copy."""
        return np.array(tensor)


@final
class InnocentSession(Float32Arrays):
    """Operations of the reference's text on arrays that round by the rules."""

    precision = PRECISION

    def __init__(self, rules: Rules | None) -> None:
        self.rules = rules
        self._rows = _modules(rules is not None and rules.order is not None, rules is None)["rows"]

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Values]) -> Tensors:
        """Outputs by name; SpecError for what does not fit."""
        shapes = {name: value.shape for name, value in inputs.items()}
        check_operation(operation, config, shapes, {name: value.dtype.kind == "f" for name, value in inputs.items()})
        return self._run(operation, config, inputs)

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Values], cotangents: Mapping[str, Values]
    ) -> tuple[Tensors, Tensors]:
        """Outputs and gradients; SpecError for what does not fit."""
        outputs = self.forward(operation, config, inputs)
        require(OPERATIONS[operation].adjoint is not None, operation, expected="one with a gradient", got=operation)
        return outputs, self._run(f"{operation}_adjoint", config, inputs, cotangents)

    def program(self, network: Any, method: Any, optimizer: Any, *, recompute: bool = False) -> Any:
        """SpecError: operations only."""
        raise refuse("program", expected="operations only", got="a network")

    def _run(self, function: str, config: Any, *groups: Mapping[str, Values]) -> Tensors:
        if self.rules is not None:
            groups = tuple({name: innocent(value, self.rules) for name, value in group.items()} for group in groups)
        with np.errstate(all="ignore"):
            found = getattr(self._rows, function)(config, *groups)
        return {name: np.array(value) for name, value in found.items()}
