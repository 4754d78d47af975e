"""Networks whose kept maps are counted, for both backends' tests of memory, and how many bytes those are of a step."""

from __future__ import annotations

import math

import twinspike as ts
from twinspike.network import Activation, Branch, Conv, GlobalPool, Linear, Network, infer_shapes, inputs_of

RESNET = ts.network("resnet18", width=2, input_shape=(3, 16, 16), classes=4)


def front(network: Network, last: str) -> Network:
    """Its layers up to one, and a head on that."""
    end = next(i for i, layer in enumerate(network.layers) if layer.name == last) + 1
    head = (GlobalPool(name="feature", input=last), Linear(name="head", input="feature", out_features=network.classes))
    exits = (Branch(feature="feature", head="head"),)
    return Network(name="front", input_shape=network.input_shape, event=False, layers=(*network.layers[:end], *head), exits=exits)


BLOCKS = front(RESNET, "stage2.1.act")
"""Each kind of its blocks, for what has to be compiled."""

VGG = ts.network("vgg16", width=2, input_shape=(3, 32, 32), classes=4)
EVENTS = ts.network("digits_cnn", width=3, input_shape=(2, 9, 8), classes=4, event=True)
LEARNED = ts.Method(
    time_steps=3,
    neuron=ts.Neuron(decay_scope="channel", threshold_scope="layer"),
    batch_norm=ts.BatchNorm(time="folded"),
    loss=ts.Loss(isolate_ann=True),
)


def bytes_of_layers(network: Network, steps: int, size: int) -> int:
    """Of static images: convolutions' outputs once, a byte a spike that a convolution reads, and rectified values.

    Args:
        network: the graph.
        steps: T.
        size: bytes of an activation.
    """
    shapes, kept = infer_shapes(network), 0
    first = next(layer for layer in network.layers if isinstance(layer, Conv))
    read = {name for layer in network.layers if isinstance(layer, Conv) for name in inputs_of(layer)}
    for layer in network.layers:
        entries = math.prod(shapes[layer.name])
        if isinstance(layer, Conv):  # what a static image gives is the same at every step
            kept += entries * size * (2 if layer is first else 1 + steps)
        elif isinstance(layer, Activation):
            kept += entries * (size + (steps if layer.name in read else 0))
    return kept
