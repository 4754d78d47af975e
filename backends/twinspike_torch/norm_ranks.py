"""Batch normalization whose statistics are those of every rank's samples (clause DEV-3), forward and backward.

Each rank's moments are gathered and combined by Chan's rule, in the same order everywhere, so that statistics are equal on all
ranks to the bit; backward the ranks' sums are. Arrays are (S, n, C, ...), statistics being taken for each first index.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from twinspike_torch.replicas import Ranks


def synchronized(x: Tensor, gamma: Tensor, beta: Tensor, eps: float, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and for each first index of x the mean and the biased variance over all ranks, (S, C).

    Args:
        x: this rank's part, (S, n, C, ...), n the same on every rank.
        gamma: scale, (C,).
        beta: shift, (C,).
        eps: added to the variance.
        ranks: all that hand in a part.
    """
    found: tuple[Tensor, Tensor, Tensor] = _Synchronized.apply(x, gamma, beta, eps, ranks)  # type: ignore[no-untyped-call]  # untyped in torch
    return found


class _Synchronized(torch.autograd.Function):
    """y = gamma z + beta, z = (x - mean)/sqrt(var + eps).

    dL/dx = (g' - mean(g') - z mean(g' z))/sqrt(var + eps), g' = gamma g, with means over all ranks; the gradients of gamma and
    beta are this rank's contributions.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
        wide = x.to(torch.promote_types(x.dtype, gamma.dtype))
        own = _sum(wide) / _count(x)
        scatter = _sum((wide - own).square()) / _count(x)
        means, scatters = ranks.gathered(torch.stack([_flat(own), _flat(scatter)])).double().unbind(1)
        mean = means.mean(0)
        var = (scatters + (means - mean).square()).mean(0)
        mean, var = mean.to(gamma.dtype), var.to(gamma.dtype)
        inverse = torch.rsqrt(var + eps)
        y = torch.addcmul(_wide(beta, x), wide - _over(mean, x), _over(inverse, x) * _wide(gamma, x)).to(x.dtype)
        ctx.ranks = ranks
        ctx.save_for_backward(x, gamma, mean, inverse)
        mean = mean.clone()
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, gamma, mean, inverse = ctx.saved_tensors
        wide_g = g.to(inverse.dtype)
        z = (x - _over(mean, x)) * _over(inverse, x)
        sums = torch.stack([_flat(_sum(wide_g)), _flat(_sum(wide_g * z))])
        d_beta, d_gamma = sums.sum(1)
        mean_g, mean_gz = (ctx.ranks.gathered(sums).double().mean(0) / _count(x)).to(inverse.dtype)
        inner = wide_g - _over(mean_g, x) - z * _over(mean_gz, x)
        return (inner * (_over(inverse, x) * _wide(gamma, x))).to(x.dtype), d_gamma, d_beta, None, None


def _count(x: Tensor) -> int:
    """Values of one channel and first index on this rank."""
    return x[0].numel() // x.shape[2]


def _sum(values: Tensor) -> Tensor:
    """Over all axes but the first and that of C, kept; one axis after another, in short chains."""
    for axis in (*range(values.ndim - 1, 2, -1), 1):
        values = values.sum(axis, keepdim=True)
    return values


def _flat(statistic: Tensor) -> Tensor:
    return statistic.reshape(statistic.shape[0], statistic.shape[2])


def _over(statistic: Tensor, x: Tensor) -> Tensor:
    """(S, C) in a shape that broadcasts against x."""
    return statistic.reshape(x.shape[0], 1, x.shape[2], *(1,) * (x.ndim - 3))


def _wide(c: Tensor, x: Tensor) -> Tensor:
    """(C,) in a shape that broadcasts against x."""
    return c.reshape(-1, *(1,) * (x.ndim - 3))
