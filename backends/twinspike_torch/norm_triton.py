"""Batch norm's passes on CUDA devices by Triton, where channels lie last: two reads and a write forward, four and one backward.

Eager torch would write every step between in float32. Statistics are exact in two passes over what a program holds in
registers, and combined by Chan's rule: over its tiles in float32, over programs in float64. In Triton's interpreter
(TRITON_INTERPRET=1) the same kernels run on the CPU. A compiler fuses norms with their neighbours and is left to it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from twinspike_torch.lif_triton import launching_on

TILE = 4096
"""Values that a program holds at once."""
WIDTH = 128
"""Channels of a tile at most, a power of two."""
PROGRAMS = 1024
"""Programs of a pass that sums, per step; a few for each of a device's multiprocessors."""


@triton.jit
def _tile(
    values: tl.tensor, first: tl.tensor, stop: tl.tensor, channels: tl.tensor, ROWS: tl.constexpr, WIDTH: tl.constexpr
) -> tl.tuple:
    """Pointers to a tile of a step's rows, and which of them are there; rows before `stop` are."""
    rows = first + tl.arange(0, ROWS)
    columns = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    inside = (rows < stop)[:, None] & (columns < channels)[None, :]
    return values + rows.to(tl.int64)[:, None] * channels + columns[None, :], inside


