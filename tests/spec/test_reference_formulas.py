"""The reference against formulas written out here; where data are dyadic, results must be equal to the bit."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from differences import U, by_kind, dyadic, normal, slope_at_zero

import twinspike as ts
from twinspike.operations import OPERATIONS
from twinspike.reference import factorization, layers, losses, neuron, norm, surrogate

T, B, C, H, W, K, N, F = 3, 4, 2, 6, 5, 7, 3, 5
SMOOTH = ts.Sigmoid(slope=2.0)


def norm_inputs():
    inputs = {key: 1 + 0.3 * normal(C, seed=i) for i, key in enumerate(("gamma", "beta", "mean"))}
    return {"x": 2 + normal(T, B, C, H), **inputs, "var": np.array([0.5, 2.0])}


def loss_inputs(slices=1):
    labels = np.array([0, 6, 3, 3])
    logits = {"logits_ann": 3 * normal(N, B, K), "logits_snn": 3 * normal(slices, N, B, K)}
    return {**logits, "features_ann": normal(N, B, F), "features_snn": normal(N, B, F, seed=1), "labels": labels}


# --- surrogates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", **by_kind)
def test_surrogates_are_even_and_integrate_to_one(form):
    z = np.abs(normal(50)) * 3
    assert np.array_equal(surrogate.derivative(form, z), surrogate.derivative(form, -z))
    far = surrogate.primitive(form, np.array([-1e9, 1e9]))
    tails = 1.0 / (math.pi * 1e9)  # of arctan and fast sigmoid, the slowest
    assert abs(far[1] - far[0] - 1) <= 2 * tails
    assert abs(surrogate.primitive(form, np.zeros(())) - 0.5) <= U


@pytest.mark.parametrize("form", **by_kind)
def test_surrogates_are_the_slopes_of_their_primitives(form):
    for z in (-0.7, -0.35, -0.1, 0.05, 0.25, 0.9):  # off the kinks at 0, +-0.4 and +-0.6
        expected, bound = slope_at_zero(lambda t, z=z: float(surrogate.primitive(form, np.array(z + t))), 1.0, operations=20)
        assert abs(float(surrogate.derivative(form, np.array(z))) - expected) <= bound


@pytest.mark.parametrize("form", **by_kind)
def test_surrogates_vanish_far_out_without_overflow(form):
    h = surrogate.derivative(form, np.array([-1.7e308, -1e200, 1e200, 1.7e308]))
    assert np.array_equal(h, np.zeros(4))


def test_an_unknown_surrogate_is_an_error():
    for function in (surrogate.derivative, surrogate.primitive):
        with pytest.raises(AssertionError, match="unreachable, but got: Ellipsis"):
            function(..., np.zeros(1))


def test_the_rectangle_ends_where_its_window_ends():
    edge = 0.5
    z = np.array([-edge, edge, np.nextafter(edge, 0), -np.nextafter(edge, 0), 0.0])
    assert np.array_equal(surrogate.derivative(ts.Rectangle(), z), [0, 0, 1, 1, 1])


# --- neuron ----------------------------------------------------------------------------------------------

NEURONS = [
    ts.Neuron(decay=0.25),
    ts.Neuron(decay=0.5, v_reset=0.125),
    ts.Neuron(decay=0.5, v_reset=-0.25, decay_input=True, detach_reset=True),
    ts.Neuron(decay=0.5, reset="soft", threshold=0.75),
    ts.Neuron(decay=0.5, reset="soft", decay_input=True, surrogate=ts.Rectangle(width=2.0)),
]


def test_equality_fires():
    u = np.array([0.5, np.nextafter(0.5, 0), np.nextafter(0.5, 1)])
    assert np.array_equal(neuron.fire(ts.Neuron(), u, 0.5), [1, 0, 1])


@pytest.mark.parametrize("n", NEURONS)
def test_a_sequence_follows_the_equations_in_rational_arithmetic(n):
    x = dyadic(5, 1, 1, 40)
    trace = neuron.lif(n, x)
    alpha, theta, v_reset = Fraction(n.decay), Fraction(n.threshold), Fraction(n.v_reset)
    for j in range(40):
        v = Fraction(0)
        for t in range(5):
            u = alpha * v + (1 - alpha if n.decay_input else 1) * Fraction(x[t, 0, 0, j])
            s = u >= theta
            v = (v_reset if s else u) if n.reset == "hard" else u - s * theta
            assert (trace.u[t, 0, 0, j], trace.s[t, 0, 0, j], trace.v[t, 0, 0, j]) == (u, s, v)


@pytest.mark.parametrize("n", NEURONS)
@pytest.mark.parametrize("cut", [1, 3])
def test_a_sequence_may_be_split_anywhere(n, cut):
    x, v, g, e = dyadic(5, 2, 3, 4), dyadic(2, 3, 4), dyadic(5, 2, 3, 4, seed=1), dyadic(2, 3, 4, seed=1)
    learned = {"decay": np.array([0.5, 0.25, 0.5]), "threshold": np.array(0.5)}
    whole = neuron.lif(n, x, v, **learned)
    first = neuron.lif(n, x[:cut], v, **learned)
    second = neuron.lif(n, x[cut:], first.v[-1], **learned)
    for all_of_it, one, other in zip(whole, first, second, strict=True):
        assert np.array_equal(all_of_it, np.concatenate([one, other]))
    back = neuron.lif_adjoint(n, x, whole, g, e, v, **learned)
    late = neuron.lif_adjoint(n, x[cut:], second, g[cut:], e, first.v[-1], **learned)
    early = neuron.lif_adjoint(n, x[:cut], first, g[:cut], late.v, v, **learned)
    assert np.array_equal(back.x, np.concatenate([early.x, late.x]))
    assert np.array_equal(back.v, early.v)
    assert np.array_equal(back.decay, early.decay + late.decay)
    assert np.array_equal(back.threshold, early.threshold + late.threshold)


@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_a_detached_reset_is_the_gradient_with_the_resets_spikes_held(reset):
    n = ts.Neuron(surrogate=SMOOTH, reset=reset, detach_reset=True, decay=0.6)
    x, t_x, theta = normal(4, 3), normal(4, 3, seed=1), 0.7
    held = neuron.lif(n, x[:, :, None], None, None, np.array(theta), smooth=True).s[..., 0]
    g = normal(4, 3, seed=2)

    def run(x, theta):
        v, total = 0.0, 0.0
        for t in range(4):
            u = 0.6 * v + x[t]
            total += float((g[t] * surrogate.primitive(SMOOTH, u - theta)).sum())
            v = (1 - held[t]) * u if reset == "hard" else u - held[t] * theta
        return total

    trace = neuron.lif(n, x[:, :, None], None, None, np.array(theta), smooth=True)
    found = neuron.lif_adjoint(n, x[:, :, None], trace, g[:, :, None], threshold=np.array(theta))
    expected, bound = slope_at_zero(lambda h: run(x + h * t_x, theta), np.abs(g).sum())
    assert abs(float((found.x[..., 0] * t_x).sum()) - expected) <= bound
    expected, bound = slope_at_zero(lambda h: run(x, theta + h), np.abs(g).sum())
    assert abs(float(found.threshold) - expected) <= bound


# --- layers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stride", "padding", "kernel"), [(1, 0, (1, 1)), (1, 1, (3, 3)), (2, 1, (3, 3)), (3, 2, (2, 4)), (2, 0, (4, 2))]
)
def test_convolution_is_the_sum_of_its_definition(stride, padding, kernel):
    x, w = dyadic(2, 3, 7, 8), dyadic(4, 3, *kernel)
    y = layers.conv2d(x, w, stride, padding)
    padded = np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
    height, width = ((n + 2 * padding - k) // stride + 1 for n, k in zip((7, 8), kernel, strict=True))
    assert y.shape == (2, 4, height, width)
    for i in range(height):
        for j in range(width):
            window = padded[:, :, i * stride : i * stride + kernel[0], j * stride : j * stride + kernel[1]]
            assert np.array_equal(y[:, :, i, j], (window[:, None] * w).sum(axis=(2, 3, 4)))


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (3, 0), (2, 2)])
def test_convolution_and_its_adjoint_agree_to_the_bit(stride, padding):
    x, w, t = dyadic(2, 3, 7, 8), dyadic(4, 3, 3, 3), dyadic(2, 3, 7, 8, seed=1)
    c = dyadic(*layers.conv2d(x, w, stride, padding).shape, seed=2)
    d_x, d_w = layers.conv2d_adjoint(x, w, c, stride, padding)
    assert (c * layers.conv2d(t, w, stride, padding)).sum() == (d_x * t).sum()
    t_w = dyadic(4, 3, 3, 3, seed=3)
    assert (c * layers.conv2d(x, t_w, stride, padding)).sum() == (d_w * t_w).sum()


def test_pooling_drops_remainders():
    x = dyadic(1, 1, 5, 5)
    assert np.array_equal(layers.avg_pool(x, 2, 2)[0, 0], x[0, 0, :4, :4].reshape(2, 2, 2, 2).mean(axis=(1, 3)))
    assert not layers.avg_pool_adjoint(x, np.ones((1, 1, 2, 2)), 2, 2)[..., 4].any()


@pytest.mark.parametrize(("reduction", "steps"), [("sum", 1), ("mean", 4)])
def test_readout_reduces_time(reduction, steps):
    x = dyadic(4, 2, 3)
    assert np.array_equal(layers.readout(x, reduction), (x[0] + x[1] + x[2] + x[3]) / steps)


def test_relu_passes_nothing_at_zero():
    x = np.array([-1.0, -0.0, 0.0, 1.0])
    assert np.array_equal(layers.relu_adjoint(x, np.ones(4)), [0, 0, 0, 1])


# --- norm ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", ["per_step", "folded"])
def test_batch_norm_follows_its_formula_channel_by_channel(time):
    bn = ts.BatchNorm(time=time, momentum=0.3, eps=0.01)
    i = norm_inputs()
    found = norm.batch_norm_train(bn, **i)
    for c in range(C):
        mean, var = i["mean"][c], i["var"][c]
        for steps in [[t] for t in range(T)] if time == "per_step" else [list(range(T))]:
            values = i["x"][steps, :, c]
            y = i["gamma"][c] * (values - values.mean()) / math.sqrt(values.var() + 0.01) + i["beta"][c]
            bound = 2 * (values.size + 20) * U * (np.abs(values).max() / math.sqrt(0.01) + np.abs(y).max() + 1)
            assert np.abs(found.y[steps, :, c] - y).max() <= bound
            mean, var = 0.7 * mean + 0.3 * values.mean(), 0.7 * var + 0.3 * values.var(ddof=1)
        assert abs(found.mean[c] - mean) <= 60 * T * U * 3
        assert abs(found.var[c] - var) <= 60 * T * U * 9


def test_batch_norm_refuses_a_single_value_per_channel():
    i = {key: value[:1, :1, :, :1] if key == "x" else value for key, value in norm_inputs().items()}
    with pytest.raises(ts.SpecError, match="more than one value per channel, got 1"):
        norm.batch_norm_train(ts.BatchNorm(), **i)


# --- losses ----------------------------------------------------------------------------------------------


def test_cross_entropy_stays_finite_at_extreme_logits():
    logits = np.array([[1e300, -1e300, 0.0], [-1e5, 0.0, 1e5]])
    assert losses.cross_entropy(logits, np.array([0, 2])) == 0
    assert np.array_equal(losses.cross_entropy_adjoint(logits, np.array([0, 2])), np.zeros((2, 3)))
    assert losses.cross_entropy(logits, np.array([1, 2])) == 1e300


def test_divergence_and_cross_entropy_have_the_same_gradient_and_a_common_zero():
    student, teacher = normal(B, K), normal(B, K, seed=1)
    ce, kl = ts.Loss(), ts.Loss(form="kl")
    for one, other in zip(
        losses.distillation_adjoint(ce, student, teacher), losses.distillation_adjoint(kl, student, teacher), strict=True
    ):
        assert np.array_equal(one, other)
    assert losses.distillation(kl, student, student) == 0
    gap = losses.distillation(ce, student, teacher) - losses.distillation(kl, student, teacher)
    assert abs(gap - losses.distillation(ce, teacher, teacher)) <= 100 * U * 3


@pytest.mark.parametrize("form", ["ce", "kl"])
def test_distillation_is_its_sum_at_the_temperature(form):
    student, teacher = normal(B, K), normal(B, K, seed=1)
    total = 0.0
    for s, t in zip(student / 2.0, teacher / 2.0, strict=True):
        p, q = np.exp(t) / np.exp(t).sum(), np.exp(s) / np.exp(s).sum()
        total += sum(p[k] * ((math.log(p[k]) if form == "kl" else 0.0) - math.log(q[k])) for k in range(K)) / B
    assert abs(losses.distillation(ts.Loss(form=form, temperature=2.0), student, teacher) - total) <= 100 * U * (1 + total)


@pytest.mark.parametrize(("reduction", "count"), [("sum", 1), ("batch_mean", 4), ("mean", 32)])
def test_features_are_compared_by_their_squared_distance(reduction, count):
    snn, ann = dyadic(4, 8), dyadic(4, 8, seed=1)
    expected = sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(snn.flat, ann.flat, strict=True)) / count
    assert losses.feature_loss(ts.Loss(feature_reduction=reduction), snn, ann) == expected


@pytest.mark.parametrize(
    ("preset", "pairs"),
    [
        ("joint", "ann1<-ann3 ann2<-ann3 snn1<-ann1 snn2<-ann2 snn3<-ann3"),
        ("ann_only", "ann1<-ann3 ann2<-ann3"),
        ("snn_from_ann", "snn1<-ann1 snn2<-ann2 snn3<-ann3"),
        ("none", ""),
    ],
)
def test_the_joint_loss_is_its_sum_for_every_preset(preset, pairs):
    i, loss = loss_inputs(), ts.Loss(alpha=0.3, beta=0.25, temperature=2.0, pairs=preset)
    terms = losses.joint_loss(loss, **i)
    logits = {f"{twin}{n + 1}": i[f"logits_{twin}"].reshape(N, B, K)[n] for twin in ("ann", "snn") for n in range(N)}
    ce = [sum(losses.cross_entropy(logits[f"{twin}{n}"], i["labels"]) for n in (1, 2, 3)) for twin in ("ann", "snn")]
    kd = sum(losses.distillation(loss, *(logits[end] for end in pair.split("<-"))) for pair in pairs.split())
    feature = ((i["features_snn"] - i["features_ann"]) ** 2).sum()
    expected = (0.7 * sum(ce) + 0.3 * 4 * kd + 0.25 * feature, *ce, 4 * kd, feature)
    for found, value in zip(terms, expected, strict=True):
        assert abs(found - value) <= 200 * U * (1 + abs(expected[0]))
    spelled = losses.joint_loss_adjoint(ts.Loss(alpha=0.3, beta=0.25, temperature=2.0, pairs=tuple(pairs.split())), **i)
    for one, other in zip(losses.joint_loss_adjoint(loss, **i), spelled, strict=True):
        assert np.array_equal(one, other)


def test_equal_slices_of_time_give_the_loss_of_one():
    one = loss_inputs()
    four = {**one, "logits_snn": np.repeat(one["logits_snn"], 4, axis=0)}
    a, b = losses.joint_loss(ts.Loss(per_step=True), **one), losses.joint_loss(ts.Loss(per_step=True), **four)
    assert abs(a.loss - b.loss) <= 100 * U * abs(a.loss)


def test_detached_teachers_get_nothing():
    student, teacher = normal(B, K), normal(B, K, seed=1)
    assert not losses.distillation_adjoint(ts.Loss(), student, teacher)[1].any()
    assert not losses.feature_loss_adjoint(ts.Loss(), student, teacher)[1].any()
    i, loss = loss_inputs(), ts.Loss(pairs=("snn1<-ann1",))
    only_ce = [0.9 * losses.cross_entropy_adjoint(a, i["labels"]) for a in i["logits_ann"]]
    assert np.array_equal(losses.joint_loss_adjoint(loss, **i).logits_ann, only_ce)


# --- factors and optimizer -------------------------------------------------------------------------------


def test_factors_compose_to_the_kernel_that_they_came_from():
    """Per position kernel[:, :, i, j]; out by rest, the row-major kernel."""
    kernel = normal(4, 5, 3, 2)
    for f, views in (
        (ts.Factorization(), {(i, j): kernel[:, :, i, j] for i in range(3) for j in range(2)}),
        (ts.Factorization(matricize="out_by_rest"), {(): kernel.reshape(4, 30)}),
    ):
        u, sigma, v = factorization.factorize(f, kernel, 4)
        bound = 30 * 30 * U * sigma.max()  # a modest multiple of size x roundoff x norm
        for position, matrix in views.items():
            assert np.abs(u[position] @ np.diag(sigma[position]) @ v[position] - matrix).max() <= bound
        assert np.abs(factorization.compose(f, u, sigma, v, kernel.shape) - kernel).max() <= bound
        assert (np.diff(sigma) <= 0).all()
        assert (sigma >= 0).all()
        assert factorization.deviation(u, v) <= 30 * 30 * U
        assert (np.take_along_axis(u, np.abs(u).argmax(axis=-2, keepdims=True), axis=-2) > 0).all()
        _, cut, _ = factorization.factorize(f, kernel, 2)
        assert np.array_equal(cut, sigma[..., :2])


@pytest.mark.parametrize("by", ["polar", "qr"])
def test_retraction_gives_orthonormal_factors_and_keeps_them(by):
    u, v = factorization.retract(by, normal(3, 2, 6, 4), normal(3, 2, 4, 5))
    bound = 20 * 6 * U * math.sqrt(4)  # Householder: a modest multiple of rows x roundoff
    assert factorization.deviation(u, v) <= bound
    again_u, again_v = factorization.retract(by, u, v)
    assert max(np.abs(again_u - u).max(), np.abs(again_v - v).max()) <= 2 * bound
    assert np.abs(factorization.penalty(u, v)) <= 6 * (2 * 16) * bound**2


def test_sgd_follows_its_equations_to_the_bit():
    lr, rate, decay = 0.25, 0.5, 0.125
    gradients = [dyadic(6, seed=i) for i in range(4)]
    for nesterov in (False, True):
        o = ts.SGD(momentum=rate, nesterov=nesterov, weight_decay=decay)
        p = expected = dyadic(6)
        m, slots = np.zeros(6), {}
        for n, g in enumerate(gradients, start=1):
            out = OPERATIONS["optimizer_step"].forward(o, {"p": p, "g": g, "lr": np.array(lr), "step": np.array(n), **slots})
            p, slots = out["p"], {"momentum": out["momentum"]}
            decayed = g + decay * expected
            m = rate * m + decayed
            expected = expected - lr * (decayed + rate * m if nesterov else m)
            assert np.array_equal(p, expected)
            assert np.array_equal(slots["momentum"], m)


@pytest.mark.parametrize("kind", [ts.Adam, ts.AdamW])
def test_adam_follows_its_equations(kind):
    o = kind(beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.1)
    p, expected, slots, history = np.array(0.7), 0.7, {}, []
    for n, g in enumerate((0.3, -0.2, 0.05, 1.5), start=1):
        out = OPERATIONS["optimizer_step"].forward(
            o, {"p": p, "g": np.array(g), "lr": np.array(0.01), "step": np.array(n), **slots}
        )
        p, slots = out["p"], {"m": out["m"], "v": out["v"]}
        history.append(g + 0.1 * expected if kind is ts.Adam else g)
        m = sum(0.2 * 0.8 ** (n - 1 - i) * old for i, old in enumerate(history)) / (1 - 0.8**n)
        v = sum(0.05 * 0.95 ** (n - 1 - i) * old**2 for i, old in enumerate(history)) / (1 - 0.95**n)
        shrunk = expected * (1 - 0.01 * 0.1) if kind is ts.AdamW else expected
        expected = shrunk - 0.01 * m / (math.sqrt(v) + 1e-3)
        assert abs(p - expected) <= 100 * n * U
