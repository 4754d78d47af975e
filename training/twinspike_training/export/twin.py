"""What is exported: the spiking twin up to the main exit, its kernels composed, everything else as it was trained.

Composing is the one thing that rounds here: U diag(sigma) V is taken in float64 and rounded once to the format of the
checkpoint, where a backend rounds each product (clause FAC-6, PRE-7). Norms stay norms; a target that has none folds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike import __version__
from twinspike.config import Method, encode
from twinspike.errors import require
from twinspike.network import INPUT, Conv, Linear, Network, Norm, infer_shapes, inputs_of
from twinspike.parameters import is_factored, kernel_shape
from twinspike.reference.factorization import compose
from twinspike_training.checkpoint import Checkpoint
from twinspike_training.data.usual import normalization

Array = NDArray[Any]


class SpikingTwin(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A spiking network without its artificial twin, ready to be written in some format."""

    network: Network
    """With the main exit alone."""
    method: Method
    """Neuron, T, batch norm's eps and readout are what matters of it."""
    arrays: dict[str, Array]
    """`LAYER.weight`, (out, in, kh, kw) or (out, in), and `.bias` of a linear layer, `.gamma`, `.beta`, `.mean` and `.var`
    of a norm, `.decay` and `.threshold` of an activation where learned; float32 or float64 as the run had them."""
    facts: dict[str, Any]
    """What a reader should know beside: where it comes from, and what an input is."""

    @property
    def time_steps(self) -> int:
        """T."""
        return self.method.time_steps

    def of(self, layer: str, part: str) -> Array:
        """One array of a layer."""
        return self.arrays[f"{layer}.{part}"]

    def quantity(self, layer: str, name: str) -> Array:
        """A layer's decay or threshold: () or (C,), learned or constant, in the format of the arrays."""
        learned = self.arrays.get(f"{layer}.{name}")
        return np.asarray(getattr(self.method.neuron, name), self.dtype) if learned is None else learned

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Layer -> shape of its output of one sample at one step."""
        return infer_shapes(self.network)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Format of the arrays."""
        return next(iter(self.arrays.values())).dtype

    @cached_property
    def foldable(self) -> dict[str, str]:
        """Norm -> the convolution before it, where nothing else reads that."""
        readers = [name for layer in self.network.layers for name in inputs_of(layer)]
        pairs = {
            layer.name: self.network.layer(layer.input)
            for layer in self.network.layers
            if isinstance(layer, Norm) and layer.input != INPUT
        }
        return {norm: conv.name for norm, conv in pairs.items() if isinstance(conv, Conv) and readers.count(conv.name) == 1}

    def folded(self, conv: str, norm: str) -> tuple[Array, Array]:
        """Kernel and bias (out,) of a convolution with the norm behind it, computed in float64 and rounded once.

        y = gamma (w x - mean)/sqrt(var + eps) + beta becomes (a w) x + (beta - a mean), a = gamma/sqrt(var + eps): the same
        function, with other roundings at every position, so that a potential next to the threshold may fall on its other side.
        """
        gamma, beta, mean, var = (self.of(norm, part).astype(np.float64) for part in ("gamma", "beta", "mean", "var"))
        a = gamma / np.sqrt(var + self.method.batch_norm.eps)
        weight = self.of(conv, "weight").astype(np.float64) * a[:, None, None, None]
        return weight.astype(self.dtype), (beta - a * mean).astype(self.dtype)


def spiking_twin(found: Checkpoint) -> SpikingTwin:
    """Take the spiking twin out of a checkpoint."""
    header, state = found.header, found.state
    config = header.config
    network = main_exit(header.network)
    shapes = infer_shapes(network)
    arrays: dict[str, Array] = {}
    for layer in network.layers:
        if isinstance(layer, Conv | Linear):
            kernel = kernel_shape(layer, shapes[layer.input])
            arrays[f"{layer.name}.weight"] = _kernel(layer, kernel, config.method, state)
        for part, name in (("bias", "bias"), ("decay", "decay"), ("threshold", "threshold")):
            if f"{layer.name}.{part}" in state:
                arrays[f"{layer.name}.{name}"] = np.asarray(state[f"{layer.name}.{part}"])
        for part in ("gamma", "beta", "mean", "var"):
            if f"{layer.name}.{part}_snn" in state:
                arrays[f"{layer.name}.{part}"] = np.asarray(state[f"{layer.name}.{part}_snn"])
    require(bool(arrays), "export", expected="a network with parameters", got="none")
    facts = {
        "producer": f"twinspike {__version__}",
        "epochs": header.epoch,
        "steps": header.steps,
        "trained_by": header.backend,
        "trained_in": config.precision,
        "time_steps": config.method.time_steps,
        "readout": config.method.readout,
        "neuron": encode(config.method.neuron),
        "data": config.data.name,
        "classes": network.classes,
        "input": _input(network, config.method),
        "normalization": normalization(config.data),
    }
    return SpikingTwin(network=network, method=config.method, arrays=arrays, facts=facts)


def _input(network: Network, method: Method) -> str:
    c, h, w = network.input_shape
    if network.event:
        return f"({method.time_steps}, B, {c}, {h}, {w}), frame t at step t"
    return f"(B, {c}, {h}, {w}), normalized, the same at each of the {method.time_steps} steps"


def main_exit(network: Network) -> Network:
    """The network up to its own end, without the branches and their layers."""
    end = network.exits[-1]
    needed = {end.head, end.feature}
    for layer in reversed(network.layers):
        if layer.name in needed:
            needed.update(inputs_of(layer))
    return msgspec.structs.replace(network, layers=tuple(layer for layer in network.layers if layer.name in needed), exits=(end,))


def _kernel(layer: Conv | Linear, shape: tuple[int, ...], method: Method, state: Mapping[str, Array]) -> Array:
    if not is_factored(layer, method.factorization):
        return np.asarray(state[f"{layer.name}.weight_snn"])
    u, sigma, v = (np.asarray(state[f"{layer.name}.{part}"]) for part in ("U", "sigma_snn", "V"))
    whole = compose(method.factorization, u.astype(np.float64), sigma.astype(np.float64), v.astype(np.float64), shape)
    return np.ascontiguousarray(whole.astype(u.dtype))
