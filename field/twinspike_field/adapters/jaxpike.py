"""jaxpike's `LIF`, one step a call: a weighted current, tau = -1/log(decay), resets that are never detached.

Potentials are watched where the surrogate, which is the user's to choose, is given them less the threshold.
"""

from __future__ import annotations

import math
from typing import Any

import equinox
import jax
import jax.numpy as jnp
import jaxpike
from jaxpike import surrogate
from jaxpike.neurons import LIFState

from twinspike.config import Arctan, FastSigmoid, Neuron, Rectangle, Sigmoid, Surrogate, Tanh, Triangle
from twinspike.errors import require
from twinspike_field.adapter import FieldBackend, Tensors, constant, only
from twinspike_field.engine_jax import Engine


class _Logistic(surrogate.Surrogate):  # type: ignore[misc]  # the library's classes are untyped here
    """A relaxation of the user's, as the library asks for one."""

    slope: float

    def relaxation(self, v: jax.Array) -> jax.Array:
        """1/(1 + exp(-slope v))."""
        return jax.nn.sigmoid(self.slope * v)


class _Watched(surrogate.Surrogate):  # type: ignore[misc]
    """A surrogate that keeps what it is given."""

    inner: Any
    seen: list[Any] = equinox.field(static=True)

    def __call__(self, v: jax.Array) -> jax.Array:
        """The inner surrogate's spikes."""
        self.seen.append(v)
        return self.inner(v)


def _surrogate(form: Surrogate) -> Any:
    match form:
        case Rectangle(width=w):
            return surrogate.Boxcar(width=w)
        case Triangle(width=w):
            return surrogate.Triangular(width=w)
        case Arctan(slope=k):
            return surrogate.ATan(alpha=k)
        case FastSigmoid(slope=k):
            return surrogate.FastSigmoid(slope=k)
        case Sigmoid(slope=k):
            return _Logistic(slope=k)
        case Tanh(slope=k):
            return _Logistic(slope=2 * k)


class Adapter:
    """See the module."""

    name = "jaxpike"
    distribution = "jaxpike"
    engine = Engine()
    precisions = ("f32-ieee", "f64")
    operations = frozenset({"lif", "spike"})
    watches_difference = True

    def lif(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """A constant decay of at least exp(-1), short of 1; reset by subtraction or to 0."""
        constant(neuron, inputs, "decay", "threshold")
        only(neuron, decay_input=True, detach_reset=False, v_reset=0)
        above = math.exp(-1) < neuron.decay < 1
        require(above, "neuron.decay", expected="a number in (exp(-1), 1), since tau > dt", got=neuron.decay)
        x, seen = inputs["x"], list[Any]()
        cell = jaxpike.LIF(
            tau=-1 / math.log(neuron.decay),
            threshold=neuron.threshold,
            reset="zero" if neuron.reset == "hard" else "subtract",
            surrogate=_Watched(_surrogate(neuron.surrogate), seen),
        )
        state, spikes = LIFState(v=inputs.get("v", jnp.zeros_like(x[0]))), []
        for step in x:
            state, s = cell(state, step)
            spikes.append(s)
        return {"s": jnp.stack(spikes), "u": jnp.stack(seen) + neuron.threshold, "v": state.v}

    def spike(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """The surrogate at the difference from the threshold."""
        return {"s": _surrogate(neuron.surrogate)(inputs["u"] - neuron.threshold)}


backend = FieldBackend(Adapter())
