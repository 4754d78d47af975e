"""The JAX backend's operations against the reference: exact on dyadic data, else within bounds that are derived."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]  # it ships no types
import pytest
from jax_rows import HALF, ROUNDOFF, C, dyadic, lif_cotangents, lif_inputs, opened, reference_row, run_row

import twinspike as ts
import twinspike_jax as tj
from twinspike.operations import OPERATIONS, Composition, Convolution, Nothing, Pooling, Readout

MODES = [(p, c) for p in ("f64", "f32-ieee") for c in (False, True)]


@pytest.fixture(scope="session")
def session(device):
    """Sessions on the device under test, by precision and mode."""
    return functools.partial(opened, device)


LIF_CASES = [
    (ts.Neuron(**HALF), ()),
    (ts.Neuron(**HALF, v_reset=-0.25), ("v", "decay", "threshold")),
    (ts.Neuron(**HALF, detach_reset=True, decay_input=True), ("v", "decay")),
    (ts.Neuron(**HALF, reset="soft", decay_input=True), ("decay", "threshold")),
    (ts.Neuron(**HALF, reset="soft", detach_reset=True, surrogate=ts.Rectangle(width=2.0)), ("v", "threshold")),
    (ts.Neuron(**HALF, surrogate=ts.Triangle(width=2.0)), ("threshold",)),
]
FACTORS = {"U": (1, 2, 4, 3), "sigma": (1, 2, 3), "V": (1, 2, 3, 5)}


def exact_cases():
    rng = np.random.default_rng(1)

    def d(*shape):
        return dyadic(rng, shape)

    for config, given in LIF_CASES:
        yield "lif", config, lif_inputs(rng, given), lif_cotangents(rng)
    for surrogate in (ts.Rectangle(), ts.Triangle(width=2.0)):
        yield "spike", ts.Neuron(surrogate=surrogate), {"u": d(3, 40)}, {"s": d(3, 40)}
    yield "relu", Nothing(), {"x": d(3, 7)}, {"y": d(3, 7)}
    factors = {name: d(*shape) for name, shape in FACTORS.items()}
    yield "compose", Composition(kernel_shape=(4, 5, 1, 2)), factors, {"kernel": d(4, 5, 1, 2)}
    flat = {"U": d(4, 3), "sigma": d(3), "V": d(3, 10)}
    by_rest = Composition(kernel_shape=(4, 5, 1, 2), factorization=ts.Factorization(matricize="out_by_rest"))
    yield "compose", by_rest, flat, {"kernel": d(4, 5, 1, 2)}
    yield "penalty", Nothing(), {name: factors[name] for name in "UV"}, {"loss": np.asarray(0.5)}
    for stride, padding, kernel in ((1, 1, 3), (2, 1, 3), (2, 0, 2), (3, 2, 3)):
        config = Convolution(stride=stride, padding=padding)
        inputs = {"x": d(3, 2, 6, 7), "kernel": d(4, 2, kernel, kernel)}
        y = OPERATIONS["conv2d"].forward(config, inputs)["y"]
        yield "conv2d", config, inputs, {"y": d(*y.shape)}
    yield "avg_pool", Pooling(kernel=2, stride=2), {"x": d(3, 2, 5, 6)}, {"y": d(3, 2, 2, 3)}
    yield "avg_pool", Pooling(kernel=2, stride=1), {"x": d(3, 2, 3, 4)}, {"y": d(3, 2, 2, 3)}
    yield "global_pool", Nothing(), {"x": d(3, 5, 2, 4)}, {"y": d(3, 5)}
    yield "linear", Nothing(), {"x": d(3, 4), "weight": d(5, 4), "bias": d(5)}, {"y": d(3, 5)}
    for reduction in ("sum", "mean"):
        yield "readout", Readout(reduction=reduction), {"x": d(2, 3, 5)}, {"y": d(3, 5)}
    for reduction in ("sum", "batch_mean", "mean"):
        for detach in (True, False):
            config = ts.Loss(feature_reduction=reduction, detach_teacher=detach)
            yield "feature_loss", config, {"snn": d(4, 8), "ann": d(4, 8)}, {"loss": np.asarray(0.5)}


EXACT = list(exact_cases())


@pytest.mark.parametrize(("precision", "compiled"), MODES)
@pytest.mark.parametrize("case", EXACT, ids=[f"{i}-{case[0]}" for i, case in enumerate(EXACT)])
def test_exact_rows_agree_bit_for_bit(session, case, precision, compiled):
    """On dyadic data order, fusion and format can't matter: values and gradients are those of float64."""
    wanted, found = reference_row(*case), run_row(session(precision, compiled), *case, compared=True)
    for want, got in zip(wanted, found, strict=True):
        assert want.keys() == got.keys()
        for key, value in want.items():
            assert got[key].dtype == (np.float64 if precision == "f64" else np.float32)
            np.testing.assert_array_equal(got[key], value, err_msg=key)


