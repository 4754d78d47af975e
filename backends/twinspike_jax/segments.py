"""A network cut into the parts that one recomputation repeats: residual blocks, stages of a plain network, exits."""

from __future__ import annotations

from typing import NamedTuple

from twinspike.network import INPUT, Activation, Layer, Network, inputs_of


class Segment(NamedTuple):
    """Consecutive layers."""

    layers: tuple[Layer, ...]
    reads: tuple[str, ...]
    """Values of earlier segments."""
    writes: tuple[str, ...]
    """Values that later segments, or the exits' ends, read."""


def segments(network: Network) -> tuple[Segment, ...]:
    """A segment ends with an activation that several layers read, and before a layer that reads an earlier such one."""
    readers = [name for layer in network.layers for name in inputs_of(layer)]
    shared = {layer.name for layer in network.layers if isinstance(layer, Activation) and readers.count(layer.name) > 1}
    parts: list[list[Layer]] = [[]]
    newest = INPUT
    for layer in network.layers:
        for name in inputs_of(layer):
            if name in shared and name != newest:  # an exit goes back to the end of its stage
                newest = name
                parts.append([])
        parts[-1].append(layer)
        if layer.name in shared:
            newest = layer.name
            parts.append([])
    parts = [part for part in parts if part]
    ends = {name for exit_ in network.exits for name in (exit_.feature, network.layer(exit_.head).input)}
    return tuple(
        _segment(part, ends.union(*(inputs_of(layer) for later in parts[i:] for layer in later)))
        for i, part in enumerate(parts, start=1)
    )


def _segment(part: list[Layer], wanted: set[str]) -> Segment:
    made = [layer.name for layer in part]
    reads = dict.fromkeys(name for layer in part for name in inputs_of(layer) if name not in made)
    return Segment(tuple(part), tuple(reads), tuple(name for name in made if name in wanted))
