"""snnTorch's `Leaky`, one step a call.

A detached reset is the delayed one, whose reset is detached; the immediate one is not. The potential before an immediate reset
is returned nowhere: `fire`, which is given it, is watched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import snntorch
import torch
from snntorch import surrogate

from twinspike.config import Arctan, FastSigmoid, Neuron, Rectangle, Sigmoid, Surrogate, Tanh, Triangle
from twinspike.errors import require
from twinspike_field.adapter import FieldBackend, Tensors
from twinspike_field.engine_torch import Engine, broadcast, tanh_derivative


def _surrogate(form: Surrogate) -> Callable[[torch.Tensor], torch.Tensor]:
    """The library's surrogate of that name where it has one, else a custom one."""
    match form:
        case Arctan(slope=k):
            return surrogate.atan(alpha=k)
        case Sigmoid(slope=k):
            return surrogate.sigmoid(slope=k)
        case FastSigmoid(slope=k):
            return surrogate.fast_sigmoid(slope=k)
        case Triangle(width=w):
            return surrogate.triangular(threshold=1 / w)  # its one parameter is the height
        case Rectangle(width=w):
            return surrogate.custom_surrogate(lambda z, g, s: (z.abs() < w / 2).to(z.dtype) / w * g)
        case Tanh(slope=k):
            return surrogate.custom_surrogate(lambda z, g, s: g * tanh_derivative(k, z))


def _leaky(neuron: Neuron, leaves: Tensors, like: torch.Tensor, axes: int) -> Any:
    """Constants and learned quantities are tensors of the input's format that broadcast: of a float it keeps a float32."""
    given = {
        name: broadcast(leaves[name], axes) if name in leaves else torch.tensor(getattr(neuron, name), dtype=like.dtype)
        for name in ("decay", "threshold")
    }
    return snntorch.Leaky(
        beta=given["decay"],
        threshold=given["threshold"],
        spike_grad=_surrogate(neuron.surrogate),
        reset_mechanism="zero" if neuron.reset == "hard" else "subtract",
        reset_delay=neuron.detach_reset,
    )


class Adapter:
    """See the module."""

    name = "snntorch"
    distribution = "snntorch"
    engine = Engine()
    precisions = ("f32-ieee", "f64")
    operations = frozenset({"lif", "spike"})
    watches_difference = False

    def lif(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """Decay and threshold, constant or learned, both resets; a hard reset goes to 0."""
        require(neuron.v_reset == 0, "neuron.v_reset", expected="0, the only reset value of snnTorch", got=neuron.v_reset)
        x = inputs["x"]
        cell = _leaky(neuron, inputs, x, x.ndim - 3)
        seen: list[torch.Tensor] = []
        fire = cell.fire

        def watched(mem: torch.Tensor) -> torch.Tensor:
            seen.append(mem)
            return fire(mem)

        cell.fire = watched
        current = (1 - cell.beta) * x if neuron.decay_input else x
        mem, spikes = inputs.get("v", torch.zeros_like(x[0])), []
        for step in current:
            s, mem = cell(step, mem)
            spikes.append(s)
        return {"s": torch.stack(spikes), "u": torch.stack(seen), "v": mem}

    def spike(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """`fire` of the neuron."""
        return {"s": _leaky(neuron, {}, inputs["u"], 0).fire(inputs["u"])}


backend = FieldBackend(Adapter())
