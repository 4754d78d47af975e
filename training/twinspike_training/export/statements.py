"""A network as straight-line Python: which statement computes each layer, in as few variables as are alive at once.

Both kinds of generated source share this; what a layer's statement looks like is theirs. Time lies in the batch, (T B, ...),
but for what is the same at every step, which stands there once, (B, ...), until a neuron or a sum wants it repeated.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping

from twinspike.network import INPUT, Activation, Add, Conv, Layer, Linear, Network, Norm, inputs_of

_ENDS = {Conv: ("conv",), Norm: ("norm",), Activation: ("act",), Linear: ("head", "hidden", "linear")}
"""Kind -> what names of such layers end with, so that none is a name of the framework's own."""

Call = Callable[[Layer, str], str]
"""A layer with one input and the expression of that input -> the layer's expression."""


def identifiers(network: Network) -> dict[str, str]:
    """Layer that has arrays -> its name in Python, `stem_conv` for `stem.conv`; all different."""
    taken: dict[str, str] = {}
    for layer in network.layers:
        ends = next((ends for kind, ends in _ENDS.items() if isinstance(layer, kind)), None)
        if ends is None:
            continue
        name = re.sub(r"\W", "_", layer.name, flags=re.ASCII).strip("_")
        name = name if name.endswith(ends) else f"{name}_{ends[-1]}"
        name = f"layer_{name}" if name[0].isdigit() or name in ends or keyword.iskeyword(name) else name
        number, free = 1, name
        while free in taken.values():
            number += 1
            free = f"layer{number}_{name}"
        taken[layer.name] = free
    return taken


def statements(network: Network, call: Call, constants: Mapping[str, str]) -> list[str]:
    """One statement a layer, ending with that of the head's output over all steps, in variables x, y, z, ...

    Args:
        network: with one exit.
        call: writes a layer's expression.
        constants: `image`, the expression of a static image, or that of frames with time in the batch; `repeat`, a format for
            the expression of a value with time in the batch.
    """
    head = network.exits[-1].head
    last_use = {name: i for i, layer in enumerate(network.layers) for name in inputs_of(layer)} | {head: len(network.layers)}
    variables: dict[str, str] = {INPUT: constants["image"]}
    once = set() if network.event else {INPUT}
    lines = []
    for i, layer in enumerate(network.layers):
        whole = isinstance(layer, Activation) or (isinstance(layer, Add) and not once.issuperset(inputs_of(layer)))
        values = [constants["repeat"].format(variables[n]) if whole and n in once else variables[n] for n in inputs_of(layer)]
        expression = " + ".join(values) if isinstance(layer, Add) else call(layer, values[0])
        if not whole and once.issuperset(inputs_of(layer)):
            once.add(layer.name)
        for name in set(inputs_of(layer)):
            if last_use[name] == i:
                variables.pop(name)
        name = next(name for name in _variables() if name not in variables.values())
        variables[layer.name] = name
        lines.append(f"{name} = {expression}")
        if last_use.get(layer.name, -1) <= i and layer.name != head:
            variables.pop(layer.name)
    result = constants["repeat"].format(variables[head]) if head in once else variables[head]
    return [*lines, f"logits = {result}"]


def _variables() -> list[str]:
    return ["x", "y", "z", *(f"x{number}" for number in range(1, 1000))]
