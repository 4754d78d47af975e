"""The convolution of maps over any leading axes, and what it keeps for its backward pass.

A map of spikes is kept as booleans, a byte each, instead of in the format of activations. On the CPU
gradients are taken tap by tap where the kernel is much larger than the maps: oneDNN then spends most of
its time on reordering the kernel. A factored kernel need not be composed where `factors_pay`. All are exact.

Where the processor has no instructions for a 16-bit format, torch falls back on convolutions of its own, whose gradients
are added up in that format, sample by sample. There the sums are taken in float32, of the same operands.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from twinspike_torch import taps
from twinspike_torch.compiling import constant
from twinspike_torch.factorization import Factors
from twinspike_torch.precision import autocast_dtype

WORTH = 1 << 22
"""Multiply-adds of a tap below which calls cost more than products."""
NARROW = 16
"""Channels to a block of oneDNN's: its gradient of a strided kernel of one tap over fewer writes past its workspace."""


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
    operands = autocast_dtype(x.device.type) if operands is None else operands
    maps, kept = fold(x), None if spikes is None else fold(spikes)
    if _overruns(maps, kernel, stride, padding):
        maps, kept = maps[..., ::stride, ::stride], None if kept is None else kept[..., ::stride, ::stride]
        stride = 1
    maps = maps.to(dtype=operands or maps.dtype)
    kernel = kernel.to(dtype=operands or kernel.dtype, memory_format=_layout(maps, kernel))
    if torch.compiler.is_compiling():  # a compiler plans for itself what to keep
        sums = _sums(kernel.device.type, kernel.dtype)
        maps, kernel = maps.to(dtype=sums, memory_format=_layout(maps, kernel)), kernel.to(sums)
        y = functional.conv2d(maps, kernel, stride=stride, padding=padding).to(operands or x.dtype)
    else:
        y = _Convolution.apply(maps, kernel, stride, padding, kept)  # type: ignore[no-untyped-call]  # torch types no apply
    return unfold(y, x.shape[:-3])


def convolve_factored(x: Tensor, factors: Factors, stride: int = 1, padding: int = 0, spikes: Tensor | None = None) -> Tensor:
    """As `convolve` with the kernel U diag(sigma) V, matricized per position and not composed, in the factors' dtype."""
    given = *factors, stride, padding, None if spikes is None else fold(spikes)
    y: Tensor = taps.FactoredConvolution.apply(fold(x), *given)  # type: ignore[no-untyped-call]  # torch types no apply
    return unfold(y, x.shape[:-3])


def factors_pay(u: torch.Size, v: torch.Size, pixels: int) -> bool:
    """Whether a training step on the CPU takes fewer multiply-adds by `convolve_factored` than by composing the kernel.

    Args:
        u: shape of U, (kh, kw, out, r).
        v: shape of V, (kh, kw, r, in).
        pixels: pairs of a tap and an output pixel that meet the map, over the whole batch.
    """
    (kh, kw, m, r), n = u, v[-1]
    # Forward, and two gradients of each factor of a product; V x is taken twice.
    factored = pixels * r * (3 * (m + n) + n)
    composed = 3 * m * n * (pixels + kh * kw * r)
    return factored < composed and factored >= WORTH * kh * kw


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
        needs = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        by_taps = None
        if _outgrows(kernel, x):
            # Taps of lower precision would be rounded before their sum.
            exact = kernel.dtype in (torch.float32, torch.float64)
            d_x, by_taps = taps.gradients(x.to(kernel.dtype), g, kernel, ctx.stride, ctx.padding, (exact and needs[0], needs[1]))
            if exact or not needs[0]:
                return d_x, by_taps, None, None, None
            needs = True, False
        layout, sums = _layout(x, kernel), _sums(kernel.device.type, kernel.dtype)
        wide = (value.to(dtype=sums, memory_format=layout) for value in (g, x))
        stride, padding = [ctx.stride] * 2, [ctx.padding] * 2
        given = *wide, kernel.to(sums), None, stride, padding, [1, 1], False, [0, 0], 1, [*needs, False]
        found = torch.ops.aten.convolution_backward(*given)
        d_x, d_kernel = (None if d is None else d.to(kernel.dtype) for d in found[:2])
        return d_x, d_kernel if by_taps is None else by_taps, None, None, None


def channels_last(x: Tensor) -> Tensor:
    """(..., C, H, W) with channels last in memory, copied where they are not."""
    return x.movedim(-3, -1).contiguous().movedim(-1, -3)


def _outgrows(kernel: Tensor, x: Tensor) -> bool:
    """Whether, on the CPU, a kernel is so much larger than the maps that it reads that reordering it takes longest."""
    return x.device.type == "cpu" and kernel.numel() > 2 * x.numel()


def _overruns(x: Tensor, kernel: Tensor, stride: int, padding: int) -> bool:
    """Whether oneDNN would write past its memory, whatever layout a compiler then chooses.

    Source: https://github.com/uxlfoundation/oneDNN/issues/6035.
    """
    return x.device.type == "cpu" and stride > 1 and padding == 0 and kernel.shape[1] < NARROW and kernel.shape[2:] == (1, 1)


@constant
def _sums(device: str, dtype: torch.dtype) -> torch.dtype:
    """Format in which a convolution of operands of a format is to be taken, so that it is added up in no less than float32."""
    supports = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    if device != "cpu" or dtype not in supports:
        return dtype
    available = torch._C._has_mkldnn and torch._C._get_mkldnn_enabled()
    return dtype if available and getattr(torch.ops.mkldnn, supports[dtype])() else torch.float32


def _layout(x: Tensor, kernel: Tensor) -> torch.memory_format:
    """Channels last on the CPU, but where reordering a large kernel would cost more than it saves; elsewhere as it is."""
    if x.device.type != "cpu":
        return torch.preserve_format
    return torch.contiguous_format if _outgrows(kernel, x) else torch.channels_last
