"""The leaky integrate-and-fire neuron over a sequence, and its adjoint (clauses LIF-*).

Arrays are (T, B, C, *d). Letters: x current, u potential before and v after reset, s spike; for the
adjoint g[t] = dL/ds[t], d[t] = dL/du[t] and e = dL/dv[t], which is decay * d[t+1] inside the sequence.
A decay or threshold is a number, an array of shape (), or one of shape (C,).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from twinspike.config import Neuron
from twinspike.reference import Array
from twinspike.reference.surrogate import derivative, primitive


class Trace(NamedTuple):
    """What a sequence leaves behind, each (T, B, C, *d)."""

    u: Array
    s: Array
    v: Array


class Gradients(NamedTuple):
    """Gradients of the inputs of `lif`; None for a decay or threshold that was not given."""

    x: Array
    v: Array
    decay: Array | None
    threshold: Array | None


def fire(neuron: Neuron, u: Array, threshold: Array | float, *, smooth: bool = False) -> Array:
    """s = [u >= threshold], or the surrogate's primitive in the smooth twin (clause LIF-2)."""
    if smooth:
        return primitive(neuron.surrogate, u - threshold)
    return np.asarray(u >= threshold).astype(u.dtype)


def lif(
    neuron: Neuron,
    x: Array,
    v: Array | None = None,
    decay: Array | None = None,
    threshold: Array | None = None,
    *,
    smooth: bool = False,
) -> Trace:
    """Run a sequence (clauses LIF-1 to LIF-5).

    Args:
        neuron: reset and input options, and decay and threshold where these are not given.
        x: current, (T, B, C, *d).
        v: potential before the first step, (B, C, *d); 0 if not given.
        decay: learned, () or (C,), in [0, 1].
        threshold: learned, () or (C,), > 0.
        smooth: replace the step by the surrogate's primitive, so that everything is differentiable.
    """
    alpha = _over_channels(neuron.decay if decay is None else decay, x)
    theta = _over_channels(neuron.threshold if threshold is None else threshold, x)
    before = np.zeros_like(x[0]) if v is None else v
    u, s, after = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    for t in range(len(x)):
        u[t] = alpha * before + ((1.0 - alpha) * x[t] if neuron.decay_input else x[t])
        s[t] = fire(neuron, u[t], theta, smooth=smooth)
        if neuron.reset == "hard":
            after[t] = (1.0 - s[t]) * u[t] + s[t] * neuron.v_reset
        else:
            after[t] = u[t] - s[t] * theta
        before = after[t]
    return Trace(u, s, after)


def lif_adjoint(
    neuron: Neuron,
    x: Array,
    trace: Trace,
    g: Array,
    e: Array | None = None,
    v: Array | None = None,
    decay: Array | None = None,
    threshold: Array | None = None,
) -> Gradients:
    """Gradients of a sequence that `lif` ran, smooth or not (clauses LIF-6 to LIF-10).

    Args:
        neuron: as given to `lif`, like `x`, `v`, `decay` and `threshold`.
        x: current, (T, B, C, *d).
        trace: what `lif` returned.
        g: gradient of the spikes, (T, B, C, *d).
        e: gradient of the state after the last step, (B, C, *d); 0 if not given.
        v: potential before the first step.
        decay: learned.
        threshold: learned.
    """
    alpha = _over_channels(neuron.decay if decay is None else decay, x)
    theta = _over_channels(neuron.threshold if threshold is None else threshold, x)
    start = np.zeros_like(x[0]) if v is None else v
    e = np.zeros_like(x[0]) if e is None else e
    d, d_decay, d_threshold = np.empty_like(x), np.zeros_like(x[0]), np.zeros_like(x[0])
    for t in reversed(range(len(x))):
        u, s = trace.u[t], trace.s[t]
        hard = neuron.reset == "hard"
        r = neuron.v_reset - u if hard else -theta
        k = 1.0 - s if hard else 1.0
        through_spike = g[t] if neuron.detach_reset else g[t] + e * r
        through_spike = through_spike * derivative(neuron.surrogate, u - theta)
        d[t] = through_spike + e * k
        before = trace.v[t - 1] if t > 0 else start
        d_decay += d[t] * (before - x[t] if neuron.decay_input else before)
        d_threshold -= through_spike if hard else through_spike + e * s
        e = alpha * d[t]
    return Gradients(
        x=(1.0 - alpha) * d if neuron.decay_input else d,
        v=np.asarray(e),
        decay=None if decay is None else _shared_by(decay, d_decay),
        threshold=None if threshold is None else _shared_by(threshold, d_threshold),
    )


def _over_channels(quantity: Array | float, x: Array) -> Array | float:
    """A decay or threshold in a shape that broadcasts against one step, (B, C, *d)."""
    if isinstance(quantity, np.ndarray) and quantity.ndim == 1:
        return quantity.reshape(-1, *(1,) * (x.ndim - 3))
    return quantity


def _shared_by(quantity: Array, gradient: Array) -> Array:
    """Sum the gradient of every entry (B, C, *d) over those that share a quantity."""
    if quantity.ndim == 0:
        return np.asarray(gradient.sum())
    return np.asarray(gradient.sum(axis=(0, *range(2, gradient.ndim))))
