"""Kernels as U diag(sigma) V: matricize, factorize, compose, keep orthonormal (clauses FAC-*, ORT-*).

Letters: `*p` kernel positions, m rows (out), n columns (in, or in kh kw), r rank.
"""

from __future__ import annotations

import numpy as np

from twinspike.config import Factorization
from twinspike.errors import refuse, require
from twinspike.reference import Array


def matricize(f: Factorization, kernel: Array) -> Array:
    """View a kernel as matrices (clause FAC-2).

    Args:
        f: decides which view.
        kernel: (out, in, kh, kw), or (out, in) of a linear layer.

    Returns:
        (kh, kw, out, in) per position, (out, in kh kw) out by rest, (out, in) for a linear layer.
    """
    if kernel.ndim == 2:
        return kernel
    if f.matricize == "out_by_rest":
        return kernel.reshape(kernel.shape[0], -1)
    return kernel.transpose(2, 3, 0, 1)


def unmatricize(f: Factorization, matrices: Array, kernel_shape: tuple[int, ...]) -> Array:
    """The kernel whose `matricize` is `matrices`: (out, in, kh, kw) or (out, in)."""
    if len(kernel_shape) == 2 or f.matricize == "out_by_rest":
        return matrices.reshape(kernel_shape)
    return matrices.transpose(2, 3, 0, 1)


def singular_values(f: Factorization, kernel: Array) -> Array:
    """All singular values of a kernel's matrices, descending: (*p, min(m, n))."""
    return np.asarray(np.linalg.svd(matricize(f, kernel), compute_uv=False))


def rank_for_energy(sigma: Array, fraction: float) -> int:
    """Smallest rank that keeps `fraction` of the sum of squares at every position (clause FAC-5)."""
    _, exponent = np.frexp(sigma[..., :1])
    sigma = np.ldexp(sigma, -exponent)  # squares of very large and very small values leave the format
    energy = np.cumsum(sigma**2, axis=-1)
    enough = energy >= fraction * energy[..., -1:]
    return int(enough.argmax(axis=-1).max()) + 1


def rank_of(f: Factorization, kernel: Array) -> int:
    """The rank that a config asks for, given the kernel (clause FAC-5)."""
    full: int = min(matricize(f, kernel).shape[-2:])
    if f.rank == "full":
        return full
    if isinstance(f.rank, int):
        return min(f.rank, full)
    return rank_for_energy(singular_values(f, kernel), f.rank)


def factorize(f: Factorization, kernel: Array, rank: int) -> tuple[Array, Array, Array]:
    """Truncated singular value decomposition of each matrix, in a fixed gauge (clauses FAC-3, FAC-4).

    Args:
        f: decides the matrices.
        kernel: (out, in, kh, kw) or (out, in), finite.
        rank: r, 1 to min(m, n).

    Returns:
        U (*p, m, r) with orthonormal columns; sigma (*p, r), descending, >= 0; V (*p, r, n) with
        orthonormal rows. The entry of largest magnitude in each column of U is positive.

    Raises:
        SpecError: the kernel is not finite or the rank out of range.
    """
    matrices = matricize(f, kernel)
    if not np.isfinite(matrices).all():
        raise refuse("kernel", expected="finite values", got="NaN or infinity")
    require(1 <= rank <= min(matrices.shape[-2:]), "rank", expected=f"1 to {min(matrices.shape[-2:])}", got=rank)
    u, sigma, v = np.linalg.svd(matrices, full_matrices=False)
    u, sigma, v = u[..., :rank], sigma[..., :rank], v[..., :rank, :]
    largest = np.take_along_axis(u, np.abs(u).argmax(axis=-2, keepdims=True), axis=-2)
    sign = np.where(largest < 0, -1.0, 1.0).astype(u.dtype)
    return u * sign, sigma, v * np.swapaxes(sign, -2, -1)


def compose(f: Factorization, u: Array, sigma: Array, v: Array, kernel_shape: tuple[int, ...]) -> Array:
    """Kernel of one twin: unmatricize(U diag(sigma) V) (clause FAC-6)."""
    return unmatricize(f, (u * sigma[..., None, :]) @ v, kernel_shape)


def compose_adjoint(f: Factorization, u: Array, sigma: Array, v: Array, g: Array) -> tuple[Array, Array, Array]:
    """Gradients of U, sigma and V for the cotangent `g` of the kernel."""
    g = matricize(f, g)
    gv = np.swapaxes(v, -2, -1)
    left = g @ gv
    return left * sigma[..., None, :], (u * left).sum(axis=-2), sigma[..., None] * (np.swapaxes(u, -2, -1) @ g)


def deviation(u: Array, v: Array) -> float:
    """max |U'U - I| and |VV' - I| over positions and entries: 0 where both are orthonormal (clause ORT-1)."""
    eye = np.eye(u.shape[-1], dtype=u.dtype)
    left = np.abs(np.swapaxes(u, -2, -1) @ u - eye).max()
    return float(max(left, np.abs(v @ np.swapaxes(v, -2, -1) - eye).max()))


def penalty(u: Array, v: Array) -> Array:
    """Sum over positions of |U'U - I|^2 + |VV' - I|^2, Frobenius (clause ORT-2)."""
    eye = np.eye(u.shape[-1], dtype=u.dtype)
    left = ((np.swapaxes(u, -2, -1) @ u - eye) ** 2).sum()
    return np.asarray(left + ((v @ np.swapaxes(v, -2, -1) - eye) ** 2).sum())


def penalty_adjoint(u: Array, v: Array) -> tuple[Array, Array]:
    """Gradients of `penalty`: 4 U (U'U - I) and 4 (VV' - I) V."""
    eye = np.eye(u.shape[-1], dtype=u.dtype)
    return 4.0 * u @ (np.swapaxes(u, -2, -1) @ u - eye), 4.0 * (v @ np.swapaxes(v, -2, -1) - eye) @ v


def retract(by: str, u: Array, v: Array) -> tuple[Array, Array]:
    """Orthonormal U and V for drifted ones of full rank; sigma stays as it is (clause ORT-3).

    A matrix with NaN or infinity gives NaN: LAPACK would raise, and it is the loss that tells of a run that diverged.

    Args:
        by: `polar`, the nearest orthonormal matrix, or `qr`, Q with a positive diagonal of R.
        u: (*p, m, r).
        v: (*p, r, n).
    """
    return _orthonormal(by, u), np.swapaxes(_orthonormal(by, np.swapaxes(v, -2, -1)), -2, -1)


def _orthonormal(by: str, a: Array) -> Array:
    finite = np.isfinite(a).all(axis=(-2, -1), keepdims=True)
    if not finite.all():
        return np.where(finite, _orthonormal(by, np.where(finite, a, 0.0)), np.nan)
    if by == "polar":
        left, _, right = np.linalg.svd(a, full_matrices=False)
        return np.asarray(left @ right)
    q, r = np.linalg.qr(a)
    sign = np.where(np.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0).astype(a.dtype)
    return np.asarray(q * sign[..., None, :])
