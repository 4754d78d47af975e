"""What a network costs: parameters and multiply-adds per layer, from its description alone.

Counted are the products of convolutions and linear layers, which are all of the arithmetic that
matters; norms, neurons and sums cost traffic, not arithmetic, and are left out. The count is of the
definition: a backend that computes a static image's stem once for all time steps does less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from twinspike.config import TWINS, Method
from twinspike.network import Conv, Layer, Linear, Network, Shape, infer_shapes
from twinspike.parameters import kernel_shape, layout

FLOP_PER_MAC = 2
"""A multiply-add is two floating-point operations."""

PASSES = 3
"""Of training: forward, gradient of the inputs, gradient of the weights, each with the forward's products."""


class LayerCost(msgspec.Struct, frozen=True, kw_only=True):
    """One layer's share."""

    name: str
    kind: str
    """As in the network description: `conv`, `norm`, ..."""
    shape: Shape
    """Of its output for one sample at one time step."""
    shared: int
    """Trained values that both twins use: U, V and linear biases."""
    ann: int
    """Trained values of the artificial twin alone."""
    snn: int
    """Trained values of the spiking twin alone, learned neuron quantities among them."""
    macs: int
    """Multiply-adds of one twin for one sample at one time step."""

    @property
    def parameters(self) -> int:
        """Trained values in all."""
        return self.shared + self.ann + self.snn


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """A whole network's cost under a method."""

    layers: tuple[LayerCost, ...]
    time_steps: int
    compose_macs: int
    """Multiply-adds of composing both twins' kernels from factors, once per training step, whatever its batch."""

    @property
    def parameters(self) -> int:
        """Trained values in all."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-adds of one network, for one sample at one time step."""
        return sum(layer.macs for layer in self.layers)

    @property
    def flop_ann(self) -> int:
        """Floating-point operations of the artificial twin's forward pass of one sample."""
        return FLOP_PER_MAC * self.macs

    @property
    def flop_snn(self) -> int:
        """Floating-point operations of the spiking twin's forward pass of one sample, all time steps."""
        return self.time_steps * self.flop_ann

    @property
    def flop_training(self) -> int:
        """Floating-point operations of training on one sample: both twins, three passes."""
        return PASSES * (self.flop_ann + self.flop_snn)


def cost(network: Network, method: Method) -> Cost:
    """Count a network's parameters and multiply-adds.

    Args:
        network: the graph.
        method: decides factors and the number of time steps.
    """
    shapes = infer_shapes(network)
    owned: dict[str, dict[str, int]] = {layer.name: {"shared": 0, "ann": 0, "snn": 0} for layer in network.layers}
    compose = 0
    for entry in layout(network, method):
        if not entry.trained:
            continue
        owned[entry.layer][entry.twin or "shared"] += math.prod(entry.shape)
        if entry.part == "U":
            compose += len(TWINS) * entry.shape[-1] * math.prod(_kernel(network.layer(entry.layer), shapes))
    layers = tuple(
        LayerCost(
            name=layer.name,
            kind=str(type(layer).__struct_config__.tag),
            shape=shapes[layer.name],
            # Every output position takes one product with each entry of the kernel.
            macs=math.prod(_kernel(layer, shapes)) * math.prod(shapes[layer.name][1:]),
            **owned[layer.name],
        )
        for layer in network.layers
    )
    return Cost(layers=layers, time_steps=method.time_steps, compose_macs=compose)


def _kernel(layer: Layer, shapes: Mapping[str, Shape]) -> Shape:
    """Shape of a layer's kernel; (0,) where it has none."""
    return kernel_shape(layer, shapes[layer.input]) if isinstance(layer, Conv | Linear) else (0,)
