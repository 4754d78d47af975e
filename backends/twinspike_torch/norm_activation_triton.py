"""A norm, what is added to it, and the activation after it, by Triton's kernels: which tensors these are given.

Statistics are `norm_triton`'s pass; what programs found is put together by one small kernel, running statistics with it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from twinspike.config import BatchNorm
from twinspike_torch import norm_activation_kernels as kernels
from twinspike_torch import norm_triton
from twinspike_torch.lif_form import Form
from twinspike_torch.lif_triton import launching_on
from twinspike_torch.norm_activation import Source
from twinspike_torch.norm_activation_kernels import Shape

STEPS = 8
"""At most, whose potentials a thread keeps in registers."""
FEW, TILE = 4, 1024
"""Neurons of a program of few steps: a 16-byte access of each thread in 16 bits, two in 32; of more steps half as many."""
WIDTH = 128
"""Channels of a tile at most, a power of two."""
PROGRAMS = 512
"""Of a pass that sums: four for each of a device's multiprocessors, each of as few tiles as `CHAIN` allows."""
CHAIN = 64
"""Tiles whose sums are added up one after another, at most (clause PRE-7)."""
TOGETHER, BLOCK = 8, 512
"""Channels of a program that puts parts together, and parts that it holds at once."""


class Known(NamedTuple):
    """What a backward pass needs of a norm."""

    x: Tensor
    mean: Tensor
    """(G, C), as `inverse`."""
    inverse: Tensor
    gamma: Tensor
    beta: Tensor


def shape(config: BatchNorm, form: Form | None, steps: int, x: Tensor, other: Source | Tensor | None) -> Shape:
    """What is compiled in; of no form values are rectified."""
    static, kind = x.shape[0] < steps, kernels.NOTHING if other is None else kernels.NORM
    if other is not None and not isinstance(other, Source):
        kind = kernels.VALUE
    own = Form(*(0.0,) * len(Form._fields)) if form is None else form
    return Shape(
        steps=steps,
        per_step=config.time == "per_step" and not static,
        static=static,
        other=kind.value,
        spiking=form is not None,
        decay=own.decay,
        threshold=own.threshold,
        v_reset=own.v_reset,
        hard=bool(own.hard),
        detached=bool(own.detach_reset),
        decay_input=bool(own.decay_input),
        surrogate=int(own.surrogate),
        slope=own.width,
    )


def statistics(config: BatchNorm, source: Source) -> tuple[Known, Tensor, Tensor]:
    """A norm's own statistics, and the running ones after the step (clauses BN-1 to BN-4)."""
    x, gamma = source.x, source.gamma
    groups, rows, channels = _extents(config, x)
    n = rows * (source.repeats if config.time == "folded" else 1)
    weight = config.momentum if config.time == "folded" else 1.0 - (1.0 - config.momentum) ** source.repeats
    width, tile = _tile(channels, norm_triton.TILE)
    across = triton.cdiv(channels, width)
    parts, tiles = _parts(rows, tile, groups * across)
    means, scatters = gamma.new_empty(2, groups, parts, channels)
    mean, inverse = gamma.new_empty(2, groups, channels)
    moved = torch.empty_like(gamma), torch.empty_like(gamma)
    pivot = x[:groups, 0, :, 0, 0] if x.ndim == 5 else x[:groups, 0]
    with launching_on(x.device):
        own = {"TILES": tiles, "dtype": _wide(gamma), "ROWS": tile, "WIDTH": width}
        norm_triton._statistics[(parts, groups, across)](x, means, scatters, rows, channels, **own)
        kernels._finish[(triton.cdiv(channels, TOGETHER),)](
            *(pivot, (means, scatters), (mean, inverse), (source.mean, source.var), moved, rows, tiles * tile, channels),
            **_together(groups, parts),
            MOMENTUM=weight,
            UNBIASED=n / (n - 1),
            EPS=config.eps,
        )
    return Known(x, mean, inverse, gamma, source.beta), *moved


