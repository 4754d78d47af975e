"""Edges of the reference that formulas on typical shapes don't reach: each test here kills mutants that lived without it."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from differences import U, dyadic, normal

import twinspike as ts
from twinspike.errors import SpecError
from twinspike.reference import factorization, layers, losses, neuron, norm, optimizer, surrogate

# --- neuron and norm -------------------------------------------------------------------------------------


def test_a_sequence_of_one_step_starts_from_zero():
    n, x = ts.Neuron(), dyadic(1, 2, 3)
    trace = neuron.lif(n, x)
    assert np.array_equal(trace.u, x)
    given = {"e": np.zeros((2, 3)), "v": np.zeros((2, 3))}
    left_out, spelled = (neuron.lif_adjoint(n, x, trace, np.ones_like(x), **options) for options in ({}, given))
    assert np.array_equal(left_out.x, spelled.x)
    assert np.array_equal(left_out.v, spelled.v)


def test_the_logistic_function_keeps_its_format():
    for form in (np.float32, np.float64):
        assert surrogate.primitive(ts.Sigmoid(slope=2.0), np.array([-1.0, 0.0, 1.0], form)).dtype == form


def test_two_values_per_channel_are_enough_and_one_is_refused_in_words():
    config = ts.BatchNorm(eps=1e-3, momentum=0.5)
    channel = [np.ones(1), np.zeros(1), np.zeros(1), np.ones(1)]
    found = norm.batch_norm_train(config, np.array([[[1.0]], [[-1.0]]])[None, :, :, 0], *channel)
    assert np.array_equal(found.var, [1.5])  # (1 + 2/(2 - 1) 1)/2
    with pytest.raises(SpecError) as caught:
        norm.batch_norm_train(config, np.ones((1, 1, 1)), *channel)
    assert str(caught.value) == "batch norm in training: expected more than one value per channel, got 1"


# --- layers and losses -----------------------------------------------------------------------------------


def test_convolution_moves_by_one_and_pads_nothing_unless_told():
    x, kernel = dyadic(2, 3, 5, 4), dyadic(2, 3, 3, 2)
    y = layers.conv2d(x, kernel)
    assert np.array_equal(y, layers.conv2d(x, kernel, 1, 0))
    pairs = zip(layers.conv2d_adjoint(x, kernel, y), layers.conv2d_adjoint(x, kernel, y, 1, 0), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


def test_features_of_different_numbers_of_exits_are_refused():
    logits, labels = normal(2, 3, 4), np.array([0, 1, 3])
    with pytest.raises(ValueError, match="shorter"):
        losses.joint_loss(ts.Loss(), logits, logits[None], normal(1, 3, 5), normal(2, 3, 5), labels)


# --- optimizer -------------------------------------------------------------------------------------------


def test_sgd_without_momentum_keeps_no_slot():
    p, g = dyadic(6), dyadic(6, seed=1)
    moved, slots = optimizer.optimizer_step(ts.SGD(weight_decay=0.25), p, g, 0.5, 1, {})
    assert slots == {}
    assert np.array_equal(moved, p - 0.5 * (g + 0.25 * p))


@pytest.mark.parametrize("config", [ts.SGD(weight_decay=0.25), ts.Adam(weight_decay=0.25), ts.AdamW(weight_decay=0.25)])
def test_what_does_not_decay_moves_as_without_decay(config):
    p, g = dyadic(6), dyadic(6, seed=1)
    free = type(config)(weight_decay=0.0)
    moved, _ = optimizer.optimizer_step(config, p, g, 0.5, 1, {}, decays=False)
    assert np.array_equal(moved, optimizer.optimizer_step(free, p, g, 0.5, 1, {})[0])
    assert not np.array_equal(moved, optimizer.optimizer_step(config, p, g, 0.5, 1, {})[0])


# --- factors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f", [ts.Factorization(), ts.Factorization(matricize="out_by_rest"), ts.Factorization(view="authors_reshape")]
)
def test_a_linear_layers_weight_is_its_own_matrix(f):
    weight = dyadic(4, 5)
    assert np.array_equal(factorization.matricize(f, weight), weight)
    assert np.array_equal(factorization.unmatricize(f, weight, (4, 5)), weight)


@pytest.mark.parametrize(
    ("sigma", "fraction", "rank"),
    [
        ([[3, 1, 1, 1]], 0.8, 2),  # 9, 10 of 12: neither sums of sigma, nor of cubes
        ([[1, 1, 1, 1]], 0.5, 2),  # 2 of 4: equality is enough
        ([[3, 1, 1, 1], [1, 1, 1, 1]], 0.75, 3),  # the position that needs most decides
    ],
)
def test_the_rank_for_an_energy_is_counted_by_hand(sigma, fraction, rank):
    assert factorization.rank_for_energy(np.array(sigma, np.float64), fraction) == rank


def test_the_rank_is_full_or_cut_or_for_an_energy():
    kernel = np.zeros((4, 5, 3, 2))
    kernel[:, :4] = np.diag([3.0, 1.0, 1.0, 1.0])[:, :, None, None]
    ranks = {rank: factorization.rank_of(ts.Factorization(rank=rank), kernel) for rank in ("full", 3, 9, 0.8)}
    assert ranks == {"full": 4, 3: 3, 9: 4, 0.8: 2}


def test_what_cannot_be_factored_is_refused_in_words():
    f, kernel = ts.Factorization(), normal(4, 5, 3, 2)
    broken = kernel.copy()
    broken[0, 0, 0, 0] = np.nan
    for given, rank, text in (
        (broken, 2, "kernel: expected finite values, got NaN or infinity"),
        (kernel, 0, "rank: expected 1 to 4, got 0"),
        (kernel, 5, "rank: expected 1 to 4, got 5"),
    ):
        with pytest.raises(SpecError) as caught:
            factorization.factorize(f, given, rank)
        assert str(caught.value) == text
    assert factorization.factorize(f, kernel, 1)[1].shape == (3, 2, 1)


def test_the_penalty_of_single_matrices_is_that_of_rational_arithmetic():
    u, v = dyadic(4, 3), dyadic(3, 5)

    def excess(a: np.ndarray) -> list[list[Fraction]]:
        rows = [[Fraction(x) for x in row] for row in a]
        return [
            [sum(p * q for p, q in zip(r, s, strict=True)) - (i == j) for j, s in enumerate(rows)] for i, r in enumerate(rows)
        ]

    left, right = excess(u.T), excess(v)
    total = sum(x * x for part in (left, right) for row in part for x in row)
    assert Fraction(float(factorization.penalty(u, v))) == total  # dyadic, so that nothing is rounded
    d_u, d_v = factorization.penalty_adjoint(u, v)
    assert np.array_equal(d_u, 4.0 * u @ np.array(left, np.float64))
    assert np.array_equal(d_v, 4.0 * np.array(right, np.float64) @ v)


def test_the_polar_factor_and_q_are_told_apart_on_single_matrices():
    sheared = np.array([[-1.0, 1.0], [0.0, 1.0]])
    q, _ = factorization.retract("qr", sheared, np.eye(2))
    # condition 2.6, and (m + n)^1.5 = 8 roundoffs for each of two decompositions and a product
    bound = 3 * 8 * 2.7 * U
    assert np.abs(q - np.diag([-1.0, 1.0])).max() <= bound  # R = [[1, -1], [0, 1]]
    u, _ = factorization.retract("polar", sheared, np.eye(2))
    assert np.abs(u - np.array([[-2.0, 1.0], [1.0, 2.0]]) / math.sqrt(5.0)).max() <= bound
