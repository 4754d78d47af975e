"""BrainPy's `state.LIF` with surrogates of BrainTools, one step a call.

Its step is exponential, the current weighted, and the reset of a spike comes as the next step begins. Surrogates are taken of the
potential in units of threshold - v_reset: slopes go in times that.
"""

from __future__ import annotations

import math
from typing import Any

import brainpy
import brainstate
import jax.numpy as jnp
from braintools import surrogate

from twinspike.config import Arctan, FastSigmoid, Neuron, Rectangle, Sigmoid, Surrogate, Tanh, Triangle
from twinspike.errors import require
from twinspike_field.adapter import FieldBackend, Tensors, constant, only
from twinspike_field.engine_jax import Engine


def _surrogate(form: Surrogate, unit: float) -> Any:
    match form:
        case Rectangle(width=w):
            return surrogate.PiecewiseLeakyRelu(c=0.0, w=w / unit / 2)
        case Triangle(width=w):
            return surrogate.PiecewiseQuadratic(alpha=unit / w)
        case Sigmoid(slope=k):
            return surrogate.Sigmoid(alpha=k * unit)
        case Tanh(slope=k):
            return surrogate.Sigmoid(alpha=2 * k * unit)
        case Arctan(slope=k):
            return surrogate.Arctan(alpha=k * unit)
        case FastSigmoid(slope=k):
            return surrogate.SoftSign(alpha=k * unit)


class Adapter:
    """See the module."""

    name = "brainpy"
    distribution = "brainpy"
    engine = Engine()
    precisions = ("f32-ieee",)
    operations = frozenset({"lif", "spike"})
    watches_difference = False

    def lif(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """A constant decay as tau = -dt/log(decay); reset by subtraction, or hard to 0."""
        constant(neuron, inputs, "decay", "threshold")
        only(neuron, decay_input=True, detach_reset=False, v_reset=0)
        require(0 < neuron.decay < 1, "neuron.decay", expected="a number in (0, 1), as exp(-dt/tau)", got=neuron.decay)
        x = inputs["x"]
        cell = brainpy.state.LIF(
            x.shape[2:],
            R=1.0,
            tau=-1 / math.log(neuron.decay),
            V_th=neuron.threshold,
            V_reset=0.0,
            V_rest=0.0,
            spk_fun=_surrogate(neuron.surrogate, neuron.threshold),
            spk_reset=neuron.reset,
        )
        cell.V = brainstate.HiddenState(inputs.get("v", jnp.zeros_like(x[0])))
        spikes, seen = [], []
        with brainstate.environ.context(dt=1.0):
            for step in x:
                spikes.append(cell.update(step))
                seen.append(cell.V.value)
        return {"s": jnp.stack(spikes), "u": jnp.stack(seen), "v": cell.V.value}

    def spike(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """The surrogate at the difference from the threshold, not in its units."""
        return {"s": _surrogate(neuron.surrogate, 1.0)(inputs["u"] - neuron.threshold)}


backend = FieldBackend(Adapter())
