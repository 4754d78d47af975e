"""Batch normalization with its adjoint (clauses BN-*); arrays are (T, B, C, *d), quantities (C,)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx

from twinspike.config import BatchNorm
from twinspike.errors import require
from twinspike_mlx.sums import per_channel

Normalized = tuple[mx.array, mx.array, mx.array]


@cache
def _normalize(eps: float, folded: bool) -> Callable[..., Any]:
    """The differentiable function (x, gamma, beta) -> y, mean and biased variance, (1 or T, C)."""

    @mx.custom_function
    def run(x: mx.array, gamma: mx.array, beta: mx.array) -> Normalized:
        mean, var = _moments(x, folded)
        z = (x - _wide(mean, x)) / mx.sqrt(_wide(var, x) + eps)
        return _wide(gamma[None], x) * z + _wide(beta[None], x), mean, var

    @run.vjp
    def pull(primals: Any, cotangents: Any, outputs: Any) -> Normalized:
        """With z = (x - m)/sqrt(v + eps): dL/dx = gamma (g - mean(g) - z mean(g z))/sqrt(v + eps)."""
        (x, gamma, _), g, (_, mean, var) = primals, cotangents[0], outputs
        root, n = mx.sqrt(_wide(var, x) + eps), _count(x, folded)
        z = (x - _wide(mean, x)) / root
        sum_g, sum_gz = per_channel(g, folded=folded), per_channel(g * z, folded=folded)
        d_x = _wide(gamma[None], x) * (g - _wide(sum_g / n, x) - z * _wide(sum_gz / n, x)) / root
        return d_x, sum_gz.sum(axis=0), sum_g.sum(axis=0)

    return run


def batch_norm_train(
    x: mx.array, gamma: mx.array, beta: mx.array, mean: mx.array, var: mx.array, *, config: BatchNorm
) -> Normalized:
    """y by the batch's own statistics, and the running ones after it (clauses BN-1 to BN-4).

    Raises:
        SpecError: one value per channel.
    """
    folded, m = config.time == "folded", config.momentum
    n = _count(x, folded)
    require(n > 1, "batch norm in training", expected="more than one value per channel", got=n)
    y, means, variances = _normalize(config.eps, folded)(x, gamma, beta)
    for new_mean, new_var in zip(mx.stop_gradient(means), mx.stop_gradient(variances), strict=True):
        mean = (1.0 - m) * mean + m * new_mean
        var = (1.0 - m) * var + m * (new_var * (n / (n - 1)))
    return y, mean, var


def batch_norm_eval(
    x: mx.array, gamma: mx.array, beta: mx.array, mean: mx.array, var: mx.array, *, config: BatchNorm
) -> mx.array:
    """y by the running statistics (clause BN-5)."""
    z = (x - _wide(mean[None], x)) / mx.sqrt(_wide(var[None], x) + config.eps)
    return _wide(gamma[None], x) * z + _wide(beta[None], x)


def _wide(c: mx.array, x: mx.array) -> mx.array:
    """(1 or T, C) in a shape that broadcasts against x."""
    return c.reshape(c.shape[0], 1, c.shape[1], *(1,) * (x.ndim - 3))


def _count(x: mx.array, folded: bool) -> int:
    """Values of one channel that are normalized together."""
    return int(x.size // (x.shape[2] * (1 if folded else x.shape[0])))


def _moments(x: mx.array, folded: bool) -> tuple[mx.array, mx.array]:
    n = _count(x, folded)
    mean = per_channel(x, folded=folded) / n
    return mean, per_channel(mx.square(x - _wide(mean, x)), folded=folded) / n
