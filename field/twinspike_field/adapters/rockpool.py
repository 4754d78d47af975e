"""Rockpool's `LIFNeuronTorch`, the neuron without synapses, of which at most one spike a step is asked.

It takes sequences with the batch in front and one axis of neurons. Its spike function is the user's to choose: of its own the
forward pass is kept, which is watched for potentials, and the backward pass is the clause's. Its arrays are float32.
"""

# ruff: noqa: E402 # what must not be imported is said before what would import it

from __future__ import annotations

import math
import sys
from typing import Any

import torch

sys.modules.setdefault("samna", None)  # type: ignore[arg-type]  # its placeholder would have pip install it, from elsewhere

from rockpool.nn.modules import LIFNeuronTorch
from rockpool.nn.modules.torch.lif_neuron_torch import StepPWL

from twinspike.config import Neuron, Surrogate
from twinspike.errors import require
from twinspike_field.adapter import FieldBackend, Tensors, constant, only
from twinspike_field.engine_torch import Engine, derivative


def _function(form: Surrogate, seen: list[torch.Tensor]) -> Any:
    """The library's spike function with another backward pass."""

    class Watched(StepPWL):  # type: ignore[misc]  # untyped
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, *others: Any) -> Any:
            seen.append(x.detach())
            return StepPWL.forward(ctx, x, *others)

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> Any:
            x, threshold = ctx.saved_tensors
            return g * derivative(form, x - threshold), None, None, None

    return Watched


class Adapter:
    """See the module."""

    name = "rockpool"
    distribution = "rockpool"
    engine = Engine()
    precisions = ("f32-ieee",)
    operations = frozenset({"lif", "spike"})
    watches_difference = False

    def lif(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """A constant decay as tau = -dt/log(decay), a reset by subtraction; the state has no batch and no gradient."""
        constant(neuron, inputs, "decay", "threshold")
        require("v" not in inputs, "lif.v", expected="nothing, since a state is one for the batch", got="an array")
        only(neuron, reset="soft", detach_reset=False, decay_input=False)
        require(0 < neuron.decay < 1, "neuron.decay", expected="a number in (0, 1), as exp(-dt/tau)", got=neuron.decay)
        x, seen = inputs["x"], list[torch.Tensor]()
        sequence = x.transpose(0, 1).flatten(2)
        module = LIFNeuronTorch(
            (sequence.shape[2],),
            tau_mem=-1e-3 / math.log(neuron.decay),
            threshold=neuron.threshold,
            spike_generation_fn=_function(neuron.surrogate, seen),
            max_spikes_per_dt=torch.tensor(1.0),
        )
        spikes, _, recorded = module(sequence, record=True)
        return {
            "s": spikes.transpose(0, 1).reshape(x.shape),
            "u": torch.stack(seen).reshape(x.shape),
            "v": recorded["vmem"][:, -1].reshape(x.shape[1:]),
        }

    def spike(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """The spike function at a potential."""
        threshold, one = torch.tensor(neuron.threshold), torch.tensor(1.0)
        return {"s": _function(neuron.surrogate, []).apply(inputs["u"], threshold, torch.tensor(0.5), one)}


backend = FieldBackend(Adapter())
