"""spyx's `LIF`, one step a call.

It fires by the potential that a step begins with, before its charge. Potentials are watched where the activation, which is the
user's to choose, is given them less the threshold.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from spyx import axn, nn

from twinspike.config import Arctan, FastSigmoid, Neuron, Rectangle, Sigmoid, Surrogate, Tanh, Triangle
from twinspike_field.adapter import FieldBackend, Tensors, constant, only
from twinspike_field.engine_jax import Engine, broadcast, tanh_derivative


def _surrogate(form: Surrogate) -> Any:
    """The library's activation where its formula has the parameters for it, else a custom one."""
    match form:
        case Rectangle(width=w):
            return axn.boxcar(width=w, height=1 / w)
        case Triangle(width=w):
            return axn.custom(lambda z: jnp.maximum(0, 1 - jnp.abs(z) / w) / w)
        case Sigmoid(slope=k):
            return axn.custom(lambda z: tanh_derivative(k / 2, z))
        case Tanh(slope=k):
            return axn.tanh(k)
        case Arctan(slope=k):
            return axn.arctan(k / 2)
        case FastSigmoid(slope=k):
            return axn.superspike(k)


class Adapter:
    """See the module."""

    name = "spyx"
    distribution = "spyx"
    engine = Engine()
    precisions = ("f32-ieee", "f64")
    operations = frozenset({"lif", "spike"})
    watches_difference = True

    def lif(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """A reset by subtraction, never detached; a decay that is constant or learned."""
        constant(neuron, inputs, "threshold")
        only(neuron, reset="soft", detach_reset=False)
        x = inputs["x"]
        seen: list[Any] = []
        activation = _surrogate(neuron.surrogate)

        def watched(z: Any) -> Any:
            seen.append(z + neuron.threshold)
            return activation(z)

        cell = nn.LIF(x.shape[2:], beta=neuron.decay, threshold=neuron.threshold, activation=watched, rngs=nnx.Rngs(0))
        beta = broadcast(inputs["decay"], x.ndim - 3) if "decay" in inputs else jnp.asarray(neuron.decay, x.dtype)
        cell.beta = nnx.Param(beta)
        v, spikes = inputs.get("v", jnp.zeros_like(x[0])), []
        for step in (1 - beta) * x if neuron.decay_input else x:
            s, v = cell(step, v)
            spikes.append(s)
        return {"s": jnp.stack(spikes), "u": jnp.stack(seen), "v": v}

    def spike(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """The activation at the difference from the threshold."""
        return {"s": _surrogate(neuron.surrogate)(inputs["u"] - neuron.threshold)}


backend = FieldBackend(Adapter())
