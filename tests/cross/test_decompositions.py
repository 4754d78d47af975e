"""Factors of hostile kernels: three backends, one answer or one refusal (clauses FAC-3, FAC-5, ORT-3)."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import twinspike as ts

BACKENDS = ("numpy", "torch", "jax")


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def kept(backend: str, precision: str, kernel: np.ndarray, share: float) -> int:
    """Columns of sigma."""
    session = ts.load(backend).session(precision=precision)
    found = session.forward("factorize", ts.Factorization(rank=share), {"kernel": session.from_numpy(kernel)})
    return int(session.to_numpy(found["sigma"]).shape[-1])


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("precision", "scales"),
    [("f32-ieee", (1e-37, 1e-24, 1e-19, 1.0, 1e19, 1e24, 1e37)), ("f64", (1e-300, 1e-170, 1.0, 1e170, 1e300))],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_rank_for_an_energy_does_not_depend_on_the_scale(
    backend: str, precision: str, scales: tuple[float, ...], share: float
) -> None:
    """Squares of the outer ones leave the format; the shares are far from those that any rank keeps."""
    precision = "f64" if backend == "numpy" else precision
    kernel = normal(8, 6, 3, 3)
    wanted = kept("numpy", "f64", kernel, share)
    assert 1 < wanted <= 6
    assert [kept(backend, precision, scale * kernel, share) for scale in scales] == [wanted] * len(scales)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("sigma", "ranks"), [((3, 1, 1, 1), [1, 1, 2, 4]), ((1, 1, 1, 1), [2, 3, 4, 4]), ((0, 0, 0, 0), [1] * 4)]
)
def test_a_share_that_a_rank_just_keeps_is_kept(backend: str, sigma: tuple[int, ...], ranks: list[int]) -> None:
    """Of 12, of 4 and of 0, counted by hand; the values are exact, and so are the shares that matter."""
    kernel = np.diag(np.array(sigma, np.float64))[:, :, None, None]
    assert [kept(backend, "f64", kernel, share) for share in (0.5, 0.75, 0.8125, 0.9375)] == ranks


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_is_refused_in_the_same_line(backend: str, compiled: bool, value: float) -> None:
    opened = ts.load(backend)
    session = opened.session(precision="f64", compiled=compiled and opened.capabilities().compiled)
    broken, u, v = normal(4, 3, 2, 2), normal(2, 4, 3), normal(2, 3, 5)
    broken[1, 2, 0, 1] = value
    asked: list[tuple[str, Any, dict[str, np.ndarray], str]] = [
        ("factorize", ts.Factorization(rank=rank, matricize=matrices), {"kernel": broken}, "kernel")  # type: ignore[arg-type]
        for rank in ("full", 2, 0.9)
        for matrices in ("per_position", "out_by_rest")
    ]
    for by in ("polar", "qr"):
        for name in "UV":
            factors = {"U": u.copy(), "V": v.copy()}
            factors[name][1, 0, 2] = value
            asked.append(("retract", ts.Retract(by=by), factors, name))  # type: ignore[arg-type]
    for operation, config, inputs, name in asked:
        with pytest.raises(ts.SpecError) as caught:
            session.forward(operation, config, {key: session.from_numpy(array) for key, array in inputs.items()})
        assert str(caught.value) == f"{operation}.{name}: expected finite values, got NaN or infinity"


@pytest.mark.parametrize("by", ["polar", "qr"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_diverges_ends_with_factors_that_are_nan(backend: str, by: Any) -> None:
    """No backend raises where it retracts them, and each gives the same ones up."""
    method = ts.Method(time_steps=1, factorization=ts.Factorization(orthogonality=ts.Retract(by=by, every=1)))
    network, optimizer = ts.network("digits_cnn", width=2), ts.SGD()
    session = ts.load(backend).session(precision="f64")
    program = session.program(network, method, optimizer)
    rng = np.random.default_rng(0)
    images, labels = rng.random((4, 1, 8, 8)), rng.integers(0, 10, 4)
    state = program.load(ts.initial_state(network, method, optimizer))
    for rate in (1e300, 1e300, 0.1):
        state, metrics = program.train_step(state, images, labels, rate)
    assert not np.isfinite(session.to_numpy(metrics.loss))
    values = program.dump(state)
    factors = {name: value for name, value in values.items() if name.endswith((".U", ".V"))}
    assert factors
    assert {name: bool(np.isnan(value).all()) for name, value in factors.items()} == dict.fromkeys(factors, True)


@pytest.mark.parametrize("by", ["polar", "qr"])
@pytest.mark.parametrize("name", ["twinspike_torch", "twinspike_jax"])
def test_a_finite_position_is_retracted_beside_one_that_is_not(name: str, by: Any) -> None:
    """By the functions that a step calls: the finite one as it would be alone."""
    room = importlib.import_module(name)
    u, v = normal(2, 4, 3).astype(np.float32), normal(2, 3, 5).astype(np.float32)
    broken = u.copy()
    broken[1, 0, 2] = np.inf
    placed = room.backend.session("cpu", "f32-ieee").from_numpy
    whole, given = (room.retract(placed(a), placed(v), by=by) for a in (u, broken))
    np.testing.assert_array_equal(np.asarray(given[0])[0], np.asarray(whole[0])[0])
    assert np.isnan(np.asarray(given[0])[1]).all()
    np.testing.assert_array_equal(np.asarray(given[1]), np.asarray(whole[1]))
