"""The loops of the neuron on the CPU, compiled by Numba at their first use; `lif_numba_cache` keeps them.

A block of neurons goes through all steps while it stays in cache. The backward pass charges its potentials
again, by the same operations and thus to the same bits, and goes back through them. A step is one loop over
the block, which must become vector instructions: what a block keeps of itself stands in one array of rows at
constant distances, since a compiler that has to tell many arrays apart gives up, and indices are unsigned, since
others might count from the end. No product is fused with a sum. Numbers without a type are float64 to Numba and
would make the arithmetic so: constants are cast first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numba
import numpy as np
from numba import carray
from numba.extending import overload
from numpy.typing import NDArray

from twinspike_torch import lif_numba_cache
from twinspike_torch.lif_numba_blocks import add, take
from twinspike_torch.lif_numba_numbers import compiled, derivative, loaded, stored_as

Array = NDArray[Any]
Format = Any
"""A type of NumPy's scalars."""

LONGEST = 1024
"""Most neurons of a block."""
# A little more than LONGEST apart: rows at powers of two would share the same few places of the first-level cache.
ALPHA, GAIN, THETA, V, E, D_DECAY, D_THRESHOLD = (np.uint64(row * (LONGEST + 48)) for row in range(7))
"""Where the rows of a block begin: decay, weight of the current, threshold; state and its gradient; sums."""
ROWS = 7 * (LONGEST + 48)
"""Numbers in all rows."""
U64 = np.uint64


# --- rows of a block -------------------------------------------------------------------------------------


@compiled
def _copy(values: Array, p: Any, n: Any, out: Array, q: Any) -> None:
    """n numbers from values[p:] to out[q:]; assigning slices takes several times as long."""
    for i in range(n):
        out[q + i] = values[p + i]


@compiled
def _fill(value: Any, n: Any, out: Array, q: Any) -> None:
    """One value in out[q:]."""
    for i in range(n):
        out[q + i] = value


@compiled
def _spread(values: Array, start: int, run: int, n: int, rows: Array, row: Any) -> None:
    """Each neuron's own value of a quantity per channel, `run` neighbours to a channel; `start` is the first neuron."""
    channel, left, i = start // run % len(values), run - start % run, 0
    while i < n:
        if run == 1:
            m = min(n - i, len(values) - channel)
            _copy(values, U64(channel), U64(m), rows, row + U64(i))
            channel = 0
        else:
            m = min(n - i, left)
            _fill(values[channel], U64(m), rows, row + U64(i))
            channel, left = (channel + 1 if channel + 1 < len(values) else 0), run
        i += m


@compiled
def _start(rows: Array, n: int, start: int, run: int, quantities: tuple[Array, Array, Array], v: Array, first: bool) -> None:
    """Fill the rows of a block: quantities, where one value for all neurons stays from the first block on, and state."""
    for k, row in enumerate((ALPHA, GAIN, THETA)):
        if len(quantities[k]) > 1:
            _spread(quantities[k], start, run, n, rows, row)
        elif first:
            _fill(quantities[k][0], U64(LONGEST), rows, row)
    _copy_or_zero(v, start, n, rows, V)


@compiled
def _copy_or_zero(values: Array, start: int, n: int, rows: Array, row: Any) -> None:
    """A block's part of the values, or 0 where there are none."""
    if len(values) > 0:
        _copy(values, U64(start), U64(n), rows, row)
    else:
        _fill(rows.dtype.type(0), U64(n), rows, row)


# --- one step of a block ---------------------------------------------------------------------------------


@compiled
def _step(x: Array, p: Any, n: Any, rows: Array, hard: bool, v_reset: Any, s: Array, q: Any, one: Any, none: Any) -> None:
    """Charge, fire and reset (clauses LIF-1 to LIF-4), from x[p:] to s[q:]."""
    for i in range(n):
        theta = rows[THETA + i]
        u = rows[ALPHA + i] * rows[V + i] + rows[GAIN + i] * loaded(x[p + i])
        s[q + i] = one if u >= theta else none
        rows[V + i] = (v_reset if hard else u - theta) if u >= theta else u


@compiled
def _charge(x: Array, p: Any, n: Any, rows: Array, hard: bool, v_reset: Any, potentials: Array, q: Any) -> None:
    """As `_step`, to the potentials before reset."""
    for i in range(n):
        theta = rows[THETA + i]
        u = rows[ALPHA + i] * rows[V + i] + rows[GAIN + i] * loaded(x[p + i])
        potentials[q + i] = u
        rows[V + i] = (v_reset if hard else u - theta) if u >= theta else u


@compiled
def _fire(potentials: Array, p: Any, n: Any, rows: Array, s: Array, q: Any, one: Any, none: Any) -> None:
    for i in range(n):
        s[q + i] = one if potentials[p + i] >= rows[THETA + i] else none