@triton.jit
def _statistics(
    x: tl.tensor,
    mean: tl.tensor,
    scatter: tl.tensor,
    rows: tl.tensor,
    channels: tl.tensor,
    TILES: tl.constexpr,
    dtype: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Mean and sum of squared deviations of a chunk of a step's rows, the mean as a distance from the step's first row."""
    step, part = tl.program_id(1).to(tl.int64), tl.program_id(0)
    start = part * (TILES * ROWS)
    stop = tl.minimum(start + TILES * ROWS, rows)
    values = x + step * rows * channels
    columns = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    pivot = tl.load(values + columns, mask=columns < channels, other=0).to(dtype)
    total_mean = tl.zeros((WIDTH,), dtype)
    total = tl.zeros((WIDTH,), dtype)
    for i in range(TILES):
        first = start + i * ROWS
        at, inside = _tile(values, first, stop, channels, ROWS, WIDTH)
        v = tl.where(inside, tl.load(at, mask=inside, other=0).to(dtype) - pivot[None, :], 0.0)
        here = tl.maximum(tl.minimum(stop - first, ROWS), 0).to(dtype)
        before = tl.minimum(first - start, stop - start).to(dtype)
        own_mean = tl.sum(v, 0) / tl.maximum(here, 1.0)
        apart = tl.where(inside, v - own_mean[None, :], 0.0)
        shift = own_mean - total_mean
        total_mean += shift * (here / (before + here))
        total += tl.sum(apart * apart, 0) + shift * shift * (before * here / (before + here))
    at_part = (step * tl.num_programs(0) + part) * channels + columns
    tl.store(mean + at_part, total_mean, mask=columns < channels)
    tl.store(scatter + at_part, total, mask=columns < channels)


@triton.jit
def _apply(
    x: tl.tensor,
    y: tl.tensor,
    mean: tl.tensor,
    inverse: tl.tensor,
    gamma: tl.tensor,
    beta: tl.tensor,
    rows: tl.tensor,
    channels: tl.tensor,
    dtype: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """y = gamma (x - mean) inverse + beta."""
    step, first = tl.program_id(1).to(tl.int64), tl.program_id(0) * ROWS
    columns = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    live = columns < channels
    m = tl.load(mean + step * channels + columns, mask=live, other=0)
    scale = tl.load(inverse + step * channels + columns, mask=live, other=0) * tl.load(gamma + columns, mask=live, other=0)
    shift = tl.load(beta + columns, mask=live, other=0)
    at, inside = _tile(x + step * rows * channels, first, rows, channels, ROWS, WIDTH)
    out, _ = _tile(y + step * rows * channels, first, rows, channels, ROWS, WIDTH)
    v = tl.load(at, mask=inside, other=0).to(dtype)
    tl.store(out, ((v - m[None, :]) * scale[None, :] + shift[None, :]).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _sums(
    g: tl.tensor,
    x: tl.tensor,
    mean: tl.tensor,
    inverse: tl.tensor,
    sum_g: tl.tensor,
    sum_gz: tl.tensor,
    rows: tl.tensor,
    channels: tl.tensor,
    TILES: tl.constexpr,
    dtype: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Sums of g and of g z over a chunk of a step's rows, z = (x - mean) inverse."""
    step, part = tl.program_id(1).to(tl.int64), tl.program_id(0)
    start = part * (TILES * ROWS)
    stop = tl.minimum(start + TILES * ROWS, rows)
    columns = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    live = columns < channels
    m = tl.load(mean + step * channels + columns, mask=live, other=0)
    scale = tl.load(inverse + step * channels + columns, mask=live, other=0)
    total = tl.zeros((WIDTH,), dtype)
    total_z = tl.zeros((WIDTH,), dtype)
    for i in range(TILES):
        first = start + i * ROWS
        at, inside = _tile(x + step * rows * channels, first, stop, channels, ROWS, WIDTH)
        at_g, _ = _tile(g + step * rows * channels, first, stop, channels, ROWS, WIDTH)
        z = (tl.load(at, mask=inside, other=0).to(dtype) - m[None, :]) * scale[None, :]
        d = tl.load(at_g, mask=inside, other=0).to(dtype)
        total += tl.sum(d, 0)
        total_z += tl.sum(d * z, 0)
    at_part = (step * tl.num_programs(0) + part) * channels + columns
    tl.store(sum_g + at_part, total, mask=live)
    tl.store(sum_gz + at_part, total_z, mask=live)


@triton.jit
def _to_inputs(
    g: tl.tensor,
    x: tl.tensor,
    d_x: tl.tensor,
    mean: tl.tensor,
    inverse: tl.tensor,
    gamma: tl.tensor,
    mean_g: tl.tensor,
    mean_gz: tl.tensor,
    rows: tl.tensor,
    channels: tl.tensor,
    dtype: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """d_x = gamma inverse (g - mean_g - z mean_gz)."""
    step, first = tl.program_id(1).to(tl.int64), tl.program_id(0) * ROWS
    columns = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    live = columns < channels
    at_step = step * channels + columns
    m = tl.load(mean + at_step, mask=live, other=0)
    scale = tl.load(inverse + at_step, mask=live, other=0)
    weight = scale * tl.load(gamma + columns, mask=live, other=0)
    level = tl.load(mean_g + at_step, mask=live, other=0)
    slope = tl.load(mean_gz + at_step, mask=live, other=0)
    at, inside = _tile(x + step * rows * channels, first, rows, channels, ROWS, WIDTH)
    at_g, _ = _tile(g + step * rows * channels, first, rows, channels, ROWS, WIDTH)
    out, _ = _tile(d_x + step * rows * channels, first, rows, channels, ROWS, WIDTH)
    z = (tl.load(at, mask=inside, other=0).to(dtype) - m[None, :]) * scale[None, :]
    d = tl.load(at_g, mask=inside, other=0).to(dtype)
    tl.store(out, ((d - level[None, :] - z * slope[None, :]) * weight[None, :]).to(d_x.dtype.element_ty), mask=inside)


# --- tensors ---------------------------------------------------------------------------------------------


def fits(x: Tensor) -> bool:
    """Whether each step of x, (S, n, C, ...), is dense and has its channels last."""
    if x.ndim not in (3, 5) or x.numel() == 0:
        return False
    return x.is_contiguous() if x.ndim == 3 else x.movedim(2, -1).is_contiguous()


def normalize(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `norm_cpu.normalize`, of one that `fits`."""
    steps, channels = x.shape[0], x.shape[2]
    rows = x[0].numel() // channels
    parts, tiles, of_tile = _parts(rows, channels)
    form = {"dtype": tl.float64 if gamma.dtype == torch.float64 else tl.float32, **of_tile}
    means, scatters = gamma.new_empty(2, steps, parts, channels)
    y, across = torch.empty_like(x), triton.cdiv(channels, of_tile["WIDTH"])
    with launching_on(x.device):
        _statistics[(parts, steps, across)](x, means, scatters, rows, channels, TILES=tiles, **form)
        first = x[:, 0, :, 0, 0] if x.ndim == 5 else x[:, 0]
        mean, var = _combined(first, means, scatters, rows, tiles * of_tile["ROWS"])
        inverse = torch.rsqrt(var + eps)
        grid = (triton.cdiv(rows, of_tile["ROWS"]), steps, across)  # CUDA takes many programs in the first axis alone
        _apply[grid](x, y, mean, inverse, gamma, beta, rows, channels, **form)
    return y, mean, var, inverse


def gradients(g: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, inverse: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """As `norm_cpu.gradients`, of one that `fits`."""
    del eps
    steps, channels = x.shape[0], x.shape[2]
    rows = x[0].numel() // channels
    parts, tiles, of_tile = _parts(rows, channels)
    form = {"dtype": tl.float64 if gamma.dtype == torch.float64 else tl.float32, **of_tile}
    g = g if g.stride() == x.stride() else torch.empty_like(x).copy_(g)
    partial = gamma.new_empty(2, steps, parts, channels)
    d_x, across = torch.empty_like(x), triton.cdiv(channels, of_tile["WIDTH"])
    with launching_on(x.device):
        _sums[(parts, steps, across)](g, x, mean, inverse, *partial, rows, channels, TILES=tiles, **form)
        sums = partial.sum(2, dtype=torch.float64)
        mean_g, mean_gz = (sums / rows).to(gamma.dtype)
        grid = (triton.cdiv(rows, of_tile["ROWS"]), steps, across)  # CUDA takes many programs in the first axis alone
        _to_inputs[grid](g, x, d_x, mean, inverse, gamma, mean_g, mean_gz, rows, channels, **form)
    d_beta, d_gamma = sums.to(gamma.dtype)
    return d_x, d_gamma, d_beta


def _parts(rows: int, channels: int) -> tuple[int, int, dict[str, int]]:
    """Programs of a pass that sums a step's rows, the tiles of each, and the tile."""
    width = min(WIDTH, triton.next_power_of_2(channels))
    of_tile = {"ROWS": TILE // width, "WIDTH": width}
    tiles = triton.cdiv(rows, of_tile["ROWS"])
    each = triton.next_power_of_2(triton.cdiv(tiles, PROGRAMS))  # compiled in: few numbers for all sizes
    return triton.cdiv(tiles, each), each, of_tile


def _combined(first: Tensor, means: Tensor, scatters: Tensor, rows: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, (S, C), by parts, (S, parts, C), whose means are distances from `first`."""
    wide, parts = means.double(), means.shape[1]
    counts = torch.full((parts, 1), float(chunk), dtype=torch.float64, device=means.device)
    counts[-1] = rows - (parts - 1) * chunk
    mean = (wide * counts).sum(1) / rows
    apart = (wide - mean[:, None]).square_().mul_(counts).sum(1)
    return (first.double() + mean).to(means.dtype), ((scatters.sum(1, dtype=torch.float64) + apart) / rows).to(means.dtype)
