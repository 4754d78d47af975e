"""What generated files of both kinds have in common: their heads, the readers of arrays, the neuron's two lines."""

from __future__ import annotations

from typing import Literal

from twinspike.config import Neuron
from twinspike_training.export.twin import SpikingTwin

HEAD = '''"""@DOC@"""

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


def neuron_lines(neuron: Neuron, where: str, array: str) -> tuple[str, str]:
    """The charge and the reset (clauses LIF-1, LIF-3, LIF-4) of v, x_t and u.

    Args:
        neuron: its options.
        where: a format that gives the reset potential where the neuron fires, u elsewhere.
        array: what stands before `decay` and `threshold`.
    """
    decay, threshold = f"{array}decay", f"{array}threshold"
    charge = f"{decay} * v + (1 - {decay}) * x_t" if neuron.decay_input else f"{decay} * v + x_t"
    return charge, where.format(repr(neuron.v_reset)) if neuron.reset == "hard" else f"u - spikes[-1] * {threshold}"
