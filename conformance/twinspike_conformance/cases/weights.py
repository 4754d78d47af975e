"""Examples of factorization: factorize, compose, penalty, retract."""

from __future__ import annotations

import numpy as np

from twinspike.config import Factorization, Retract
from twinspike.operations import Composition, Nothing
from twinspike_conformance.bounds.budget import Budget
from twinspike_conformance.cases.base import Arrays, Cases, Sizes
from twinspike_conformance.cases.families import COMMON, MATRICES, Source

_MATRICES = (Factorization(), Factorization(matricize="out_by_rest"))

_KERNELS = ((5, 3, 3, 3), (2, 7, 1, 1), (3, 4, 2, 5), (6, 4))
_LARGE_KERNELS = ((67, 37, 1, 2), (3, 2, 5, 5), (16, 32, 1, 1))


def _positions(f: Factorization, kernel: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
    if len(kernel) == 2 or f.matricize == "out_by_rest":
        return (), kernel[0], int(np.prod(kernel[1:]))
    return kernel[2:], kernel[0], kernel[1]


def _compose_fill(source: Source, config: Composition, n: Sizes) -> tuple[Arrays, Arrays]:
    p, rows, columns = _positions(config.factorization, config.kernel_shape)
    r = min(n["r"], rows, columns)
    inputs: Arrays = {"U": source.main(*p, rows, r), "sigma": source.plain(*p, r), "V": source.plain(*p, r, columns)}
    return inputs, {"kernel": source.coarse(*config.kernel_shape)}


def _compose_budget(b: Budget, config: Composition, inputs: Arrays, cotangents: Arrays) -> None:
    u, sigma, v, g = b.of(inputs["U"]), b.of(inputs["sigma"]), b.of(inputs["V"]), b.of(cotangents["kernel"])
    rank, rows, columns = inputs["sigma"].shape[-1], inputs["U"].shape[-2], inputs["V"].shape[-1]
    (u * sigma * v).sum(rank)
    (g * v * sigma).sum(columns)
    (g * v * u).sum(columns * rows)
    (u * g * sigma).sum(rows)


def _factors(source: Source, config: object, n: Sizes) -> tuple[Arrays, Arrays]:
    inputs: Arrays = {"U": source.main(n["p"], n["m"], n["r"]), "V": source.plain(n["p"], n["r"], n["n"])}
    return inputs, {"loss": np.asarray(source.positive())}


def _penalty_budget(b: Budget, config: object, inputs: Arrays, cotangents: Arrays) -> None:
    for a, inner in ((inputs["U"], inputs["U"].shape[-2]), (inputs["V"], inputs["V"].shape[-1])):
        x = b.of(a)
        gram = (x * x).sum(inner) + 1.0
        (gram * gram).sum(inputs["U"].shape[-1] ** 2 * inputs["U"].shape[0] * 2)
        (x * gram * 4.0).sum(inputs["U"].shape[-1]) * b.of(cotangents["loss"])  # noted


def _kernel_fill(source: Source, config: Factorization, n: Sizes) -> tuple[Arrays, Arrays]:
    return {"kernel": source.main(n["O"], n["I"], n["kh"], n["kw"])}, {}


def _near_orthonormal(source: Source, config: Retract, n: Sizes) -> tuple[Arrays, Arrays]:
    """Orthonormal factors that training has drifted, by as much as a tenth."""
    drift = 0.1 * source.rng.random()
    u = np.linalg.qr(source.rng.standard_normal((n["p"], n["m"], n["r"])))[0]
    v = np.linalg.qr(source.rng.standard_normal((n["p"], n["n"], n["r"])))[0].swapaxes(-2, -1)
    u, v = (a + drift * source.rng.standard_normal(a.shape) / np.sqrt(n["m"]) for a in (u, v))
    u *= source.rng.choice((-1.0, 1.0), (n["p"], 1, n["r"]))  # a library's Q has signs of its own, which these need not be
    v *= source.rng.choice((-1.0, 1.0), (n["p"], n["r"], 1))
    return {"U": source._round(u), "V": source._round(v)}, {}


_FOURTH = tuple(family for family in COMMON if family != "wide")
"""Families whose fourth powers are numbers of every format."""

_MANY = ({"p": 2, "m": 37, "r": 33, "n": 41}, {"p": 25, "m": 5, "r": 3, "n": 4}, {"p": 1, "m": 64, "r": 16, "n": 32})
_FACTORS = ({"p": 1, "m": 4, "r": 3, "n": 5}, {"p": 9, "m": 2, "r": 2, "n": 7}, {"p": 4, "m": 6, "r": 1, "n": 1})

CASES = (
    Cases(
        operation="compose",
        configs=tuple(Composition(factorization=f, kernel_shape=k) for f in _MATRICES for k in _KERNELS),
        buckets=({"r": 99}, {"r": 2}, {"r": 1}),
        large=({"r": 99}, {"r": 16}),
        large_configs=tuple(Composition(factorization=f, kernel_shape=k) for f in _MATRICES for k in _LARGE_KERNELS),
        fill=_compose_fill,
        budget=_compose_budget,
    ),
    Cases(
        operation="penalty",
        configs=(Nothing(),),
        buckets=_FACTORS,
        large=_MANY,
        fill=_factors,
        budget=_penalty_budget,
        families=_FOURTH,
    ),
    Cases(
        operation="factorize",
        configs=(*_MATRICES, Factorization(rank=2), Factorization(rank=0.7), Factorization(rank=1, matricize="out_by_rest")),
        buckets=(
            {"O": 5, "I": 3, "kh": 3, "kw": 3},
            {"O": 2, "I": 7, "kh": 1, "kw": 1},
            {"O": 4, "I": 4, "kh": 2, "kw": 5},
            {"O": 12, "I": 12, "kh": 1, "kw": 2},
            {"O": 19, "I": 2, "kh": 1, "kw": 1},
            {"O": 1, "I": 1, "kh": 1, "kw": 2},
        ),
        large=(
            {"O": 2, "I": 3, "kh": 8, "kw": 8},
            {"O": 37, "I": 41, "kh": 1, "kw": 2},
            {"O": 5, "I": 67, "kh": 3, "kw": 1},
            {"O": 67, "I": 33, "kh": 1, "kw": 1},
        ),
        large_configs=(Factorization(rank=0.7), Factorization(), Factorization(rank=19, matricize="out_by_rest")),
        fill=_kernel_fill,
        families=(*MATRICES, "normal", "heavy", "constant", "near_constant", "sparse", "boundary", "cancelling"),
    ),
    Cases(
        operation="retract",
        configs=(Retract(by="polar"), Retract(by="qr")),
        buckets=_FACTORS,
        large=_MANY,
        fill=_near_orthonormal,
        families=("normal",),
    ),
)
