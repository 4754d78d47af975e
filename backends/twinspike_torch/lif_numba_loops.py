"""The loops of the neuron on the CPU, compiled by Numba at their first use and kept on disk where possible.

A block of neurons goes through all steps while it stays in cache. The backward pass charges its potentials
again, by the same operations and thus to the same bits, and goes back through them. A step is one loop over
the block, which must become vector instructions: what a block keeps of itself stands in one array of rows at
constant distances, since a compiler that has to tell many arrays apart gives up, and indices are unsigned, since
others might count from the end. No product is fused with a sum. Numbers without a type are float64 to Numba and
would make the arithmetic so: constants are cast first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import carray
from numba.extending import overload
from numpy.typing import NDArray

from twinspike_torch.lif_form import ARCTAN, FAST_SIGMOID, RECTANGLE, SIGMOID, TRIANGLE

Array = NDArray[Any]
Format = Any
"""A type of NumPy's scalars."""
F = TypeVar("F", bound=Callable[..., Any])

LONGEST = 1024
"""Most neurons of a block."""
# A little more than LONGEST apart: rows at powers of two would share the same few places of the first-level cache.
ALPHA, GAIN, THETA, V, E, D, D_DECAY, D_THRESHOLD = (np.uint64(row * (LONGEST + 48)) for row in range(8))
"""Where the rows of a block begin: decay, weight of the current, threshold; state; gradients of state and potential; sums."""
ROWS = 8 * (LONGEST + 48)
"""Numbers in all rows."""
U64 = np.uint64


def _compiled(function: F) -> F:
    """A function as machine code at its first call, kept on disk where there is a place for it."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}  # division without a branch for zero
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # no folder can be written
        return cast(F, numba.njit(**options)(function))


# --- numbers ---------------------------------------------------------------------------------------------


@_compiled
def _widen(bits: Any) -> Any:
    """bfloat16, as its bits, into float32."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@_compiled
def _narrow(value: Any) -> Any:
    """The way back, to the nearest, ties to even."""
    bits = np.float32(value).view(np.uint32)
    rounded = np.uint32(bits + np.uint32(0x7FFF) + (np.uint32(bits >> np.uint32(16)) & np.uint32(1)))
    return np.uint16(0x7FC0) if math.isnan(value) else np.uint16(rounded >> np.uint32(16))


def _loaded(stored: Any) -> Any:
    """A number of a current or gradient as the arithmetic takes it."""
    raise NotImplementedError  # there is none but the compiled one


@overload(_loaded)  # type: ignore[untyped-decorator]  # untyped in Numba
def _(stored: Any) -> Any:
    def widened(stored: Any) -> Any:
        return _widen(stored)

    def as_it_is(stored: Any) -> Any:
        return stored

    return widened if isinstance(stored, numba.types.Integer) else as_it_is


def _stored(value: Any, like: Any) -> Any:
    """A number as an array like `like` keeps it."""
    raise NotImplementedError


@overload(_stored)  # type: ignore[untyped-decorator]  # as above
def _(value: Any, like: Any) -> Any:
    def narrowed(value: Any, like: Any) -> Any:
        return _narrow(value)

    def as_it_is(value: Any, like: Any) -> Any:
        return value

    return narrowed if isinstance(like.dtype, numba.types.Integer) else as_it_is


def _exp(y: Any) -> Any:
    """e^y for y <= 0."""
    raise NotImplementedError


@overload(_exp)  # type: ignore[untyped-decorator]  # as above
def _(y: Any) -> Any:
    def polynomial(y: Any) -> Any:
        return _exp_32(y)

    def library(y: Any) -> Any:
        return math.exp(y)

    return polynomial if y == numba.types.float32 else library


@_compiled
def _exp_32(y: Any) -> Any:
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


def constants(surrogate: int, width: float) -> tuple[float, float]:
    """The two numbers that `_derivative` takes for a surrogate and its width or slope."""
    if surrogate == RECTANGLE:
        return 1.0 / width, width / 2
    if surrogate == TRIANGLE:
        return width, width
    if surrogate == ARCTAN:
        return width / 2, math.pi * width / 2
    if surrogate == FAST_SIGMOID:
        return width / 2, width
    return (width, -width) if surrogate == SIGMOID else (2 * width, -2 * width)


