"""Arrays that round as another right implementation may: sums in another order, fused multiply-adds, flushed subnormals.

The reference runs on them as it is written. What they emulate is what compilers, vector units and BLAS
do to a formula that is coded faithfully; none of it is a deviation from the specification.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Plain = NDArray[Any]

TINY = np.float32(2.0**-126)
"""Smallest normal number of float32."""

LONG, CHAIN = 512, 128
"""Terms up to which a sum may be one chain, and the length of its parts beyond."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """How an implementation rounds; float32 throughout."""

    order: int | None = None
    """Seed of the order in which sums and dot products add, and of how they associate; None: NumPy's own."""
    fused: bool = False
    """Whether a product that is added at once is not rounded before, also within dot products."""
    flushed: bool = False
    """Whether subnormal operands and results count as zero."""


class Innocent(np.ndarray[Any, Any]):
    """A float32 array whose arithmetic follows its `rules`; what is computed from one is one."""

    rules: Rules
    exact: Plain | None
    """Of the result of a product, its value before rounding, as float64; of anything else None."""

    def __array_finalize__(self, source: Any) -> None:
        self.rules = getattr(source, "rules", Rules())
        self.exact = None

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        rules = next(x.rules for x in (*inputs, *(out or ())) if isinstance(x, Innocent))
        plain = [_plain(x) for x in inputs]
        exact = None
        if method == "reduce" and ufunc is np.add and plain[0].dtype.kind == "f":
            result = _sum(rules, inputs[0], kwargs.get("axis"), kwargs.get("keepdims", False))
        elif method == "__call__" and ufunc is np.matmul:
            result = _matmul(rules, *plain)
        elif method == "__call__" and rules.fused and ufunc in (np.add, np.subtract):
            result = _fused(ufunc, inputs)
        else:
            result = getattr(ufunc, method)(*plain, **kwargs)
            if rules.fused and ufunc is np.multiply:
                exact = np.multiply(*(np.asarray(x, np.float32).astype(np.float64) for x in plain))
        found = innocent(result, rules)
        if isinstance(found, Innocent):
            found.exact = exact
        if out is None:
            return found
        _plain(out[0])[...] = found
        if isinstance(out[0], Innocent):
            out[0].exact = None
        return out[0]

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        special = _FUNCTIONS.get(function)
        if special is not None:
            return special(self.rules, *args, **kwargs)
        return innocent(super().__array_function__(function, types, args, kwargs), self.rules)

    def sum(self, axis: Any = None, *args: Any, keepdims: bool = False, **kwargs: Any) -> Any:  # type: ignore[override]  # fewer options
        """By the rules."""
        return innocent(_sum(self.rules, self, axis, keepdims), self.rules)

    def mean(self, axis: Any = None, *args: Any, keepdims: bool = False, **kwargs: Any) -> Any:  # type: ignore[override]  # fewer options
        """The sum by the rules over the number of terms."""
        total = self.sum(axis=axis, keepdims=keepdims)
        return total / (self.size // max(1, total.size))


def innocent(value: Any, rules: Rules) -> Any:
    """Floats as an Innocent array, flushed if so ruled; tuples of such; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(innocent(part, rules) for part in value)
    if not isinstance(value, np.ndarray | np.floating) or value.dtype.kind != "f":
        return value
    array = np.asarray(value, np.float32)
    if rules.flushed:
        array = np.where(np.abs(array) < TINY, np.float32(0), array)
    found = array.view(Innocent)
    found.rules = rules
    return found


class InnocentNumpy:
    """NumPy, except that the conversions which would make a plain array keep an Innocent one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def asarray(x: Any, dtype: Any = None) -> Any:
        """As `numpy.asanyarray`."""
        return np.asanyarray(x, dtype)

    @staticmethod
    def array(x: Any, dtype: Any = None) -> Any:
        """A copy of the same kind."""
        return np.array(x, dtype, subok=True)


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, Innocent) else x


def _fused(ufunc: np.ufunc, inputs: tuple[Any, ...]) -> Any:
    """a*b + c with one rounding; of two products the second is rounded first, as a fused step would have it."""
    exact = [x.exact if isinstance(x, Innocent) else None for x in inputs]
    if all(e is None for e in exact):
        return ufunc(*map(_plain, inputs))
    if all(e is not None for e in exact):
        exact[1] = None
    wide = [np.asarray(_plain(x), np.float32).astype(np.float64) if e is None else e for x, e in zip(inputs, exact, strict=True)]
    return ufunc(*wide).astype(np.float32)


