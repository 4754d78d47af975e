"""Norse's `LIFBoxCell`, the neuron without a synaptic current, one step a call.

Its charge is v + dt/tau (x - v): the share that is kept is 1 - dt/tau, and the current is weighted. A reset by subtraction is its
`reset_method`. The potential before a reset is returned nowhere: what its threshold is given is watched through that method.
"""

from __future__ import annotations

from typing import Any

import torch
from norse.torch import LIFBoxCell, LIFBoxFeedForwardState, LIFBoxParameters
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.functional.threshold import threshold

from twinspike.config import FastSigmoid, Neuron, Surrogate, Tanh, Triangle
from twinspike.errors import refuse, require
from twinspike_field.adapter import FieldBackend, Tensors, only
from twinspike_field.engine_torch import Engine, broadcast


def _method(form: Surrogate) -> tuple[str, float]:
    """The library's method of that name, and its alpha; it takes no functions of the user's."""
    match form:
        case Tanh(slope=k):
            return "tanh", k
        case FastSigmoid(slope=k):
            return "super", k
        case Triangle(width=w):
            require(w == 1, "surrogate.width", expected="1, since alpha scales the height", got=w)
            return "triangle", 1.0
        case _:
            raise refuse("surrogate", expected="tanh, fast_sigmoid or triangle", got=type(form).__name__)


class Adapter:
    """See the module."""

    name = "norse"
    distribution = "norse"
    engine = Engine()
    precisions = ("f32-ieee", "f64")
    operations = frozenset({"lif", "spike"})
    watches_difference = False

    def lif(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """decay_input alone; decay and threshold constant or learned, both resets, any v_reset."""
        require(neuron.decay_input, "neuron.decay_input", expected="true, as dt/tau weights both terms", got=False)
        only(neuron, detach_reset=False)
        x = inputs["x"]
        seen: list[torch.Tensor] = []
        reset = reset_value if neuron.reset == "hard" else reset_subtract

        def watched(z: torch.Tensor, v: torch.Tensor, to: torch.Tensor, th: torch.Tensor) -> torch.Tensor:
            seen.append(v)
            return reset(z, v, to, th)

        quantities: dict[str, Any] = {
            name: broadcast(inputs[name], x.ndim - 3) if name in inputs else torch.as_tensor(getattr(neuron, name), dtype=x.dtype)
            for name in ("decay", "threshold")
        }
        method, alpha = _method(neuron.surrogate)
        p = LIFBoxParameters(
            tau_mem_inv=1 - quantities["decay"],
            v_leak=torch.zeros((), dtype=x.dtype),
            v_th=quantities["threshold"],
            v_reset=torch.as_tensor(neuron.v_reset, dtype=x.dtype),
            method=method,
            alpha=alpha,
            reset_method=watched,
        )
        cell, state, spikes = LIFBoxCell(p, dt=1.0), LIFBoxFeedForwardState(v=inputs.get("v", torch.zeros_like(x[0]))), []
        for step in x:
            z, state = cell(step, state)
            spikes.append(z)
        return {"s": torch.stack(spikes), "u": torch.stack(seen), "v": state.v}

    def spike(self, neuron: Neuron, inputs: Tensors) -> Tensors:
        """Its threshold function."""
        return {"s": threshold(inputs["u"] - neuron.threshold, *_method(neuron.surrogate))}


backend = FieldBackend(Adapter())
