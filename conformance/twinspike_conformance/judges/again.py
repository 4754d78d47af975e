"""How far the gradient of a parameter may be from that of another pass over the same batch: a bound by its summands.

A gradient is computed a second time, perhaps compiled in another way, from values each of which may differ by `near` of the
largest of its array. It is a sum over samples, time and space, and may be much smaller than what it sums: with x' = x + dx and
g' = g + dg, sum g'x' - sum g x is at most near (max|x| sum|g| + max|g| sum|x|) to first order, whatever cancels. A factor's
gradient is a product of a kernel's with the other factors, and its bound that product of absolute values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.config import TWINS, Twin
from twinspike.network import Activation, Conv, Layer, Linear, Norm
from twinspike.parameters import is_factored, kernel_shape
from twinspike.reference import factorization, surrogate
from twinspike_conformance.judges.ends import depths, path
from twinspike_conformance.judges.networks import Taps, step_input

Values = NDArray[Any]


def room(t: Taps) -> float:
    """`near` of a whole pass: forward and back along the network's longest path, over layers and time."""
    return path(2 * (max(depths(t.network).values()) + t.method.time_steps), t.precision)


def spread(t: Taps) -> dict[str, Values]:
    """By name of each parameter, how far its gradient may be from that of another pass.

    Args:
        t: taps with gradients.
    """
    near, found = room(t), dict[str, Values]()
    for layer in t.network.layers:
        for twin in TWINS:
            for suffix, bound in _of_layer(t, layer, twin).items():
                if t.method.loss.isolate_ann and twin == "snn" and suffix in ("U", "V", "bias"):
                    continue
                name = f"{layer.name}.{suffix}"
                found[name] = found.get(name, 0.0) + near * (1.0 + near) * bound
    return found


def _of_layer(t: Taps, layer: Layer, twin: Twin) -> dict[str, Values]:
    """What one twin's use of a layer adds to the spread of its parameters, in units of `near`."""
    match layer:
        case Conv() | Linear():
            return _of_kernel(t, layer, twin)
        case Norm():
            return _of_norm(t, layer, twin)
        case Activation() if twin == "snn":
            return _of_neurons(t, layer)
    return {}


def _by_channel(x: Values) -> Values:
    """Sum of |x|, (T, B, C, *d), for each channel."""
    return np.asarray(np.abs(x).sum(axis=(0, 1, *range(3, x.ndim))))


def _of_kernel(t: Taps, layer: Conv | Linear, twin: Twin) -> dict[str, Values]:
    g = t.gradient(twin, layer.name)
    x = step_input(t, twin, layer.input, g).value
    kernel = np.zeros(kernel_shape(layer, t.output(twin, layer.input).shape[2:]))
    wide = (-1, *(1,) * (kernel.ndim - 1))
    features = x.reshape(*x.shape[:2], kernel.shape[1], -1)  # of a linear layer behind maps, its inputs are their elements
    kernel += np.abs(x).max(initial=0.0) * _by_channel(g).reshape(wide)
    kernel += np.abs(g).max(initial=0.0) * _by_channel(features).reshape(wide[:-1])
    found = {"bias": np.full(g.shape[2], np.abs(g).max(initial=0.0) * g[:, :, 0].size)} if isinstance(layer, Linear) else {}
    f = t.method.factorization
    if not is_factored(layer, f):
        return found | {f"weight_{twin}": kernel}
    u, sigma, v = (np.abs(np.asarray(t.state[f"{layer.name}.{part}"], np.float64)) for part in ("U", f"sigma_{twin}", "V"))
    parts = factorization.compose_adjoint(f, u, sigma, v, kernel)
    return found | dict(zip(("U", f"sigma_{twin}", "V"), parts, strict=True))


def _of_norm(t: Taps, layer: Norm, twin: Twin) -> dict[str, Values]:
    """A norm's input may be off by a share of its largest element, and its normalized value by that over the deviation."""
    g = t.gradient(twin, layer.name)
    x = step_input(t, twin, layer.input, g).value
    axes = (0, 1, *range(3, x.ndim)) if t.method.batch_norm.time == "folded" else (1, *range(3, x.ndim))
    root = np.sqrt(x.var(axis=axes, keepdims=True) + t.method.batch_norm.eps)
    z = (x - x.mean(axis=axes, keepdims=True)) / root
    moved = np.abs(x).max(initial=0.0) / root + np.abs(z).max(initial=0.0)
    size = np.abs(g).max(initial=0.0)
    return {
        f"gamma_{twin}": _by_channel(moved * np.abs(g)) + size * _by_channel(z),
        f"beta_{twin}": np.full(g.shape[2], size * g[:, :, 0].size),
    }


def _of_neurons(t: Taps, layer: Activation) -> dict[str, Values]:
    """Learned decays and thresholds: sums of products of three, an adjoint, a potential, and a surrogate no higher than at 0."""
    learned = [part for part in ("decay", "threshold") if f"{layer.name}.{part}" in t.state]
    if not learned:
        return {}
    d, g, x = t.gradient("snn", layer.input), t.gradient("snn", layer.name), t.output("snn", layer.input)
    u, neuron = np.asarray(t.trace[layer.name]["u"], np.float64), t.method.neuron
    height = float(surrogate.derivative(neuron.surrogate, np.zeros(())))
    thresholds = np.abs(t.state.get(f"{layer.name}.threshold", neuron.threshold)).max()
    potential = np.abs(u).max(initial=0.0) + np.abs(x).max(initial=0.0) + thresholds + abs(neuron.v_reset)
    adjoint = np.abs(d).max(initial=0.0) + np.abs(g).max(initial=0.0)
    term = 3.0 * adjoint * (1.0 + potential) * (1.0 + height)
    sums = {(): u.size, (u.shape[2],): u[:, :, 0].size}
    shapes = {part: np.shape(t.state[f"{layer.name}.{part}"]) for part in learned}
    return {part: np.full(shape, term * sums[shape]) for part, shape in shapes.items()}
