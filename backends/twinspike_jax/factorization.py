"""Kernels as U diag(sigma) V (clauses FAC-*), and what keeps U and V orthonormal (clauses ORT-*).

Letters: `*p` kernel positions, m rows (out), n columns (in, or in kh kw), r rank.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from twinspike.config import Factorization
from twinspike.errors import require
from twinspike_jax import products

HIGHEST = lax.Precision.HIGHEST


def _t(a: Array) -> Array:
    return jnp.swapaxes(a, -2, -1)


def _product(a: Array, b: Array, precision: lax.Precision = HIGHEST) -> Array:
    return jnp.matmul(a, b, precision=precision)


def matricize(kernel: Array, *, factorization: Factorization) -> Array:
    """View a kernel, (out, in, kh, kw) or (out, in), as matrices, (*p, m, n) (clause FAC-2)."""
    if kernel.ndim == 2:
        return kernel
    if factorization.matricize == "out_by_rest":
        return kernel.reshape(kernel.shape[0], -1)
    return kernel.transpose(2, 3, 0, 1)


def unmatricize(matrices: Array, *, factorization: Factorization, kernel_shape: tuple[int, ...]) -> Array:
    """The kernel whose `matricize` is `matrices`."""
    if len(kernel_shape) == 2 or factorization.matricize == "out_by_rest":
        return matrices.reshape(kernel_shape)
    return matrices.transpose(2, 3, 0, 1)


def rank_of(kernel: Array, *, factorization: Factorization) -> int:
    """Rank at which a kernel is cut (clause FAC-5); a fraction of energy needs the kernel's values, so no tracing."""
    matrices = matricize(kernel, factorization=factorization)
    full = min(matrices.shape[-2:])
    if factorization.rank == "full":
        return full
    if isinstance(factorization.rank, int):
        return min(factorization.rank, full)
    return _rank_for_energy(np.asarray(jnp.linalg.svd(matrices, compute_uv=False), dtype=np.float64), factorization.rank)


def _rank_for_energy(sigma: NDArray[np.float64], share: float) -> int:
    """The smallest rank that keeps a share of the squares at every position; sigma (*p, n), descending, on the host."""
    _, exponent = np.frexp(sigma[..., :1])
    squares = np.ldexp(sigma, -exponent) ** 2  # those of very large and small values leave the format
    kept = squares.cumsum(axis=-1)
    ranks = 1 + (kept < share * kept[..., -1:]).sum(axis=-1)  # one more than those that keep too little
    return int(ranks.max())


def factorize(kernel: Array, *, factorization: Factorization, rank: int | None = None) -> tuple[Array, Array, Array]:
    """Truncated singular value decomposition of each of a kernel's matrices (clauses FAC-3, FAC-4).

    Args:
        kernel: (out, in, kh, kw) or (out, in), float32 or float64, finite.
        factorization: decides the matrices, and the rank if none is given.
        rank: r, 1 to min(m, n); give it under `jit` where the config asks for a fraction of energy.

    Returns:
        U (*p, m, r) with orthonormal columns; sigma (*p, r), descending, >= 0; V (*p, r, n) with orthonormal
        rows. The entry of largest magnitude in each column of U, the first of equals, is positive.

    Raises:
        SpecError: the rank is out of range.
    """
    rank = rank_of(kernel, factorization=factorization) if rank is None else rank
    matrices = matricize(kernel, factorization=factorization)
    require(1 <= rank <= min(matrices.shape[-2:]), "rank", expected=f"1 to {min(matrices.shape[-2:])}", got=rank)
    u, sigma, v = jnp.linalg.svd(matrices, full_matrices=False)
    u, sigma, v = u[..., :rank], sigma[..., :rank], v[..., :rank, :]
    largest = jnp.take_along_axis(u, jnp.abs(u).argmax(axis=-2, keepdims=True), axis=-2)
    sign = jnp.where(largest < 0, -1.0, 1.0).astype(u.dtype)
    return u * sign, sigma, v * _t(sign)