@_compiled
def _derivative(surrogate: int, z: Any, a: Any, b: Any, zero: Any, one: Any) -> Any:
    """h(z) of a surrogate by number, z = u - threshold (clauses SUR-*); `a` and `b` are its `constants`."""
    if surrogate == RECTANGLE:
        return a if abs(z) < b else zero
    if surrogate == TRIANGLE:
        return max(zero, one - abs(z) / a) / a
    if surrogate == ARCTAN:
        y = b * z
        return a / (one + y * y)
    if surrogate == FAST_SIGMOID:
        y = one + b * abs(z)
        return a / (y * y)
    # Sigmoid and tanh: q of exponents <= 0 loses no digits and cannot overflow.
    q = _exp(b * abs(z))
    return a * q / ((one + q) * (one + q))


# --- rows of a block -------------------------------------------------------------------------------------


@_compiled
def _spread(values: Array, start: int, run: int, out: Array) -> None:
    """Each neuron's own value of a quantity per channel, `run` neighbours to a channel; `start` is the first neuron."""
    if len(values) == 1:
        out[:] = values[0]
        return
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
def _start(rows: Array, n: int, start: int, run: int, quantities: tuple[Array, Array, Array], v: Array, first: bool) -> None:
    """Fill the rows of a block: quantities, where one value for all neurons stays from the first block on, and state."""
    for k, row in enumerate((ALPHA, GAIN, THETA)):
        if first or len(quantities[k]) > 1:
            _spread(quantities[k], start, run, rows[row : row + U64(n if len(quantities[k]) > 1 else LONGEST)])
    _copy_or_zero(v, start, rows[V : V + U64(n)])


@_compiled
def _copy_or_zero(values: Array, start: int, out: Array) -> None:
    """A block's part of the values, or 0 where there are none."""
    if len(values) > 0:
        out[:] = values[start : start + len(out)]
    else:
        out[:] = 0


# --- one step of a block ---------------------------------------------------------------------------------


@_compiled
def _step(x: Array, p: Any, n: Any, rows: Array, hard: bool, v_reset: Any, s: Array, q: Any, one: Any, none: Any) -> None:
    """Charge, fire and reset (clauses LIF-1 to LIF-4), from x[p:] to s[q:]."""
    for i in range(n):
        theta = rows[THETA + i]
        u = rows[ALPHA + i] * rows[V + i] + rows[GAIN + i] * _loaded(x[p + i])
        s[q + i] = one if u >= theta else none
        rows[V + i] = (v_reset if hard else u - theta) if u >= theta else u


@_compiled
def _charge(x: Array, p: Any, n: Any, rows: Array, hard: bool, v_reset: Any, potentials: Array, q: Any) -> None:
    """As `_step`, to the potentials before reset."""
    for i in range(n):
        theta = rows[THETA + i]
        u = rows[ALPHA + i] * rows[V + i] + rows[GAIN + i] * _loaded(x[p + i])
        potentials[q + i] = u
        rows[V + i] = (v_reset if hard else u - theta) if u >= theta else u


@_compiled
def _fire(potentials: Array, p: Any, n: Any, rows: Array, s: Array, q: Any, one: Any, none: Any) -> None:
    for i in range(n):
        s[q + i] = one if potentials[p + i] >= rows[THETA + i] else none


def _step_back(surrogate: int, learned: int, *rest: Any) -> None:
    """One step back: d = (g + e r) h + e k, then e = alpha d (clauses LIF-6 to LIF-8).

    `learned` keeps d for `_add_decay` and adds to the threshold's gradient (clause LIF-10).
    """
    raise NotImplementedError


