"""The spiking twin as a NIR graph: convolutions with their norms folded in, neurons as LIF nodes, sums as edges that meet.

NIR's LIF is a differential equation, tau dv/dt = v_leak - v + R I, that fires where v > v_threshold and then takes v_reset. Its
step of time is not in the file, so it is told in the metadata, with what else NIR has no place for. Made so that Euler's step of
`DT` is the clauses' charge: tau = DT/(1 - decay) and R = 1/(1 - decay), or 1 with decay_input. A neuron of ours fires at the
threshold itself, so v_threshold is the float32 number just below it: for float32 potentials > that is >= the threshold.
"""

from __future__ import annotations

import io
import json

import nir
import numpy as np

from twinspike.errors import refuse, require
from twinspike.network import INPUT, Activation, Add, AvgPool, Conv, GlobalPool, Layer, Linear, Norm
from twinspike_training.export.twin import Array, SpikingTwin

DT = 1e-4
"""Seconds of one time step; the libraries that read NIR take the same if not told otherwise."""


def graph(twin: SpikingTwin) -> nir.NIRGraph:
    """The graph of one time step: `input` (C, H, W) to `output` (K, 1, 1), the main exit's logits of that step.

    Raises:
        SpecError: NIR has no place for something; the line names the layer.
    """
    neuron = twin.method.neuron
    require(neuron.reset == "hard", "nir", expected="method.neuron.reset = 'hard', which NIR's LIF has", got=repr(neuron.reset))
    made = _Graph(twin)
    for layer in twin.network.layers:
        made.add(layer)
    return made.whole()


def content(written: nir.NIRGraph) -> bytes:
    """The file of a graph."""
    file = io.BytesIO()  # nir would open a path of its own, through whatever lies there
    nir.write(file, written)
    return file.getvalue()


class _Graph:
    """Collects nodes and edges; a value is the sum of what its nodes give."""

    def __init__(self, twin: SpikingTwin) -> None:
        self.twin, self.shapes, self.within = twin, twin.shapes, twin.foldable
        self.names = {layer.name: _name(layer.name, i) for i, layer in enumerate(twin.network.layers)}
        self.nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(twin.network.input_shape)})}
        self.edges: list[tuple[str, str]] = []
        self.values: dict[str, tuple[str, ...]] = {INPUT: ("input",)}

    def add(self, layer: Layer) -> None:
        """Append one layer."""
        x, name = self.values[layer.input], layer.name
        match layer:
            case Conv() if name in self.within.values():
                self.values[name] = x
            case Conv():
                weight = self.twin.of(name, "weight")
                self.node(name, x, self.convolution(layer, weight, np.zeros(layer.out_channels, weight.dtype)))
            case Norm(input=conv):
                if name not in self.within:
                    expected = "norms that each stand alone behind a convolution, to be folded into it"
                    raise refuse("nir", expected=expected, got=f"{name} behind {conv}")
                before = self.twin.network.layer(conv)
                self.node(name, x, self.convolution(before, *self.twin.folded(conv, name)))
            case Activation():
                self.node(name, x, self.neurons(name))
            case Add(other=other):
                both = (*x, *self.values[other])
                require(len(set(both)) == len(both), "nir", expected="sums of different values", got=f"{name} of one twice")
                self.values[name] = both
            case AvgPool(kernel=kernel, stride=stride):
                self.node(name, x, _pool((kernel, kernel), (stride, stride)))
            case GlobalPool():
                size = self.shapes[layer.input][1:]
                self.node(name, x, _pool(size, size))
            case Linear():
                # A vector is a map of one pixel here, since libraries differ in whether Flatten counts the batch.
                weight = self.twin.of(name, "weight")[:, :, None, None]
                bias = self.twin.of(name, "bias")
                self.node(name, x, nir.Conv2d((1, 1), _single(weight), 1, 0, 1, 1, _single(bias)))

    def node(self, layer: str, sources: tuple[str, ...], node: nir.NIRNode) -> None:
        name = self.names[layer]
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        self.values[layer] = (name,)

    def convolution(self, layer: Layer, weight: Array, bias: Array) -> nir.Conv2d:
        assert isinstance(layer, Conv)
        size = self.shapes[layer.input][1:]
        return nir.Conv2d(size, _single(weight), layer.stride, layer.padding, 1, 1, _single(bias))

    def neurons(self, layer: str) -> nir.LIF:
        neuron, shape = self.twin.method.neuron, self.shapes[layer]
        shape = shape if len(shape) == 3 else (*shape, 1, 1)
        decay, threshold = (self.twin.quantity(layer, name).astype(np.float64) for name in ("decay", "threshold"))
        require(float(decay.max()) < 1, "nir", expected="decays < 1, since tau is dt/(1 - decay)", got=f"1 in {layer}")

        def full(value: Array) -> Array:
            return np.array(np.broadcast_to(value.reshape(-1, 1, 1), shape))

        rest = 1 - decay
        below = np.nextafter(threshold.astype(np.float32), np.float32(-np.inf))
        return nir.LIF(
            tau=full(DT / rest),
            r=full(np.ones(()) if neuron.decay_input else 1 / rest),
            v_leak=full(np.zeros((), np.float32)),
            v_threshold=full(below),
            v_reset=full(np.asarray(neuron.v_reset, np.float32)),
        )

    def whole(self) -> nir.NIRGraph:
        (head,) = self.values[self.twin.network.exits[-1].head]
        self.nodes["output"] = nir.Output({"output": np.array([self.twin.network.classes, 1, 1])})
        self.edges.append((head, "output"))
        metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.twin.facts.items()}
        return nir.NIRGraph(self.nodes, self.edges, metadata=metadata | _LOST | {"dt": str(DT)})


_LOST = {
    "discretization": "forward Euler, one step per time step: u = v + (dt/tau) (v_leak - v + r x); spike where u >= threshold; "
    "v = v_reset where it spikes, else u; v is 0 before the first step",
    "threshold": "v_threshold is the float32 number just below the threshold: > that is >= the threshold for float32 potentials; "
    "what compares by >= fires at that one number too",
    "readout_of_output": "the output is the logits of one step; the network's are their sum or mean over time, as readout says",
    "folded": "norms are folded into the convolutions before them, in float64, rounded once to float32: other roundings than the "
    "checkpoint's, so that a potential next to the threshold may fall on its other side",
    "lost": "the artificial twin, branches, factors, the surrogate derivative, the number of time steps but for time_steps here",
}


def _pool(size: tuple[int, ...], stride: tuple[int, ...]) -> nir.AvgPool2d:
    return nir.AvgPool2d(np.array(size), np.array(stride), np.array([0, 0]))


def _single(value: Array) -> Array:
    return np.ascontiguousarray(value, dtype=np.float32)


def _name(layer: str, index: int) -> str:
    """A node's name: readers make attributes and variables of it."""
    plain = "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in layer)
    return f"n{index}_{plain}"
