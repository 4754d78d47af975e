"""What generated files of both kinds have in common: their heads, the readers of arrays, the neuron's lines."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from twinspike.config import Arctan, FastSigmoid, Neuron, Rectangle, Sigmoid, Surrogate, Tanh, Triangle
from twinspike_training.export.twin import SpikingTwin

_HEAD = '''"""@DOC@"""

import json
from pathlib import Path
'''

_READER = '''def read(path):
    """@WHAT@ of a safetensors file: its JSON's length in 8 bytes, the JSON, the values."""
    content = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    formats = {"F32": @F32@, "F64": @F64@}
    arrays = {}
    for name, told in json.loads(content[8:start].decode()).items():
        if name != "__metadata__":
            first, last = (start + offset for offset in told["data_offsets"])
            arrays[name] = @ARRAY@.reshape(told["shape"])
    return arrays
'''


class Words(NamedTuple):
    """What a framework calls things."""

    arrays: str
    float32: str
    float64: str
    array: str
    """An array of `content[first:last]`, in the format `formats[told["dtype"]]`."""
    sigmoid: str
    numbers: str
    """What `{}` says, as numbers of z's format."""
    positive: str
    """What `{}` says, or 0 where that is larger."""


def reader(words: Words) -> str:
    """A function that reads arrays without the package safetensors."""
    places = {"WHAT": words.arrays, "F32": words.float32, "F64": words.float64, "ARRAY": words.array}
    return _filled(_READER, places)


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub("@([A-Z0-9]+)@", lambda place: words[place[1]], text)


def filled(template: str, twin: SpikingTwin, arrays_file: str, words: dict[str, str]) -> str:
    """The text of a file: its head and the template, with these words and those that both kinds have in place of `@NAME@`."""
    common = {
        "ARRAYS": repr(arrays_file),
        "T": str(twin.time_steps),
        "EPS": repr(twin.method.batch_norm.eps),
        "INPUT": twin.facts["input"],
        "K": str(twin.network.classes),
    }
    return _filled(_HEAD + template, words | common)


def doc(twin: SpikingTwin, framework: str, use: str) -> str:
    """The docstring: what it is, how it is used, what an input is."""
    facts, network = twin.facts, twin.network
    values = facts["normalization"]
    lines = [
        f"{_plain(network.name)}: the spiking twin of a joint network, T = {twin.time_steps}; needs {framework} alone.",
        "",
        f"Written by {facts['producer']} from a checkpoint of {facts['epochs']} epochs, {facts['steps']:,} steps.",
        "",
        f"    {use}",
        "",
        f"images: {facts['input']}.",
    ]
    if values is not None:
        mean, std = (tuple(values[part]) for part in ("mean", "std"))
        lines.append(f"Normalized is (value - mean)/std per channel, white being 1, mean {mean}, std {std}.")
    return "\n".join([*lines, ""])


def _plain(name: str) -> str:
    """A name that ends no docstring."""
    return "".join(sign if sign.isalnum() or sign in "-_. " else "_" for sign in name)


def surrogate_line(surrogate: Surrogate, words: Words) -> str:
    """The expression of h(z) (clauses SUR-2 to SUR-7)."""
    sigmoid = words.sigmoid
    match surrogate:
        case Rectangle(width=width):
            return f"{words.numbers.format(f'(abs(z) < {width / 2!r})')} / {width!r}"
        case Triangle(width=width):
            return f"{words.positive.format(f'(1 - abs(z) / {width!r})')} / {width!r}"
        case Sigmoid(slope=slope):
            return f"{slope!r} * {sigmoid}({slope!r} * z) * {sigmoid}(-{slope!r} * z)"
        case Arctan(slope=slope):
            return f"{slope / 2!r} / (1 + ({math.pi * slope / 2!r} * z) ** 2)"
        case FastSigmoid(slope=slope):
            return f"{slope / 2!r} / (1 + {slope!r} * abs(z)) ** 2"
        case Tanh(slope=slope):
            return f"{2 * slope!r} * {sigmoid}({2 * slope!r} * z) * {sigmoid}(-{2 * slope!r} * z)"


def neuron_lines(neuron: Neuron, detached: str, array: str) -> tuple[str, str]:
    """The charge and the reset (clauses LIF-1, LIF-3, LIF-4, LIF-7) of v, x_t, u and s.

    Args:
        neuron: its options.
        detached: the expression of s without a gradient.
        array: what stands before `decay` and `threshold`.
    """
    decay, threshold, s = f"{array}decay", f"{array}threshold", detached if neuron.detach_reset else "s"
    charge = f"{decay} * v + (1 - {decay}) * x_t" if neuron.decay_input else f"{decay} * v + x_t"
    if neuron.reset == "soft":
        return charge, f"u - {s} * {threshold}"
    return charge, f"(1 - {s}) * u + {s} * {neuron.v_reset!r}" if neuron.v_reset else f"(1 - {s}) * u"
