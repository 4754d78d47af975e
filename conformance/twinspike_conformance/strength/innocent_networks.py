"""Right programs of networks: the reference's in float32 or bf16-mixed, whose passes round each in another way.

A trace, the gradients and a step are three programs to a compiler, so that their sums may be in three orders
(other layouts, other fusions). In bf16-mixed gradients are handed back in bfloat16, or in float32 and rounded
where a convolution takes them (PRE-6); a kernel's gradient is rounded where it leaves the convolution, or not (PRE-5).
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, final

import msgspec
import numpy as np
from numpy.typing import NDArray

import twinspike
from twinspike.backend import Capabilities
from twinspike.checks import check_claim
from twinspike.config import Method, Optimizer
from twinspike.errors import refuse
from twinspike.network import Network
from twinspike.precision import PRECISIONS
from twinspike_conformance.cases.families import rounded
from twinspike_conformance.faults.backend import MutantProgram
from twinspike_conformance.faults.base import edits_of
from twinspike_conformance.judges import variant
from twinspike_conformance.strength.innocent import SCATTER, Float32Arrays
from twinspike_conformance.strength.rounding import InnocentNumpy, Rules, innocent

Values = NDArray[Any]


PASSES = 5
"""Trace, gradients, step and evaluation, and one more: so that their orders are chains in one example and trees in the next."""


class Mixed(msgspec.Struct, frozen=True, kw_only=True):
    """How a network's program rounds."""

    rules: Rules
    precision: str = "f32-ieee"
    handed: bool = False
    """bf16-mixed: whether layers hand gradients back in bfloat16."""


VARIANTS: dict[str, Mixed] = {
    "passes": Mixed(rules=Rules(order=0)),
    "passes-fused": Mixed(rules=Rules(order=0, fused=True, flushed=True)),
    "bf16-handed": Mixed(rules=Rules(order=0), precision="bf16-mixed", handed=True),
    "bf16-operands": Mixed(rules=Rules(order=0), precision="bf16-mixed"),
}
"""Name -> how it rounds. Orders are seeds: every pass of every example has another."""


class _Bfloat16Numpy(InnocentNumpy):
    """With a cast, which the edited text calls."""

    @staticmethod
    def bfloat16(x: Any) -> Any:
        """The nearest bfloat16 numbers, in float32."""
        return innocent(rounded(np.asarray(x).view(np.ndarray), "bfloat16").astype(np.float32), x.rules)


_network = edits_of("network")

_CASTS = (
    _network("TwinTape({INPUT: x}, {}, {})", "TwinTape({INPUT: np.bfloat16(x)}, {}, {})"),
    _network(
        "tape.outputs[name] = y",
        "tape.outputs[name] = y if name in [exit_.head for exit_ in network.exits] else np.bfloat16(y)",
    ),
    _network("layers.conv2d(x_t, weight, stride, padding)", "layers.conv2d(x_t, np.bfloat16(weight), stride, padding)"),
    _network(
        "layers.conv2d_adjoint(x_t, w, g_t, stride, padding)",
        "layers.conv2d_adjoint(x_t, np.bfloat16(w), np.bfloat16(g_t), stride, padding)",
    ),
)
"""What bf16-mixed rounds (PRE-2, PRE-6)."""

_HANDED = (
    _network("        towards[layer.input] = towards", "        d_x = np.bfloat16(d_x)\n        towards[layer.input] = towards"),
    _network("state, sum(step[1] for step in per_step))", "state, np.bfloat16(sum(step[1] for step in per_step)))"),
)
"""What it may round besides (PRE-5, PRE-6)."""


@cache
def _step(precision: str, handed: bool) -> ModuleType:
    casts = (*_CASTS, *(_HANDED if handed else ())) if PRECISIONS[precision].cast else ()
    return variant.load((*SCATTER, *casts), _Bfloat16Numpy())["step"]


class _Passes:
    """The functions of the reference's `step`, each with an order of its own."""

    def __init__(self, mixed: Mixed, recompute: bool) -> None:
        self._step, self._rules = _step(mixed.precision, mixed.handed), mixed.rules
        self._first = 2 * PASSES * (mixed.rules.order or 0) + PASSES * recompute

    def _given(self, state: dict[str, Values], images: Values, place: int) -> tuple[dict[str, Any], Any]:
        rules = msgspec.structs.replace(self._rules, order=self._first + place)  # chains and trees take turns
        return {name: innocent(value, rules) for name, value in state.items()}, innocent(np.asarray(images, np.float32), rules)

    def trace(self, network: Network, method: Method, state: Any, images: Values, **options: Any) -> Any:
        return self._step.trace(network, method, *self._given(state, images, 0), **options)

    def gradients(self, network: Network, method: Method, state: Any, images: Values, labels: Values) -> Any:
        return self._step.gradients(network, method, *self._given(state, images, 1), labels)

    def train_step(self, network: Network, method: Method, optimizer: Optimizer, state: Any, images: Values, *rest: Any) -> Any:
        return self._step.train_step(network, method, optimizer, *self._given(state, images, 2), *rest)

    def evaluate(self, network: Network, method: Method, state: Any, images: Values) -> Any:
        return self._step.evaluate(network, method, *self._given(state, images, 3))


@final
class InnocentNetworks:
    """Networks alone, by the reference's text."""

    def __init__(self, name: str, mixed: Mixed) -> None:
        self.name, self.mixed = f"networks of the reference, {name}", mixed

    def capabilities(self) -> Capabilities:
        """No operation by itself, in one precision, on the CPU."""
        return Capabilities(
            operations=frozenset(),
            networks=True,
            precisions=frozenset({self.mixed.precision}),
            devices=("cpu",),
            compiled=False,
            versions={"numpy": np.__version__, "twinspike": twinspike.__version__},
        )

    def session(self, device: str = "cpu", precision: str = "", compiled: bool = False) -> InnocentNetworkSession:
        """Its one precision if none is given; SpecError for what is not claimed."""
        precision = precision or self.mixed.precision
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        return InnocentNetworkSession(self.mixed)


@final
class InnocentNetworkSession(Float32Arrays):
    """Programs whose state is a dict of float32 arrays."""

    def __init__(self, mixed: Mixed) -> None:
        self.mixed, self.precision = mixed, mixed.precision

    def forward(self, operation: str, config: Any, inputs: Any) -> Any:
        """SpecError: networks only."""
        raise refuse("operation", expected="networks only", got=operation)

    def vjp(self, operation: str, config: Any, inputs: Any, cotangents: Any) -> Any:
        """SpecError: networks only."""
        raise refuse("operation", expected="networks only", got=operation)

    def program(self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False) -> MutantProgram:
        """The reference's, whose passes round each in its way."""
        passes: Any = _Passes(self.mixed, recompute)
        return MutantProgram(passes, self, np.dtype(np.float32), network, method, optimizer)
