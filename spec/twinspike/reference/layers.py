"""Layers without state, and their adjoints (clauses LAY-*, OUT-1, OUT-2).

Maps are (B, C, H, W), vectors (B, F), kernels (O, I, kh, kw). An adjoint takes the forward's inputs
and the gradient g of its output.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from twinspike.reference import Array


def relu(x: Array) -> Array:
    """max(0, x), any shape (clause LAY-4)."""
    return np.asarray(np.maximum(x, 0.0))


def relu_adjoint(x: Array, g: Array) -> Array:
    """g where x > 0, else 0; the derivative at 0 is 0."""
    return np.where(x > 0, g, np.zeros_like(g))


def _windows(x: Array, height: int, width: int, stride: int) -> Array:
    """Every stride-th window of a map: (B, C, H', W', height, width), a view."""
    return sliding_window_view(x, (height, width), axis=(2, 3))[:, :, ::stride, ::stride]


def _scatter(windows: Array, like: Array, stride: int) -> Array:
    """Adjoint of `_windows`: add what overlapping windows hold to the map that they look at."""
    out = np.zeros_like(like)
    height, width = windows.shape[2:4]
    for i in range(windows.shape[4]):
        for j in range(windows.shape[5]):
            out[:, :, i : i + stride * height : stride, j : j + stride * width : stride] += windows[..., i, j]
    return out


def _pad(x: Array, padding: int) -> Array:
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))


def conv2d(x: Array, kernel: Array, stride: int = 1, padding: int = 0) -> Array:
    """y[b, o, i, j] = sum x[b, c, i stride + p - padding, j stride + q - padding] kernel[o, c, p, q] (clause LAY-1).

    Args:
        x: (B, I, H, W), zero outside.
        kernel: (O, I, kh, kw).
        stride: in pixels, >= 1.
        padding: zeros on all sides, >= 0.

    Returns:
        (B, O, H', W') with H' = (H + 2 padding - kh)//stride + 1, W' likewise.
    """
    windows = _windows(_pad(x, padding), kernel.shape[2], kernel.shape[3], stride)
    return np.tensordot(windows, kernel, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)


def conv2d_adjoint(x: Array, kernel: Array, g: Array, stride: int = 1, padding: int = 0) -> tuple[Array, Array]:
    """Gradients of x and kernel for the gradient g (B, O, H', W') of y."""
    padded = _pad(x, padding)
    windows = _windows(padded, kernel.shape[2], kernel.shape[3], stride)
    d_kernel = np.tensordot(g, windows, axes=((0, 2, 3), (0, 2, 3)))
    d_windows = np.tensordot(g, kernel, axes=((1,), (0,))).transpose(0, 3, 1, 2, 4, 5)
    d_padded = _scatter(d_windows, padded, stride)
    return d_padded[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]], d_kernel


def avg_pool(x: Array, kernel: int, stride: int) -> Array:
    """Means over kernel x kernel windows, remainders dropped (clause LAY-2)."""
    return np.asarray(_windows(x, kernel, kernel, stride).mean(axis=(4, 5)))


def avg_pool_adjoint(x: Array, g: Array, kernel: int, stride: int) -> Array:
    """Gradient of x: each window's share of g, added."""
    share = np.broadcast_to((g / kernel**2)[..., None, None], (*g.shape, kernel, kernel))
    return _scatter(share, x, stride)


def global_pool(x: Array) -> Array:
    """Mean over H and W: (B, C, H, W) -> (B, C) (clause LAY-2)."""
    return np.asarray(x.mean(axis=(2, 3)))


def global_pool_adjoint(x: Array, g: Array) -> Array:
    """Gradient of x: g / (H W) at every pixel."""
    share = (g / (x.shape[2] * x.shape[3]))[:, :, None, None]
    return np.array(np.broadcast_to(share, x.shape))


def linear(x: Array, weight: Array, bias: Array) -> Array:
    """weight x + bias: (B, I), (O, I), (O,) -> (B, O) (clause LAY-3)."""
    return np.asarray(x @ weight.T + bias)


def linear_adjoint(x: Array, weight: Array, g: Array) -> tuple[Array, Array, Array]:
    """Gradients of x, weight and bias."""
    return np.asarray(g @ weight), np.asarray(g.T @ x), np.asarray(g.sum(axis=0))


def readout(x: Array, reduction: Literal["sum", "mean"]) -> Array:
    """Sum or mean over time: (T, ...) -> (...) (clauses OUT-1, OUT-2)."""
    return np.asarray(x.sum(axis=0) if reduction == "sum" else x.mean(axis=0))


def readout_adjoint(x: Array, g: Array, reduction: Literal["sum", "mean"]) -> Array:
    """Gradient of x: g, or g/T, at every step."""
    return np.array(np.broadcast_to(g if reduction == "sum" else g / len(x), x.shape))
