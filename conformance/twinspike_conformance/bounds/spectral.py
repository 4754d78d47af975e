"""How far errors move the results of decompositions, by first-order perturbation theory with room for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]


def backward_error(a: Values, roundoff: float) -> Values:
    """p u |A| with p = (m + n)^1.5, what a stable decomposition of the matrices (*p, m, n) may be off, (*p,).

    Source: Golub and Van Loan, Matrix Computations, 4th ed., section 8.6.6; LAPACK promises less than that.
    """
    return np.asarray(float(sum(a.shape[-2:])) ** 1.5 * roundoff * np.linalg.norm(a, 2, axis=(-2, -1)))


def moved_by(by: str, a: Values, error: Values, roundoff: float) -> Values:
    """Bound of the error of the orthonormal factor of A (*p, m, r), to be broadcast over its entries, (*p, 1, 1).

    With d = |dA| + p u |A|, Frobenius, and s the least singular value of A: the polar factor moves by at most
    2 d/s and Q of A = Q R by sqrt(2) d/s to first order; where d/s is below 1/4 the rest is no more than that
    again. Beyond, the bound is infinite. Its own computation adds 3 p u.

    Args:
        by: `polar` or `qr`.
        a: matrices of full rank, m >= r.
        error: Frobenius norm of the error of each, (*p,).
        roundoff: of the format.

    Source: N. Higham, Functions of Matrices, 2008, theorem 8.9; J. Sun, BIT 31, 1991.
    """
    least = np.linalg.svd(a, compute_uv=False)[..., -1]
    share = (error + backward_error(a, roundoff)) / least
    factor = 2.0 if by == "polar" else np.sqrt(2.0)
    bound = np.where(share < 0.25, 2.0 * factor * share, np.inf) + 3 * float(sum(a.shape[-2:])) ** 1.5 * roundoff
    return np.asarray(bound[..., None, None])
