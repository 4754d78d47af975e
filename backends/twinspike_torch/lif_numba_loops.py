"""The loops of the neuron on the CPU, compiled by Numba at their first use and kept on disk where possible.

A block of neurons goes through all steps while it stays in cache. The backward pass charges its potentials
again, by the same function and thus to the same bits, and goes back through them. A step is a few short loops
over arrays, each simple enough to become vector instructions; no product is fused with a sum. Numbers without
a type are float64 to Numba and would make the arithmetic so: constants are cast first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from twinspike_torch.lif_form import ARCTAN, FAST_SIGMOID, RECTANGLE, SIGMOID, TRIANGLE

Array = NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])


def _compiled(function: F) -> F:
    """A function as machine code at its first call, kept on disk where there is a place for it."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}  # division without a branch for zero
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no folder can be written
        return cast(F, numba.njit(**options)(function))


# --- steps of a block ------------------------------------------------------------------------------------


@_compiled
def _widen(bits: Array, out: Array) -> None:
    """bfloat16, as its bits, into float32."""
    for i in range(len(out)):
        out[i] = np.uint32(np.uint32(bits[i]) << np.uint32(16)).view(np.float32)


@_compiled
def _narrow(values: Array, out: Array) -> None:
    """The way back, to the nearest, ties to even."""
    for i in range(len(out)):
        bits = np.float32(values[i]).view(np.uint32)
        rounded = np.uint32(bits + np.uint32(0x7FFF) + (np.uint32(bits >> np.uint32(16)) & np.uint32(1)))
        out[i] = np.uint16(rounded >> np.uint32(16)) if values[i] == values[i] else np.uint16(0x7FC0)


@_compiled
def _read(values: Array, half: bool, out: Array) -> None:
    if half:
        _widen(values, out)
    else:
        out[:] = values


@_compiled
def _spread(values: Array, start: int, run: int, out: Array) -> None:
    """Each neuron's own value of a quantity per channel, `run` neighbours to a channel; `start` is the first neuron."""
    channel, left, i = start // run % len(values), run - start % run, 0
    while i < len(out):
        if run == 1:
            n = min(len(out) - i, len(values) - channel)
            out[i : i + n] = values[channel : channel + n]
            channel = 0
        else:
            n = min(len(out) - i, left)
            out[i : i + n] = values[channel]
            channel, left = (channel + 1 if channel + 1 < len(values) else 0), run
        i += n


@_compiled
def _spread_all(
    quantities: tuple[Array, Array, Array], start: int, run: int, out: tuple[Array, Array, Array], first: bool
) -> None:
    """All quantities' values of a block; one value for all neurons stays from the first block on."""
    for k in range(3):
        if first or len(quantities[k]) > 1:
            _spread(quantities[k], start, run, out[k])


@_compiled
def _charge(x: Array, half: bool, v: Array, alpha: Array, gain: Array, current: Array, u: Array) -> None:
    """u = alpha v + gain x; `current` is room for x where that is bfloat16."""
    if half:
        _widen(x, current)
        for i in range(len(u)):
            u[i] = alpha[i] * v[i] + gain[i] * current[i]
    else:
        for i in range(len(u)):
            u[i] = alpha[i] * v[i] + gain[i] * x[i]


@_compiled
def _reset(u: Array, theta: Array, hard: bool, v_reset: float, v: Array) -> None:
    for i in range(len(u)):
        v[i] = (v_reset if hard else u[i] - theta[i]) if u[i] >= theta[i] else u[i]


@_compiled
def _fire(u: Array, theta: Array, one: float, s: Array) -> None:
    for i in range(len(u)):
        s[i] = one if u[i] >= theta[i] else 0


@_compiled
def _exp(y: Any) -> Any:
    """e^y of a float32 y <= 0, to two roundings; 0 below 2^-126. By powers of two and a polynomial on [-ln 2 / 2, ln 2 / 2].

    Reference: S. L. Moshier, Cephes mathematical library, expf. A call of libm's would keep the loop from vector instructions.
    """
    y = max(y, np.float32(-104.0))
    # Adding 1.5 * 2^23 rounds to a whole number, which then stands in the lowest bits.
    shifted = y * np.float32(1.44269504088896341) + np.float32(12582912.0)
    n = shifted - np.float32(12582912.0)
    r = y - n * np.float32(0.693359375) - n * np.float32(-2.12194440e-4)  # ln 2 in two parts: the first product is exact
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    exponent = max(np.int32(np.float32(shifted).view(np.int32) - np.int32(0x4B400000 - 127)), np.int32(0))
    return p * np.int32(exponent << np.int32(23)).view(np.float32)


