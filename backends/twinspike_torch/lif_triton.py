"""The neuron on CUDA devices by Triton: one pass over time per block of neurons, in both directions.

The forward pass reads the current and writes spikes, the backward pass reads the current and the spikes' gradient
and writes the current's: potentials stay in registers, charged again in the backward pass by the same fused
multiply-add and thus to the same bits. Sequences longer than a segment start each segment from a state noted on
the way. Options are compiled in. In Triton's interpreter (TRITON_INTERPRET=1) the same kernels run on the CPU.
"""

from __future__ import annotations

import contextlib
import math
from contextlib import AbstractContextManager
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from twinspike_torch import lif_form
from twinspike_torch.lif_form import (
    Form,
    Gradients,
    Outputs,
    channel_run,
    empty_sequence,
    empty_step,
    potential_dtype,
    run,
    runs,
    shared_by,
)

SEGMENT = 16
"""Steps whose potentials a thread keeps in registers."""
BLOCK = 512
"""Neurons of a program: four per thread, a whole 16-byte access in float32; twice as many of 16 bits, if steps are few."""

RECTANGLE = tl.constexpr(lif_form.RECTANGLE)
TRIANGLE = tl.constexpr(lif_form.TRIANGLE)
SIGMOID = tl.constexpr(lif_form.SIGMOID)
ARCTAN = tl.constexpr(lif_form.ARCTAN)
FAST_SIGMOID = tl.constexpr(lif_form.FAST_SIGMOID)
TANH = tl.constexpr(lif_form.TANH)
HALF_PI = tl.constexpr(math.pi / 2)


@triton.jit
def _exp(y: tl.tensor) -> tl.tensor:
    """e^y of y <= 0. The device's own float32 exponential loses digits at large |y|: whole powers of two are split off."""
    if y.dtype == tl.float64:
        return tl.exp(y)
    y = tl.maximum(y, -104.0)
    n = tl.floor(y * 1.4426950408889634 + 0.5)
    r = tl.fma(n, tl.full(n.shape, 2.12194440e-4, tl.float32), tl.fma(n, tl.full(n.shape, -0.693359375, tl.float32), y))
    scale = tl.maximum(n.to(tl.int32) + 127, 0) << 23
    return tl.exp(r) * scale.to(tl.float32, bitcast=True)


@triton.jit
def _logistic(a: tl.tensor, SLOPE: tl.constexpr) -> tl.tensor:
    """SLOPE q (1 - q), q = 1/(1 + exp(SLOPE a)), of a = |z|."""
    q = _exp(a * -SLOPE)
    return SLOPE * q / ((1.0 + q) * (1.0 + q))


@triton.jit
def _derivative(z: tl.tensor, SURROGATE: tl.constexpr, WIDTH: tl.constexpr) -> tl.tensor:
    """h(z) of a surrogate by number (clauses SUR-*)."""
    a = tl.abs(z)
    if SURROGATE == RECTANGLE:
        h = (a < WIDTH / 2).to(z.dtype) * (1.0 / WIDTH)
    elif SURROGATE == TRIANGLE:
        h = tl.maximum(1.0 - a / WIDTH, 0.0) / WIDTH
    elif SURROGATE == ARCTAN:
        y = a * (HALF_PI * WIDTH)
        h = (WIDTH / 2) / (1.0 + y * y)
    elif SURROGATE == FAST_SIGMOID:
        y = 1.0 + a * WIDTH
        h = (WIDTH / 2) / (y * y)
    elif SURROGATE == SIGMOID:
        h = _logistic(a, WIDTH)
    elif SURROGATE == TANH:
        h = _logistic(a, 2 * WIDTH)
    else:
        tl.static_assert(False, "unknown surrogate")
    return h


