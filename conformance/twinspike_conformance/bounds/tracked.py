"""Running error analysis: the reference itself, run on numbers that carry a bound of their rounding error.

A `Tracked` array holds float64 values and, per element, an a-priori bound on how far any correct
implementation in the profile's precision may be from them. Each arithmetic step adds the error its
operands bring and as many roundings as `roundings` counts for it. Nothing here is fitted to results.
Source: N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 3.1 to 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike_conformance.bounds.roundings import FUNCTION, PRODUCT, QUOTIENT, ROOT, SUM, TERMS

Array = NDArray[np.float64]

TINY = {2.0**-53: 2.0**-1022, 2.0**-52: 2.0**-1022, 2.0**-24: 2.0**-126, 2.0**-11: 2.0**-126, 2.0**-8: 2.0**-126}
"""Smallest normal number per roundoff: results below it may be flushed to zero."""


def storage(roundoff: float) -> type[np.floating[Any]]:
    """The format in which constants are stored where arithmetic rounds so: float64 up to its doubled roundoff, else float32."""
    return np.float64 if roundoff <= 2.0**-52 else np.float32


def gamma(n: float, roundoff: float) -> float:
    """n u / (1 - n u), the classic constant; infinite where a bound says nothing."""
    return n * roundoff / (1.0 - n * roundoff) if n * roundoff < 1.0 else np.inf


def _apply(ufunc: Any, *operands: Any) -> Any:
    """A ufunc of Tracked operands: NumPy's stubs don't know that `__array_ufunc__` answers."""
    return ufunc(*operands)


class Tracked:
    """Values with error bounds; behaves as an ndarray towards the functions that the reference uses.

    `roundoff` is the format's unit, `product` that of the operands of products where it is larger, else 0.
    """

    __array_priority__ = 1000.0

    def __init__(self, value: Any, error: Any = 0.0, *, roundoff: float, product: float = 0.0) -> None:
        self.value: Array = np.asarray(value, dtype=np.float64)
        wide = np.shape(error) == self.value.shape
        self.error: Array = np.asarray(error, np.float64) if wide else np.full(self.value.shape, error, np.float64)
        self.roundoff, self.product = roundoff, product

    # --- arithmetic ----------------------------------------------------------------------------------

    def _make(self, value: Array, error: Array, roundings: float) -> Tracked:
        """A result that was rounded: add its own error to what the operands brought."""
        own = roundings * self.roundoff * (np.abs(value) + error) + TINY[self.roundoff]
        return self._view(value, error + own)

    def _view(self, value: Array, error: Array) -> Tracked:
        return Tracked(value, error, roundoff=self.roundoff, product=self.product)

    def _lift(self, x: Any) -> Tracked:
        """A plain operand: exact, but for the rounding of constants to the profile's format."""
        if isinstance(x, Tracked):
            return x
        value = np.asarray(x, np.float64)
        rounded = value.astype(storage(self.roundoff)).astype(np.float64)
        return self._view(value, np.abs(rounded - value))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "reduce" and ufunc is np.add:
            return _sum(inputs[0], kwargs.get("axis"), kwargs.get("keepdims", False))
        if method == "reduce" and ufunc is np.maximum:
            return _extreme(inputs[0], kwargs.get("axis"), kwargs.get("keepdims", False))
        if method != "__call__" or ufunc not in _UFUNCS:
            raise TypeError(f"no error analysis for {ufunc.__name__}.{method}")
        if ufunc in _COMPARISONS:
            return ufunc(*(x.value if isinstance(x, Tracked) else x for x in inputs))
        return _UFUNCS[ufunc](self, *(self._lift(x) for x in inputs))

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        if function in _STRUCTURAL:
            return _structural(self, function, args, kwargs)
        if function in _FUNCTIONS:
            return _FUNCTIONS[function](*args, **kwargs)
        raise TypeError(f"no error analysis for numpy.{function.__name__}")

    # --- ndarray's face ------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.value.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.value.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values: float64."""
        return self.value.dtype

    @property
    def T(self) -> Tracked:  # noqa: N802  # ndarray's own name
        """Axes reversed."""
        return self._view(self.value.T, self.error.T)

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: Any) -> Tracked:
        return self._view(self.value[index], self.error[index])

    def __setitem__(self, index: Any, other: Any) -> None:
        self.value[index] = other.value if isinstance(other, Tracked) else other
        self.error[index] = other.error if isinstance(other, Tracked) else 0.0

    def __float__(self) -> float:
        raise TypeError("a tracked number can't become a plain one: its error bound would be lost")

    def astype(self, dtype: Any, copy: bool = True) -> Tracked:
        """Itself: values stay float64, whatever format the bounds are of."""
        return self

    def copy(self) -> Tracked:
        """Values and bounds of its own."""
        return self._view(self.value.copy(), self.error.copy())

    def reshape(self, *shape: Any, **kw: Any) -> Tracked:
        """As ndarray's."""
        return self._view(self.value.reshape(*shape, **kw), self.error.reshape(*shape, **kw))

    def transpose(self, *axes: Any) -> Tracked:
        """As ndarray's."""
        return self._view(self.value.transpose(*axes), self.error.transpose(*axes))

    def swapaxes(self, a: int, b: int) -> Tracked:
        """As ndarray's."""
        return self._view(self.value.swapaxes(a, b), self.error.swapaxes(a, b))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tracked:
        """With the bound of any order of summation."""
        return _sum(self, axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tracked:
        """The sum over the count."""
        return _mean(self, axis, keepdims)

    def argmax(self, axis: Any = None) -> Any:
        """Of the values: a decision carries no error bound."""
        return self.value.argmax(axis=axis)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tracked:
        """With the largest of the bounds."""
        return _extreme(self, axis, keepdims)

    def __add__(self, o: Any) -> Any:
        return _apply(np.add, self, o)

    def __radd__(self, o: Any) -> Any:
        return _apply(np.add, o, self)

    def __sub__(self, o: Any) -> Any:
        return _apply(np.subtract, self, o)

    def __rsub__(self, o: Any) -> Any:
        return _apply(np.subtract, o, self)

    def __mul__(self, o: Any) -> Any:
        return _apply(np.multiply, self, o)

    def __rmul__(self, o: Any) -> Any:
        return _apply(np.multiply, o, self)

    def __truediv__(self, o: Any) -> Any:
        return _apply(np.divide, self, o)

    def __rtruediv__(self, o: Any) -> Any:
        return _apply(np.divide, o, self)

    def __matmul__(self, o: Any) -> Any:
        return _apply(np.matmul, self, o)

    def __pow__(self, o: Any) -> Any:
        return _apply(np.power, self, o)

    def __neg__(self) -> Any:
        return _apply(np.negative, self)

    def __abs__(self) -> Any:
        return _apply(np.absolute, self)

    def __lt__(self, o: Any) -> Any:
        return _apply(np.less, self, o)

    def __le__(self, o: Any) -> Any:
        return _apply(np.less_equal, self, o)

    def __gt__(self, o: Any) -> Any:
        return _apply(np.greater, self, o)

    def __ge__(self, o: Any) -> Any:
        return _apply(np.greater_equal, self, o)

    def __eq__(self, o: object) -> Any:
        return _apply(np.equal, self, o)

    def __ne__(self, o: object) -> Any:
        return _apply(np.not_equal, self, o)

    __hash__ = None  # type: ignore[assignment]


# --- rules of the elementary steps -------------------------------------------------------------------


def _total(f: np.ufunc, like: Tracked, a: Tracked, b: Tracked) -> Tracked:
    """Rule of sums and differences: errors add up."""
    return like._make(f(a.value, b.value), a.error + b.error, SUM)


def _multiply(like: Tracked, a: Tracked, b: Tracked) -> Tracked:
    error: Any = 0.0  # what the backend itself reported has none, and is most of what networks are judged by
    brings_a, brings_b = a.error.any(), b.error.any()
    if brings_b:
        error = error + _scaled(np.abs(a.value), b.error)
    if brings_a:
        error = error + _scaled(np.abs(b.value), a.error)
    if brings_a and brings_b:
        error = error + _scaled(a.error, b.error)
    return like._make(a.value * b.value, error, PRODUCT)


def _scaled(a: Array, b: Array) -> Array:
    """a b, where 0 times an infinite bound is 0: the operand that is 0 is exactly that."""
    with np.errstate(invalid="ignore"):
        return np.where((a == 0) | (b == 0), 0.0, a * b)


def _divide(like: Tracked, a: Tracked, b: Tracked) -> Tracked:
    value = a.value / b.value
    room = np.abs(b.value) - b.error
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(room > 0, (a.error + np.abs(value) * b.error) / room, np.inf)
    return like._make(value, error, QUOTIENT)


Slope = Callable[[Array, Array], Array]


def _function(f: Callable[[Array], Array], slope: Slope, like: Tracked, x: Tracked, own: float = FUNCTION) -> Tracked:
    """Rule of y = f(x): the error of x times the largest |f'| near x, plus the library's own."""
    return like._make(f(x.value), slope(x.value, x.error) * x.error, own)


def _sqrt_slope(x: Array, e: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.where(
            x - e > 0, 0.5 / np.sqrt(np.maximum(x - e, 0.0)), np.where(e > 0, 1.0 / np.sqrt(np.maximum(e, 1e-300)), 0.0)
        )


def _log_slope(x: Array, e: Array) -> Array:
    return np.where(x - e > 0, 1.0 / np.maximum(x - e, 1e-300), np.inf)


def _choice(f: np.ufunc, like: Tracked, a: Tracked, b: Tracked) -> Tracked:
    """Rule of the larger or smaller: nothing is rounded, and the other counts as far as its error reaches beyond the gap."""
    value = f(a.value, b.value)
    return like._view(value, np.maximum(a.error - np.abs(value - a.value), b.error - np.abs(value - b.value)))


def _power(like: Tracked, a: Tracked, b: Tracked) -> Tracked:
    if not np.all(b.value == 2):
        raise TypeError("no error analysis for powers other than squares")
    return _multiply(like, a, a)


def _operand(like: Tracked, a: Tracked) -> Tracked:
    """An operand of a product, which `like.product` may round (clause PRE-3)."""
    return a._view(a.value, a.error + like.product * (np.abs(a.value) + a.error)) if like.product else a


def _matmul(like: Tracked, a: Tracked, b: Tracked) -> Tracked:
    a, b = _operand(like, a), _operand(like, b)
    n = a.value.shape[-1]
    brought: Any = 0.0
    brings_a, brings_b = a.error.any(), b.error.any()
    if brings_b:
        brought = brought + np.abs(a.value) @ b.error
    if brings_a:
        brought = brought + a.error @ np.abs(b.value)
    if brings_a and brings_b:
        brought = brought + a.error @ b.error
    size = (np.abs(a.value) + a.error) @ (np.abs(b.value) + b.error)
    own = gamma(n + TERMS, like.roundoff) * size + n * TINY[like.roundoff]
    return like._view(a.value @ b.value, brought + own)


_COMPARISONS = {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal, np.isfinite, np.isnan, np.sign}

_UFUNCS: dict[np.ufunc, Callable[..., Any]] = {
    np.add: partial(_total, np.add),
    np.subtract: partial(_total, np.subtract),
    np.multiply: _multiply,
    np.divide: _divide,
    np.power: _power,
    np.square: lambda like, a: _multiply(like, a, a),
    np.negative: lambda like, a: like._view(-a.value, a.error),
    np.positive: lambda like, a: a,
    np.absolute: lambda like, a: like._view(np.abs(a.value), a.error),
    np.maximum: partial(_choice, np.maximum),
    np.minimum: partial(_choice, np.minimum),
    np.matmul: _matmul,
    np.reciprocal: lambda like, a: _divide(like, like._view(np.ones_like(a.value), np.zeros_like(a.value)), a),
    np.sqrt: partial(_function, np.sqrt, _sqrt_slope, own=ROOT),
    np.exp: partial(_function, np.exp, lambda x, e: np.exp(np.minimum(x + e, 700.0))),
    np.log: partial(_function, np.log, _log_slope),
    np.log1p: partial(_function, np.log1p, lambda x, e: _log_slope(1.0 + x, e)),
    np.tanh: partial(_function, np.tanh, lambda x, e: np.ones_like(x)),
    np.arctan: partial(_function, np.arctan, lambda x, e: np.ones_like(x)),
    **dict.fromkeys(_COMPARISONS, lambda *a: None),
}


def _count(x: Tracked, axis: Any) -> int:
    if axis is None:
        return x.value.size
    axes = axis if isinstance(axis, tuple) else (axis,)
    return int(np.prod([x.value.shape[a] for a in axes], dtype=np.int64))


def _sum(x: Tracked, axis: Any = None, keepdims: Any = False) -> Tracked:
    n = _count(x, axis)
    size = (np.abs(x.value) + x.error).sum(axis=axis, keepdims=keepdims)
    error = x.error.sum(axis=axis, keepdims=keepdims) + gamma(n - 1 + TERMS, x.roundoff) * size
    return x._view(x.value.sum(axis=axis, keepdims=keepdims), error + n * TINY[x.roundoff])


def _mean(x: Tracked, axis: Any = None, keepdims: Any = False) -> Tracked:
    return _sum(x, axis, keepdims) / _count(x, axis)  # type: ignore[no-any-return]  # a ufunc's answer


def _extreme(x: Tracked, axis: Any = None, keepdims: Any = False) -> Tracked:
    return x._view(x.value.max(axis=axis, keepdims=keepdims), x.error.max(axis=axis, keepdims=keepdims))


def _where(condition: Any, a: Any, b: Any) -> Tracked:
    like = a if isinstance(a, Tracked) else b
    a, b = like._lift(a), like._lift(b)
    return like._view(np.where(condition, a.value, b.value), np.where(condition, a.error, b.error))


def _tensordot(a: Any, b: Any, axes: Any) -> Tracked:
    like = a if isinstance(a, Tracked) else b
    a, b = _operand(like, like._lift(a)), _operand(like, like._lift(b))
    n = int(np.prod([a.value.shape[i] for i in axes[0]], dtype=np.int64))
    brought: Any = 0.0
    if b.error.any():
        brought = brought + np.tensordot(np.abs(a.value), b.error, axes)
    if a.error.any():
        brought = brought + np.tensordot(a.error, np.abs(b.value) + b.error, axes)
    size = np.tensordot(np.abs(a.value) + a.error, np.abs(b.value) + b.error, axes)
    own = gamma(n + TERMS, like.roundoff) * size + n * TINY[like.roundoff]
    return like._view(np.tensordot(a.value, b.value, axes), brought + own)


def _clip(x: Tracked, low: Any, high: Any) -> Tracked:
    """The smaller of `high` and the larger of `low` and x; an end that is infinite has no rounding."""
    for f, end in ((np.maximum, low), (np.minimum, high)):
        x = _choice(f, x, x, x._lift(end)) if np.isfinite(end) else x
    return x


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: _sum,
    np.mean: _mean,
    np.max: _extreme,
    np.where: _where,
    np.clip: _clip,
    np.tensordot: _tensordot,
    np.zeros_like: lambda x, **kw: x._view(np.zeros_like(x.value), np.zeros_like(x.value)),
    np.ones_like: lambda x, **kw: x._view(np.ones_like(x.value), np.zeros_like(x.value)),
    np.empty_like: lambda x, **kw: x._view(np.zeros_like(x.value), np.zeros_like(x.value)),
    np.shape: lambda x: x.value.shape,
    np.ndim: lambda x: x.value.ndim,
}

_STRUCTURAL = {
    np.reshape, np.transpose, np.swapaxes, np.moveaxis, np.concatenate, np.stack, np.broadcast_to, np.expand_dims,
    np.squeeze, np.take_along_axis, np.pad, np.repeat, np.tile, np.flip, np.ravel, np.atleast_1d,
    np.lib.stride_tricks.sliding_window_view, np.diagonal,
}  # fmt: skip


def _structural(like: Tracked, function: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> Tracked:
    """Functions that only move elements: move values and errors alike."""

    def part(x: Any, which: str) -> Any:
        if isinstance(x, Tracked):
            return getattr(x, which)
        if isinstance(x, list | tuple) and any(isinstance(y, Tracked) for y in x):
            return [
                getattr(y, which) if isinstance(y, Tracked) else (y if which == "value" else np.zeros(np.shape(y))) for y in x
            ]
        return x

    value = function(*(part(a, "value") for a in args), **kwargs)
    return like._view(value, function(*(part(a, "error") for a in args), **kwargs))


def stack(parts: Sequence[Tracked]) -> Tracked:
    """Along a new first axis."""
    values, errors = np.stack([p.value for p in parts]), np.stack([p.error for p in parts])
    return Tracked(values, errors, roundoff=parts[0].roundoff)