@_compiled
def _derivative(code: int, width: float, u: Array, theta: Array, h: Array) -> None:
    """h(u - threshold) of a surrogate by number (clauses SUR-*)."""
    cast_ = h.dtype.type
    zero, one, k = cast_(0.0), cast_(1.0), cast_(width)
    if code == RECTANGLE:
        edge, top = cast_(width / 2), cast_(1.0 / width)
        for i in range(len(u)):
            h[i] = top if abs(u[i] - theta[i]) < edge else zero
    elif code == TRIANGLE:
        for i in range(len(u)):
            h[i] = max(zero, one - abs(u[i] - theta[i]) / k) / k
    elif code == ARCTAN:
        top, inner = cast_(width / 2), cast_(math.pi * width / 2)
        for i in range(len(u)):
            y = inner * (u[i] - theta[i])
            h[i] = top / (one + y * y)
    elif code == FAST_SIGMOID:
        top = cast_(width / 2)
        for i in range(len(u)):
            y = one + k * abs(u[i] - theta[i])
            h[i] = top / (y * y)
    else:  # sigmoid and tanh: q of exponents <= 0 loses no digits and cannot overflow
        steep, top = (cast_(-width), k) if code == SIGMOID else (cast_(-2 * width), cast_(2 * width))
        if h.itemsize == 4:
            for i in range(len(u)):
                q = _exp(steep * abs(u[i] - theta[i]))
                h[i] = top * q / ((one + q) * (one + q))
        else:
            for i in range(len(u)):
                q = math.exp(steep * abs(u[i] - theta[i]))
                h[i] = top * q / ((one + q) * (one + q))


@_compiled
def _through_spike(u: Array, theta: Array, h: Array, e: Array, hard: bool, v_reset: float, detached: bool, g: Array) -> None:
    """g becomes (g + e r) h."""
    for i in range(len(u)):
        r = v_reset - u[i] if hard else -theta[i]
        g[i] = (g[i] if detached else g[i] + e[i] * r) * h[i]


@_compiled
def _to_potential(u: Array, theta: Array, g: Array, e: Array, hard: bool, zero: float, d: Array) -> None:
    """d = (g + e r) h + e k."""
    for i in range(len(u)):
        d[i] = g[i] + (zero if hard and u[i] >= theta[i] else e[i])


@_compiled
def _add_threshold(u: Array, theta: Array, g: Array, e: Array, hard: bool, zero: float, total: Array) -> None:
    """Clause LIF-10, with g as `_through_spike` left it."""
    for i in range(len(u)):
        total[i] -= g[i] + (zero if hard or u[i] < theta[i] else e[i])


@_compiled
def _add_decay(d: Array, before: Array, current: Array, total: Array) -> None:
    """Clause LIF-9."""
    for i in range(len(d)):
        total[i] += d[i] * (before[i] - current[i])


@_compiled
def _start(values: Array, start: int, out: Array) -> None:
    """What a block starts from: its part of the values, or 0 where there are none."""
    if len(values) > 0:
        out[:] = values[start : start + len(out)]
    else:
        out[:] = 0


@_compiled
def _scaled(a: Array, b: Array, out: Array) -> None:
    for i in range(len(out)):
        out[i] = a[i] * b[i]


# --- whole blocks ------------------------------------------------------------------------------------------


