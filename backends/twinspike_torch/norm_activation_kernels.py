"""Triton's kernels of a norm, what is added to it, and the activation after it, as one pass over memory in each direction.

A program holds a tile of neurons, rows of one step by channels, over all steps: what lies between a convolution's output and the
spikes is never written. The backward pass starts from the convolution's output again, twice: once for the sums that a
norm's gradient needs, once for the gradients themselves. What norms and sums hand on is rounded where the layers one by one
would round it (clause PRE-2), so that spikes are theirs; gradients are rounded where they leave (clause PRE-6).

A norm is a tuple (x, mean, inverse, gamma, beta), statistics (G, C) of G groups of steps: T, or one for all.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from twinspike_torch.lif_triton import _derivative, _reset

NOTHING = tl.constexpr(0)
VALUE = tl.constexpr(1)
NORM = tl.constexpr(2)


class Shape(NamedTuple):
    """What is compiled in."""

    steps: int
    per_step: bool
    """Whether each step has statistics of its own."""
    static: bool
    """Whether x is one step, shown T times."""
    other: int
    """What is added to the norm: NOTHING, a VALUE as it is, or another NORM."""
    spiking: bool
    """Or else rectified, of one step."""
    decay: float
    threshold: float
    v_reset: float
    hard: bool
    detached: bool
    decay_input: bool
    surrogate: int
    slope: float


@triton.jit
def _columns(channels: tl.tensor, WIDTH: tl.constexpr) -> tl.tuple:
    """The channels of a program's tile, and which of them are there."""
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    return columns, columns < channels


@triton.jit
def _places(first: tl.tensor, stop: tl.tensor, channels: tl.tensor, ROWS: tl.constexpr, WIDTH: tl.constexpr) -> tl.tuple:
    """Places of a tile within a step, and which of them are there; rows before `stop` are."""
    rows = first + tl.arange(0, ROWS)
    columns, live = _columns(channels, WIDTH)
    return rows.to(tl.int64)[:, None] * channels + columns[None, :], (rows < stop)[:, None] & live[None, :]


@triton.jit
def _per_channel(values: tl.tensor, group: tl.tensor, like: tl.tensor, channels: tl.tensor) -> tl.tensor:
    """A group's numbers, one for each channel, over a tile's rows."""
    columns, live = _columns(channels, like.shape[1])
    return tl.broadcast_to(tl.load(values + group * channels + columns, mask=live, other=0)[None, :], like.shape)


@triton.jit
def _normal(norm: tl.tuple, values: tl.tensor, group: tl.tensor, channels: tl.tensor) -> tl.tensor:
    """gamma (values - mean) inverse + beta."""
    scale = _per_channel(norm[2], group, values, channels) * _per_channel(norm[3], 0, values, channels)
    return tl.fma(values - _per_channel(norm[1], group, values, channels), scale, _per_channel(norm[4], 0, values, channels))


@triton.jit
def _standard(
    norm: tl.tuple, at: tl.tensor, inside: tl.tensor, group: tl.tensor, channels: tl.tensor, dtype: tl.constexpr
) -> tl.tensor:
    """z = (x - mean) inverse."""
    values = tl.load(norm[0] + at, mask=inside, other=0).to(dtype)
    return (values - _per_channel(norm[1], group, values, channels)) * _per_channel(norm[2], group, values, channels)


@triton.jit
def _current(
    norm: tl.tuple,
    other: tl.tuple,
    at: tl.tensor,
    inside: tl.tensor,
    group: tl.tensor,
    channels: tl.tensor,
    SHAPE: tl.constexpr,
    dtype: tl.constexpr,
) -> tl.tensor:
    """What the activation sees."""
    handed: tl.constexpr = norm[0].dtype.element_ty
    current = _normal(norm, tl.load(norm[0] + at, mask=inside, other=0).to(dtype), group, channels).to(handed).to(dtype)
    if SHAPE.other != NOTHING:
        added = tl.load(other[0] + at, mask=inside, other=0).to(dtype)
        if SHAPE.other == NORM:
            added = _normal(other, added, group, channels).to(handed).to(dtype)
        current = (current + added).to(handed).to(dtype)
    return current


@triton.jit
def _charged(current: tl.tensor, state: tl.tensor, SHAPE: tl.constexpr) -> tl.tensor:
    alpha = tl.full(current.shape, SHAPE.decay, current.dtype)
    if SHAPE.decay_input:
        current = (1.0 - alpha) * current
    return tl.fma(alpha, state, current)


