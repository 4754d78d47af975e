"""A backend that offers one operation, the neuron: a template to begin with, complete as it stands.

It is written from the clauses alone, in NumPy, and takes nothing of the reference. Replace the bodies of
`_run` and `_pull` by your own implementation; the rest is what any backend says and refuses.
`PYTHONPATH=examples/lif_only python -m twinspike_conformance lif_only:backend` judges it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

import twinspike
from twinspike.checks import check_claim, check_operation
from twinspike.config import Arctan, FastSigmoid, Neuron, Rectangle, Sigmoid, Tanh, Triangle
from twinspike.errors import refuse, require

Array = NDArray[Any]
Arrays = dict[str, Array]

FORMATS = {"f32-ieee": np.float32, "f64": np.float64}
"""Precision profile -> format of all numbers."""


class _Sequence(NamedTuple):
    """A sequence that was run; times are (T, B, C, *d), quantities broadcast against one step."""

    decay: Any
    threshold: Any
    before: Array
    """Potential that each step begins with."""
    u: Array
    s: Array
    v: Array
    """Potential after the last step, (B, C, *d)."""


def _quantity(neuron: Neuron, inputs: Mapping[str, Array], name: str) -> Any:
    """A decay or threshold: the array that is given, () or (C,), else the config's constant."""
    if name not in inputs:
        return inputs["x"].dtype.type(getattr(neuron, name))
    axes = inputs["x"].ndim - 3
    return inputs[name].reshape(inputs[name].shape + (1,) * axes) if inputs[name].ndim else inputs[name]


def _run(neuron: Neuron, inputs: Mapping[str, Array]) -> _Sequence:
    """Clauses LIF-1 to LIF-5."""
    x = inputs["x"]
    decay, threshold = _quantity(neuron, inputs, "decay"), _quantity(neuron, inputs, "threshold")
    current = x * (1 - decay) if neuron.decay_input else x
    v = inputs["v"] if "v" in inputs else np.zeros(x.shape[1:], x.dtype)
    before, u, fired = np.empty_like(x), np.empty_like(x), np.empty(x.shape, np.bool_)
    for t, step in enumerate(current):
        before[t] = v
        u[t] = decay * v + step
        fired[t] = u[t] >= threshold
        v = np.where(fired[t], u[t] - threshold if neuron.reset == "soft" else x.dtype.type(neuron.v_reset), u[t])
    return _Sequence(decay, threshold, before, u, fired.astype(x.dtype), v)


def _slope(neuron: Neuron, z: Array) -> Array:
    """h(z), clauses SUR-2 to SUR-7, from |z| so that it is even to the bit and no exponential overflows."""
    a = np.abs(z)
    match neuron.surrogate:
        case Rectangle(width=w):
            return np.asarray(np.where(a < w / 2, 1 / w, 0.0), z.dtype)
        case Triangle(width=w):
            return np.asarray(np.maximum(1 - a / w, 0) / w)
        case Sigmoid(slope=k):
            q = np.exp(-k * a)
            return np.asarray(k * q / np.square(1 + q))
        case Tanh(slope=k):
            q = np.exp(-2 * k * a)
            return np.asarray(2 * k * q / np.square(1 + q))
        case Arctan(slope=k):
            return np.asarray(k / 2 / (1 + np.square(math.pi * k / 2 * a)))
        case FastSigmoid(slope=k):
            return np.asarray(k / 2 / np.square(1 + k * a))


def _pull(neuron: Neuron, inputs: Mapping[str, Array], run: _Sequence, g: Array, e: Array) -> Arrays:
    """Clauses LIF-6 to LIF-10: gradients from those of the spikes, (T, B, C, *d), and of the last state, (B, C, *d)."""
    x, soft = inputs["x"], neuron.reset == "soft"
    d_x, d_decay, d_threshold = np.empty_like(x), np.zeros_like(e), np.zeros_like(e)
    for t in range(len(x) - 1, -1, -1):
        reset = -run.threshold if soft else neuron.v_reset - run.u[t]
        through = _slope(neuron, run.u[t] - run.threshold) * (g[t] if neuron.detach_reset else g[t] + e * reset)
        d = through + (e if soft else e * (1 - run.s[t]))
        d_decay += d * (run.before[t] - x[t] if neuron.decay_input else run.before[t])
        d_threshold -= through + e * run.s[t] if soft else through
        d_x[t] = d * (1 - run.decay) if neuron.decay_input else d
        e = run.decay * d
    found = {"x": d_x, "v": e}
    for name, total in (("decay", d_decay), ("threshold", d_threshold)):
        if name in inputs:
            axes = tuple(i for i in range(total.ndim) if i != 1 or inputs[name].ndim == 0)
            found[name] = np.asarray(total.sum(axis=axes))
    return {name: value for name, value in found.items() if name in inputs}


@final
class Session:
    """`lif` on the CPU in one format."""

    def __init__(self, device: str, precision: str, compiled: bool) -> None:
        self.device, self.precision, self.compiled = device, precision, compiled

    def flags(self) -> dict[str, str]:
        """None: no setting decides results."""
        return {}

    def from_numpy(self, values: Array) -> Array:
        """A copy, floats in the session's format."""
        return np.array(values, FORMATS[self.precision] if values.dtype.kind == "f" else np.int64)

    def to_numpy(self, tensor: Array) -> Array:
        """A copy."""
        return np.array(tensor)

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Array]) -> Arrays:
        """Outputs of `lif` by name; SpecError for another operation, or what does not fit it."""
        run = self._checked(operation, config, inputs)
        return {"s": run.s, "u": run.u, "v": run.v}

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Array], cotangents: Mapping[str, Array]
    ) -> tuple[Arrays, Arrays]:
        """Outputs and gradients of the inputs that were given; a missing cotangent is 0."""
        run = self._checked(operation, config, inputs)
        wrong = {k: v.shape for k, v in cotangents.items() if v.shape != {"s": run.s.shape, "v": run.v.shape}.get(k)}
        require(not wrong, "lif cotangents", expected=f"s {run.s.shape} and v {run.v.shape}", got=wrong)
        g, e = cotangents.get("s", np.zeros_like(run.s)), cotangents.get("v", np.zeros_like(run.v))
        return {"s": run.s, "u": run.u, "v": run.v}, _pull(config, inputs, run, g, e)

    def program(self, network: Any, method: Any, optimizer: Any, *, recompute: bool = False) -> Any:
        """SpecError: whole networks are not offered."""
        raise refuse("program of backend 'lif_only'", expected="operations only", got="a network")

    def _checked(self, operation: str, config: Any, inputs: Mapping[str, Array]) -> _Sequence:
        require(operation == "lif", "operation of backend 'lif_only'", expected="lif", got=operation)
        shapes = {name: value.shape for name, value in inputs.items()}
        check_operation(operation, config, shapes, {name: value.dtype.kind == "f" for name, value in inputs.items()})
        return _run(config, inputs)


@final
class LifOnly:
    """What the registry loads as `lif_only:backend`."""

    name = "lif_only:backend"

    def capabilities(self) -> twinspike.Capabilities:
        """`lif` in float32 and float64 on the CPU."""
        return twinspike.Capabilities(
            operations=frozenset({"lif"}),
            networks=False,
            precisions=frozenset(FORMATS),
            devices=("cpu",),
            compiled=False,
            versions={"numpy": np.__version__},
            specification="0.1.0",
        )

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> Session:
        """SpecError for a device, precision or mode that is not claimed."""
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        return Session(device, precision, compiled)


backend = LifOnly()
