"""Bit budgets: the proof that an example of the exact lane leaves no room for rounding.

A `Grid` stands, element by element, for all values that are whole multiples of 2^low and at most `high` in magnitude.
Sums and products of grids are grids, whatever the order of the terms, so running an operation's
formula on grids bounds every partial result that any order, association or fusion can produce.
If none needs more bits than the format has, all correct implementations agree bit for bit.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

SIGNIFICAND = {"float64": 53, "float32": 24, "tf32": 11, "bfloat16": 8}
"""Bits of the significand, the hidden one counted."""

ZERO_LOW = 1 << 20
"""Quantum exponent of exact zero: larger than that of any number."""


def lowest_bits(values: Any) -> NDArray[np.int64]:
    """Of each value the largest e such that it is a whole multiple of 2^e; `ZERO_LOW` of 0."""
    array = np.asarray(values, dtype=np.float64)
    fraction, exponent = np.frexp(array)
    significand = np.abs(fraction * 2.0**53).astype(np.int64)
    trailing = np.frexp((significand & -significand).astype(np.float64))[1] - 1
    return np.where(array == 0, ZERO_LOW, exponent - 53 + trailing).astype(np.int64)


def lowest_bit(values: Any) -> int:
    """Largest e such that every value is a whole multiple of 2^e; `ZERO_LOW` if all are 0."""
    return int(lowest_bits(values).min(initial=ZERO_LOW))


class Budget(msgspec.Struct):
    """Collects the most bits that any partial result needs."""

    bits: int = 0
    exponent: int = 0
    """Largest magnitude of a binary exponent that occurs, so that range is checked too."""

    def of(self, values: Any) -> Grid:
        """One grid for all of the values."""
        array = np.asarray(values, dtype=np.float64)
        return self.grid(np.abs(array).max(initial=0.0), lowest_bit(array))

    def each(self, values: Any) -> Grid:
        """The grid of concrete values, element by element."""
        array = np.asarray(values, dtype=np.float64)
        return self.grid(np.abs(array), lowest_bits(array))

    def grid(self, high: Any, low: Any) -> Grid:
        """Note what a grid needs and return it; what can only be 0 is a multiple of anything."""
        high = np.asarray(high, np.float64)
        low = np.where(high > 0, low, ZERO_LOW)
        some = high > 0
        if some.any():
            top, least = np.frexp(high[some])[1], low[some]  # 2^(top-1) <= high < 2^top: top - low bits
            self.bits = max(self.bits, int((top - least).max()))
            self.exponent = max(self.exponent, int(np.abs(top).max()), int(np.abs(least).max()))
        return Grid(self, high, low)

    def fits(self, form: str) -> bool:
        """Whether every partial result is a number of the format, subnormals excluded."""
        return self.bits <= SIGNIFICAND[form] and self.exponent <= (1000 if form == "float64" else 120)


class Grid:
    """Whole multiples of 2^low up to `high` in magnitude, element by element."""

    __array_priority__ = 1000.0
    __array_ufunc__ = None

    def __init__(self, budget: Budget, high: NDArray[np.float64], low: NDArray[np.int64]) -> None:
        self.budget, self.high, self.low = budget, high, low

    def _lift(self, other: Any) -> Grid:
        return other if isinstance(other, Grid) else self.budget.of(other)

    def __add__(self, other: Any) -> Grid:
        other = self._lift(other)
        return self.budget.grid(self.high + other.high, np.minimum(self.low, other.low))

    __radd__ = __sub__ = __rsub__ = __add__

    def __mul__(self, other: Any) -> Grid:
        other = self._lift(other)
        return self.budget.grid(self.high * other.high, self.low + other.low)

    __rmul__ = __mul__

    def sum(self, terms: int) -> Grid:
        """Any partial sum of `terms` such values, however they are chosen."""
        return self.budget.grid(np.max(self.high, initial=0.0) * terms, self.low.min(initial=ZERO_LOW))

    def total(self) -> Grid:
        """Any partial sum of these very values."""
        return self.budget.grid(self.high.sum(), self.low.min(initial=ZERO_LOW))
