"""Faults of factorization and orthogonality in single operations (clauses FAC-2 to FAC-6, ORT-*).

FAC-1, the gauge FAC-4 and the deviation ORT-1 bind the specification's own layout, initial values and
metric; no backend answers for them.
"""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of

_fac = edits_of("factorization")

_PERMUTE = "    return kernel.transpose(2, 3, 0, 1)\n"
_BACK = "    return matrices.transpose(2, 3, 0, 1)\n"
_CUT = "u, sigma, v = u[..., :rank], sigma[..., :rank], v[..., :rank, :]"
_FACTORS = "return u * sign, sigma, v * np.swapaxes(sign, -2, -1)"
_GAUGE = "largest = np.take_along_axis(u, np.abs(u).argmax(axis=-2, keepdims=True), axis=-2)"
_PRODUCT = "(u * sigma[..., None, :]) @ v"
_GRADIENTS = "return left * sigma[..., None, :], (u * left).sum(axis=-2), sigma[..., None] * (np.swapaxes(u, -2, -1) @ g)"
_LEFT = "left = ((np.swapaxes(u, -2, -1) @ u - eye) ** 2).sum()"
_RIGHT = "np.asarray(left + ((v @ np.swapaxes(v, -2, -1) - eye) ** 2).sum())"
_SIGNED = "return np.asarray(q * sign[..., None, :])"
_AS_COLUMNS = "v.reshape(*v.shape[:-2], v.shape[-1], v.shape[-2]).swapaxes(-2, -1)"

_FREE_SIGN = "a singular pair may have either sign (FAC-10); FAC-4 binds initial values, which the specification draws"

FACTORIZATION = (
    Fault(
        "fac-reshape-for-permute",
        "FAC-2",
        "the kernel is reshaped to its positions where a permute is meant",
        (
            _fac(_PERMUTE, "    return kernel.reshape(*kernel.shape[2:], *kernel.shape[:2])\n"),
            _fac(_BACK, "    return matrices.reshape(kernel_shape)\n"),
        ),
        origin="the published code of Joint A-SNN",
    ),
    Fault(
        "fac-hwio",
        "FAC-2",
        "matrices are written as HWIO and read as OIHW",
        (_fac(_BACK, "    return matrices.swapaxes(-2, -1).reshape(kernel_shape)\n"),),
    ),
    Fault(
        "fac-positions-flipped",
        "FAC-2",
        "positions of the kernel are counted from its end",
        (
            _fac(_BACK, "    return matrices[::-1, ::-1].transpose(2, 3, 0, 1)\n"),
            _fac(_PERMUTE, "    return kernel.transpose(2, 3, 0, 1)[::-1, ::-1]\n"),
        ),
    ),
    Fault(
        "fac-rest-channels-last",
        "FAC-2",
        "out_by_rest counts channels fastest",
        (_fac("return kernel.reshape(kernel.shape[0], -1)", "return kernel.transpose(0, 2, 3, 1).reshape(kernel.shape[0], -1)"),),
    ),
    Fault(
        "fac-v-columns",
        "FAC-3",
        "V comes as columns: not transposed",
        (_fac(_FACTORS, f"v = v * np.swapaxes(sign, -2, -1)\n    return u * sign, sigma, {_AS_COLUMNS}"),),
    ),
    Fault(
        "fac-sigma-squared",
        "FAC-3",
        "eigenvalues of WW' are returned for singular values",
        (_fac(_FACTORS, _FACTORS.replace("sigma,", "sigma**2,")),),
    ),
    Fault(
        "fac-ascending",
        "FAC-3",
        "singular values ascend",
        (_fac(_CUT, f"{_CUT}\n    u, sigma, v = u[..., ::-1], sigma[..., ::-1], v[..., ::-1, :]"),),
    ),
    Fault(
        "fac-keeps-least",
        "FAC-3",
        "truncation keeps the smallest singular values",
        (_fac(_CUT, "u, sigma, v = u[..., -rank:], sigma[..., -rank:], v[..., -rank:, :]"),),
    ),
    Fault(
        "fac-nan-at-repeated",
        "FAC-3",
        "repeated singular values give NaN",
        (_fac(_CUT, f"{_CUT}\n    u = u * np.where((np.diff(sigma) == 0).any(axis=-1), np.nan, 1.0)[..., None, None]"),),
        origin="1/(sigma_i - sigma_j) in gradients of decompositions",
    ),
    Fault(
        "fac-sigma-in-u",
        "FAC-3",
        "U carries sigma, which is left at 1",
        (_fac(_FACTORS, "return u * sign * sigma[..., None, :], np.ones_like(sigma), v * np.swapaxes(sign, -2, -1)"),),
    ),
    Fault(
        "fac-negative-sigma",
        "FAC-3",
        "the sign of a pair goes into sigma",
        (_fac(_FACTORS, "return u * sign, sigma * sign[..., 0, :], v"),),
    ),
    Fault(
        "fac-sign-by-first",
        "FAC-4",
        "the sign is fixed by the first entry of each column of U",
        (_fac(_GAUGE, "largest = u[..., :1, :]"),),
        equivalent=_FREE_SIGN,
    ),
    Fault(
        "fac-sign-by-v",
        "FAC-4",
        "the sign is fixed by the largest entry of each row of V",
        (_fac(_GAUGE, "largest = np.take_along_axis(v, np.abs(v).argmax(axis=-1, keepdims=True), axis=-1).swapaxes(-2, -1)"),),
        equivalent=_FREE_SIGN,
    ),
    Fault(
        "fac-rank-off-by-one",
        "FAC-5",
        "a whole number keeps one rank more",
        (_fac("return min(f.rank, full)", "return min(f.rank + 1, full)"),),
    ),
    Fault(
        "fac-energy-unsquared",
        "FAC-5",
        "the fraction is of the sum of singular values, not of their squares",
        (_fac("np.cumsum(sigma**2, axis=-1)", "np.cumsum(sigma, axis=-1)"),),
    ),
    Fault(
        "fac-energy-at-one-position",
        "FAC-5",
        "the fraction is kept at one position instead of all",
        (_fac("int(enough.argmax(axis=-1).max()) + 1", "int(enough.argmax(axis=-1).min()) + 1"),),
    ),
    Fault(
        "fac-fraction-of-count",
        "FAC-5",
        "the fraction is of the number of singular values",
        (_fac("return rank_for_energy(singular_values(f, kernel), f.rank)", "return max(1, int(f.rank * full))"),),
    ),
    Fault(
        "fac-sigma-rectified",
        "FAC-6",
        "a sigma that training made negative counts as 0",
        (_fac(_PRODUCT, "(u * np.maximum(sigma, 0.0)[..., None, :]) @ v"),),
    ),
    Fault(
        "fac-sigma-magnitude",
        "FAC-6",
        "a sigma that training made negative loses its sign",
        (_fac(_PRODUCT, "(u * np.abs(sigma)[..., None, :]) @ v"),),
    ),
    Fault(
        "fac-compose-v-columns",
        "FAC-6",
        "V is read as columns: not transposed",
        (_fac(_PRODUCT, f"(u * sigma[..., None, :]) @ {_AS_COLUMNS}"),),
    ),
    Fault(
        "fac-sigma-in-gradient",
        "FAC-6",
        "U's gradient lacks sigma",
        (_fac(_GRADIENTS, _GRADIENTS.replace("left * sigma[..., None, :]", "left")),),
    ),
    Fault(
        "fac-sigma-gradient-zero",
        "FAC-6",
        "sigma is a constant in the backward",
        (_fac(_GRADIENTS, _GRADIENTS.replace("(u * left).sum(axis=-2)", "np.zeros_like(sigma)")),),
    ),
    Fault(
        "fac-v-gradient-by-position",
        "FAC-6",
        "V's gradient is averaged over positions",
        (
            _fac(
                _GRADIENTS,
                _GRADIENTS.replace("return ", "d_u, d_sigma, d_v = ")
                + "\n    return d_u, d_sigma, np.zeros_like(d_v) + d_v.mean(axis=tuple(range(d_v.ndim - 2)))",
            ),
        ),
    ),
)

