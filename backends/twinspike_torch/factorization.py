"""Kernels as U diag(sigma) V: factorize, compose, keep orthonormal (clauses FAC-*, ORT-*).

Letters: `*p` kernel positions, m rows (out), n columns (in, or in kh kw), r rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from twinspike.config import Factorization
from twinspike.errors import require
from twinspike_torch.precision import without_autocast


class Factors(NamedTuple):
    """A factored kernel."""

    U: Tensor
    """(*p, m, r)."""
    sigma: Tensor
    """(*p, r)."""
    V: Tensor
    """(*p, r, n)."""


def matricize(f: Factorization, kernel: Tensor) -> Tensor:
    """View a kernel (out, in, kh, kw) or (out, in) as matrices (*p, m, n) (clause FAC-2)."""
    if kernel.ndim == 2:
        return kernel
    if f.matricize == "out_by_rest":
        return kernel.reshape(kernel.shape[0], -1)
    return kernel.permute(2, 3, 0, 1)


def unmatricize(f: Factorization, matrices: Tensor, kernel_shape: tuple[int, ...]) -> Tensor:
    """The kernel whose `matricize` is `matrices`."""
    if len(kernel_shape) == 2 or f.matricize == "out_by_rest":
        return matrices.reshape(kernel_shape)
    return matrices.permute(2, 3, 0, 1)


def factorize(kernel: Tensor, *, factorization: Factorization, rank: int | None = None) -> Factors:
    """Truncated singular value decomposition of each matrix, in a fixed gauge (clauses FAC-3 to FAC-5).

    Args:
        kernel: (out, in, kh, kw) or (out, in), finite.
        factorization: decides the matrices, and the rank if none is given.
        rank: r, 1 to min(m, n).

    Returns:
        U with orthonormal columns, in each of which the entry of largest magnitude is positive; sigma,
        descending, >= 0; V with orthonormal rows.

    Raises:
        SpecError: the kernel is not finite, or the rank out of range.
    """
    require(bool(torch.isfinite(kernel).all()), "kernel", expected="finite values", got="NaN or infinity")
    u, sigma, v = torch.linalg.svd(matricize(factorization, kernel.detach()), full_matrices=False)
    rank = _rank(factorization, sigma) if rank is None else rank
    require(1 <= rank <= sigma.shape[-1], "rank", expected=f"1 to {sigma.shape[-1]}", got=rank)
    u, sigma, v = u[..., :rank], sigma[..., :rank], v[..., :rank, :]
    largest = u.gather(-2, u.abs().argmax(-2, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0).to(u.dtype)
    return Factors((u * sign).contiguous(), sigma.contiguous(), (v * sign.mT).contiguous())


def _rank(f: Factorization, sigma: Tensor) -> int:
    full = sigma.shape[-1]
    if f.rank == "full":
        return full
    if isinstance(f.rank, int):
        return min(f.rank, full)
    values = sigma.to(dtype=torch.float64, device="cpu").numpy()
    _, exponent = np.frexp(values[..., :1])
    energy = (np.ldexp(values, -exponent) ** 2).cumsum(-1)  # squares of very large and small values leave the format
    too_few = energy < f.rank * energy[..., -1:]
    return int(too_few.sum(-1).max()) + 1


def compose(U: Tensor, sigma: Tensor, V: Tensor, *, factorization: Factorization, kernel_shape: tuple[int, ...]) -> Tensor:
    """Kernel of one twin: U diag(sigma) V per matrix (clause FAC-6).

    Args:
        U: (*p, m, r).
        sigma: (*p, r), of the twin.
        V: (*p, r, n).
        factorization: decides how matrices become a kernel.
        kernel_shape: (out, in, kh, kw) or (out, in).
    """
    with without_autocast(U.device.type):  # clause PRE-2: composed kernels are float32
        return unmatricize(factorization, (U * sigma.unsqueeze(-2)) @ V, kernel_shape)


def compose_each(
    f: Factorization,
    U: Tensor,
    V: Tensor,
    kernel_shape: tuple[int, ...],
    sigmas: Sequence[Tensor],
    *,
    isolated: Sequence[bool] = (),
) -> tuple[Tensor, ...]:
    """Kernels of one twin or of both, keeping nothing for the backward pass but the factors.

    Args:
        f: decides how matrices become a kernel.
        U: (*p, m, r).
        V: (*p, r, n).
        kernel_shape: (out, in, kh, kw) or (out, in).
        sigmas: (*p, r) of each.
        isolated: whether no gradient of a kernel reaches U and V (clause DIS-7), for each; none is where not given.
    """
    lead = U.shape[:-2]
    with without_autocast(U.device.type):  # clause PRE-2: composed kernels are float32
        flat = (factor.reshape(-1, *factor.shape[-2:]) for factor in (U, V))
        rows = (sigma.reshape(-1, sigma.shape[-1]) for sigma in sigmas)
        first, second = (*rows, None)[:2]
        found = _Compose.apply(*flat, first, second, tuple(isolated) or (False,) * len(sigmas))  # type: ignore[no-untyped-call]  # torch types no apply
        return tuple(unmatricize(f, w.reshape(*lead, *w.shape[-2:]), kernel_shape) for w in found if w is not None)


LARGE = 1 << 16
"""Entries of a matrix from which the CPU goes position by position, so that what a product needs stays in cache."""


class _Compose(torch.autograd.Function):
    """W = U diag(sigma) V per position, for one sigma or two; U is (p, m, r), V (p, r, n).

    The arguments are as many for one as for two: torch's compiler can't trace a variadic `forward` without gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, U: Tensor, V: Tensor, sigma: Tensor, other: Tensor | None, isolated: tuple[bool, ...]
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(U, V, sigma, other)
        ctx.isolated = isolated
        sigmas = [s for s in (sigma, other) if s is not None]
        if not _by_position(U, V):
            kernels = [(U * s.unsqueeze(-2)) @ V for s in sigmas]
        else:
            kernels = [U.new_empty(len(U), U.shape[1], V.shape[2]) for _ in sigmas]
            for p, (u, v) in enumerate(zip(U, V, strict=True)):
                for kernel, s in zip(kernels, sigmas, strict=True):
                    torch.mm(u * s[p], v, out=kernel[p])
        return kernels[0], None if other is None else kernels[1]

    @staticmethod
    def backward(ctx: Any, *both: Tensor | None) -> tuple[Tensor | None, ...]:
        U, V, *given = ctx.saved_tensors
        sigmas, gs = [s for s in given if s is not None], [g for g in both if g is not None]
        missing = (None,) * (len(given) - len(sigmas))
        with without_autocast(U.device.type):  # of those who call `backward` under it
            if not _by_position(U, V):
                return *_gradients(U, V, sigmas, gs, ctx.isolated), *missing, None
            found = [torch.empty_like(value) for value in (U, V, *sigmas)]
            for p in range(len(U)):
                part = _gradients(U[p], V[p], [s[p] for s in sigmas], [g[p] for g in gs], ctx.isolated)
                for whole, row in zip(found, part, strict=True):
                    whole[p] = row
            return *found, *missing, None


