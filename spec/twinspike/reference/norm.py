"""Batch normalization over time, batch and space, with running statistics (clauses BN-*).

Arrays are (T, B, C, *d); gamma, beta, mean and var are (C,). n counts the values of one channel that
are normalized together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from twinspike.config import BatchNorm
from twinspike.errors import require
from twinspike.reference import Array


class Normalized(NamedTuple):
    """Output of a training step, (T, B, C, *d), and the running statistics after it, (C,)."""

    y: Array
    mean: Array
    var: Array


def batch_norm_train(norm: BatchNorm, x: Array, gamma: Array, beta: Array, mean: Array, var: Array) -> Normalized:
    """Normalize by the batch's own statistics and move the running ones (clauses BN-1 to BN-4).

    Args:
        norm: whether each time step is normalized by itself, the momentum and eps.
        x: (T, B, C, *d), with n > 1.
        gamma: scale, (C,).
        beta: shift, (C,).
        mean: running mean before the step, (C,).
        var: running variance before the step, (C,).
    """
    y = np.empty_like(x)
    for steps in _together(norm, x):
        part, n = x[steps], x[steps].size // x.shape[2]
        require(n > 1, "batch norm in training", expected="more than one value per channel", got=n)
        m, v = _moments(part)
        y[steps] = _wide(gamma, x) * (part - _wide(m, x)) / np.sqrt(_wide(v, x) + norm.eps) + _wide(beta, x)
        mean = (1.0 - norm.momentum) * mean + norm.momentum * m
        var = (1.0 - norm.momentum) * var + norm.momentum * (v * (n / (n - 1)))
    return Normalized(y, mean, var)


def batch_norm_train_adjoint(norm: BatchNorm, x: Array, gamma: Array, g: Array) -> tuple[Array, Array, Array]:
    """Gradients of x, gamma and beta; they pass through mean and variance.

    With z = (x - m)/sqrt(v + eps) and g' = gamma g:  dL/dx = (g' - mean(g') - z mean(g' z))/sqrt(v + eps).
    """
    d_x, d_gamma, d_beta = np.empty_like(x), np.zeros_like(gamma), np.zeros_like(gamma)
    for steps in _together(norm, x):
        part, g_part = x[steps], g[steps]
        m, v = _moments(part)
        root = np.sqrt(_wide(v, x) + norm.eps)
        z = (part - _wide(m, x)) / root
        scaled = _wide(gamma, x) * g_part
        through_mean = _wide(scaled.mean(axis=_axes(x)), x)
        through_var = z * _wide((scaled * z).mean(axis=_axes(x)), x)
        d_x[steps] = (scaled - through_mean - through_var) / root
        d_gamma += (g_part * z).sum(axis=_axes(x))
        d_beta += g_part.sum(axis=_axes(x))
    return d_x, d_gamma, d_beta


def batch_norm_eval(norm: BatchNorm, x: Array, gamma: Array, beta: Array, mean: Array, var: Array) -> Array:
    """Normalize by the running statistics, the same at every step (clause BN-5); arguments as in training."""
    return np.asarray(_wide(gamma, x) * (x - _wide(mean, x)) / np.sqrt(_wide(var, x) + norm.eps) + _wide(beta, x))


def batch_norm_eval_adjoint(
    norm: BatchNorm, x: Array, gamma: Array, mean: Array, var: Array, g: Array
) -> tuple[Array, Array, Array]:
    """Gradients of x, gamma and beta, the running statistics being constants."""
    root = np.sqrt(_wide(var, x) + norm.eps)
    z = (x - _wide(mean, x)) / root
    return _wide(gamma, x) * g / root, (g * z).sum(axis=_axes(x)), g.sum(axis=_axes(x))


def _together(norm: BatchNorm, x: Array) -> Iterator[slice]:
    """The slices of time that are normalized together, in order."""
    if norm.time == "folded":
        yield slice(None)
    else:
        yield from (slice(t, t + 1) for t in range(len(x)))


def _axes(x: Array) -> tuple[int, ...]:
    """All axes but the channels'."""
    return (0, 1, *range(3, x.ndim))


def _wide(c: Array, x: Array) -> Array:
    """(C,) in a shape that broadcasts against (T, B, C, *d)."""
    return c.reshape(-1, *(1,) * (x.ndim - 3))


def _moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel."""
    m = x.mean(axis=_axes(x))
    return m, ((x - _wide(m, x)) ** 2).mean(axis=_axes(x))
