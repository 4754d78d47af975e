"""Batch normalization (clauses BN-*), with all time steps at once and an adjoint that keeps only its input.

The statistics of a per-step norm are those of the slices of one array; T updates of the running statistics
are one weighted sum. Where the input is the same at every step they have the closed form of T equal updates.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from twinspike.config import BatchNorm
from twinspike.errors import require
from twinspike_jax.precision import wide
from twinspike_jax.replicas import combined, count, total
from twinspike_jax.residuals import kept

Statistics = tuple[Array, Array]
"""Running mean and variance, each (C,)."""


def _wide(c: Array, ndim: int) -> Array:
    """(C,) in a shape that broadcasts against (..., B, C, *d) with `ndim` axes behind B."""
    return c.reshape(-1, *(1,) * ndim)


def _moments(axes: tuple[int, ...], ranks: str | None, x: Array) -> tuple[Array, Array, Array]:
    """The input in a wide format, its mean and its biased variance over all ranks, axes kept."""
    x = x.astype(wide(x.dtype))
    mean = x.mean(axis=axes, keepdims=True)
    return x, *combined(mean, ((x - mean) ** 2).mean(axis=axes, keepdims=True), ranks)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _normalize(axes: tuple[int, ...], space: int, eps: float, ranks: str | None, x: Array, gamma: Array, beta: Array) -> Any:
    """(y, mean, biased var) with statistics over `axes`, and over the ranks; `space` counts the axes behind C."""
    return _normalize_forward(axes, space, eps, ranks, x, gamma, beta)[0]


def _normalize_forward(
    axes: tuple[int, ...], space: int, eps: float, ranks: str | None, x: Array, gamma: Array, beta: Array
) -> Any:
    wide_x, mean, var = _moments(axes, ranks, x)
    mean, inverse = kept(mean), kept(1.0 / jnp.sqrt(var + eps))
    y = _wide(gamma, space) * ((wide_x - mean) * inverse) + _wide(beta, space)
    return (y.astype(x.dtype), mean.squeeze(axes), var.squeeze(axes)), (x, mean, inverse, gamma)


def _normalize_backward(axes: tuple[int, ...], space: int, eps: float, ranks: str | None, residuals: Any, cotangents: Any) -> Any:
    """With z = (x - m)/sqrt(v + eps): dL/dx = gamma (g - mean(g) - z mean(g z))/sqrt(v + eps), means over all ranks.

    The gradients of gamma and beta are this rank's contributions.
    """
    x, mean, inverse, gamma = residuals
    g = cotangents[0].astype(mean.dtype)
    z = (x.astype(mean.dtype) - mean) * inverse
    sum_g, sum_gz = g.sum(axis=axes, keepdims=True), (g * z).sum(axis=axes, keepdims=True)
    n = x.size // mean.size * count(ranks)
    all_g, all_gz = total((sum_g, sum_gz), ranks)
    d_x = _wide(gamma, space) * inverse * (g - all_g / n - z * (all_gz / n))
    slices = tuple(i for i in range(x.ndim) if i != x.ndim - 1 - space)
    return d_x.astype(x.dtype), sum_gz.sum(axis=slices), sum_g.sum(axis=slices)


_normalize.defvjp(_normalize_forward, _normalize_backward)


def batch_norm_train(
    x: Array,
    gamma: Array,
    beta: Array,
    mean: Array,
    var: Array,
    *,
    config: BatchNorm,
    channel: int = 2,
    ranks: str | None = None,
) -> tuple[Array, Array, Array]:
    """Normalize a sequence by its own statistics and move the running ones (clauses BN-1 to BN-4).

    Args:
        x: (T, B, C, *d), or with C elsewhere behind B; more than one value per channel.
        gamma: scale, (C,), like all statistics float32 or float64.
        beta: shift, (C,).
        mean: running mean before the step, (C,).
        var: running variance before the step, (C,).
        config: whether each step is normalized by itself, the momentum and eps.
        channel: the axis of C.
        ranks: axis of the mesh over which statistics are shared (clause DEV-3).

    Returns:
        y, shape and dtype of `x`; running mean and variance after the step. No gradient passes the latter.

    Raises:
        SpecError: one value per channel.
    """
    per_step = config.time == "per_step"
    axes = tuple(i for i in range(1 if per_step else 0, x.ndim) if i != channel)
    y, new_mean, new_var = _normalize(axes, x.ndim - 1 - channel, config.eps, ranks, x, gamma, beta)
    n = x.size // (x.shape[channel] * (x.shape[0] if per_step else 1)) * count(ranks)
    unbiased = new_var * _correction(n)
    if not per_step:
        return y, _moved(mean, new_mean, config.momentum), _moved(var, unbiased, config.momentum)
    steps, m = x.shape[0], config.momentum
    weights = jnp.asarray(m * (1.0 - m) ** np.arange(steps - 1, -1, -1), dtype=mean.dtype)[:, None]
    kept = (1.0 - m) ** steps
    return y, kept * mean + (weights * new_mean).sum(axis=0), kept * var + (weights * unbiased).sum(axis=0)


def batch_norm_train_constant(
    x: Array,
    gamma: Array,
    beta: Array,
    mean: Array,
    var: Array,
    *,
    config: BatchNorm,
    steps: int,
    channel: int = 1,
    ranks: str | None = None,
) -> tuple[Array, Array, Array]:
    """`batch_norm_train` of an input that is the same at all `steps` steps, (B, C, *d), computed once.

    Per step, T equal updates are one with momentum 1 - (1 - momentum)^T; folded, one update counts T times the values.
    """
    axes = tuple(i for i in range(x.ndim) if i != channel)
    y, new_mean, new_var = _normalize(axes, x.ndim - 1 - channel, config.eps, ranks, x, gamma, beta)
    n, momentum = x.size // x.shape[channel] * count(ranks), config.momentum
    if config.time == "per_step":
        momentum = 1.0 - (1.0 - momentum) ** steps
    else:
        n *= steps
    return y, _moved(mean, new_mean, momentum), _moved(var, new_var * _correction(n), momentum)


def batch_norm_eval(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, *, eps: float, space: int) -> Array:
    """Normalize by the running statistics (clause BN-5).

    Args:
        x: (..., C, *d).
        gamma: (C,), like `beta`, `mean` and `var`.
        beta: shift.
        mean: running mean.
        var: running variance.
        eps: added to the variance.
        space: number of axes behind C.
    """
    inverse = _wide(1.0 / jnp.sqrt(var + eps), space)
    z = (x.astype(wide(x.dtype)) - _wide(mean, space)) * inverse
    return (_wide(gamma, space) * z + _wide(beta, space)).astype(x.dtype)


def _correction(n: int) -> float:
    require(n > 1, "batch norm in training", expected="more than one value per channel", got=n)
    return n / (n - 1)


def _moved(running: Array, new: Array, momentum: float) -> Array:
    return (1.0 - momentum) * running + momentum * new