@triton.jit
def _activate(
    norm: tl.tuple,
    other: tl.tuple,
    y: tl.tensor,
    spikes: tl.tensor,
    rows: tl.tensor,
    channels: tl.tensor,
    SHAPE: tl.constexpr,
    dtype: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Spikes, and their number added to `spikes` where it is there, or rectified values."""
    T: tl.constexpr = SHAPE.steps
    at, inside = _places(tl.program_id(0) * ROWS, rows, channels, ROWS, WIDTH)
    step = tl.cast(rows, tl.int64) * channels
    theta = tl.full((ROWS, WIDTH), SHAPE.threshold, dtype)
    state = tl.zeros((ROWS, WIDTH), dtype)
    fired = tl.zeros((ROWS, WIDTH), tl.int32)
    current = state
    for t in tl.static_range(T):
        if t == 0 or not SHAPE.static:
            current = _current(norm, other, t * step + at, inside, t if SHAPE.per_step else 0, channels, SHAPE, dtype)
        if SHAPE.spiking:
            u = _charged(current, state, SHAPE)
            state = _reset(u, theta, SHAPE.hard, SHAPE.v_reset)
            fired += tl.where(inside & (u >= theta), 1, 0)
            out = tl.where(u >= theta, 1.0, 0.0)
        else:
            out = tl.where(current <= 0, 0.0, current)
        tl.store(y + t * step + at, out.to(y.dtype.element_ty), mask=inside)
    if spikes is not None:
        tl.atomic_add(spikes, tl.sum(tl.sum(fired, 1), 0).to(tl.int64), sem="relaxed")


@triton.jit
def _seen(
    norm: tl.tuple,
    other: tl.tuple,
    at: tl.tensor,
    inside: tl.tensor,
    step: tl.tensor,
    channels: tl.tensor,
    SHAPE: tl.constexpr,
    dtype: tl.constexpr,
) -> tl.tuple:
    """The potential before reset of each step, or what is rectified."""
    T: tl.constexpr = SHAPE.steps
    theta = tl.full(at.shape, SHAPE.threshold, dtype)
    state = tl.zeros(at.shape, dtype)
    current = state
    kept: tl.tuple = ()
    for t in tl.static_range(T):
        if t == 0 or not SHAPE.static:
            current = _current(norm, other, t * step + at, inside, t if SHAPE.per_step else 0, channels, SHAPE, dtype)
        u = current
        if SHAPE.spiking:
            u = _charged(current, state, SHAPE)
            state = _reset(u, theta, SHAPE.hard, SHAPE.v_reset)
        kept = kept + (u,)  # noqa: RUF005  # the compiler knows no star
    return kept


@triton.jit
def _through(
    seen: tl.tensor, g: tl.tensor, at: tl.tensor, inside: tl.tensor, e: tl.tensor, SHAPE: tl.constexpr, dtype: tl.constexpr
) -> tl.tuple:
    """A step's gradient of what the activation sees, and that of the state before it; e is that of the state after it."""
    d = tl.load(g + at, mask=inside, other=0).to(dtype)
    if SHAPE.spiking:
        theta = tl.full(seen.shape, SHAPE.threshold, dtype)
        if not SHAPE.detached:
            d += e * (SHAPE.v_reset - seen if SHAPE.hard else -theta)
        d *= _derivative(seen - theta, SHAPE.surrogate, SHAPE.slope)
        d += tl.where(seen >= theta, 0.0, e) if SHAPE.hard else e
        alpha = tl.full(seen.shape, SHAPE.decay, dtype)
        e = alpha * d
        if SHAPE.decay_input:
            d = (1.0 - alpha) * d
    else:
        d = tl.where(seen <= 0, 0.0, d)
    return d, e


@triton.jit
def _sums(
    norm: tl.tuple,
    other: tl.tuple,
    g: tl.tensor,
    partial: tl.tuple,
    rows: tl.tensor,
    channels: tl.tensor,
    SHAPE: tl.constexpr,
    TILES: tl.constexpr,
    dtype: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Sums of d, of d z and of d times the other norm's z over a chunk of rows, d the gradient of what the activation sees."""
    T: tl.constexpr = SHAPE.steps
    GROUPS: tl.constexpr = T if SHAPE.per_step else 1
    KINDS: tl.constexpr = 3 if SHAPE.other == NORM else 2
    start = tl.program_id(0) * (TILES * ROWS)
    stop = tl.minimum(start + TILES * ROWS, rows)
    step = tl.cast(rows, tl.int64) * channels
    total: tl.tuple = ()  # of the last group first
    for _ in tl.static_range(GROUPS * KINDS):
        total = total + (tl.zeros((ROWS, WIDTH), dtype),)  # noqa: RUF005  # the compiler knows no star
    for i in range(TILES):
        at, inside = _places(start + i * ROWS, stop, channels, ROWS, WIDTH)
        kept = _seen(norm, other, at, inside, step, channels, SHAPE, dtype)
        e = tl.zeros((ROWS, WIDTH), dtype)
        gathered = e
        for j in tl.static_range(T):
            t = T - 1 - j
            d, e = _through(kept[T - 1 - j], g, t * step + at, inside, e, SHAPE, dtype)
            d = tl.where(inside, d, 0.0)
            gathered = gathered + d if SHAPE.static else d
            if j == T - 1 or not SHAPE.static:
                group = t if SHAPE.per_step else 0
                z = _standard(norm, t * step + at, inside, group, channels, dtype)
                parts: tl.tuple = (gathered, gathered * z)
                if SHAPE.other == NORM:
                    parts = parts + (gathered * _standard(other, t * step + at, inside, group, channels, dtype),)  # noqa: RUF005
                added: tl.tuple = ()
                for k in tl.static_range(GROUPS * KINDS):
                    mine = k // KINDS == (j if SHAPE.per_step else 0)
                    added = added + (total[k] + parts[k % KINDS] if mine else total[k],)  # noqa: RUF005
                total = added
    columns, live = _columns(channels, WIDTH)
    for k in tl.static_range(GROUPS * KINDS):
        part = ((GROUPS - 1 - k // KINDS) * tl.num_programs(0) + tl.program_id(0)) * channels
        tl.store(partial[k % KINDS] + part + columns, tl.sum(total[k], 0), mask=live)


@triton.jit
def _to_input(
    norm: tl.tuple, found: tl.tuple, d: tl.tensor, at: tl.tensor, inside: tl.tensor, group: tl.tensor, channels: tl.tensor
) -> None:
    """d_x = gamma inverse (d - mean_d - z mean_dz), written; found is (d_x, mean_d, mean_dz)."""
    z = _standard(norm, at, inside, group, channels, d.dtype)
    weight = _per_channel(norm[2], group, d, channels) * _per_channel(norm[3], 0, d, channels)
    inner = d - _per_channel(found[1], group, d, channels) - z * _per_channel(found[2], group, d, channels)
    tl.store(found[0] + at, (inner * weight).to(found[0].dtype.element_ty), mask=inside)


@triton.jit
def _to_inputs(
    norm: tl.tuple,
    other: tl.tuple,
    g: tl.tensor,
    found: tl.tuple,
    found_other: tl.tuple,
    rows: tl.tensor,
    channels: tl.tensor,
    SHAPE: tl.constexpr,
    dtype: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Gradients of x, and of what is added: as it is, or of its norm's input."""
    T: tl.constexpr = SHAPE.steps
    at, inside = _places(tl.program_id(0) * ROWS, rows, channels, ROWS, WIDTH)
    step = tl.cast(rows, tl.int64) * channels
    kept = _seen(norm, other, at, inside, step, channels, SHAPE, dtype)
    e = tl.zeros((ROWS, WIDTH), dtype)
    gathered = e
    for j in tl.static_range(T):
        t = T - 1 - j
        d, e = _through(kept[T - 1 - j], g, t * step + at, inside, e, SHAPE, dtype)
        gathered = gathered + d if SHAPE.static else d
        if j == T - 1 or not SHAPE.static:
            group = t if SHAPE.per_step else 0
            _to_input(norm, found, gathered, t * step + at, inside, group, channels)
            if SHAPE.other == NORM:
                _to_input(other, found_other, gathered, t * step + at, inside, group, channels)
            elif SHAPE.other == VALUE:
                tl.store(found_other[0] + t * step + at, gathered.to(found_other[0].dtype.element_ty), mask=inside)


# --- what programs found, put together ---------------------------------------------------------------------


@triton.jit
def _part(
    partial: tl.tensor,
    group: tl.tensor,
    block: tl.tensor,
    channels: tl.tensor,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
) -> tl.tensor:
    """A block of a group's parts, (BLOCK, WIDTH), 0 where there are none; of (G, PARTS, C)."""
    columns, parts = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH), block * BLOCK + tl.arange(0, BLOCK)
    inside = (parts < PARTS)[:, None] & (columns < channels)[None, :]
    at = (group * PARTS + parts)[:, None] * channels + columns[None, :]
    return tl.load(partial + at, mask=inside, other=0).to(tl.float64)


@triton.jit
def _count(rows: tl.tensor, chunk: tl.tensor, block: tl.tensor, BLOCK: tl.constexpr) -> tl.tensor:
    """Rows of each part, (BLOCK, 1)."""
    parts = block * BLOCK + tl.arange(0, BLOCK)
    return tl.maximum(tl.minimum(rows - parts * chunk, chunk), 0).to(tl.float64)[:, None]


@triton.jit
def _finish(
    pivots: tl.tensor,
    partial: tl.tuple,
    statistics: tl.tuple,
    running: tl.tuple,
    moved: tl.tuple,
    rows: tl.tensor,
    chunk: tl.tensor,
    channels: tl.tensor,
    MOMENTUM: tl.constexpr,
    UNBIASED: tl.constexpr,
    EPS: tl.constexpr,
    GROUPS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Mean and 1/sqrt(variance + eps) of each group by Chan's rule, and the running statistics after all of them.

    Partial are means, as distances from `pivots`, each group's first row where it lies, and sums of squared deviations,
    (G, PARTS, C), each of `chunk` rows but the last.
    """
    BLOCKS: tl.constexpr = (PARTS + BLOCK - 1) // BLOCK
    columns = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    live = columns < channels
    mean_r = tl.load(running[0] + columns, mask=live, other=0)
    var_r = tl.load(running[1] + columns, mask=live, other=0)
    for group in tl.static_range(GROUPS):
        center = tl.zeros((WIDTH,), tl.float64)
        for b in tl.static_range(BLOCKS):
            means = _part(partial[0], group, b, channels, PARTS, BLOCK, WIDTH)
            center += tl.sum(means * _count(rows, chunk, b, BLOCK), 0)
        center = center / rows
        scatter = tl.zeros((WIDTH,), tl.float64)
        for b in tl.static_range(BLOCKS):
            apart = _part(partial[0], group, b, channels, PARTS, BLOCK, WIDTH) - center[None, :]
            scatter += tl.sum(apart * apart * _count(rows, chunk, b, BLOCK), 0)
            scatter += tl.sum(_part(partial[1], group, b, channels, PARTS, BLOCK, WIDTH), 0)
        var = scatter / rows
        pivot = tl.load(pivots + tl.cast(group, tl.int64) * rows * channels + columns, mask=live, other=0).to(tl.float64)
        mean = (pivot + center).to(mean_r.dtype)
        tl.store(statistics[0] + group * channels + columns, mean, mask=live)
        tl.store(statistics[1] + group * channels + columns, (1.0 / tl.sqrt(var + EPS)).to(mean_r.dtype), mask=live)
        weight = tl.full(mean_r.shape, MOMENTUM, mean_r.dtype)
        mean_r = tl.fma(weight, mean, mean_r * (1.0 - MOMENTUM))
        var_r = tl.fma(weight, (var * UNBIASED).to(var_r.dtype), var_r * (1.0 - MOMENTUM))
    tl.store(moved[0] + columns, mean_r, mask=live)
    tl.store(moved[1] + columns, var_r, mask=live)


@triton.jit
def _finish_sums(
    partial: tl.tuple,
    means: tl.tuple,
    gradients: tl.tuple,
    rows: tl.tensor,
    channels: tl.tensor,
    GROUPS: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """Means of d and of d z of each group, and the gradients of beta and gamma, of partial sums (G, PARTS, C)."""
    columns = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    live = columns < channels
    for kind in tl.static_range(2):
        total = tl.zeros((WIDTH,), tl.float64)
        for group in tl.static_range(GROUPS):
            found = tl.zeros((WIDTH,), tl.float64)
            for b in tl.static_range((PARTS + BLOCK - 1) // BLOCK):
                found += tl.sum(_part(partial[kind], group, b, channels, PARTS, BLOCK, WIDTH), 0)
            tl.store(means[kind] + group * channels + columns, (found / rows).to(means[0].dtype.element_ty), mask=live)
            total += found
        tl.store(gradients[kind] + columns, total.to(gradients[0].dtype.element_ty), mask=live)
