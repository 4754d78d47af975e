"""Batch norm's passes on the CPU by torch's fused kernels, with accurate sums in every layout.

Where channels are planes these kernels sum float32 in float64. With channels last they add up all rows of a map, one after
another, in float32: a variance of a million values is off by 2e-4 (https://github.com/pytorch/pytorch/issues/121651). Rows lie
side by side there, so that a map of k CHAIN rows of C channels is also one of CHAIN rows of k C channels. In that shape the
kernel sums chains of CHAIN rows, and these are combined in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHAIN = 128
"""Rows that are added up one after another; their sum is as accurate as the products around it."""

_aten = torch.ops.aten


def serves(x: Tensor) -> bool:
    """Whether torch's fused kernels take x, (S, n, C, ...): their passes are a tenth of what separate operations take."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or x[0].numel() <= x.shape[2]:
        return False
    if x[0].is_contiguous():
        # of float32 planes the sums are float64, of others in one chain of no more bits than these have, or float32
        return x.dtype == torch.float32 or x[0].numel() <= CHAIN * x.shape[2]
    return x.ndim == 5 and x[0].is_contiguous(memory_format=torch.channels_last)


def normalize(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The output, and for each first index of x the mean, the biased variance and 1/sqrt(variance + eps), (S, C).

    Args:
        x: (S, n, C, ...), one that `serves`.
        gamma: (C,).
        beta: (C,).
        eps: added to the variance.
    """
    n, y = x[0].numel() // x.shape[2], torch.empty_like(x)
    mean, var, inverse, moved = (gamma.new_zeros(x.shape[0], x.shape[2]) for _ in range(4))
    for t in range(x.shape[0]):
        if _in_chains(x[t]):
            mean[t], var[t] = _statistics(x[t], gamma.dtype)
            given, kept = (mean[t], var[t], False, 0.0, eps), gamma.new_empty(0)
            _aten.native_batch_norm.out(x[t], gamma, beta, *given, out=y[t], save_mean=kept, save_invstd=kept.clone())
            inverse[t] = torch.rsqrt(var[t] + eps)
        else:
            # with momentum 1 the running variance becomes this batch's unbiased one
            given = moved[t], var[t], True, 1.0, eps
            _aten.native_batch_norm.out(x[t], gamma, beta, *given, out=y[t], save_mean=mean[t], save_invstd=inverse[t])
            var[t] *= (n - 1) / n
    return y, mean, var, inverse


def gradients(g: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, inverse: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gamma and beta, these (S, C), from that of the output; arguments as `normalize` takes and gives them."""
    d_x, d_gamma, d_beta = torch.empty_like(x), torch.empty_like(mean), torch.empty_like(mean)
    # in mixed layouts the kernel sums in the input's format, and is wrong for a batch of one
    g = g if g.stride() == x.stride() else torch.empty_like(x).copy_(g)
    for t in range(x.shape[0]):
        if _in_chains(x[t]):
            d_gamma[t], d_beta[t] = _sums(g[t], x[t], mean[t], inverse[t], eps)
            _to_inputs(g[t], x[t], gamma * inverse[t], mean[t], d_gamma[t] * inverse[t], d_beta[t], d_x[t])
        else:
            given = g[t], x[t], gamma, None, None, mean[t], inverse[t], True, eps, [True, True, True]
            _aten.native_batch_norm_backward.out(*given, out0=d_x[t], out1=d_gamma[t], out2=d_beta[t])
    return d_x, d_gamma, d_beta


def _in_chains(x: Tensor) -> bool:
    """Whether the kernel would sum long chains of x, (B, C, ...)."""
    return not x.is_contiguous() and x.numel() > CHAIN * x.shape[1]


def _chains(x: Tensor) -> Iterator[tuple[Tensor, int, int]]:
    """x, (B, C, H, W) with channels last, as (1, k C, rows, 1): as long chains as fit, and what is left; with k and rows."""
    channels, maps = x.shape[1], x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    whole = len(maps) // CHAIN
    for start, k, rows in ((0, whole, CHAIN), (whole * CHAIN, 1, len(maps) % CHAIN)):
        if rows:
            yield maps[start : start + k * rows].view(1, rows, 1, k * channels).permute(0, 3, 1, 2), k, rows


def _statistics(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, (C,), by those of chains (Chan, Golub and LeVeque, 1983)."""
    means, variances, weights = [], [], []
    for chains, k, rows in _chains(x):
        moved = x.new_zeros(2, chains.shape[1], dtype=dtype)  # they tell the format of what is returned
        mean, var = torch.batch_norm_update_stats(chains, moved[0], moved[1], 0.0)
        means.append(mean.view(k, -1).double())
        variances.append(var.view(k, -1).double())
        weights.append(mean.new_full((k, 1), rows * x.shape[1] / x.numel(), dtype=torch.float64))
    mean, var, weight = torch.cat(means), torch.cat(variances), torch.cat(weights)
    total = (weight * mean).sum(0)
    return total, (weight * (var + (mean - total).square())).sum(0)


def _sums(g: Tensor, x: Tensor, mean: Tensor, inverse: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Sums of g z and of g over each channel, (C,), z = (x - mean) inverse."""
    sums = mean.new_zeros(2, len(mean), dtype=torch.float64)
    for (g_chains, k, _), (x_chains, *_) in zip(_chains(g), _chains(x), strict=True):
        given = g_chains, x_chains, None, None, None, mean.repeat(k), inverse.repeat(k), True, eps, [False, True, True]
        _, *found = _aten.native_batch_norm_backward(*given)
        sums += torch.stack([part.view(k, -1).sum(0, dtype=torch.float64) for part in found])
    return sums[0], sums[1]


def _to_inputs(g: Tensor, x: Tensor, scale: Tensor, mean: Tensor, sum_gz: Tensor, sum_g: Tensor, out: Tensor) -> None:
    """scale (g - sum_g/n - (x - mean) sum_gz/n), sum_gz with `inverse` in it, in two passes."""
    n = x.numel() // x.shape[1]
    slope = -scale * sum_gz / n
    start = -scale * sum_g / n - slope * mean
    slope, start, scale = (c.view(-1, 1, 1) for c in (slope, start, scale))
    if out.dtype == scale.dtype:
        torch.addcmul(start, x, slope, out=out).addcmul_(g, scale)
    else:
        out.copy_(torch.addcmul(start, x, slope).addcmul_(g.to(scale.dtype), scale))
