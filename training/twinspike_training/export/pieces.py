"""What generated files of both kinds have in common: their heads, the readers of arrays, the neuron's lines."""

from __future__ import annotations

import math
import re
from typing import Literal

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


def reader(framework: Literal["torch", "numpy"]) -> str:
    """A function that reads arrays without the package safetensors."""
    if framework == "torch":
        words = (
            "Tensors",
            "torch.float32",
            "torch.float64",
            'torch.frombuffer(content[first:last], dtype=formats[told["dtype"]])',
        )
    else:
        words = ("Arrays", '"<f4"', '"<f8"', 'np.frombuffer(content[first:last], formats[told["dtype"]])')
    text = _READER
    for place, word in zip(("WHAT", "F32", "F64", "ARRAY"), words, strict=True):
        text = text.replace(f"@{place}@", word)
    return text


def filled(template: str, twin: SpikingTwin, arrays_file: str, words: dict[str, str]) -> str:
    """The text of a file: its head and the template, with these words and those that both kinds have in place of `@NAME@`."""
    common = {
        "ARRAYS": repr(arrays_file),
        "T": str(twin.time_steps),
        "EPS": repr(twin.method.batch_norm.eps),
        "INPUT": twin.facts["input"],
        "K": str(twin.network.classes),
    }
    return re.sub("@([A-Z]+)@", lambda place: (words | common)[place[1]], _HEAD + template)


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


def surrogate_line(surrogate: Surrogate, framework: Literal["torch", "jnp"]) -> str:
    """The expression of h(z) (clauses SUR-2 to SUR-7), of arrays of torch or of jax.numpy."""
    sigmoid = "torch.sigmoid" if framework == "torch" else "jax.nn.sigmoid"
    match surrogate:
        case Rectangle(width=width):
            inside = f"(abs(z) < {width / 2!r})"
            return f"{inside}.to(z.dtype) / {width!r}" if framework == "torch" else f"{inside}.astype(z.dtype) / {width!r}"
        case Triangle(width=width):
            kept = f"(1 - abs(z) / {width!r})"
            return f"{kept}.clamp(min=0) / {width!r}" if framework == "torch" else f"jnp.maximum({kept}, 0) / {width!r}"
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
