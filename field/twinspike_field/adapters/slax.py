"""Slax' `LIF`, one step a call: the decay goes in as the sigmoid's argument, resets are never detached.

Potentials are watched where the spike function, which is the user's to choose, is given them less the threshold.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import slax

from twinspike.config import Arctan, FastSigmoid, Neuron, Surrogate
from twinspike.errors import refuse, require
from twinspike_field.adapter import FieldBackend, Tensors, constant, only
from twinspike_field.engine_jax import Engine


def _surrogate(form: Surrogate) -> Any:
    match form:
        case Arctan(slope=k):
            return slax.atan(alpha=k)
        case FastSigmoid(slope=k):
            return slax.fast_sigmoid(slope=k)
        case _:
            raise refuse("surrogate", expected="arctan or fast_sigmoid", got=type(form).__name__)


class Adapter:
    """See the module."""

    name = "slax"
    distribution = "slax"
    engine = Engine()
    precisions = ("f32-ieee", "f64")
    operations = frozenset({"lif", "spike"})
    watches_difference = True

    def lif(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """A constant decay in (0, 1); reset by subtraction or to any value."""
        constant(neuron, inputs, "decay", "threshold")
        only(neuron, decay_input=False, detach_reset=False)
        require(0 < neuron.decay < 1, "neuron.decay", expected="a number in (0, 1), as a sigmoid", got=neuron.decay)
        x, seen = inputs["x"], list[Any]()
        fire = _surrogate(neuron.surrogate)

        def watched(z: Any) -> Any:
            seen.append(z)
            return fire(z)

        cell = slax.LIF(
            init_tau=math.log(neuron.decay / (1 - neuron.decay)),
            spike_fn=watched,
            v_threshold=neuron.threshold,
            v_reset=neuron.v_reset,
            subtraction_reset=neuron.reset == "soft",
        )
        carry, spikes = {"Vmem": inputs.get("v", jnp.zeros_like(x[0]))}, []
        for step in x:
            carry, s = cell.apply({}, carry, step)
            spikes.append(s)
        return {"s": jnp.stack(spikes), "u": jnp.stack(seen) + neuron.threshold, "v": carry["Vmem"]}

    def spike(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """The spike function at the difference from the threshold."""
        return {"s": _surrogate(neuron.surrogate)(inputs["u"] - neuron.threshold)}


backend = FieldBackend(Adapter())