def activate(form: Shape, norm: Known, other: tuple[Tensor, ...], spikes: Tensor | None) -> Tensor:
    """The activation's output, (T, B, C, ...); other is a `Known`, one tensor or none."""
    x = norm.x
    y = _sequence(form.steps, x)
    rows, channels = x[0].numel() // x.shape[2], x.shape[2]
    width, tile = _tile(channels, TILE if form.steps <= FEW else TILE // 2)
    with launching_on(x.device):
        kernels._activate[(triton.cdiv(rows, tile), triton.cdiv(channels, width))](
            *(tuple(norm), tuple(other) or (x,), y, spikes, rows, channels),
            **_options(form, norm, tile, width),
        )
    return y


def gradients(
    config: BatchNorm, form: Shape, norm: Known, other: tuple[Tensor, ...], g: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Of x, gamma and beta, and of the other's; of what is added as it is, its own and nothing."""
    x, gamma = norm.x, norm.gamma
    g = g if g.stride() == _sequence_strides(x) else _sequence(form.steps, x).copy_(g)
    per_step, channels = x[0].numel() // x.shape[2], x.shape[2]
    groups, rows, _ = _extents(config, x)
    width, tile = _tile(channels, TILE if form.steps <= FEW else TILE // 2)
    across = triton.cdiv(channels, width)
    parts, tiles = _parts(per_step, tile, across)
    second = Known(*other) if form.other == kernels.NORM.value else None
    partial = tuple(gamma.new_empty(2 if second is None else 3, groups, parts, channels))
    options = _options(form, norm, tile, width)
    given = tuple(norm), tuple(other) or (x,), g
    found = []
    with launching_on(x.device):
        kernels._sums[(parts, across)](*given, partial, per_step, channels, TILES=tiles, **options)
        for own, of_z in ((norm, partial[1]), *(() if second is None else ((second, partial[2]),))):
            means = tuple(gamma.new_empty(2, groups, channels))
            d_beta, d_gamma = torch.empty_like(own.beta), torch.empty_like(own.gamma)
            kernels._finish_sums[(triton.cdiv(channels, TOGETHER),)](
                *((partial[0], of_z), means, (d_beta, d_gamma), rows, channels),
                **_together(groups, parts),
            )
            found.append((torch.empty_like(x), *means, d_gamma, d_beta))
        added = torch.empty_like(x) if form.other == kernels.VALUE.value else None
        d_other = (added,) if added is not None else found[-1][:3]
        grid = triton.cdiv(per_step, tile), across
        kernels._to_inputs[grid](*given, found[0][:3], d_other, per_step, channels, **options)
    d_x, _, _, d_gamma, d_beta = found[0]
    if second is None:
        return d_x, d_gamma, d_beta, added, None, None
    return d_x, d_gamma, d_beta, found[1][0], *found[1][3:]


def _extents(config: BatchNorm, x: Tensor) -> tuple[int, int, int]:
    """Groups of steps with statistics of their own, rows of each, channels."""
    groups = x.shape[0] if config.time == "per_step" else 1
    return groups, x.numel() // x.shape[2] // groups, x.shape[2]


def _tile(channels: int, tile: int) -> tuple[int, int]:
    """Channels and rows of a tile."""
    width = min(WIDTH, triton.next_power_of_2(channels))
    return width, tile // width


def _parts(rows: int, tile: int, beside: int) -> tuple[int, int]:
    """Parts that rows are cut into, and tiles of each; `beside` programs take a part each."""
    tiles = triton.cdiv(rows, tile)
    each = min(CHAIN, triton.next_power_of_2(triton.cdiv(tiles * beside, PROGRAMS)))  # compiled in: few numbers for all sizes
    return triton.cdiv(tiles, each), each


def _together(groups: int, parts: int) -> dict[str, int]:
    block = min(BLOCK, triton.next_power_of_2(parts))
    return {"GROUPS": groups, "PARTS": parts, "BLOCK": block, "WIDTH": TOGETHER, "num_warps": 8}


def _options(form: Shape, norm: Known, tile: int, width: int) -> dict[str, Any]:
    """One rounding where the source has one, as in every kernel of the neuron."""
    return {"SHAPE": form, "dtype": _wide(norm.gamma), "ROWS": tile, "WIDTH": width, "enable_fp_fusion": False}


def _wide(gamma: Tensor) -> Any:
    return tl.float64 if gamma.dtype == torch.float64 else tl.float32


def _sequence(steps: int, x: Tensor) -> Tensor:
    """An unfilled (T, B, C, ...) in the order of x's memory."""
    return x.new_empty_strided((steps, *x.shape[1:]), _sequence_strides(x))


def _sequence_strides(x: Tensor) -> tuple[int, ...]:
    return (x[0].numel(), *x.stride()[1:])
