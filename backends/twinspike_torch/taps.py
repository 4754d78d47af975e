"""Convolutions tap by tap: one matrix product per position of the kernel, over the pixels that meet it.

On the CPU this pays where a kernel is larger than its maps: nothing is spent on padding, and no kernel has to be
brought into another order. It also serves a kernel U diag(sigma) V without composing it, which takes fewer
multiply-adds where there are fewer pixels than ranks. Both are exact rewrites.

Maps are channels-last inside: letters are N samples, n pixels that meet a tap, r rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twinspike_torch.precision import without_autocast

Span = tuple[slice, slice, slice]


class _Tap(NamedTuple):
    """A position of the kernel, and the pixels that it joins."""

    number: int
    """Row by row."""
    inputs: Span
    """Into maps (N, H, W, in)."""
    outputs: Span
    """Into maps (N, H', W', out), as many pixels."""


def pixels(size: int, size_out: int, kernel: int, stride: int, padding: int) -> int:
    """How many pairs of a tap and an output pixel meet the map and not its padding, along one axis."""
    along = (_met(tap, stride, padding, size, size_out)[1] for tap in range(kernel))
    return sum(outputs.stop - outputs.start for outputs in along)


def gradients(
    x: Tensor, g: Tensor, kernel: Tensor, stride: int, padding: int, needs: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a convolution's maps and kernel where `needs` says so, else None.

    Args:
        x: maps, (N, in, H, W).
        g: gradient of the output, (N, out, H', W').
        kernel: (out, in, kh, kw).
        stride: in pixels.
        padding: zeros on all sides.
        needs: of x and of the kernel, whose gradient has the memory order of composed kernels, (kh, kw, out, in).
    """
    out, into, kh, kw = kernel.shape
    maps, g_maps = _last(x), _last(g)
    d_x = torch.zeros_like(maps) if needs[0] else None
    d_kernel = kernel.new_empty(kh * kw, out, into) if needs[1] else None
    matrices = kernel.permute(2, 3, 0, 1).reshape(-1, out, into)
    with without_autocast(x.device.type):  # of those who call `backward` under it
        for tap in _taps(maps, g_maps, (kh, kw), stride, padding):
            rows = _rows(g_maps, tap.outputs)
            if d_kernel is not None:
                torch.mm(rows.T, _rows(maps, tap.inputs), out=d_kernel[tap.number])
            if d_x is not None:
                _add(d_x, tap.inputs, rows @ matrices[tap.number])
    return (
        None if d_x is None else d_x.permute(0, 3, 1, 2),
        None if d_kernel is None else d_kernel.view(kh, kw, out, into).permute(2, 3, 0, 1),
    )


class FactoredConvolution(torch.autograd.Function):
    """y = sum over taps p of U_p diag(sigma_p) V_p x_p, kernels never composed.

    With z = V x and h = U'g, summed over the pixels of a tap: dL/dU = g (sigma z)', dL/dsigma = sum h z,
    dL/dV = (sigma h) x', dL/dx = V' (sigma h).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, U: Tensor, sigma: Tensor, V: Tensor, stride: int, padding: int, spikes: Tensor | None
    ) -> Tensor:
        """Maps (N, out, H', W').

        Args:
            ctx: of the graph.
            x: maps, (N, in, H, W).
            U: (kh, kw, out, r).
            sigma: (kh, kw, r).
            V: (kh, kw, r, in).
            stride: in pixels.
            padding: zeros on all sides.
            spikes: x as booleans, to be kept in its stead.
        """
        ctx.save_for_backward(x if spikes is None else spikes, *(factor.flatten(0, 1) for factor in (U, sigma, V)))
        ctx.window = U.shape[:2], stride, padding
        maps, (kh, kw, out, _) = _last(x), U.shape
        height, width = ((n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[2:], (kh, kw), strict=True))
        y = maps.new_zeros(maps.shape[0], height, width, out)
        u, s, v = (factor.flatten(0, 1) for factor in (U, sigma, V))
        for tap in _taps(maps, y, (kh, kw), stride, padding):
            z = _rows(maps, tap.inputs) @ v[tap.number].T
            _add(y, tap.outputs, z.mul_(s[tap.number]) @ u[tap.number].T)
        return y.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, U, sigma and V."""
        x, u, s, v = ctx.saved_tensors
        size, stride, padding = ctx.window
        maps, g_maps = _last(x.to(dtype=u.dtype)), _last(g)
        # Whole tensors, not views: only into these does autograd add the other twin's gradient in place.
        d_factors = [factor.new_empty(*size, *factor.shape[1:]) for factor in (u, s, v)]
        d_u, d_s, d_v = (d.flatten(0, 1) for d in d_factors)
        d_x = torch.zeros_like(maps) if ctx.needs_input_grad[0] else None
        with without_autocast(x.device.type):
            for p, inputs, outputs in _taps(maps, g_maps, size, stride, padding):
                rows, g_rows = _rows(maps, inputs), _rows(g_maps, outputs)
                z, h = rows @ v[p].T, g_rows @ u[p]
                torch.sum(z * h, 0, out=d_s[p])
                torch.mm(g_rows.T, z.mul_(s[p]), out=d_u[p])
                torch.mm(h.mul_(s[p]).T, rows, out=d_v[p])
                if d_x is not None:
                    _add(d_x, inputs, h @ v[p])
        return None if d_x is None else d_x.permute(0, 3, 1, 2), *d_factors, None, None, None


def _last(x: Tensor) -> Tensor:
    """Maps (N, C, H, W) as (N, H, W, C), dense."""
    return x.permute(0, 2, 3, 1).contiguous()


def _taps(x: Tensor, y: Tensor, size: tuple[int, int], stride: int, padding: int) -> Iterator[_Tap]:
    """All taps, for maps (N, H, W, in) and (N, H', W', out)."""
    everything = slice(None)
    columns = [_met(j, stride, padding, x.shape[2], y.shape[2]) for j in range(size[1])]
    for i in range(size[0]):
        rows_in, rows_out = _met(i, stride, padding, x.shape[1], y.shape[1])
        for j, (columns_in, columns_out) in enumerate(columns):
            yield _Tap(i * size[1] + j, (everything, rows_in, columns_in), (everything, rows_out, columns_out))


def _rows(maps: Tensor, span: Span) -> Tensor:
    """Pixels as rows, (n, C)."""
    return maps[span].reshape(-1, maps.shape[-1])


def _add(maps: Tensor, span: Span, rows: Tensor) -> None:
    part = maps[span]
    part += rows.view(part.shape)


def _met(tap: int, stride: int, padding: int, size: int, size_out: int) -> tuple[slice, slice]:
    """Input and output positions that one tap joins, along one axis; the others meet the padding."""
    first = max(0, -(-(padding - tap) // stride))
    end = max(first, min(size_out, (size - 1 - tap + padding) // stride + 1))
    start = first * stride + tap - padding
    return slice(start, start + (end - first - 1) * stride + 1, stride) if end > first else slice(0, 0), slice(first, end)
