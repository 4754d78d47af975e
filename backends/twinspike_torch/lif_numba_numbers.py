"""Numbers as the loops of `lif_numba_loops` read, write and compute them: formats, the exponential, surrogates.

Numbers without a type are float64 to Numba and would make the arithmetic so: constants are cast first. What depends on
the type of a number is chosen where a loop is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.extending import overload

from twinspike.errors import refuse
from twinspike_torch.lif_form import ARCTAN, FAST_SIGMOID, RECTANGLE, SIGMOID, TANH, TRIANGLE

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """A function as machine code, compiled into the loops that call it."""
    return cast(F, numba.njit(nogil=True, error_model="numpy")(function))  # division without a branch for zero


@compiled
def widen(bits: Any) -> Any:
    """bfloat16, as its bits, into float32."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@compiled
def narrow(value: Any) -> Any:
    """The way back, to the nearest, ties to even."""
    bits = np.float32(value).view(np.uint32)
    rounded = np.uint32(bits + np.uint32(0x7FFF) + (np.uint32(bits >> np.uint32(16)) & np.uint32(1)))
    return np.uint16(0x7FC0) if math.isnan(value) else np.uint16(rounded >> np.uint32(16))


def loaded(stored: Any) -> Any:
    """A number of a current or gradient as the arithmetic takes it."""
    raise NotImplementedError  # there is none but the compiled one


@overload(loaded)  # type: ignore[untyped-decorator]  # untyped in Numba
def _(stored: Any) -> Any:
    def widened(stored: Any) -> Any:
        return widen(stored)

    def as_it_is(stored: Any) -> Any:
        return stored

    return widened if isinstance(stored, numba.types.Integer) else as_it_is


def stored_as(value: Any, like: Any) -> Any:
    """A number as an array like `like` keeps it."""
    raise NotImplementedError


@overload(stored_as)  # type: ignore[untyped-decorator]  # as above
def _(value: Any, like: Any) -> Any:
    def narrowed(value: Any, like: Any) -> Any:
        return narrow(value)

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


@compiled
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


# --- surrogates: h(z), z = u - threshold (clauses SUR-*) --------------------------------------------------


@compiled
def _rectangle(z: Any, a: Any, b: Any, zero: Any, one: Any) -> Any:
    return a if abs(z) < b else zero


@compiled
def _triangle(z: Any, a: Any, b: Any, zero: Any, one: Any) -> Any:
    return max(zero, one - abs(z) / a) / a


@compiled
def _arctan(z: Any, a: Any, b: Any, zero: Any, one: Any) -> Any:
    y = b * z
    return a / (one + y * y)


@compiled
def _fast_sigmoid(z: Any, a: Any, b: Any, zero: Any, one: Any) -> Any:
    y = one + b * abs(z)
    return a / (y * y)


@compiled
def _exponential(z: Any, a: Any, b: Any, zero: Any, one: Any) -> Any:
    """Sigmoid and tanh: q of exponents <= 0 loses no digits and cannot overflow."""
    q = _exp(b * abs(z))
    return a * q / ((one + q) * (one + q))


_SURROGATES: dict[int, tuple[Callable[..., Any], Callable[[float], tuple[float, float]]]] = {
    RECTANGLE: (_rectangle, lambda width: (1.0 / width, width / 2)),
    TRIANGLE: (_triangle, lambda width: (width, width)),
    SIGMOID: (_exponential, lambda slope: (slope, -slope)),
    ARCTAN: (_arctan, lambda slope: (slope / 2, math.pi * slope / 2)),
    FAST_SIGMOID: (_fast_sigmoid, lambda slope: (slope / 2, slope)),
    TANH: (_exponential, lambda slope: (2 * slope, -2 * slope)),
}
"""Number -> the derivative, and the two numbers a and b that it takes for a width or slope."""


def derivative(surrogate: int) -> Callable[..., Any]:
    """h(z, a, b, 0, 1) of a surrogate by number; `a` and `b` are its `constants`.

    Raises:
        SpecError: there is no such surrogate.
    """
    return _surrogate(surrogate)[0]


def constants(surrogate: int, width: float) -> tuple[float, float]:
    """The two numbers that `derivative` takes for a surrogate and its width or slope; SpecError as there."""
    return _surrogate(surrogate)[1](width)


def _surrogate(number: int) -> tuple[Callable[..., Any], Callable[[float], tuple[float, float]]]:
    if number not in _SURROGATES:
        raise refuse("surrogate of the numba kernel", expected=f"one of {sorted(_SURROGATES)}", got=number)
    return _SURROGATES[number]
