"""A sample of a trace that is too large to be judged whole.

What a layer does to one sample of a batch it does to each by itself, batch norm excepted, which couples samples and treats
each channel by itself; a kernel's gradient is a sum over all samples, for each pair of channels by itself. So layers are judged
on a few samples, norms on a few channels, and kernels' gradients on a few rows and columns, always from the whole batch's
own values: the judgement of what is drawn is the one that the whole would get.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.config import TWINS, Twin
from twinspike.network import INPUT, Activation, Conv, Layer, Norm, inputs_of
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.judges import networks
from twinspike_conformance.judges.kernels import kernel_gradients
from twinspike_conformance.judges.networks import OF_PARAMETERS, Taps

Values = NDArray[Any]
Seeds = Mapping[tuple[Twin, str], Tracked]


@final
class Draw:
    """Which samples and channels."""

    def __init__(self, rng: np.random.Generator, count: int) -> None:
        self._rng, self._count = rng, count

    def channels(self, size: int) -> Values:
        """A few of `size`, ascending."""
        return np.sort(self._rng.choice(size, min(size, self._count), replace=False))

    samples = channels


def of_samples(t: Taps, index: Values) -> Taps:
    """Taps of some samples alone; parameters' gradients, which are no sample's own, are left out."""

    def taken(key: str, value: Values) -> Values:
        return value[:, index] if key in ("snn", "u", "g_snn") else value[index]

    trace = {
        name: {key: taken(key, value) for key, value in tap.items() if not key.startswith("d_")} for name, tap in t.trace.items()
    }
    images = t.images[:, index] if t.network.event else t.images[index]
    return msgspec.structs.replace(t, images=images, trace=trace)


def of_channels(t: Taps, layer: Layer, index: Values, *others: Layer) -> Taps:
    """Taps of some channels of layers that treat each channel by itself, and of what they take."""
    layers = (layer, *others)
    names = {name for each in layers for name in (each.name, *inputs_of(each))} - {INPUT}

    def taken(key: str, value: Values) -> Values:
        if key.startswith("d_"):
            return value[index] if np.ndim(value) else value
        return value[:, :, index] if key in ("snn", "u", "g_snn") else value[:, index]

    own = {each.name for each in layers}
    trace = {
        name: {key: taken(key, value) for key, value in t.trace[name].items() if name in own or not key.startswith("d_")}
        for name in names
    }
    owned = tuple(f"{each.name}." for each in layers)
    state = {name: value[index] if name.startswith(owned) and np.ndim(value) else value for name, value in t.state.items()}
    images = t.images.take(index, axis=-3) if any(INPUT in inputs_of(each) for each in layers) else t.images
    return msgspec.structs.replace(t, images=images, state=state, trace=trace)


def forward(t: Taps, draw: Draw) -> Iterator[Finding]:
    """Every layer's output: of a few samples, or of a norm's few channels, in the order of the data."""
    few = of_samples(t, draw.samples(len(t.trace[t.network.layers[0].name]["ann"])))
    for layer in t.network.layers:
        own = few
        if isinstance(layer, Norm):
            own = of_channels(t, layer, draw.channels(np.shape(t.trace[layer.name]["ann"])[1]))
        for twin in TWINS:
            yield from networks.output_of(own, layer, twin)


def backward(t: Taps, seeds: Seeds, draw: Draw) -> Iterator[Finding]:
    """Every gradient towards a layer's output, of the same; then parameters' gradients."""
    readers = networks.readers_of(t.network)
    samples = draw.samples(len(t.trace[t.network.layers[0].name]["ann"]))
    few = of_samples(t, samples)
    for layer in reversed(t.network.layers):
        norms = [reader for reader in readers[layer.name] if isinstance(reader, Norm)]
        others = [reader for reader in readers[layer.name] if not isinstance(reader, Norm)]
        channels = draw.channels(np.shape(t.trace[layer.name]["ann"])[1])
        some = of_channels(t, norms[0], channels, *norms[1:]) if norms else few
        for twin in TWINS:
            ends = (twin, layer.name) in seeds
            parts = [networks.adjoint_of(few, reader, twin, layer.name, {}) for reader in others]
            parts += [seeds[twin, layer.name][:, samples]] if ends else []
            clauses = networks.sent_by(t, readers[layer.name], twin, ends)
            if not norms:
                yield networks.gradient_towards(few, layer, twin, parts, clauses)
                continue
            through = [networks.adjoint_of(some, norm, twin, layer.name, {}) for norm in norms]
            if parts:  # both kinds read it: what is both of these samples and of these channels
                through = [part[:, samples] for part in through] + [part[:, :, channels] for part in parts]
                yield networks.gradient_towards(of_samples(some, samples), layer, twin, through, clauses)
            else:
                yield networks.gradient_towards(some, layer, twin, through, clauses)
    for layer in t.network.layers:
        yield from _of_parameters(t, layer, draw)


def _of_parameters(t: Taps, layer: Layer, draw: Draw) -> Iterator[Finding]:
    """The gradients of one layer's parameters: of a few channels, or rows and columns of its kernel."""
    if isinstance(layer, Conv):
        yield from kernel_gradients(t, layer, draw.channels)
        return
    own, towards = t, dict[str, list[Tracked]]()
    parts = [key for key in t.trace[layer.name] if key.startswith("d_")]
    if not parts:
        return
    if isinstance(layer, Norm) or (isinstance(layer, Activation) and all(np.ndim(t.trace[layer.name][key]) for key in parts)):
        own = of_channels(t, layer, draw.channels(np.shape(t.trace[layer.name]["ann"])[1]))
    if isinstance(layer, Activation):
        networks.adjoint_of(own, layer, "snn", layer.input, towards)
    else:
        for twin in TWINS:
            networks.note_parameters(own, layer, twin, towards)
    for key in parts:
        name = f"{layer.name}.{key[2:]}"
        total = networks.added(towards[name])
        got = own.trace[layer.name][key]
        yield compare(f"gradient of {name}", got, total.value, total.error, rung="bound", clauses=OF_PARAMETERS[key[2:]])