def test_every_exact_row_is_covered():
    rows = {row.name for row in OPERATIONS.values() if row.exactness == "exact"}
    assert rows == {case[0] for case in EXACT}


SMOOTH = [ts.Sigmoid(slope=3.0), ts.Arctan(), ts.FastSigmoid(slope=5.0), ts.Tanh(slope=1.5)]


def rounded_cases():
    rng = np.random.default_rng(2)
    n = rng.normal
    for surrogate in SMOOTH:
        yield "spike", ts.Neuron(surrogate=surrogate), {"u": n(size=(3, 30))}, {"s": n(size=(3, 30))}
        config = ts.Neuron(surrogate=surrogate, decay=0.5, v_reset=0.25)
        yield "lif", config, lif_inputs(rng, ("v", "decay", "threshold")), lif_cotangents(rng)
    norm = {"x": n(size=(3, 4, C, 2, 2)), "gamma": n(size=C), "beta": n(size=C), "mean": n(size=C), "var": rng.uniform(1, 2, C)}
    for time in ("per_step", "folded"):
        yield "batch_norm_train", ts.BatchNorm(time=time, momentum=0.3), norm, {"y": n(size=norm["x"].shape)}
    yield "batch_norm_eval", ts.BatchNorm(), norm, {"y": n(size=norm["x"].shape)}
    labels = rng.integers(0, 6, 4)
    one = {"loss": np.asarray(1.5)}
    yield "cross_entropy", Nothing(), {"logits": n(size=(4, 6)), "labels": labels}, one
    for form in ("ce", "kl"):
        for detach in (True, False):
            config = ts.Loss(form=form, detach_teacher=detach, alpha=0.25, beta=0.125)
            yield "distillation", config, {"student": n(size=(4, 6)), "teacher": n(size=(4, 6))}, one
            joint = {"logits_ann": n(size=(2, 4, 6)), "logits_snn": n(size=(3, 2, 4, 6)), "labels": labels}
            joint |= {"features_ann": n(size=(2, 4, 8)), "features_snn": n(size=(2, 4, 8))}
            yield "joint_loss", config, joint, one
    pairs = ts.Loss(pairs=("ann1<-snn2", "snn1<-snn2", "snn2<-ann1"), detach_teacher=False)
    yield "joint_loss", pairs, joint, one
    for optimizer in (
        ts.SGD(momentum=0.9), ts.SGD(momentum=0.5, nesterov=True), ts.SGD(),
        ts.Adam(weight_decay=0.1), ts.AdamW(weight_decay=0.1), ts.Adam(beta1=0.0),
    ):  # fmt: skip
        slots = {name: rng.uniform(0.5, 1, 9) for name in ("momentum", "m", "v")}
        step = {"p": n(size=9), "g": n(size=9), "lr": np.asarray(0.1), "step": np.asarray(3)}
        yield "optimizer_step", optimizer, step | slots, {}


ROUNDED = list(rounded_cases())


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("case", ROUNDED, ids=[f"{i}-{case[0]}" for i, case in enumerate(ROUNDED)])
def test_rounded_rows_agree_within_the_error_of_their_operations(session, case, compiled):
    """No output sums more terms than its inputs have, nor takes 40 operations more; magnitudes here are moderate."""
    wanted, found = reference_row(*case), run_row(session("f64", compiled), *case)
    terms = sum(np.size(v) for v in (*case[2].values(), *case[3].values()))
    for want, got in zip(wanted, found, strict=True):
        assert want.keys() == got.keys()
        for key, value in want.items():
            magnitude = max(1.0, *(float(np.abs(v).max()) for v in (*case[2].values(), *case[3].values(), value)))
            np.testing.assert_allclose(got[key], value, rtol=0, atol=(terms + 40) * ROUNDOFF * magnitude**2, err_msg=key)


