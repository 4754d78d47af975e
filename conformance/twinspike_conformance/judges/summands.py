"""How large a gradient's terms are, whose sum may be small: what rounds along a path to the terms does not cancel with them.

A gradient that is computed a second time starts from other roundings of what layers hand back. Those know nothing of one
another, so their sum over n terms grows as the root of the sum of the terms' squares, however much of the terms themselves
cancels. That root is the size that the gradient has when each value handed back is given a sign drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from twinspike.config import TWINS
from twinspike.network import Activation, Layer
from twinspike.parameters import layer_and_part
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.judges.networks import Taps, neurons_adjoint, note_parameters

DRAWS = 8
"""Of the signs: the root of the mean square of as many is below a quarter of what it is of all with a probability of 1e-4."""


class Summands:
    """Sizes of the terms of parameters' gradients, by the parameter's name; those of a layer are made when one is asked for."""

    def __init__(self, taps: Callable[[], Taps]) -> None:
        self._open = taps
        self._taps: Taps | None = None
        self._sizes: dict[str, dict[str, float]] = {}

    def __call__(self, name: str) -> float:
        """Root of the sum of the terms' squares, estimated from some signs; of the element where it is largest."""
        taps = self._taps = self._taps or self._open()
        layer = taps.network.layer(layer_and_part(name)[0])
        if layer.name not in self._sizes:
            self._sizes[layer.name] = _sizes(taps, layer)
        return self._sizes[layer.name].get(name, 0.0)


def _sizes(taps: Taps, layer: Layer) -> dict[str, float]:
    squares: dict[str, Any] = {}
    for seed in range(DRAWS):
        for name, parts in _towards(taps, layer, seed).items():
            squares[name] = squares.get(name, 0.0) + sum(part.value**2 for part in parts) / DRAWS
    return {name: float(np.sqrt(np.max(square))) for name, square in squares.items()}


def _towards(taps: Taps, layer: Layer, seed: int) -> dict[str, list[Tracked]]:
    """What each twin sends to a layer's parameters where the gradients towards its output have signs of their own."""
    rng, tap = np.random.Generator(np.random.Philox(seed)), dict(taps.trace[layer.name])
    for twin in TWINS:
        g = np.asarray(tap[f"g_{twin}"])
        tap[f"g_{twin}"] = g * rng.choice((-1.0, 1.0), g.shape)
    signed = msgspec.structs.replace(taps, trace=taps.trace | {layer.name: tap})
    towards: dict[str, list[Tracked]] = {}
    for twin in TWINS:
        if not isinstance(layer, Activation):
            note_parameters(signed, layer, twin, towards)
        elif twin == "snn":
            neurons_adjoint(signed, layer, signed.gradient(twin, layer.name), towards)
    return towards
