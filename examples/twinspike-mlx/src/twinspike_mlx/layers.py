"""Layers without a state (clauses LAY-*, OUT-*); maps are (B, C, H, W) as the specification has them."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx


def relu(x: mx.array) -> mx.array:
    """max(0, x), whose derivative at 0 is 0; a NaN stays one."""
    return mx.where(x <= 0, mx.zeros_like(x), x)


def conv2d(x: mx.array, kernel: mx.array, *, stride: int, padding: int) -> mx.array:
    """Cross-correlation, (B, I, H, W) with (O, I, kh, kw) to (B, O, H', W')."""
    y = mx.conv2d(x.transpose(0, 2, 3, 1), kernel.transpose(0, 2, 3, 1), stride=stride, padding=padding)
    return y.transpose(0, 3, 1, 2)


def avg_pool(x: mx.array, *, kernel: int, stride: int) -> mx.array:
    """Means of windows, (B, C, H, W) to (B, C, H', W'): one strided view per place in a window."""
    rows, columns = ((n - kernel) // stride * stride + 1 for n in x.shape[2:])
    places = [(i, j) for i in range(kernel) for j in range(kernel)]
    views = [x[:, :, i : i + rows : stride, j : j + columns : stride] for i, j in places]
    return sum(views[1:], views[0]) / kernel**2


def global_pool(x: mx.array) -> mx.array:
    """Mean over H and W, (B, C, H, W) to (B, C)."""
    return x.sum(axis=(2, 3)) / (x.shape[2] * x.shape[3])


def linear(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """(B, I) with (O, I) and (O,) to (B, O)."""
    return x @ weight.T + bias


def readout(x: mx.array, *, reduction: Literal["sum", "mean"]) -> mx.array:
    """Sum or mean over time, (T, ...) to (...)."""
    return x.sum(axis=0) if reduction == "sum" else x.sum(axis=0) / x.shape[0]