def _step_back(surrogate: int, learned: int, *rest: Any) -> None:
    """One step back: d = (g + e r) h + e k, then e = alpha d (clauses LIF-6 to LIF-8).

    `learned` says by `DECAY` and `THRESHOLD` whose gradients are summed (clauses LIF-9 and LIF-10), and by `FIRST` that
    the state before the step is the initial one, in its row, and not that after the potentials at `w`.
    """
    raise NotImplementedError


DECAY, THRESHOLD, FIRST = 1, 2, 4


# Called rather than inlined, a process that compiles it runs it as it was compiled alone, without vectors.
@overload(_step_back, prefer_literal=True, jit_options={"forceinline": True})  # type: ignore[untyped-decorator]  # as above
def _(
    surrogate: Any,
    learned: Any,
    potentials: Any,
    k: Any,
    w: Any,
    x: Any,
    j: Any,
    g: Any,
    p: Any,
    n: Any,
    rows: Any,
    options: Any,
    numbers: Any,
    d_x: Any,
    q: Any,
) -> Any:
    h, asked = derivative(surrogate.literal_value), learned.literal_value
    decay_sums, threshold_sums, first = bool(asked & DECAY), bool(asked & THRESHOLD), bool(asked & FIRST)

    def step_back(
        surrogate: Any,
        learned: Any,
        potentials: Any,
        k: Any,
        w: Any,
        x: Any,
        j: Any,
        g: Any,
        p: Any,
        n: Any,
        rows: Any,
        options: Any,
        numbers: Any,
        d_x: Any,
        q: Any,
    ) -> None:
        hard, detached, weighted = options
        zero, one, v_reset, a, b = numbers
        for i in range(n):
            u, e, theta = potentials[k + i], rows[E + i], rows[THETA + i]
            r = v_reset - u if hard else -theta
            through_reset = zero if detached else e * r
            through_spike = (loaded(g[p + i]) + through_reset) * h(u - theta, a, b, zero, one)
            d = through_spike + (zero if hard and u >= theta else e)
            if threshold_sums:
                rows[D_THRESHOLD + i] -= through_spike + (zero if hard or u < theta else e)
            if decay_sums:
                if first:
                    before = rows[V + i]
                else:
                    earlier = potentials[w + i]
                    before = (v_reset if hard else earlier - theta) if earlier >= theta else earlier
                rows[D_DECAY + i] += d * (before - (loaded(x[j + i]) if weighted else zero))
            rows[E + i] = rows[ALPHA + i] * d
            d_x[q + i] = stored_as(rows[GAIN + i] * d, d_x)

    return step_back


@compiled
def _keep_sums(rows: Array, row: Any, n: int, out: Array, values: int, start: int, block_number: int) -> None:
    """Sums of a block's neurons, or of a quantity of one value their sum, by halves: in vectors, and in the same order always."""
    if values > 1:
        _copy(rows, row, U64(n), out, U64(start))
    else:
        _fill(rows.dtype.type(0), U64(LONGEST - n), rows, row + U64(n))
        half = LONGEST // 2
        while half > 0:
            for i in range(U64(half)):
                rows[row + i] += rows[row + U64(half) + i]
            half //= 2
        out[block_number] = rows[row]


# --- whole blocks ----------------------------------------------------------------------------------------
#
# C functions, called by address: Numba's own calls take apart every array that they are given, which takes longer than
# small layers do. What is not given has the length 0.

ADDRESS, COUNT, NUMBER = numba.types.voidptr, numba.types.int64, numba.types.float64
FORWARD = COUNT(*[COUNT] * 15, NUMBER, *[ADDRESS] * 9)
BACKWARD = COUNT(*[COUNT] * 17, *[NUMBER] * 3, *[ADDRESS] * 12)


