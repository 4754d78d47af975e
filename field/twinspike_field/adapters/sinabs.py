"""Sinabs' `LIF` layer, which takes whole sequences with the batch in front.

The decay goes in as tau = -1/log(decay); with `train_alphas` it is itself the parameter. Potentials before a reset are not
recorded: the reset function, which the library lets one choose, is given them and is watched.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from sinabs.activation import MembraneReset, MembraneSubtract, SingleSpike
from sinabs.layers import LIF

from twinspike.config import Neuron, Surrogate
from twinspike.errors import require
from twinspike_field.adapter import FieldBackend, Tensors
from twinspike_field.engine_torch import Engine, derivative


def _surrogate(form: Surrogate) -> Any:
    """A function of potential and threshold, as the library takes any; of its own, none is one of the clauses'."""
    return lambda v, threshold: derivative(form, v - threshold)


class Adapter:
    """See the module."""

    name = "sinabs"
    distribution = "sinabs"
    engine = Engine()
    precisions = ("f32-ieee", "f64")
    operations = frozenset({"lif", "spike"})
    watches_difference = False

    def lif(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """A decay in (0, 1), learned per layer as its alpha; a hard reset is detached, a soft one is not."""
        hard = neuron.reset == "hard"
        require(neuron.detach_reset == hard, "neuron.detach_reset", expected=f"{hard} with this reset", got=neuron.detach_reset)
        require("threshold" not in inputs, "neuron.threshold_scope", expected="constant", got="a tensor")
        require(0 < neuron.decay < 1, "neuron.decay", expected="a number in (0, 1), as exp(-1/tau)", got=neuron.decay)
        x = inputs["x"]
        decay = inputs.get("decay", torch.tensor(neuron.decay, dtype=torch.float64))
        require(decay.ndim == 0, "neuron.decay_scope", expected="constant or layer", got="channel")
        reset = MembraneReset(neuron.v_reset) if hard else MembraneSubtract()
        seen: list[torch.Tensor] = []

        def watched(spikes: torch.Tensor, state: dict[str, torch.Tensor], threshold: torch.Tensor) -> Any:
            seen.append(state["v_mem"])
            return reset(spikes, state, threshold)

        layer = LIF(
            tau_mem=-1 / math.log(neuron.decay),
            spike_threshold=torch.tensor(neuron.threshold, dtype=x.dtype),
            spike_fn=SingleSpike,
            reset_fn=watched,
            surrogate_grad_fn=_surrogate(neuron.surrogate),
            train_alphas=True,
            norm_input=neuron.decay_input,
        )
        del layer.alpha_mem  # a parameter; the tensor in its place leads to the gradient
        layer.alpha_mem = decay.to(x.dtype)
        layer.init_state_with_shape(x.shape[1:])
        layer.v_mem = inputs.get("v", torch.zeros_like(x[0]))
        s = layer(x.transpose(0, 1)).transpose(0, 1)
        return {"s": s, "u": torch.stack(seen), "v": layer.v_mem}

    def spike(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """`SingleSpike`, its function of at most one spike a step."""
        threshold = torch.tensor(neuron.threshold, dtype=inputs["u"].dtype)
        return {"s": SingleSpike.apply(inputs["u"], threshold, _surrogate(neuron.surrogate))}


backend = FieldBackend(Adapter())