@triton.jit
def _quantity(learned: tl.tensor, constant: tl.constexpr, channel: tl.tensor, mask: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    """Each neuron's value of a learned or constant quantity."""
    if learned is None:
        return tl.full(mask.shape, constant, dtype)
    else:
        return tl.load(learned + channel, mask=mask, other=0).to(dtype)


@triton.jit
def _state(values: tl.tensor, at: tl.tensor, mask: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    """A state, or 0 where there is none."""
    if values is None:
        return tl.zeros(mask.shape, dtype)
    else:
        return tl.load(values + at, mask=mask, other=0).to(dtype)


@triton.jit
def _charge(
    x: tl.tensor, at: tl.tensor, mask: tl.tensor, state: tl.tensor, alpha: tl.tensor, DECAY_INPUT: tl.constexpr
) -> tl.tensor:
    current = tl.load(x + at, mask=mask, other=0).to(alpha.dtype)
    if DECAY_INPUT:
        current = (1.0 - alpha) * current
    return tl.fma(alpha, state, current)


@triton.jit
def _reset(u: tl.tensor, theta: tl.tensor, HARD: tl.constexpr, V_RESET: tl.constexpr) -> tl.tensor:
    after = tl.full(u.shape, V_RESET, u.dtype) if HARD else u - theta
    return tl.where(u >= theta, after, u)


@triton.jit
def _before(mask: tl.tensor, t: tl.tensor, stop: tl.tensor) -> tl.tensor:
    """The mask at a step before `stop`, and nothing after."""
    return mask & (tl.zeros(mask.shape, tl.int32) + t < stop)


@triton.jit
def _forward(
    x: tl.tensor,
    v: tl.tensor,
    decay: tl.tensor,
    threshold: tl.tensor,
    s: tl.tensor,
    after: tl.tensor,
    potentials: tl.tensor,
    neurons: tl.tensor,
    apart: tl.tensor,
    run: tl.tensor,
    channels: tl.tuple,
    T: tl.constexpr,
    DECAY: tl.constexpr,
    THRESHOLD: tl.constexpr,
    V_RESET: tl.constexpr,
    HARD: tl.constexpr,
    DECAY_INPUT: tl.constexpr,
    SEGMENT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    dtype: tl.constexpr = after.dtype.element_ty
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < neurons
    x_step, step = tl.cast(apart, tl.int64), tl.cast(neurons, tl.int64)
    alpha = _quantity(decay, DECAY, at // run % channels[0], mask, dtype)
    theta = _quantity(threshold, THRESHOLD, at // run % channels[1], mask, dtype)
    state = _state(v, at, mask, dtype)
    for first in range(0, T, SEGMENT):
        for i in tl.static_range(SEGMENT):
            t = first + i
            live = mask if T % SEGMENT == 0 else _before(mask, t, T)
            u = _charge(x, t * x_step + at, live, state, alpha, DECAY_INPUT)
            tl.store(s + t * step + at, tl.where(u >= theta, 1.0, 0.0).to(s.dtype.element_ty), mask=live)
            if potentials is not None:
                tl.store(potentials + t * step + at, u, mask=live)
            state = tl.where(live, _reset(u, theta, HARD, V_RESET), state)
    tl.store(after + at, state, mask=mask)


@triton.jit
def _backward(  # noqa: PLR0915  # one pass
    x: tl.tensor,
    v: tl.tensor,
    decay: tl.tensor,
    threshold: tl.tensor,
    g: tl.tensor,
    e_after: tl.tensor,
    d_x: tl.tensor,
    d_v: tl.tensor,
    d_decay: tl.tensor,
    d_threshold: tl.tensor,
    noted: tl.tensor,
    neurons: tl.tensor,
    apart: tl.tensor,
    g_apart: tl.tensor,
    run: tl.tensor,
    channels: tl.tuple,
    T: tl.constexpr,
    DECAY: tl.constexpr,
    THRESHOLD: tl.constexpr,
    V_RESET: tl.constexpr,
    HARD: tl.constexpr,
    DETACHED: tl.constexpr,
    DECAY_INPUT: tl.constexpr,
    SURROGATE: tl.constexpr,
    WIDTH: tl.constexpr,
    dtype: tl.constexpr,
    SEGMENT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """`noted` takes the state before each segment but the first; learned quantities get each neuron's sum over time."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < neurons
    x_step, g_step, step = tl.cast(apart, tl.int64), tl.cast(g_apart, tl.int64), tl.cast(neurons, tl.int64)
    alpha = _quantity(decay, DECAY, at // run % channels[0], mask, dtype)
    theta = _quantity(threshold, THRESHOLD, at // run % channels[1], mask, dtype)
    SEGMENTS: tl.constexpr = (T + SEGMENT - 1) // SEGMENT
    start = _state(v, at, mask, dtype)
    if noted is not None:
        for t in range((SEGMENTS - 1) * SEGMENT):
            start = _reset(_charge(x, t * x_step + at, mask, start, alpha, DECAY_INPUT), theta, HARD, V_RESET)
            tl.store(noted + t // SEGMENT * step + at, start, mask=mask)
    e = _state(e_after, at, mask, dtype)
    decay_sum = tl.zeros((BLOCK,), dtype)
    threshold_sum = tl.zeros((BLOCK,), dtype)
    for back in range(SEGMENTS):
        segment = SEGMENTS - 1 - back
        state = start
        if noted is not None:
            state = _state(v, at, _before(mask, segment, 1), dtype)
            state += tl.load(noted + (segment - 1) * step + at, mask=_before(mask, -segment, 0), other=0)
        kept: tl.tuple = ()
        before: tl.tuple = ()
        for i in tl.static_range(SEGMENT):
            t = segment * SEGMENT + i
            live = mask if T % SEGMENT == 0 else _before(mask, t, T)
            u = _charge(x, t * x_step + at, live, state, alpha, DECAY_INPUT)
            kept = kept + (u,)  # noqa: RUF005  # the compiler knows no star
            before = before + (state,)  # noqa: RUF005
            state = _reset(u, theta, HARD, V_RESET)
        for j in tl.static_range(SEGMENT):
            t = segment * SEGMENT + (SEGMENT - 1 - j)
            live = mask if T % SEGMENT == 0 else _before(mask, t, T)
            u = kept[SEGMENT - 1 - j]
            fired = u >= theta
            through_spike = _state(g, t * g_step + at, live, dtype)
            if not DETACHED:
                through_spike += e * (V_RESET - u if HARD else -theta)
            through_spike *= _derivative(u - theta, SURROGATE, WIDTH)
            d = through_spike + (tl.where(fired, 0.0, e) if HARD else e)
            if d_decay is not None:
                source: tl.tensor = before[SEGMENT - 1 - j]
                if DECAY_INPUT:
                    source -= tl.load(x + t * x_step + at, mask=live, other=0).to(dtype)
                decay_sum += tl.where(live, d * source, 0.0)
            if d_threshold is not None:
                part = through_spike if HARD else through_spike + tl.where(fired, e, 0.0)
                threshold_sum -= tl.where(live, part, 0.0)
            out = (1.0 - alpha) * d if DECAY_INPUT else d
            tl.store(d_x + t * step + at, out.to(d_x.dtype.element_ty), mask=live)
            e = tl.where(live, alpha * d, e)
    if d_v is not None:
        tl.store(d_v + at, e, mask=mask)
    if d_decay is not None:
        tl.store(d_decay + at, decay_sum, mask=mask)
    if d_threshold is not None:
        tl.store(d_threshold + at, threshold_sum, mask=mask)


# --- tensors ---------------------------------------------------------------------------------------------


def works_on(device: str) -> bool:
    """Whether tensors of a device can be read: of CUDA devices, and of the CPU by the interpreter."""
    return device == "cuda" or (device == "cpu" and not isinstance(_forward, triton.JITFunction))


def remark() -> str:
    """What is to be said where this kernel serves: nothing; Triton's cache is Triton's."""
    return ""


def forward(x: Tensor, v: Tensor | None, decay: Tensor | None, threshold: Tensor | None, form: Form, traced: bool) -> Outputs:
    """Run a sequence; arguments as of `twinspike_torch.lif`, `traced` for potentials."""
    dtype = potential_dtype(x)
    s, after = empty_sequence(x, x.dtype), empty_step(x, dtype)
    u = empty_sequence(x, dtype) if traced else None
    flat, apart = runs(x, after)
    if after.numel() > 0:
        with launching_on(x.device):
            block = _block(x)
            _forward[(-(-after.numel() // block),)](
                flat,
                None if v is None else run(v, after),
                decay,
                threshold,
                *(s, after, u),
                *(after.numel(), apart, channel_run(after), _channels(decay, threshold)),
                T=x.shape[0],
                **_options(form),
                SEGMENT=_segment(x.shape[0]),
                BLOCK=block,
                enable_fp_fusion=False,  # one rounding where the source has one, as in every other kernel
            )
    return Outputs(s, after, u)


def backward(
    x: Tensor,
    v: Tensor | None,
    decay: Tensor | None,
    threshold: Tensor | None,
    g: Tensor | None,
    e: Tensor | None,
    form: Form,
    wanted: tuple[bool, bool],
) -> Gradients:
    """Gradients of a sequence from those of its spikes and of the state after it; `wanted` of decay and threshold."""
    d_x, step = empty_sequence(x, x.dtype), empty_step(x, potential_dtype(x))
    d_v = None if v is None else step
    parts = [torch.zeros_like(step) if asked else None for asked in wanted]
    flat, apart = runs(x, step)
    flat_g, g_apart = (None, 0) if g is None else runs(g, step)
    segment = _segment(x.shape[0])
    segments = -(-x.shape[0] // segment)
    noted = step.new_empty((segments - 1) * step.numel()) if segments > 1 else None
    if step.numel() > 0:
        with launching_on(x.device):
            block = _block(x)
            _backward[(-(-step.numel() // block),)](
                flat,
                None if v is None else run(v, step),
                decay,
                threshold,
                flat_g,
                None if e is None else run(e, step),
                *(d_x, d_v, *parts, noted),
                *(step.numel(), apart, g_apart, channel_run(step), _channels(decay, threshold)),
                T=x.shape[0],
                **_options(form),
                DETACHED=bool(form.detach_reset),
                SURROGATE=int(form.surrogate),
                WIDTH=form.width,
                dtype=tl.float64 if step.dtype == torch.float64 else tl.float32,
                SEGMENT=segment,
                BLOCK=block,
                enable_fp_fusion=False,  # one rounding where the source has one, as in every other kernel
            )
    return Gradients(d_x, d_v, *map(shared_by, (decay, threshold), parts))


def _block(x: Tensor) -> int:
    """Neurons of a program, whose potentials of a segment fit in registers."""
    return 2 * BLOCK if x.element_size() == 2 and x.shape[0] <= SEGMENT // 2 else BLOCK


def _segment(steps: int) -> int:
    """Steps of a segment: the last one is not cut short where there is a divisor to be had."""
    if steps <= SEGMENT:
        return steps
    return next((n for n in range(SEGMENT, SEGMENT // 2 - 1, -1) if steps % n == 0), SEGMENT)


def _channels(decay: Tensor | None, threshold: Tensor | None) -> tuple[int, int]:
    """Number of values of each learned quantity."""
    return (1 if decay is None else decay.numel(), 1 if threshold is None else threshold.numel())


def _options(form: Form) -> dict[str, Any]:
    """What is compiled in, in both directions; a float argument would be rounded to float32."""
    options = {"DECAY": form.decay, "THRESHOLD": form.threshold, "V_RESET": form.v_reset}
    return {**options, "HARD": bool(form.hard), "DECAY_INPUT": bool(form.decay_input)}


def launching_on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