@overload(_step_back, prefer_literal=True)  # type: ignore[untyped-decorator]  # as above
def _(
    surrogate: Any,
    learned: Any,
    potentials: Any,
    k: Any,
    g: Any,
    p: Any,
    n: Any,
    rows: Any,
    options: Any,
    numbers: Any,
    d_x: Any,
    q: Any,
) -> Any:
    code, sums = surrogate.literal_value, learned.literal_value

    def step_back(
        surrogate: Any,
        learned: Any,
        potentials: Any,
        k: Any,
        g: Any,
        p: Any,
        n: Any,
        rows: Any,
        options: Any,
        numbers: Any,
        d_x: Any,
        q: Any,
    ) -> None:
        hard, detached = options
        zero, one, v_reset, a, b = numbers
        for i in range(n):
            u, e, theta = potentials[k + i], rows[E + i], rows[THETA + i]
            r = v_reset - u if hard else -theta
            through_reset = zero if detached else e * r
            through_spike = (_loaded(g[p + i]) + through_reset) * _derivative(code, u - theta, a, b, zero, one)
            d = through_spike + (zero if hard and u >= theta else e)
            if sums:
                rows[D + i] = d
                rows[D_THRESHOLD + i] -= through_spike + (zero if hard or u < theta else e)
            rows[E + i] = rows[ALPHA + i] * d
            d_x[q + i] = _stored(rows[GAIN + i] * d, d_x)

    return step_back


@_compiled
def _add_decay(n: Any, rows: Array, x: Array, p: Any, weighted: bool, zero: Any) -> None:
    """Clause LIF-9, from the state before the step in its row."""
    for i in range(n):
        rows[D_DECAY + i] += rows[D + i] * (rows[V + i] - (_loaded(x[p + i]) if weighted else zero))


@_compiled
def _reset(potentials: Array, k: Any, n: Any, rows: Array, hard: bool, v_reset: Any) -> None:
    """The state after a step, from its potentials."""
    for i in range(n):
        u, theta = potentials[k + i], rows[THETA + i]
        rows[V + i] = (v_reset if hard else u - theta) if u >= theta else u


# --- whole blocks ----------------------------------------------------------------------------------------
#
# C functions, called by address: Numba's own calls take apart every array that they are given, which takes longer than
# small layers do. What is not given has the length 0.

ADDRESS, COUNT, NUMBER = numba.types.voidptr, numba.types.int64, numba.types.float64
FORWARD = numba.types.void(*[COUNT] * 13, NUMBER, *[ADDRESS] * 9)
BACKWARD = numba.types.void(*[COUNT] * 17, *[NUMBER] * 3, *[ADDRESS] * 13)


@cache
def forward(stored: Format, number: Format) -> Callable[..., None]:
    """The way forward for currents of the type `stored`, which is uint16 for bfloat16, and potentials of `number`."""

    def lif_forward(
        first: int,
        last: int,
        block: int,
        steps: int,
        neurons: int,
        apart: int,
        run: int,
        states: int,
        decays: int,
        thresholds: int,
        traced: int,
        hard: int,
        one: int,
        reset_to: float,
        x_: int,
        v_: int,
        alpha_: int,
        gain_: int,
        theta_: int,
        s_: int,
        after_: int,
        u_: int,
        rows_: int,
    ) -> None:
        """Blocks `first` to `last` of T = `steps` steps of N = `neurons`, which lie `apart` in x.

        Quantities are alpha and gain, and theta: one value, or one per channel of `run` neighbours. `one` is a spike as
        s keeps it, `traced` whether u is wanted, `states` N or 0, and `rows` memory of `ROWS` numbers.
        """
        x, s, u = carray(x_, steps * apart, stored), carray(s_, steps * neurons, stored), carray(u_, steps * neurons, number)
        v, after, rows = carray(v_, states, number), carray(after_, neurons, number), carray(rows_, ROWS, number)
        quantities = (carray(alpha_, decays, number), carray(gain_, decays, number), carray(theta_, thresholds, number))
        v_reset, spike, none = number(reset_to), stored(one), stored(0)
        for block_number in range(first, last):
            start = block_number * block
            n, m = min(block, neurons - start), U64(min(block, neurons - start))
            _start(rows, n, start, run, quantities, v, block_number == first)
            for t in range(steps):
                p, q = U64(t * apart + start), U64(t * neurons + start)
                if traced:
                    _charge(x, p, m, rows, hard != 0, v_reset, u, q)
                    _fire(u, q, m, rows, s, q, spike, none)
                else:
                    _step(x, p, m, rows, hard != 0, v_reset, s, q, spike, none)
            after[start : start + n] = rows[V : V + m]

    return _entry(FORWARD, lif_forward)


