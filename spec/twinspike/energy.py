"""What a twin's inference costs, as integers: kernels, synaptic operations, membrane updates (clauses ENE-*).

Counted from a trace, which any backend gives, as NeuroBench's harness counts, so that numbers may stand beside those of others:
two backends with equal spikes and potentials have equal counts, to the last one. Nothing here is energy itself, which depends on
what executes; it is what such estimates start from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.config import Method, Twin
from twinspike.network import INPUT, Activation, Conv, Linear, Network, infer_shapes, inputs_of
from twinspike.parameters import State, layout
from twinspike.reference.layers import conv2d, conv2d_adjoint
from twinspike.reference.network import frames, kernel

Values = NDArray[Any]
Counts = NDArray[np.int64]


class Static(msgspec.Struct, frozen=True, kw_only=True):
    """What a twin is, whatever it sees."""

    footprint: int
    """Bytes of what it keeps (clause ENE-2)."""
    connections: int
    """Entries of its kernels (clause ENE-3)."""
    zeros: int
    """Those that are 0."""

    @property
    def connection_sparsity(self) -> float:
        """Share of connections that are 0."""
        return self.zeros / self.connections


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What a twin does with some samples, all time steps, summed over the samples."""

    samples: int
    dense: int
    """Products of convolutions and linear layers, each input and weight counted (clause ENE-5)."""
    macs: int
    """Effective ones whose input is no spike: multiply-adds (clause ENE-6)."""
    acs: int
    """Effective ones whose input is a spike: additions of a weight."""
    activations: int
    """Outputs of activation layers (clause ENE-4)."""
    silent: int
    """Those that are 0."""
    updates: int
    """Potentials that a step changes (clause ENE-7); 0 of the artificial twin."""

    @property
    def activation_sparsity(self) -> float:
        """Share of activations that are 0; 0 where there are none."""
        return self.silent / self.activations if self.activations else 0.0

    def __add__(self, other: Workload) -> Workload:
        """Of both their samples."""
        return Workload(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


def path_of(network: Network) -> tuple[str, ...]:
    """Layers that the main exit needs, in order (clause ENE-1)."""
    needed = {network.exits[-1].head}
    for layer in reversed(network.layers):
        if layer.name in needed:
            needed.update(inputs_of(layer))
    return tuple(layer.name for layer in network.layers if layer.name in needed)


def static(network: Network, method: Method, twin: Twin, state: State) -> Static:
    """Count a twin's kernels and bytes.

    Args:
        network: the graph.
        method: decides factors.
        twin: whose.
        state: names as in `parameters.layout`; its format is what bytes are counted in.
    """
    on_path = set(path_of(network))
    bytes_ = zeros = connections = 0
    for _, weight in _kernels(network, method, twin, state):
        connections += weight.size
        zeros += int((weight == 0).sum())
        bytes_ += weight.nbytes
    for entry in layout(network, method):
        shared = entry.kind == "bias" or (entry.kind == "neuron" and twin == "snn")
        if entry.layer in on_path and (shared or (entry.kind in ("norm", "statistic") and entry.twin == twin)):
            bytes_ += state[entry.name].nbytes
    return Static(footprint=bytes_, connections=connections, zeros=zeros)


def workload(
    network: Network, method: Method, twin: Twin, state: State, images: Values, trace: Mapping[str, Mapping[str, Values]]
) -> Workload:
    """Count what a twin did with a batch.

    Args:
        network: the graph.
        method: T and the reset.
        twin: whose; the artificial one takes one step.
        state: whose kernels were used.
        images: (B, C, H, W) or of events (T, B, C, H, W).
        trace: of `Program.trace` in evaluation mode.
    """

    def output(name: str) -> Values:
        if name == INPUT:
            return frames(network, method, twin, images)
        value = np.asarray(trace[name][twin])
        return value[None] if twin == "ann" else value

    dense = macs = acs = activations = silent = updates = 0
    for layer, weight in _kernels(network, method, twin, state):
        x = output(layer.input)
        active = (x != 0).sum(axis=(0, 1), dtype=np.int64)
        dense += int(_fan_out(layer, np.ones_like(weight), active).sum()) * x.shape[0] * x.shape[1]
        effective = int((_fan_out(layer, weight != 0, active) * active).sum())
        if twin == "snn" and layer.input != INPUT and isinstance(network.layer(layer.input), Activation):
            acs += effective
        else:
            macs += effective
    path = path_of(network)
    for name in (name for name in network.activations if name in path):
        y = output(name)
        activations += y.size
        silent += int((y == 0).sum())
        if twin == "snn":
            updates += _updates(method, np.asarray(trace[name]["u"]), y, state.get(f"{name}.threshold"))
    samples = images.shape[1 if network.event else 0]
    return Workload(samples=samples, dense=dense, macs=macs, acs=acs, activations=activations, silent=silent, updates=updates)


def _kernels(network: Network, method: Method, twin: Twin, state: State) -> Iterator[tuple[Conv | Linear, Values]]:
    """Layers with kernels on the path, and their kernels as one twin uses them."""
    shapes = infer_shapes(network)
    for name in path_of(network):
        layer = network.layer(name)
        if isinstance(layer, Conv | Linear):
            x = np.empty((1, 1, *shapes[layer.input]))
            yield layer, np.asarray(kernel(layer, method, twin, state, x))


def _fan_out(layer: Conv | Linear, connected: Values, like: Counts) -> Counts:
    """How many products each input enters, shaped as one sample: taps that meet padding have none."""
    ones = connected.astype(np.float64)
    if isinstance(layer, Linear):
        return np.asarray(ones.sum(axis=0), dtype=np.int64)
    x = np.zeros((1, *like.shape))
    y = conv2d(x, ones, layer.stride, layer.padding)
    d_x, _ = conv2d_adjoint(x, ones, np.ones_like(y), layer.stride, layer.padding)
    return np.asarray(d_x[0], dtype=np.int64)


def _updates(method: Method, u: Values, s: Values, learned: Values | None) -> int:
    """Potentials after a step that differ from those before it, and all of the first step's; u and s are (T, B, ...)."""
    neuron = method.neuron
    if neuron.reset == "hard":
        v = np.where(s > 0, np.asarray(neuron.v_reset, u.dtype), u)
    else:
        theta = np.asarray(neuron.threshold if learned is None else learned, u.dtype)
        v = u - s.astype(u.dtype) * (theta.reshape(-1, *(1,) * (u.ndim - 3)) if theta.ndim else theta)
    return int(v[0].size + (v[1:] != v[:-1]).sum())