@_compiled
def forward(
    blocks: tuple[int, int],
    block: int,
    size: tuple[int, int],
    apart: int,
    x: Array,
    half: bool,
    v: Array,
    quantities: tuple[Array, Array, Array],
    run: int,
    options: tuple[bool, float],
    s: Array,
    after: Array,
    u_out: Array,
) -> None:
    """Blocks `blocks[0]` to `blocks[1]` of a sequence of `size` (T, N) whose steps lie `apart` in x.

    Empty `v` and `u_out` stand for no initial state and no potentials; quantities are alpha, gain and theta, one
    value or one per channel.
    """
    steps, neurons = size
    hard, reset_to = options
    cast_ = after.dtype.type
    v_reset = cast_(reset_to)
    one = cast_(0x3F80 if half else 1)
    alpha, gain, theta = np.empty(block, after.dtype), np.empty(block, after.dtype), np.empty(block, after.dtype)
    current, u = np.empty(block, after.dtype), np.empty(block, after.dtype)
    for b in range(blocks[0], blocks[1]):
        start = b * block
        stop = min(start + block, neurons)
        n = stop - start
        _spread_all(quantities, start, run, (alpha[:n], gain[:n], theta[:n]), b == blocks[0])
        state = after[start:stop]
        _start(v, start, state)
        for t in range(steps):
            now = x[t * apart + start : t * apart + stop]
            _charge(now, half, state, alpha[:n], gain[:n], current[:n], u[:n])
            _fire(u[:n], theta[:n], one, s[t * neurons + start : t * neurons + stop])
            if len(u_out) > 0:
                u_out[t * neurons + start : t * neurons + stop] = u[:n]
            _reset(u[:n], theta[:n], hard, v_reset, state)


@_compiled
def backward(
    blocks: tuple[int, int],
    block: int,
    size: tuple[int, int],
    apart: tuple[int, int],
    x: Array,
    g: Array,
    half: bool,
    v: Array,
    e_in: Array,
    quantities: tuple[Array, Array, Array],
    run: int,
    options: tuple[bool, float, bool, bool],
    surrogate: tuple[int, float],
    d_x: Array,
    d_v: Array,
    d_decay: Array,
    d_threshold: Array,
) -> None:
    """As `forward`, back: `d_v`, and each neuron's sums over time `d_decay` and `d_threshold`, are left out if empty."""
    steps, neurons = size
    hard, reset_to, detached, decay_input = options
    code, width = surrogate
    cast_ = d_v.dtype.type
    zero, v_reset = cast_(0.0), cast_(reset_to)
    alpha, gain, theta = np.empty(block, d_v.dtype), np.empty(block, d_v.dtype), np.empty(block, d_v.dtype)
    current, state, h = np.empty(block, d_v.dtype), np.empty(block, d_v.dtype), np.empty(block, d_v.dtype)
    g_t, d, room = np.empty(block, d_v.dtype), np.empty(block, d_v.dtype), np.empty(block, d_v.dtype)
    kept = np.empty((steps, block), d_v.dtype)
    for b in range(blocks[0], blocks[1]):
        start = b * block
        stop = min(start + block, neurons)
        n = stop - start
        _spread_all(quantities, start, run, (alpha[:n], gain[:n], theta[:n]), b == blocks[0])
        _start(v, start, state[:n])
        for t in range(steps):
            now = x[t * apart[0] + start : t * apart[0] + stop]
            _charge(now, half, state[:n], alpha[:n], gain[:n], current[:n], kept[t, :n])
            _reset(kept[t, :n], theta[:n], hard, v_reset, state[:n])
        e = d_v[start:stop] if len(d_v) > 0 else room[:n]
        _start(e_in, start, e)
        for t in range(steps - 1, -1, -1):
            u = kept[t, :n]
            if len(g) > 0:
                _read(g[t * apart[1] + start : t * apart[1] + stop], half, g_t[:n])
            else:
                g_t[:n] = 0
            _derivative(code, width, u, theta[:n], h[:n])
            _through_spike(u, theta[:n], h[:n], e, hard, v_reset, detached, g_t[:n])
            _to_potential(u, theta[:n], g_t[:n], e, hard, zero, d[:n])
            if len(d_threshold) > 0:
                _add_threshold(u, theta[:n], g_t[:n], e, hard, zero, d_threshold[start:stop])
            if len(d_decay) > 0:
                if t > 0:
                    _reset(kept[t - 1, :n], theta[:n], hard, v_reset, state[:n])
                else:
                    _start(v, start, state[:n])
                if decay_input:
                    _read(x[t * apart[0] + start : t * apart[0] + stop], half, current[:n])
                else:
                    current[:n] = 0
                _add_decay(d[:n], state[:n], current[:n], d_decay[start:stop])
            _scaled(alpha[:n], d[:n], e)
            out = d_x[t * neurons + start : t * neurons + stop]
            if half:
                _scaled(gain[:n], d[:n], current[:n])
                _narrow(current[:n], out)
            else:
                _scaled(gain[:n], d[:n], out)