ORTHOGONALITY = (
    Fault(
        "ort-norm-unsquared",
        "ORT-2",
        "norms enter the penalty without their square",
        (_fac(_LEFT, "left = np.sqrt(((np.swapaxes(u, -2, -1) @ u - eye) ** 2).sum())"),),
    ),
    Fault("ort-u-only", "ORT-2", "the penalty looks at U alone", (_fac(_RIGHT, "np.asarray(left)"),)),
    Fault(
        "ort-off-diagonal",
        "ORT-2",
        "the penalty leaves the diagonal out, so columns may have any length",
        (_fac(_LEFT, "left = ((np.swapaxes(u, -2, -1) @ u * (1.0 - eye)) ** 2).sum()"),),
    ),
    Fault(
        "ort-mean",
        "ORT-2",
        "the penalty is averaged over positions",
        (_fac(_RIGHT, f"{_RIGHT} / (u.size // (u.shape[-2] * u.shape[-1]))"),),
    ),
    Fault(
        "ort-v-columns",
        "ORT-2",
        "the penalty makes V's columns orthonormal instead of its rows",
        (_fac(_RIGHT, "np.asarray(left + ((np.swapaxes(v, -2, -1) @ v - np.eye(v.shape[-1], dtype=v.dtype)) ** 2).sum())"),),
    ),
    Fault(
        "ort-gradient-half",
        "ORT-2",
        "the penalty's gradient has 2 for 4",
        (
            _fac(
                "return 4.0 * u @ (np.swapaxes(u, -2, -1) @ u - eye), 4.0 * (v",
                "return 2.0 * u @ (np.swapaxes(u, -2, -1) @ u - eye), 2.0 * (v",
            ),
        ),
    ),
    Fault(
        "ort-qr-sign",
        "ORT-3",
        "Q keeps the signs that the library happened to choose",
        (_fac(_SIGNED, "return np.asarray(q)"),),
        origin="LAPACK's geqrf, which leaves the signs of R's diagonal open",
    ),
    Fault("ort-qr-for-polar", "ORT-3", "the polar factor is replaced by Q", (_fac('if by == "polar":', "if False:"),)),
    Fault("ort-polar-for-qr", "ORT-3", "Q is replaced by the polar factor", (_fac('if by == "polar":', "if True:"),)),
    Fault(
        "ort-v-left",
        "ORT-3",
        "only U is retracted",
        (
            _fac(
                "return _orthonormal(by, u), np.swapaxes(_orthonormal(by, np.swapaxes(v, -2, -1)), -2, -1)",
                "return _orthonormal(by, u), v",
            ),
        ),
    ),
    Fault(
        "ort-newton-step",
        "ORT-3",
        "the polar factor is one Newton-Schulz step",
        (
            _fac(
                "left, _, right = np.linalg.svd(a, full_matrices=False)\n        return np.asarray(left @ right)",
                "return np.asarray(1.5 * a - 0.5 * a @ (np.swapaxes(a, -2, -1) @ a))",
            ),
        ),
    ),
)

FAULTS: tuple[Fault, ...] = FACTORIZATION + ORTHOGONALITY