def test_adam_in_float32_keeps_its_digits_at_the_first_step(session):
    """1 - 0.999^1 must not be a difference of rounded numbers: 20 roundings of float32 bound the update."""
    s = session("f32-ieee")
    inputs = {"p": np.zeros(3), "g": np.array([1.0, -2.0, 0.5]), "lr": np.asarray(0.5), "step": np.asarray(1)}
    got = run_row(s, "optimizer_step", ts.Adam(eps=1e-30), inputs, {})[0]["p"]
    np.testing.assert_allclose(got, [-0.5, 0.5, -0.5], rtol=20 * 2.0**-24)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "config", [ts.Factorization(), ts.Factorization(rank=2), ts.Factorization(rank=0.7, matricize="out_by_rest")]
)
def test_factors_are_those_of_the_clauses(session, config, compiled):
    """Singular values, gauge and the best approximation of its rank; singular vectors are compared through it."""
    kernel = np.random.default_rng(3).normal(size=(4, 6, 3, 3))
    want = OPERATIONS["factorize"].forward(config, {"kernel": kernel})
    got = run_row(session("f64", compiled), "factorize", config, {"kernel": kernel}, {})[0]
    bound = 100 * kernel.size * ROUNDOFF * np.abs(want["sigma"]).max()
    assert got["U"].shape == want["U"].shape
    np.testing.assert_allclose(got["sigma"], want["sigma"], rtol=0, atol=bound)
    products = [(f["U"] * f["sigma"][..., None, :]) @ f["V"] for f in (got, want)]
    np.testing.assert_allclose(*products, rtol=0, atol=bound)
    largest = np.take_along_axis(got["U"], np.abs(got["U"]).argmax(axis=-2, keepdims=True), axis=-2)
    assert (largest > 0).all()


@pytest.mark.parametrize("by", ["polar", "qr"])
def test_retraction_gives_the_reference_orthonormal_factors(session, by):
    rng = np.random.default_rng(4)
    inputs = {"U": rng.normal(size=(2, 5, 3)), "V": rng.normal(size=(2, 3, 4))}
    config = ts.config.Retract(by=by)
    got = run_row(session("f64", True), "retract", config, inputs, {})[0]
    want = OPERATIONS["retract"].forward(config, inputs)
    conditions = [np.linalg.cond(inputs[k]).max() for k in "UV"]
    for key in "UV":
        np.testing.assert_allclose(got[key], want[key], rtol=0, atol=100 * 60 * ROUNDOFF * max(conditions))


def test_mixed_convolution_is_exact_on_few_bits_and_keeps_kernel_gradients_in_float32(session):
    rng = np.random.default_rng(9)
    s = session("bf16-mixed", True)
    for stride, padding in ((1, 1), (2, 1), (2, 0)):
        config = Convolution(stride=stride, padding=padding)
        inputs = {"x": dyadic(rng, (3, 2, 6, 7), 1, 1), "kernel": dyadic(rng, (4, 2, 3, 3), 1, 1)}
        y = OPERATIONS["conv2d"].forward(config, inputs)["y"]
        case = ("conv2d", config, inputs, {"y": dyadic(rng, y.shape, 1, 1)})
        for want, got in zip(reference_row(*case), run_row(s, *case), strict=True):
            for key, value in want.items():
                np.testing.assert_array_equal(got[key], value)
    third = s.from_numpy(np.full((2, 2, 3, 3), 1 / 3))
    _, found = s.vjp("conv2d", config, {"x": third, "kernel": third}, {"y": s.from_numpy(np.ones((2, 2, 1, 1)))})
    assert s.forward("conv2d", config, {"x": third, "kernel": third})["y"].dtype == jnp.bfloat16
    assert found["kernel"].dtype == jnp.float32


def test_optimizers_agree_with_optax_of_the_same_name():
    """The momentum form is optax.sgd's own; Adam's differs in bias correction by a few roundings of float32."""
    params = {"w": jnp.asarray([1.0, -2.0]), "b": jnp.asarray([0.5])}
    g = {"w": jnp.asarray([0.25, 0.5]), "b": jnp.asarray([-1.0])}
    ours = tj.make_optimizer(ts.SGD(momentum=0.5, nesterov=True, weight_decay=0.0))
    theirs = optax.sgd(0.25, momentum=0.5, nesterov=True)
    states = [ours.init(params), theirs.init(params)]
    for _ in range(3):
        a, states[0] = ours.update(g, states[0], params, learning_rate=0.25)
        b, states[1] = theirs.update(g, states[1], params)
        jax.tree.map(np.testing.assert_array_equal, a, b)