@cache
def forward(stored: Format, number: Format) -> Callable[..., int]:
    """The way forward for currents of the type `stored`, which is uint16 for bfloat16, and potentials of `number`."""

    def lif_forward(
        share: int,
        shares: int,
        counters: int,
        block: int,
        steps: int,
        neurons: int,
        apart: int,
        run: int,
        states: int,
        decays: int,
        gains: int,
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
    ) -> int:
        """Blocks of T = `steps` steps of N = `neurons`, which lie `apart` in x; how many are done, by all threads.

        Thread number `share` of `shares` takes them one by one, by `counters`, which begin at 0.

        Quantities are alpha and gain, and theta: one value, or one per channel of `run` neighbours. `one` is a spike as
        s keeps it, `traced` whether u is wanted, `states` N or 0, and `rows` memory of `ROWS` numbers for each thread.
        """
        x, s, u = carray(x_, steps * apart, stored), carray(s_, steps * neurons, stored), carray(u_, steps * neurons, number)
        v, after = carray(v_, states, number), carray(after_, neurons, number)
        rows = carray(rows_, shares * ROWS, number)[share * ROWS :]
        quantities = (carray(alpha_, decays, number), carray(gain_, gains, number), carray(theta_, thresholds, number))
        v_reset, spike, none = number(reset_to), stored(one), stored(0)
        done, blocks = 0, -(-neurons // block)
        block_number = take(counters, share, shares, blocks)
        while block_number >= 0:
            start = block_number * block
            n, m = min(block, neurons - start), U64(min(block, neurons - start))
            _start(rows, n, start, run, quantities, v, done == 0)
            done += 1
            for t in range(steps):
                p, q = U64(t * apart + start), U64(t * neurons + start)
                if traced:
                    _charge(x, p, m, rows, hard != 0, v_reset, u, q)
                    _fire(u, q, m, rows, s, q, spike, none)
                else:
                    _step(x, p, m, rows, hard != 0, v_reset, s, q, spike, none)
            _copy(rows, V, m, after, U64(start))
            block_number = take(counters, share, shares, blocks)
        everybody: int = done + add(counters, done)
        return everybody

    return _entry(FORWARD, lif_forward)


@cache
def backward(stored: Format, number: Format, surrogate: int, learned: int) -> Callable[..., int]:
    """The way back for a surrogate by number; `learned` as of `_step_back`, without `FIRST`.

    Raises:
        SpecError: there is no such surrogate.
    """
    derivative(surrogate)  # refuses
    at_first = learned | FIRST

    def lif_backward(
        share: int,
        shares: int,
        counters: int,
        block: int,
        steps: int,
        neurons: int,
        apart: int,
        g_apart: int,
        run: int,
        states: int,
        ends: int,
        decays: int,
        gains: int,
        thresholds: int,
        hard: int,
        detached: int,
        weighted: int,
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
    ) -> int:
        """As forward; `a` and `b` are the surrogate's `constants`, `ends` is N or 0 for the gradient of the last state.

        `d_decay` and `d_threshold` are sums over time where they are asked for: each neuron's, or each block's for a
        quantity of one value. A thread's rows are followed by memory for `steps` times `block` potentials.
        """
        x, g, d_x = carray(x_, steps * apart, stored), carray(g_, steps * g_apart, stored), carray(d_x_, steps * neurons, stored)
        v, e, d_v = carray(v_, states, number), carray(e_, ends, number), carray(d_v_, states, number)
        d_decay, d_threshold = carray(d_decay_, neurons, number), carray(d_threshold_, neurons, number)
        room = ROWS + steps * block
        rows = carray(rows_, shares * room, number)[share * room :]
        potentials = rows[ROWS:room]
        quantities = (carray(alpha_, decays, number), carray(gain_, gains, number), carray(theta_, thresholds, number))
        zero, one, v_reset = number(0), number(1), number(reset_to)
        numbers, options = (zero, one, v_reset, number(a), number(b)), (hard != 0, detached != 0, weighted != 0)
        done, blocks = 0, -(-neurons // block)
        block_number = take(counters, share, shares, blocks)
        while block_number >= 0:
            start = block_number * block
            n, m = min(block, neurons - start), U64(min(block, neurons - start))
            _start(rows, n, start, run, quantities, v, done == 0)
            done += 1
            _copy_or_zero(e, start, n, rows, E)
            for t in range(steps):
                _charge(x, U64(t * apart + start), m, rows, hard != 0, v_reset, potentials, U64(t * block))
            if learned & DECAY:
                _copy_or_zero(v, start, n, rows, V)
                _fill(zero, m, rows, D_DECAY)
            if learned & THRESHOLD:
                _fill(zero, m, rows, D_THRESHOLD)
            for t in range(steps - 1, -1, -1):
                k, p, q, j = U64(t * block), U64(t * g_apart + start), U64(t * neurons + start), U64(t * apart + start)
                if t > 0:
                    w = U64((t - 1) * block)
                    _step_back(surrogate, learned, potentials, k, w, x, j, g, p, m, rows, options, numbers, d_x, q)
                else:
                    _step_back(surrogate, at_first, potentials, k, k, x, j, g, p, m, rows, options, numbers, d_x, q)
            if states > 0:
                _copy(rows, E, m, d_v, U64(start))
            if learned & DECAY:
                _keep_sums(rows, D_DECAY, n, d_decay, decays, start, block_number)
            if learned & THRESHOLD:
                _keep_sums(rows, D_THRESHOLD, n, d_threshold, thresholds, start, block_number)
            block_number = take(counters, share, shares, blocks)
        everybody: int = done + add(counters, done)
        return everybody

    return _entry(BACKWARD, lif_backward)


def _entry(signature: Any, function: Callable[..., int]) -> Callable[..., int]:
    """A function as a C function; calls don't hold Python's lock."""
    entry = lif_numba_cache.compiled(signature, function)
    # The function that ctypes makes does not keep the code alive.
    _alive.append(entry)
    return cast(Callable[..., int], entry.ctypes)


_alive: list[Any] = []