def _terms(rules: Rules, terms: Plain) -> Plain:
    """Sum over the last axis: float32 terms, or float64 ones that are products not yet rounded."""
    n = terms.shape[-1]
    if rules.order is not None:
        terms = terms[..., np.random.Generator(np.random.Philox(rules.order)).permutation(n)]
    while terms.shape[-1] > LONG:  # in parts: a norm's statistics may not be one chain (PRE-7)
        padded = np.concatenate([terms, np.zeros((*terms.shape[:-1], -terms.shape[-1] % CHAIN), terms.dtype)], axis=-1)
        terms = _added(rules, padded.reshape(*terms.shape[:-1], -1, CHAIN))
    return _added(rules, terms)


def _added(rules: Rules, terms: Plain) -> Plain:
    """The terms in their order, one after the other or as a tree."""
    n = terms.shape[-1]
    if terms.dtype == np.float64:
        total = np.zeros(terms.shape[:-1], np.float32)
        for k in range(n):
            total = (total + terms[..., k]).astype(np.float32)
        return total
    if rules.order is None:
        return np.asarray(np.add.reduce(terms, axis=-1))
    if rules.order % 2:  # one after the other
        return np.asarray(np.add.accumulate(terms, axis=-1)[..., -1])
    while terms.shape[-1] > 1:  # as a tree
        half = terms.shape[-1] // 2
        terms = np.concatenate([terms[..., :half] + terms[..., half : 2 * half], terms[..., 2 * half :]], axis=-1)
    return np.asarray(terms[..., 0])


def _sum(rules: Rules, x: Any, axis: Any, keepdims: bool) -> Plain:
    terms = x.exact if isinstance(x, Innocent) and x.exact is not None else _plain(x)
    axes = tuple(range(terms.ndim)) if axis is None else tuple(a % terms.ndim for a in np.atleast_1d(axis))
    last = np.moveaxis(terms, axes, range(-len(axes), 0))
    total = _terms(rules, last.reshape(*last.shape[: last.ndim - len(axes)], -1))
    return np.expand_dims(total, axes) if keepdims else total


def _matmul(rules: Rules, a: Any, b: Any) -> Plain:
    a, b = np.asarray(_plain(a), np.float32), np.asarray(_plain(b), np.float32)
    if rules.order is None and not rules.fused:
        return np.asarray(a @ b)
    form = np.float64 if rules.fused else np.float32
    products = a[..., :, None, :].astype(form) * b.swapaxes(-2, -1)[..., None, :, :].astype(form)
    if rules.flushed and not rules.fused:
        products = np.where(np.abs(products) < TINY, form(0), products)
    return _terms(rules, products)


def _tensordot(rules: Rules, a: Any, b: Any, axes: Any) -> Any:
    """Of `axes` as two tuples."""
    kept = [[i for i in range(x.ndim) if i not in given] for x, given in zip((a, b), axes, strict=True)]
    left = _plain(a).transpose(*kept[0], *axes[0])
    right = _plain(b).transpose(*axes[1], *kept[1])
    n = int(np.prod([a.shape[i] for i in axes[0]], dtype=np.int64))
    shape = (*left.shape[: len(kept[0])], *right.shape[len(axes[1]) :])
    return innocent(_matmul(rules, left.reshape(-1, n), right.reshape(n, -1)).reshape(shape), rules)


def _svd(rules: Rules, a: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """Of the matrix with its columns in another order, which are put back."""
    matrices = _plain(a)
    if not compute_uv:
        return innocent(np.linalg.svd(matrices, compute_uv=False), rules)
    columns = matrices.shape[-1]
    moved = np.arange(columns) if rules.order is None else np.random.Generator(np.random.Philox(rules.order)).permutation(columns)
    u, sigma, v = np.linalg.svd(matrices[..., moved], full_matrices=full_matrices)
    back = np.empty_like(v)
    back[..., moved] = v
    return tuple(innocent(x, rules) for x in (u, sigma, back))


def _qr(rules: Rules, a: Any) -> Any:
    """Of the matrix with its rows in another order, which are put back."""
    matrices = _plain(a)
    rows = matrices.shape[-2]
    moved = np.arange(rows) if rules.order is None else np.random.Generator(np.random.Philox(rules.order)).permutation(rows)
    q, r = np.linalg.qr(matrices[..., moved, :])
    back = np.empty_like(q)
    back[..., moved, :] = q
    return innocent(back, rules), innocent(r, rules)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {np.tensordot: _tensordot, np.linalg.svd: _svd, np.linalg.qr: _qr}
