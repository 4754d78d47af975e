"""Synaptic operations: what a spiking twin's classification of one sample costs where only spikes cost anything."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from twinspike.config import Method
from twinspike.cost import cost
from twinspike.network import INPUT, Activation, AvgPool, Conv, GlobalPool, Linear, Network, inputs_of


class SynOps(msgspec.Struct, frozen=True):
    """Of one sample, all time steps, as far as the main exit needs them."""

    spikes: float
    """Additions of a weight for a spike: over the layers that read spikes, pooled ones too, T times their multiply-adds times
    the spikes per neuron and time step of what they read, as if these were spread evenly over the map."""
    dense: float
    """Multiply-adds of the layers that read something else, the network's input first: a static image's once, since they
    are the same at each step, and an event frame's at every one."""


def synaptic_operations(network: Network, method: Method, rates: Mapping[str, float]) -> SynOps:
    """Count them from measured spike rates.

    Args:
        network: the graph.
        method: gives T.
        rates: by activation layer, spikes per neuron and time step.
    """
    needed, readers = {network.exits[-1].head}, {layer.name: inputs_of(layer) for layer in network.layers}
    for layer in reversed(network.layers):
        if layer.name in needed:
            needed.update(readers[layer.name])
    macs = {layer.name: layer.macs for layer in cost(network, method).layers}
    steps = method.time_steps
    rate: dict[str, float | None] = {INPUT: None}
    spikes = dense = 0.0
    for layer in network.layers:
        match layer:
            case Activation():
                rate[layer.name] = rates[layer.name]
            case AvgPool() | GlobalPool():
                rate[layer.name] = rate[layer.input]
            case _:
                rate[layer.name] = None
        if layer.name not in needed or not isinstance(layer, Conv | Linear):
            continue
        share = rate[layer.input]
        if share is None:
            dense += macs[layer.name] * (1 if layer.input == INPUT and not network.event else steps)
        else:
            spikes += macs[layer.name] * steps * share
    return SynOps(spikes, dense)
