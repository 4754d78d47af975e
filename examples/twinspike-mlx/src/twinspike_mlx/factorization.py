"""Kernels as U diag(sigma) V (clauses FAC-*, ORT-*); letters: `*p` positions, m rows, n columns, r rank."""

from __future__ import annotations

from typing import Literal

import mlx.core as mx
import numpy as np

from twinspike.config import Factorization


def _t(a: mx.array) -> mx.array:
    return mx.swapaxes(a, -2, -1)


def _svd(a: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """U (*p, m, k), sigma (*p, k) and V (*p, k, n), k = min(m, n), in the format of `a`.

    Decomposed in float64, which MLX has for decompositions: LAPACK's in single precision has left rows of V that were not
    orthonormal to what float32 allows.
    """
    k = min(a.shape[-2:])
    u, sigma, v = mx.linalg.svd(a.astype(mx.float64))
    return u[..., :k].astype(a.dtype), sigma.astype(a.dtype), v[..., :k, :].astype(a.dtype)


def factorize(kernel: mx.array, *, factorization: Factorization) -> tuple[mx.array, mx.array, mx.array]:
    """U (*p, m, r), sigma (*p, r) and V (*p, r, n) of a finite kernel, truncated, in the gauge of FAC-4."""
    if kernel.ndim == 4 and factorization.matricize == "per_position":
        matrices = kernel.transpose(2, 3, 0, 1)
    else:
        matrices = kernel.reshape(kernel.shape[0], -1)
    u, sigma, v = _svd(matrices)
    r = _rank(sigma, factorization)
    u, sigma, v = u[..., :r], sigma[..., :r], v[..., :r, :]
    largest = mx.take_along_axis(u, mx.argmax(mx.abs(u), axis=-2, keepdims=True), axis=-2)
    sign = mx.where(largest < 0, -1.0, 1.0)
    return u * sign, sigma, v * _t(sign)


def _rank(sigma: mx.array, factorization: Factorization) -> int:
    """Clause FAC-5; `sigma` are all singular values, (*p, min(m, n))."""
    full = sigma.shape[-1]
    if factorization.rank == "full":
        return full
    if isinstance(factorization.rank, int):
        return min(factorization.rank, full)
    energy = np.cumsum(np.asarray(sigma, np.float64) ** 2, axis=-1)
    return int((energy >= factorization.rank * energy[..., -1:]).argmax(axis=-1).max()) + 1


def compose(
    u: mx.array, sigma: mx.array, v: mx.array, *, factorization: Factorization, kernel_shape: tuple[int, ...]
) -> mx.array:
    """The kernel, (O, I, kh, kw) or (O, I) (clause FAC-6)."""
    matrices = (u * sigma[..., None, :]) @ v
    if len(kernel_shape) == 4 and factorization.matricize == "per_position":
        return matrices.transpose(2, 3, 0, 1)
    return matrices.reshape(kernel_shape)


def _gram_error(a: mx.array) -> mx.array:
    """A'A - I per position."""
    return _t(a) @ a - mx.eye(a.shape[-1], dtype=a.dtype)


def penalty(u: mx.array, v: mx.array) -> mx.array:
    """Sum over positions of |U'U - I|^2 + |VV' - I|^2, shape () (clause ORT-2)."""
    return mx.square(_gram_error(u)).sum() + mx.square(_gram_error(_t(v))).sum()


def retract(u: mx.array, v: mx.array, *, by: Literal["polar", "qr"]) -> tuple[mx.array, mx.array]:
    """Orthonormal U and V; a matrix with NaN or infinity becomes NaN (clause ORT-3)."""
    return _orthonormal(u, by), _t(_orthonormal(_t(v), by))


def _orthonormal(a: mx.array, by: Literal["polar", "qr"]) -> mx.array:
    finite = mx.isfinite(a).all(axis=(-2, -1), keepdims=True)
    a = mx.where(finite, a, mx.zeros_like(a))
    if by == "polar":
        left, _, right = _svd(a)
        found = left @ right
    else:
        q, triangle = mx.linalg.qr(a)
        sign = mx.where(mx.diagonal(triangle, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
        found = q * sign[..., None, :]
    return mx.where(finite, found, mx.array(float("nan"), a.dtype))
