"""SpikingJelly's `LIFNode` in multi-step mode, as networks use it.

Potentials before a reset are not returned: they are taken from the library's own charging equation, at the potentials that the
neuron says it had.
"""

from __future__ import annotations

from typing import Any

import torch
from spikingjelly.activation_based import functional, surrogate
from spikingjelly.activation_based.neuron import LIFNode

from twinspike.config import Arctan, FastSigmoid, Neuron, Rectangle, Sigmoid, Surrogate, Tanh, Triangle
from twinspike.errors import require
from twinspike_field.adapter import FieldBackend, Tensors, constant
from twinspike_field.engine_torch import Engine


def _surrogate(form: Surrogate) -> Any:
    """The library's surrogate of the same formula; the tanh is a sigmoid of twice the slope, which its formula says."""
    match form:
        case Rectangle(width=w):
            return surrogate.Rect(alpha=1 / w)
        case Triangle(width=w):
            return surrogate.PiecewiseQuadratic(alpha=1 / w)
        case Sigmoid(slope=k):
            return surrogate.Sigmoid(alpha=k)
        case Tanh(slope=k):
            return surrogate.Sigmoid(alpha=2 * k)
        case Arctan(slope=k):
            return surrogate.ATan(alpha=k)
        case FastSigmoid(slope=k):
            return surrogate.SoftSign(alpha=k)


class Adapter:
    """See the module."""

    name = "spikingjelly"
    distribution = "spikingjelly"
    engine = Engine()
    precisions = ("f32-ieee", "f64")
    operations = frozenset({"lif", "spike"})
    watches_difference = True

    def lif(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """A decay in (0, 1) as tau = 1/(1 - decay); both resets; the potential decays to 0."""
        constant(neuron, inputs, "decay", "threshold")
        require(0 < neuron.decay < 1, "neuron.decay", expected="a number in (0, 1), since tau > 1", got=neuron.decay)
        at_zero = neuron.v_reset == 0
        require(at_zero, "neuron.v_reset", expected="0, since the potential decays to v_reset", got=neuron.v_reset)
        x, tau, v_reset = inputs["x"], 1 / (1 - neuron.decay), 0.0 if neuron.reset == "hard" else None
        node = LIFNode(
            tau=tau,
            decay_input=neuron.decay_input,
            v_threshold=neuron.threshold,
            v_reset=v_reset,
            surrogate_function=_surrogate(neuron.surrogate),
            detach_reset=neuron.detach_reset,
            step_mode="m",
            store_v_seq=True,
        )
        start = inputs.get("v", torch.zeros_like(x[0]))
        if "v" in inputs:
            node.v = start
        s = node(x)
        before = torch.cat([start[None], node.v_seq[:-1]])
        return {"s": s, "u": functional.lif_charge(x, before, tau, neuron.decay_input, v_reset), "v": node.v}

    def spike(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """The surrogate function at the difference from the threshold, as its neurons call it."""
        return {"s": _surrogate(neuron.surrogate)(inputs["u"] - neuron.threshold)}


backend = FieldBackend(Adapter())