@cache
def backward(stored: Format, number: Format, surrogate: int, learned: int) -> Callable[..., None]:
    """The way back for a surrogate by number, with gradients of learned quantities or (0) without."""

    def lif_backward(
        first: int,
        last: int,
        block: int,
        steps: int,
        neurons: int,
        apart: int,
        g_apart: int,
        run: int,
        states: int,
        ends: int,
        decays: int,
        thresholds: int,
        hard: int,
        detached: int,
        weighted: int,
        decay_sums: int,
        threshold_sums: int,
        reset_to: float,
        a: float,
        b: float,
        x_: int,
        g_: int,
        v_: int,
        e_: int,
        alpha_: int,
        gain_: int,
        theta_: int,
        d_x_: int,
        d_v_: int,
        d_decay_: int,
        d_threshold_: int,
        rows_: int,
        potentials_: int,
    ) -> None:
        """As forward; `a` and `b` are the surrogate's `constants`, `ends` is N or 0 for the gradient of the last state.

        `d_decay` and `d_threshold` are each neuron's sums over time, `decay_sums` and `threshold_sums` N or 0 of them;
        `potentials` has room for `steps` times `block`.
        """
        x, g, d_x = carray(x_, steps * apart, stored), carray(g_, steps * g_apart, stored), carray(d_x_, steps * neurons, stored)
        v, e, d_v = carray(v_, states, number), carray(e_, ends, number), carray(d_v_, states, number)
        d_decay, d_threshold = carray(d_decay_, decay_sums, number), carray(d_threshold_, threshold_sums, number)
        rows, potentials = carray(rows_, ROWS, number), carray(potentials_, steps * block, number)
        quantities = (carray(alpha_, decays, number), carray(gain_, decays, number), carray(theta_, thresholds, number))
        zero, one, v_reset = number(0), number(1), number(reset_to)
        numbers = (zero, one, v_reset, number(a), number(b))
        for block_number in range(first, last):
            start = block_number * block
            n, m = min(block, neurons - start), U64(min(block, neurons - start))
            _start(rows, n, start, run, quantities, v, block_number == first)
            _copy_or_zero(e, start, rows[E : E + m])
            if learned:
                rows[D_DECAY : D_DECAY + m] = zero
                rows[D_THRESHOLD : D_THRESHOLD + m] = zero
            for t in range(steps):
                _charge(x, U64(t * apart + start), m, rows, hard != 0, v_reset, potentials, U64(t * block))
            for t in range(steps - 1, -1, -1):
                k, p, q = U64(t * block), U64(t * g_apart + start), U64(t * neurons + start)
                _step_back(surrogate, learned, potentials, k, g, p, m, rows, (hard != 0, detached != 0), numbers, d_x, q)
                if decay_sums > 0:
                    if t > 0:
                        _reset(potentials, U64((t - 1) * block), m, rows, hard != 0, v_reset)
                    else:
                        _copy_or_zero(v, start, rows[V : V + m])
                    _add_decay(m, rows, x, U64(t * apart + start), weighted != 0, zero)
            if states > 0:
                d_v[start : start + n] = rows[E : E + m]
            if decay_sums > 0:
                d_decay[start : start + n] = rows[D_DECAY : D_DECAY + m]
            if threshold_sums > 0:
                d_threshold[start : start + n] = rows[D_THRESHOLD : D_THRESHOLD + m]

    return _entry(BACKWARD, lif_backward)


def _entry(signature: Any, function: Callable[..., None]) -> Callable[..., None]:
    """A function as a C function; calls don't hold Python's lock."""
    options: dict[str, Any] = {"error_model": "numpy"}
    try:
        compiled = numba.cfunc(signature, cache=True, **options)(function)
    except RuntimeError:  # no folder can be written
        compiled = numba.cfunc(signature, **options)(function)
    # The function that ctypes makes does not keep the code alive.
    _alive.append(compiled)
    return cast(Callable[..., None], compiled.ctypes)


_alive: list[Any] = []
