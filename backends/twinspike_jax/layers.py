"""Layers without state (clauses LAY-*, OUT-*), as pure functions on (B, C, H, W) maps and (B, F) vectors.

`conv2d_mixed` has an adjoint of its own: JAX would round a kernel's gradient to bfloat16 on the way, where
clause PRE-2 wants it in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

HIGHEST = lax.Precision.HIGHEST
_MAPS = ("NCHW", "OIHW", "NCHW")


def relu(x: Array) -> Array:
    """max(0, x), with derivative 0 at x <= 0 (clause LAY-4)."""
    return jax.nn.relu(x)


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
    pads = [(padding, padding)] * 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_MAPS, precision=precision)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d_mixed(x: Array, kernel: Array, stride: int = 1, padding: int = 0) -> Array:
    """`conv2d` of a bfloat16 map and a float32 kernel that is rounded to bfloat16 on the way in (clause PRE-2).

    Sums are float32, the result and the gradient of `x` bfloat16, the gradient of `kernel` float32.
    """
    return _mixed(x, kernel.astype(x.dtype), stride, padding)


def _mixed(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    pads = [(padding, padding)] * 2
    y = lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_MAPS, preferred_element_type=jnp.float32)
    return y.astype(x.dtype)


def _mixed_forward(x: Array, kernel: Array, stride: int, padding: int) -> tuple[Array, tuple[Array, Array]]:
    rounded = kernel.astype(x.dtype)
    return _mixed(x, rounded, stride, padding), (x, rounded)


def _mixed_backward(stride: int, padding: int, residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    """Both gradients as convolutions of g, dilated where the forward strode."""
    x, kernel = residuals
    sizes = list(zip(x.shape[2:], kernel.shape[2:], g.shape[2:], strict=True))
    extent = [(h_out - 1) * stride + 1 for _, _, h_out in sizes]
    d_x = lax.conv_general_dilated(
        g,
        kernel[:, :, ::-1, ::-1],
        (1, 1),
        [(k - 1 - padding, h + padding - e) for (h, k, _), e in zip(sizes, extent, strict=True)],
        lhs_dilation=(stride, stride),
        dimension_numbers=("NCHW", "IOHW", "NCHW"),
        preferred_element_type=jnp.float32,
    )
    d_kernel = lax.conv_general_dilated(
        x,
        g,
        (1, 1),
        [(padding, k - 1 + e - h - padding) for (h, k, _), e in zip(sizes, extent, strict=True)],
        rhs_dilation=(stride, stride),
        dimension_numbers=("CNHW", "IOHW", "CNHW"),
        preferred_element_type=jnp.float32,
    )
    return d_x.astype(x.dtype), d_kernel


conv2d_mixed.defvjp(_mixed_forward, _mixed_backward)


def avg_pool(x: Array, *, kernel: int, stride: int) -> Array:
    """Mean over kernel x kernel windows, without padding, remainders dropped (clause LAY-2)."""
    total = x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x
    if kernel == stride:  # windows that tile the map are a reshape, which is faster than a windowed sum
        h, w = (n // kernel for n in x.shape[2:])
        total = total[:, :, : h * kernel, : w * kernel].reshape(*x.shape[:2], h, kernel, w, kernel).sum(axis=(3, 5))
    else:
        total = lax.reduce_window(total, 0.0, lax.add, (1, 1, kernel, kernel), (1, 1, stride, stride), "VALID")
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
