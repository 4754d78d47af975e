"""Bounds of convolutions whose kernel U diag(sigma) V is not composed: maps meet V, then sigma, then U.

Clause FAC-6 defines a kernel, not the order in which maps meet its factors; a backend may take the order that costs less.
Both compute the same sum and round it elsewhere. With A = |U| |diag(sigma)| |V| |x|, the composed order errs by at most
about gamma(r) A + gamma(n p) |K| |x| for rank r, n channels and p taps, this one by (gamma(r) + gamma(n) + gamma(p)) A. As
|K| may be much smaller than |U| |diag(sigma)| |V|, whose terms cancel, neither bound holds for the other order, and an answer
is right that lies within the larger.
Letters: N samples, I and O channels, H', W' the output's pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from twinspike_conformance.bounds.tracked import Tracked, stack

Span = tuple[slice, ...]


class Factors(NamedTuple):
    """Of a kernel that is matricized per position, each as it lies in the state."""

    U: Tracked
    """(kh, kw, O, r)."""
    sigma: Tracked
    """(kh, kw, r)."""
    V: Tracked
    """(kh, kw, r, I)."""


def forward(x: Tracked, factors: Factors, stride: int, padding: int) -> Tracked:
    """y (N, O, H', W') of maps x (N, I, H, W): per tap z = V x, then U (sigma z), then the sum over taps in any order."""
    padded = _padded(x, padding)
    parts = []
    for (i, j), span in _taps(padded, factors, stride):
        z: Tracked = _product(padded[span], factors.V[i, j], ((1,), (1,))) * factors.sigma[i, j]
        parts.append(_product(z, factors.U[i, j], ((3,), (1,))).transpose(0, 3, 1, 2))
    return stack(parts).sum(axis=0)


def maps_adjoint(x: Tracked, factors: Factors, g: Tracked, stride: int, padding: int) -> Tracked:
    """Gradient of x for the gradient g (N, O, H', W') of y: with h = U'g per tap, V' (sigma h) at the pixels that the tap met."""
    padded, parts = _padded(x, padding), []
    for (i, j), span in _taps(padded, factors, stride):
        h = _product(g, factors.U[i, j], ((1,), (0,)))
        part = _zeros(padded)
        part[span] = _product(h * factors.sigma[i, j], factors.V[i, j], ((3,), (0,))).transpose(0, 3, 1, 2)
        parts.append(part)
    inner = slice(padding, padding + x.shape[2]), slice(padding, padding + x.shape[3])
    return stack(parts).sum(axis=0)[:, :, *inner]


def factors_adjoint(x: Tracked, factors: Factors, g: Tracked, stride: int, padding: int) -> Factors:
    """Gradients of the factors, likewise: per tap dU = g (sigma z)' for z = V x, dsigma = sum h z, dV = (sigma h) x'."""
    padded = _padded(x, padding)
    d_u, d_sigma, d_v = (_zeros(factor) for factor in factors)
    for (i, j), span in _taps(padded, factors, stride):
        u, sigma, v, maps = factors.U[i, j], factors.sigma[i, j], factors.V[i, j], padded[span]
        z, h = _product(maps, v, ((1,), (1,))), _product(g, u, ((1,), (0,)))
        d_u[i, j] = _product(g, z * sigma, ((0, 2, 3), (0, 1, 2)))
        d_sigma[i, j] = (h * z).sum(axis=(0, 1, 2))
        d_v[i, j] = _product(h * sigma, maps, ((0, 1, 2), (0, 2, 3)))
    return Factors(d_u, d_sigma, d_v)


def either(composed: Tracked, other: Tracked) -> Tracked:
    """The composed order's value with a bound that both orders keep; the two values are apart by float64's rounding."""
    apart = np.abs(composed.value - other.value)
    return composed._view(composed.value, np.maximum(composed.error, other.error + apart))


def _product(a: Tracked, b: Tracked, axes: tuple[tuple[int, ...], tuple[int, ...]]) -> Tracked:
    """As `numpy.tensordot`, whose stubs don't know that `__array_function__` answers."""
    dot: Any = np.tensordot
    found: Tracked = dot(a, b, axes)
    return found


def _padded(x: Tracked, padding: int) -> Tracked:
    width = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    return x._view(np.pad(x.value, width), np.pad(x.error, width))


def _zeros(like: Tracked) -> Tracked:
    return like._view(np.zeros_like(like.value), np.zeros_like(like.error))


def _taps(padded: Tracked, factors: Factors, stride: int) -> Iterator[tuple[tuple[int, int], Span]]:
    """Positions of the kernel, and the pixels of the padded maps (N, I, H', W') that each meets."""
    kh, kw = factors.sigma.shape[:2]
    bottom, right = (padded.shape[2] - kh) // stride, (padded.shape[3] - kw) // stride
    for i in range(kh):
        for j in range(kw):
            rows, columns = (slice(a, a + stride * n + 1, stride) for a, n in ((i, bottom), (j, right)))
            yield (i, j), (slice(None), slice(None), rows, columns)
