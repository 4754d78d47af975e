"""Layers without state (clauses LAY-*, OUT-*), as pure functions on (B, C, H, W) maps and (B, F) vectors."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jax import Array, lax

from twinspike_jax.convolution import conv, conv_mixed
from twinspike_jax.residuals import rectified

HIGHEST = lax.Precision.HIGHEST


def relu(x: Array) -> Array:
    """max(0, x), with derivative 0 at x <= 0 (clause LAY-4)."""
    return rectified(x)


def conv2d(x: Array, kernel: Array, *, stride: int = 1, padding: int = 0, precision: lax.Precision = HIGHEST) -> Array:
    """Cross-correlation with zero padding on all sides, without bias (clause LAY-1).

    Args:
        x: (B, I, H, W).
        kernel: (O, I, kh, kw), same dtype.
        stride: in pixels, >= 1.
        padding: zeros on each side, >= 0.
        precision: of the products; HIGHEST rules TF32 out.

    Returns:
        (B, O, H', W'), H' = (H + 2 padding - kh)//stride + 1.
    """
    return channels_first(conv(channels_last(x), kernel.transpose(2, 3, 1, 0), stride, padding, precision))


def conv2d_mixed(x: Array, kernel: Array, stride: int = 1, padding: int = 0) -> Array:
    """`conv2d` of a bfloat16 map and a float32 kernel that is rounded to bfloat16 on the way in (clause PRE-2).

    Sums are float32, the result and the gradient of `x` bfloat16, the gradient of `kernel` float32.
    """
    return channels_first(conv_mixed(channels_last(x), kernel.transpose(2, 3, 1, 0), stride, padding))


def channels_last(x: Array) -> Array:
    """(..., C, H, W) as (..., H, W, C)."""
    return jnp.moveaxis(x, -3, -1)


def channels_first(x: Array) -> Array:
    """(..., H, W, C) as (..., C, H, W)."""
    return jnp.moveaxis(x, -1, -3)


def avg_pool(x: Array, *, kernel: int, stride: int) -> Array:
    """Mean over kernel x kernel windows, without padding, remainders dropped (clause LAY-2)."""
    return channels_first(avg_pool_last(channels_last(x), kernel=kernel, stride=stride))


def avg_pool_last(x: Array, *, kernel: int, stride: int) -> Array:
    """`avg_pool` of (B, H, W, C)."""
    total = x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x
    if kernel == stride:  # windows that tile the map are a reshape, which is faster than a windowed sum
        h, w = (n // kernel for n in x.shape[1:3])
        total = total[:, : h * kernel, : w * kernel].reshape(x.shape[0], h, kernel, w, kernel, -1).sum(axis=(2, 4))
    else:
        total = lax.reduce_window(total, 0.0, lax.add, (1, kernel, kernel, 1), (1, stride, stride, 1), "VALID")
    return (total / kernel**2).astype(x.dtype)


def global_pool(x: Array) -> Array:
    """Mean over H and W: (B, C, H, W) -> (B, C) (clause LAY-2)."""
    return x.mean(axis=(2, 3))


def linear(x: Array, weight: Array, bias: Array, *, precision: lax.Precision = HIGHEST) -> Array:
    """weight x + bias: (..., I), (O, I), (O,) -> (..., O) (clause LAY-3)."""
    return jnp.matmul(x, weight.T, precision=precision) + bias


def readout(x: Array, *, reduction: Literal["sum", "mean"]) -> Array:
    """Sum or mean over time: (T, ...) -> (...) (clauses OUT-1, OUT-2)."""
    return x.sum(axis=0) if reduction == "sum" else x.mean(axis=0)
