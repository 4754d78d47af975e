"""btorch's `LIF`, one step a call: an Euler step of 1, so that the share kept is 1 - 1/tau; `pre_spike_v` keeps what we watch.

Its surrogates have a peak, `damping_factor`, and a width, by `alpha`. They are taken of the potential in units of
threshold - v_reset, so that slopes and peaks go in times the threshold.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from btorch.models import environ, surrogate
from btorch.models.neurons import LIF

from twinspike.config import Arctan, FastSigmoid, Neuron, Sigmoid, Surrogate, Tanh, Triangle
from twinspike.errors import refuse, require
from twinspike_field.adapter import FieldBackend, Tensors, constant
from twinspike_field.engine_torch import Engine

SIGMOID = 2 * math.log(math.sqrt(2) + 1)
"""Of `alpha`, what its sigmoid has for a slope."""
SUPERSPIKE = math.sqrt(2) - 1


def _surrogate(form: Surrogate, unit: float) -> Any:
    """The library's surrogate of the same formula."""
    match form:
        case Triangle(width=w):
            return surrogate.Triangle(alpha=2 * unit / w, damping_factor=unit / w)
        case Sigmoid(slope=k):
            return surrogate.Sigmoid(alpha=k * unit / SIGMOID, damping_factor=k * unit / 4)
        case Tanh(slope=k):
            return surrogate.Sigmoid(alpha=2 * k * unit / SIGMOID, damping_factor=k * unit / 2)
        case Arctan(slope=k):
            return surrogate.ATan(alpha=math.pi * k * unit / 2, damping_factor=k * unit / 2)
        case FastSigmoid(slope=k):
            return surrogate.SuperSpike(alpha=k * unit / SUPERSPIKE, damping_factor=k * unit / 2)
        case _:
            raise refuse("surrogate", expected="one with a formula of the library", got=type(form).__name__)


class Adapter:
    """See the module."""

    name = "btorch"
    distribution = "btorch"
    engine = Engine()
    precisions = ("f32-ieee", "f64")
    operations = frozenset({"lif", "spike"})
    watches_difference = False

    def lif(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """A constant decay in [0, 1); both resets, detached or not; the potential decays to v_reset."""
        x = inputs["x"]
        node = self._node(neuron, inputs, x.shape[1:], x.dtype)
        node.v = inputs.get("v", torch.zeros_like(x[0]))
        spikes, seen = [], []
        with environ.context(dt=1.0):
            for step in x:
                spikes.append(node(step))
                seen.append(node.v_pre_spike)
        return {"s": torch.stack(spikes), "u": torch.stack(seen), "v": node.v}

    def spike(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """`neuronal_fire` of the neuron at a potential."""
        node = self._node(neuron, inputs, inputs["u"].shape, inputs["u"].dtype)
        node.v = inputs["u"]
        return {"s": node.neuronal_fire()}

    @staticmethod
    def _node(neuron: Neuron, inputs: Tensors, shape: torch.Size, dtype: torch.dtype) -> Any:
        constant(neuron, inputs, "decay", "threshold")
        require(neuron.v_reset == 0, "neuron.v_reset", expected="0, since the potential decays to v_reset", got=neuron.v_reset)
        require(neuron.decay < 1, "neuron.decay", expected="a number below 1, as 1 - 1/tau", got=neuron.decay)
        tau = 1 / (1 - neuron.decay)
        node = LIF(
            tuple(shape[1:]),
            v_threshold=neuron.threshold,
            c_m=tau if neuron.decay_input else 1.0,
            tau=tau,
            surrogate_function=_surrogate(neuron.surrogate, neuron.threshold),
            detach_reset=neuron.detach_reset,
            hard_reset=neuron.reset == "hard",
            pre_spike_v=True,
            dtype=dtype,
        )
        node.init_state(batch_size=shape[0], dtype=dtype)
        return node


backend = FieldBackend(Adapter())
