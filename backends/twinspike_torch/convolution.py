"""The convolution of maps over any leading axes, and what it keeps for its backward pass.

A map of spikes is kept as booleans, a byte each, instead of in the format of activations. On the CPU a
kernel's gradient is taken tap by tap where the kernel is larger than the maps: oneDNN then spends most of
its time on reordering the kernel. Both are exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def convolve(
    x: Tensor,
    kernel: Tensor,
    stride: int = 1,
    padding: int = 0,
    operands: torch.dtype | None = None,
    spikes: Tensor | None = None,
) -> Tensor:
    """Cross-correlation of (..., in, H, W) with (out, in, kh, kw) (clauses LAY-1, PRE-2).

    Args:
        x: maps, any number of leading axes, folded into one batch.
        kernel: (out, in, kh, kw).
        stride: in pixels, >= 1.
        padding: zeros on all sides, >= 0.
        operands: dtype that both are cast to; None leaves them, or takes autocast's.
        spikes: x as booleans, where it is nothing but 0 and 1, to be kept in its stead.
    """
    if operands is None and torch.is_autocast_enabled(x.device.type):
        operands = torch.get_autocast_dtype(x.device.type)
    maps = fold(x)
    maps = maps.to(dtype=operands or maps.dtype)
    kernel = kernel.to(dtype=operands or kernel.dtype, memory_format=_layout(maps, kernel))
    if torch.compiler.is_compiling():  # a compiler plans for itself what to keep
        y = functional.conv2d(maps.to(memory_format=_layout(maps, kernel)), kernel, stride=stride, padding=padding)
    else:
        y = _Convolution.apply(maps, kernel, stride, padding, None if spikes is None else fold(spikes))  # type: ignore[no-untyped-call]  # torch types no apply
    return unfold(y, x.shape[:-3])


def fold(x: Tensor) -> Tensor:
    """(..., C, H, W) as one batch (B', C, H, W), a view where memory allows."""
    return x.flatten(0, -4) if x.ndim > 4 else x


def unfold(y: Tensor, lead: torch.Size) -> Tensor:
    """Take the batch of `fold` apart again, a view."""
    return y.view(*lead, *y.shape[1:]) if len(lead) > 1 else y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: int, padding: int, spikes: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if spikes is None else spikes, kernel)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x.to(memory_format=_layout(x, kernel)), kernel, stride=stride, padding=padding)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, kernel = ctx.saved_tensors
        layout = _layout(x, kernel)
        x, g = x.to(dtype=kernel.dtype, memory_format=layout), g.contiguous(memory_format=layout)
        needs_x, needs_kernel = ctx.needs_input_grad[:2]
        by_taps = needs_kernel and _outgrows(kernel, x)
        stride, padding = [ctx.stride] * 2, [ctx.padding] * 2
        d_x, d_kernel, _ = torch.ops.aten.convolution_backward(
            g, x, kernel, None, stride, padding, [1, 1], False, [0, 0], 1, [needs_x, needs_kernel and not by_taps, False]
        )
        if by_taps:
            d_kernel = _kernel_gradient(x, g, kernel.shape, ctx.stride, ctx.padding)
        return d_x, d_kernel, None, None, None


def _outgrows(kernel: Tensor, x: Tensor) -> bool:
    """Whether, on the CPU, a kernel is larger than the maps that it reads."""
    return x.device.type == "cpu" and kernel.numel() > x.numel()


def _layout(x: Tensor, kernel: Tensor) -> torch.memory_format:
    """Channels last on the CPU, but where reordering a large kernel would cost more than it saves; elsewhere as it is."""
    if x.device.type != "cpu":
        return torch.preserve_format
    return torch.contiguous_format if _outgrows(kernel, x) else torch.channels_last


def _kernel_gradient(x: Tensor, g: Tensor, shape: torch.Size, stride: int, padding: int) -> Tensor:
    """One product of output gradients and the inputs they came from per tap, in the memory order of composed kernels."""
    out, into, kh, kw = shape
    inputs, gradients = x.permute(0, 2, 3, 1), g.permute(0, 2, 3, 1)
    d_kernel = g.new_zeros(kh, kw, out, into)
    for i in range(kh):
        rows_in, rows_out = _met(i, stride, padding, x.shape[2], g.shape[2])
        for j in range(kw):
            columns_in, columns_out = _met(j, stride, padding, x.shape[3], g.shape[3])
            met = inputs[:, rows_in, columns_in].reshape(-1, into)
            torch.mm(gradients[:, rows_out, columns_out].reshape(-1, out).T, met, out=d_kernel[i, j])
    return d_kernel.permute(2, 3, 0, 1)


def _met(tap: int, stride: int, padding: int, size: int, size_out: int) -> tuple[slice, slice]:
    """Input and output positions that one tap joins, along one axis; the others meet the padding."""
    first = max(0, -(-(padding - tap) // stride))
    end = max(first, min(size_out, (size - 1 - tap + padding) // stride + 1))
    start = first * stride + tap - padding
    return slice(start, start + (end - first - 1) * stride + 1, stride) if end > first else slice(0, 0), slice(first, end)
