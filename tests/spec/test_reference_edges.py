"""Edges of the reference that formulas on typical shapes don't reach: each test here kills mutants that lived without it."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from differences import U, dyadic, normal

import twinspike as ts
from twinspike.errors import SpecError
from twinspike.operations import OPERATIONS, Composition, Nothing, Pooling, Readout
from twinspike.reference import factorization, layers, losses, network, neuron, norm, optimizer, step, surrogate

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


@pytest.mark.parametrize("f", [ts.Factorization(), ts.Factorization(matricize="out_by_rest")])
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


@pytest.mark.parametrize("exponent", [-1000, -600, 600, 1000])
def test_the_rank_for_an_energy_is_the_same_at_every_scale(exponent):
    """Squares of these leave float64."""
    sigma = np.ldexp([[3.0, 1.0, 1.0, 1.0]], exponent)
    assert [factorization.rank_for_energy(sigma, share) for share in (0.7, 0.75, 0.8, 0.9, 1.0)] == [1, 1, 2, 3, 4]


def test_the_rank_of_zeros_is_one_and_another_position_decides():
    assert factorization.rank_for_energy(np.zeros((1, 3)), 0.9) == 1
    assert factorization.rank_for_energy(np.array([[0.0, 0.0], [1.0, 1.0]]), 0.9) == 2


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


# --- rows of the operations table ------------------------------------------------------------------------


def test_the_row_of_the_neuron_hands_on_all_that_it_is_given():
    n, x = ts.Neuron(decay=0.5), dyadic(4, 2, 3)
    given = {"v": dyadic(2, 3, seed=1), "decay": np.array([0.25, 0.5, 0.75]), "threshold": np.array([0.5, 1.0, 0.25])}
    cotangents = {"s": dyadic(4, 2, 3, seed=2), "v": dyadic(2, 3, seed=3)}
    trace = neuron.lif(n, x, **given)
    out = OPERATIONS["lif"].forward(n, {"x": x, **given})
    assert {name: value.tolist() for name, value in out.items()} == {
        "s": trace.s.tolist(), "u": trace.u.tolist(), "v": trace.v[3].tolist(),
    }  # fmt: skip
    want = neuron.lif_adjoint(n, x, trace, cotangents["s"], cotangents["v"], **given)._asdict()
    got = OPERATIONS["lif"].adjoint(n, {"x": x, **given}, cotangents)
    assert {name: value.tolist() for name, value in got.items()} == {name: value.tolist() for name, value in want.items()}


def test_rows_name_every_output():
    assert set(OPERATIONS["factorize"].forward(ts.Factorization(rank=2), {"kernel": normal(4, 5, 3, 3)})) == {"U", "sigma", "V"}
    assert set(OPERATIONS["retract"].forward(ts.Retract(), {"U": normal(4, 3), "V": normal(3, 5)})) == {"U", "V"}


@pytest.mark.parametrize(
    ("name", "config", "inputs"),
    [
        ("compose", Composition(kernel_shape=(4, 5)), {"U": normal(4, 3), "sigma": normal(3), "V": normal(3, 5)}),
        ("global_pool", Nothing(), {"x": normal(2, 3, 4, 5)}),
        ("avg_pool", Pooling(kernel=2, stride=2), {"x": normal(2, 3, 4, 5)}),
        ("linear", Nothing(), {"x": normal(2, 5), "weight": normal(3, 5), "bias": normal(3)}),
        ("readout", Readout(reduction="mean"), {"x": normal(1, 3, 5)}),
    ],
)
def test_gradients_without_a_cotangent_are_zeros_of_the_inputs_format(name, config, inputs):
    single = {key: value.astype(np.float32) for key, value in inputs.items()}
    for key, gradient in OPERATIONS[name].adjoint(config, single, {}).items():
        assert (gradient.dtype, gradient.shape) == (np.float32, single[key].shape)
        assert not gradient.any()


# --- evaluation and inspection of a network --------------------------------------------------------------

NET = ts.network("digits_cnn", width=2, input_shape=(1, 8, 8), classes=3)
METHOD = ts.Method(time_steps=2, loss=ts.Loss(alpha=0.5), factorization=ts.Factorization(orthogonality=ts.Penalty(weight=0.5)))


def _opened():
    rng = np.random.default_rng(3)
    state = {
        k: v + 0.1 * rng.standard_normal(v.shape) ** 2 if v.dtype.kind == "f" else v
        for k, v in ts.initial_state(NET, METHOD).items()
    }
    return state, 2.0 * rng.standard_normal((4, 1, 8, 8)), np.array([0, 1, 2, 1])


def test_evaluation_reads_out_the_forward_pass_of_evaluation():
    state, images, _ = _opened()
    tape = network.forward(NET, METHOD, state, images, training=False)
    found = step.evaluate(NET, METHOD, state, images)
    for i, end in enumerate(NET.exits):
        assert np.array_equal(found.logits_ann[i], tape.ann.outputs[end.head][0])
        assert np.array_equal(found.logits_snn[i], tape.snn.outputs[end.head].sum(axis=0))
    rates = [tape.snn.traces[name].s.sum() / tape.snn.traces[name].s.size for name in NET.activations]
    assert np.array_equal(found.spike_rates, rates)
    assert max(rates) > 0


@pytest.mark.parametrize("training", [False, True])
def test_a_trace_is_the_tape_and_its_gradients_are_those_without_the_penalty(training):
    state, images, labels = _opened()
    tape = network.forward(NET, METHOD, state, images, training=training)
    options = {"training": True} if training else {}
    assert all("g_ann" not in taps for taps in step.trace(NET, METHOD, state, images, **options).values())
    found = step.trace(NET, METHOD, state, images, **options, labels=labels)
    free = ts.Method(time_steps=2, loss=METHOD.loss)
    gradients, towards = network.backward(NET, free, state, tape, labels)
    names = set()
    for layer in NET.layers:
        taps = found[layer.name]
        assert np.array_equal(taps["ann"], tape.ann.outputs[layer.name][0])
        assert np.array_equal(taps["snn"], tape.snn.outputs[layer.name])
        assert ("u" in taps) == (layer.name in tape.snn.traces)
        assert "u" not in taps or np.array_equal(taps["u"], tape.snn.traces[layer.name].u)
        assert np.array_equal(taps["g_ann"], towards["ann"][layer.name][0])
        assert np.array_equal(taps["g_snn"], towards["snn"][layer.name])
        own = {key for key in taps if key.startswith("d_")}
        assert all(np.array_equal(taps[key], gradients[f"{layer.name}.{key[2:]}"]) for key in own)
        names |= {f"{layer.name}.{key[2:]}" for key in own}
    assert names == set(gradients)


def test_a_twin_fires_unless_it_is_asked_to_be_smooth():
    state, images, _ = _opened()
    x = network.frames(NET, METHOD, "snn", images)
    spikes = network.forward_twin(NET, METHOD, "snn", state, x, training=True).outputs[NET.activations[0]]
    assert set(np.unique(spikes)) == {0.0, 1.0}
