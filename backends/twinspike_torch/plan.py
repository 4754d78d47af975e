"""A network's layers in the order and the detail that a forward pass needs, cut into segments.

A segment is what one recomputation repeats: a residual block, a stage of a plain network, or an exit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from twinspike.network import INPUT, Activation, Add, AvgPool, Conv, Layer, Linear, Network, Norm, infer_shapes, inputs_of
from twinspike_torch import taps


class Node(NamedTuple):
    """One layer."""

    name: str
    path: tuple[str, ...]
    """Names of the modules that lead to its own."""
    kind: str
    """`conv`, `linear`, `head`, `norm`, `activation`, `add`, `avg_pool` or `global_pool`."""
    inputs: tuple[str, ...]
    static_inputs: tuple[bool, ...]
    static: bool
    """Whether the spiking twin's output is the same at every step."""
    feature: bool
    """Whether an exit takes its feature from here."""
    window: tuple[int, int]
    """Stride and padding of a convolution, kernel and stride of a pooling layer."""
    pixels: int
    """Pairs of a kernel's tap and an output pixel of one sample that meet the map, of a convolution; else 0."""
    last: tuple[str, ...]
    """Values that no later layer reads."""
    deferred: bool
    """Whether it is a norm, or a sum with one, that an activation of the segment alone reads: this may compute it."""


class Segment(NamedTuple):
    """Consecutive layers that are recomputed together."""

    nodes: tuple[Node, ...]
    reads: tuple[str, ...]
    """Values of earlier segments."""
    writes: tuple[str, ...]
    """Values that later segments read."""
    last: tuple[str, ...]
    """Values that no later segment reads."""


_KINDS = {Conv: "conv", Linear: "linear", Norm: "norm", Activation: "activation", Add: "add", AvgPool: "avg_pool"}


def plan(network: Network) -> tuple[Segment, ...]:
    """The network's layers, every value dropped as soon as it can be."""
    static = {INPUT: not network.event}
    heads, features = ({getattr(e, end) for e in network.exits} for end in ("head", "feature"))
    final = {name: i for i, layer in enumerate(network.layers) for name in (layer.name, *inputs_of(layer))}
    nodes, shapes = [], infer_shapes(network)
    for i, layer in enumerate(network.layers):
        inputs = inputs_of(layer)
        static[layer.name] = not isinstance(layer, Activation) and all(static[name] for name in inputs)
        nodes.append(
            Node(
                name=layer.name,
                path=tuple(layer.name.split(".")),
                kind="head" if layer.name in heads else _KINDS.get(type(layer), "global_pool"),
                inputs=inputs,
                static_inputs=tuple(static[name] for name in inputs),
                static=static[layer.name],
                feature=layer.name in features,
                window=_window(layer),
                pixels=_pixels(layer, shapes),
                last=tuple(name for name in (layer.name, *dict.fromkeys(inputs)) if final[name] == i),
                deferred=False,
            )
        )
    return _segments(nodes)


def _window(layer: Layer) -> tuple[int, int]:
    if isinstance(layer, Conv):
        return layer.stride, layer.padding
    return (layer.kernel, layer.stride) if isinstance(layer, AvgPool) else (1, 0)


def _pixels(layer: Layer, shapes: Mapping[str, tuple[int, ...]]) -> int:
    if not isinstance(layer, Conv):
        return 0
    axes = zip(shapes[layer.input][1:], shapes[layer.name][1:], strict=True)
    return math.prod(taps.pixels(*axis, layer.kernel, layer.stride, layer.padding) for axis in axes)


def _segments(nodes: list[Node]) -> tuple[Segment, ...]:
    """Cut after an activation that several layers read, where a block ends, and before whatever reads an older one: an exit."""
    readers = [name for node in nodes for name in node.inputs]
    forks = {node.name for node in nodes if node.kind == "activation" and readers.count(node.name) > 1}
    parts: list[list[Node]] = [[]]
    latest = INPUT
    for node in nodes:
        older = [name for name in node.inputs if name in forks and name != latest]
        if older and parts[-1]:
            latest = older[0]
            parts.append([])
        parts[-1].append(node)
        if node.name in forks:
            latest = node.name
            parts.append([])
    parts = [_deferring(part, readers) for part in parts if part]
    segments = []
    for i, part in enumerate(parts):
        made = {node.name for node in part}
        wanted = {name for later in parts[i + 1 :] for node in later for name in node.inputs}
        read = dict.fromkeys(name for node in part for name in node.inputs if name not in made)
        segments.append(
            Segment(
                nodes=tuple(part),
                reads=tuple(read),
                writes=tuple(node.name for node in part if node.name in wanted),
                last=tuple(name for name in read if name not in wanted),
            )
        )
    return tuple(segments)


def _deferring(part: list[Node], readers: list[str]) -> list[Node]:
    """Layers with those marked that an activation among them may compute."""
    alone = {node.name: node for node in part if readers.count(node.name) == 1 and not node.feature}
    deferred: set[str] = set()
    for i, node in enumerate(part):
        source = alone.get(node.inputs[0]) if node.kind == "activation" else None
        if source is not None and source.kind in ("norm", "add"):
            ends = source.inputs if source.kind == "add" else (source.name,)
            norms = {name for name in ends if name in alone and alone[name].kind == "norm"}
            joined = {source.name, *norms} if norms else set()
            wanted = {name for name in joined for name in alone[name].inputs}
            # What another layer is the last to read is not there any more when the activation's turn comes.
            if not any(wanted & set(before.last) for before in part[:i] if before.name not in joined):
                deferred |= joined
    return [node._replace(deferred=node.name in deferred) for node in part]