def compose(
    U: Array,
    sigma: Array,
    V: Array,
    *,
    factorization: Factorization,
    kernel_shape: tuple[int, ...],
    precision: lax.Precision = HIGHEST,
) -> Array:
    """Kernel of one twin: U diag(sigma) V, taken back to (out, in, kh, kw) or (out, in) (clause FAC-6).

    Args:
        U: (*p, m, r).
        sigma: (*p, r).
        V: (*p, r, n).
        factorization: decides the matrices.
        kernel_shape: of the result.
        precision: of the product; HIGHEST rules TF32 out.
    """
    if products.serve(U, sigma, V) is None:
        matrices = _product(U * sigma[..., None, :], V, precision)
        return unmatricize(matrices, factorization=factorization, kernel_shape=kernel_shape)
    transposed = _composed(precision, U, sigma, V)
    if transposed.ndim == 4:  # one transposition instead of two that cancel out
        return transposed.transpose(3, 2, 0, 1)
    return unmatricize(_t(transposed), factorization=factorization, kernel_shape=kernel_shape)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _composed(precision: lax.Precision, u: Array, sigma: Array, v: Array) -> Array:
    """(U diag(sigma) V)', (*p, n, m), by this package's kernels where they serve."""

    def kernel(u: Array, sigma: Array, v: Array) -> Array:
        return products.product(products.library(u, sigma, v), v, u, of_terms=sigma)

    return products.on_cpu(kernel, lambda u, sigma, v: _t(_product(u * sigma[..., None, :], v, precision)), u, sigma, v)


def _composed_forward(precision: lax.Precision, u: Array, sigma: Array, v: Array) -> tuple[Array, tuple[Array, ...]]:
    return _composed(precision, u, sigma, v), (u, sigma, v)


def _composed_backward(precision: lax.Precision, factors: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    """With g = G', G (m, n), and Q = U'G: dU = G V' diag(sigma), dV = diag(sigma) Q, dsigma = diag(Q V')."""
    u, sigma, v = factors
    library = products.library(*factors)
    d_u = products.on_cpu(
        lambda g, v, sigma: products.product(library, g, v, of_columns=sigma),
        lambda g, v, sigma: _product(_t(g), _t(v), precision) * sigma[..., None, :],
        g,
        v,
        sigma,
    )
    q = products.on_cpu(lambda u, g: products.product(library, u, g), lambda u, g: _product(_t(u), _t(g), precision), u, g)
    return d_u, (q * v).sum(axis=-1), sigma[..., None] * q


_composed.defvjp(_composed_forward, _composed_backward)


def _gram_error(a: Array) -> Array:
    """A'A - I per position."""
    return _product(_t(a), a) - jnp.eye(a.shape[-1], dtype=a.dtype)


def penalty(U: Array, V: Array) -> Array:
    """Sum over positions of |U'U - I|^2 + |VV' - I|^2, Frobenius, shape () (clause ORT-2)."""
    return (_gram_error(U) ** 2).sum() + (_gram_error(_t(V)) ** 2).sum()


def deviation(U: Array, V: Array) -> Array:
    """max |U'U - I| and |VV' - I| over positions and entries, shape () (clause ORT-1)."""
    return jnp.maximum(jnp.abs(_gram_error(U)).max(), jnp.abs(_gram_error(_t(V))).max())


def retract(U: Array, V: Array, *, by: Literal["polar", "qr"]) -> tuple[Array, Array]:
    """Orthonormal U (*p, m, r) and V (*p, r, n) for drifted ones of full rank (clause ORT-3).

    A matrix with NaN or infinity gives NaN: it is the loss that tells of a run that diverged.

    Args:
        U: columns to make orthonormal.
        V: rows to make orthonormal.
        by: `polar`, the nearest orthonormal matrix, or `qr`, Q with a positive diagonal of R.
    """
    return _orthonormal(U, by), _t(_orthonormal(_t(V), by))


def _orthonormal(a: Array, by: Literal["polar", "qr"]) -> Array:
    finite = jnp.isfinite(a).all(axis=(-2, -1), keepdims=True)
    a = jnp.where(finite, a, 0.0)
    if by == "polar":
        left, _, right = jnp.linalg.svd(a, full_matrices=False)
        found = _product(left, right)
    else:
        q, r = jnp.linalg.qr(a)
        sign = jnp.where(jnp.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0).astype(a.dtype)
        found = q * sign[..., None, :]
    return jnp.where(finite, found, jnp.nan)
