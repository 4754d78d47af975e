"""The neuron over time, forward and back (clauses LIF-1 to LIF-10).

Letters: x current, u potential before the reset and v after, s spike; g, d and e are the gradients of s, u and v.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx

from twinspike.config import Neuron
from twinspike_mlx.surrogate import derivative

Given = dict[str, mx.array]
"""What was given of v, decay and threshold."""


def lif(x: mx.array, given: Given, *, neuron: Neuron) -> tuple[mx.array, mx.array, mx.array]:
    """Run a sequence; differentiable in x and in what is given.

    Args:
        x: current, (T, B, C, *d).
        given: the state before, `v` (B, C, *d), and learned `decay` and `threshold`, () or (C,), each if there is one.
        neuron: its options.

    Returns:
        s and u, (T, B, C, *d), and the state after, (B, C, *d).
    """
    s, u, v = _sequence(neuron, tuple(given))(x, *given.values())
    return s, u, v


@cache
def _sequence(neuron: Neuron, names: tuple[str, ...]) -> Callable[..., Any]:
    """The differentiable function of x and of what the names say, in their order."""

    @mx.custom_function
    def run(x: mx.array, *arrays: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        given = dict(zip(names, arrays, strict=True))
        decay, threshold = (_quantity(neuron, given, name, x) for name in ("decay", "threshold"))
        v, found = given.get("v", mx.zeros_like(x[0])), []
        for step in x:
            u = decay * v + ((1.0 - decay) * step if neuron.decay_input else step)
            fired = u >= threshold
            v = _reset(neuron, u, fired, threshold)
            found.append((fired.astype(x.dtype), u))
        return mx.stack([s for s, _ in found]), mx.stack([u for _, u in found]), v

    @run.vjp
    def pull(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
        x, *arrays = primals if isinstance(primals, tuple) else (primals,)
        given = dict(zip(names, arrays, strict=True))
        gradients = _adjoint(neuron, x, given, outputs[0], outputs[1], cotangents[0], cotangents[2])
        return tuple(gradients[name] for name in ("x", *names))

    return run


def _adjoint(neuron: Neuron, x: mx.array, given: Given, s: mx.array, u: mx.array, g: mx.array, e: mx.array) -> Given:
    """Gradients of x and of what was given, from those of s (T, B, C, *d) and of the last v (B, C, *d)."""
    decay, threshold = (_quantity(neuron, given, name, x) for name in ("decay", "threshold"))
    start, soft = given.get("v", mx.zeros_like(x[0])), neuron.reset == "soft"
    d_x, d_decay, d_threshold = [], mx.zeros_like(start), mx.zeros_like(start)
    for t in range(len(x) - 1, -1, -1):
        through = g[t]
        if not neuron.detach_reset:
            through = through + e * (-threshold if soft else neuron.v_reset - u[t])
        through = through * derivative(neuron.surrogate, u[t] - threshold)
        d = through + (e if soft else e * (1.0 - s[t]))
        d_threshold = d_threshold - (through + e * s[t] if soft else through)
        if "decay" in given:
            before = _reset(neuron, u[t - 1], s[t - 1] == 1, threshold) if t else start
            d_decay = d_decay + d * (before - x[t] if neuron.decay_input else before)
        d_x.append(d * (1.0 - decay) if neuron.decay_input else d)
        e = decay * d
    found = {"x": mx.stack(d_x[::-1]), "v": e}
    for name, total in (("decay", d_decay), ("threshold", d_threshold)):
        if name in given:
            found[name] = total.sum(axis=[i for i in range(total.ndim) if i != 1 or given[name].ndim == 0])
    return found


def _quantity(neuron: Neuron, given: Given, name: str, x: mx.array) -> Any:
    """A decay or threshold against one step: the array that is given, else the config's constant."""
    value = given.get(name)
    if value is None:
        return getattr(neuron, name)
    return value.reshape(-1, *(1,) * (x.ndim - 3)) if value.ndim else value


def _reset(neuron: Neuron, u: mx.array, fired: mx.array, threshold: Any) -> mx.array:
    """Clauses LIF-3, LIF-4."""
    return mx.where(fired, u - threshold if neuron.reset == "soft" else mx.array(neuron.v_reset, u.dtype), u)