def _by_position(U: Tensor, V: Tensor) -> bool:
    large = max(U[0].numel(), V[0].numel()) >= LARGE
    return large and U.device.type == "cpu" and not torch.compiler.is_compiling()


def _gradients(
    u: Tensor, v: Tensor, sigmas: Sequence[Tensor], gs: Sequence[Tensor], isolated: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Gradients of U, V and each sigma.

    With A = dL/dW V': dL/dU = sum over twins of A diag(sigma), dL/dsigma = diag(U'A), and
    dL/dV = sum over twins of diag(sigma) U' dL/dW.
    """
    d_u: Tensor | None = None
    d_v: Tensor | None = None
    d_sigmas = []
    for sigma, g, alone in zip(sigmas, gs, isolated, strict=True):
        a, scale = g @ v.mT, sigma.unsqueeze(-2)
        d_sigmas.append((u * a).sum(-2))
        if alone:
            continue
        if d_u is None or d_v is None:
            d_u, d_v = a * scale, (u * scale).mT @ g
        else:
            d_u = d_u.addcmul_(a, scale)
            d_v = d_v.addmm_((u * scale).mT, g) if g.ndim == 2 else d_v.baddbmm_((u * scale).mT, g)
    if d_u is None or d_v is None:
        d_u, d_v = torch.zeros_like(u), torch.zeros_like(v)
    return d_u, d_v, *d_sigmas


def penalty(U: Tensor, V: Tensor) -> Tensor:
    """Sum over positions of |U'U - I|^2 + |VV' - I|^2, Frobenius (clause ORT-2)."""
    eye = torch.eye(U.shape[-1], dtype=U.dtype, device=U.device)
    with without_autocast(U.device.type):
        return (U.mT @ U - eye).square().sum() + (V @ V.mT - eye).square().sum()


@torch.no_grad()
def deviation(U: Tensor, V: Tensor) -> Tensor:
    """max |U'U - I| and |VV' - I| over positions and entries, a scalar: 0 where both are orthonormal (clause ORT-1)."""
    eye = torch.eye(U.shape[-1], dtype=U.dtype, device=U.device)
    return torch.maximum((U.mT @ U - eye).abs().max(), (V @ V.mT - eye).abs().max())


@torch.no_grad()
def retract(U: Tensor, V: Tensor, *, by: Literal["polar", "qr"]) -> tuple[Tensor, Tensor]:
    """Orthonormal U and V for drifted ones of full rank; sigma stays as it is (clause ORT-3).

    A matrix with NaN or infinity gives NaN: LAPACK would raise, and it is the loss that tells of a run that diverged.

    Args:
        U: (*p, m, r).
        V: (*p, r, n).
        by: `polar`, the nearest orthonormal matrix, or `qr`, Q with a positive diagonal of R.
    """
    return _orthonormal(by, U), _orthonormal(by, V.mT).mT.contiguous()


def _orthonormal(by: str, a: Tensor) -> Tensor:
    finite = a.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    a = torch.where(finite, a, 0.0)
    if by == "polar":
        left, _, right = torch.linalg.svd(a, full_matrices=False)
        found = left @ right
    else:
        q, r = torch.linalg.qr(a)
        sign = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q.dtype)
        found = q * sign.unsqueeze(-2)
    return torch.where(finite, found, torch.nan)
