"""The JAX backend against the reference: exact on dyadic data, else within bounds that are derived, never fitted."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]  # it ships no types
import pytest

import twinspike as ts
import twinspike_jax as tj
from twinspike.network import Activation, Add, AvgPool, Branch, Conv, GlobalPool, Linear, Network, Norm
from twinspike.operations import OPERATIONS, Composition, Convolution, Nothing, Pooling, Readout
from twinspike.parameters import STEP
from twinspike.reference import neuron as reference_neuron
from twinspike.reference import step as reference
from twinspike_jax.neuron import fire
from twinspike_jax.precision import formats, policy
from twinspike_jax.twin import run_twin

T, B, C = 2, 3, 5
MODES = [(p, c) for p in ("f64", "f32-ieee") for c in (False, True)]
ROUNDOFF = 2.0**-53


@pytest.fixture(scope="session")
def session(device):
    """Sessions on the device under test, by precision and mode."""
    return functools.cache(lambda precision="f64", compiled=False: tj.backend.session(device, precision, compiled))


def dyadic(rng, shape, quantum=4, top=4):
    """Values k/quantum with |k| <= top."""
    return rng.integers(-top, top + 1, shape) / quantum


def run_row(open_session, name, config, inputs, cotangents, compared=False):
    """NumPy outputs and gradients of a row."""
    moved = {k: open_session.from_numpy(np.asarray(v)) for k, v in inputs.items()}
    if not OPERATIONS[name].differentiable:
        return {k: open_session.to_numpy(v) for k, v in open_session.forward(name, config, moved).items()}, {}
    moved_g = {k: open_session.from_numpy(np.asarray(v)) for k, v in cotangents.items()}
    outputs, gradients = open_session.vjp(name, config, moved, moved_g)
    if OPERATIONS[name].exactness == "exact" and compared:
        for key, value in open_session.forward(name, config, moved).items():
            np.testing.assert_array_equal(open_session.to_numpy(value), open_session.to_numpy(outputs[key]))
    return tuple({k: open_session.to_numpy(v) for k, v in found.items()} for found in (outputs, gradients))


def reference_row(name, config, inputs, cotangents):
    row = OPERATIONS[name]
    outputs = row.forward(config, inputs)
    return outputs, row.adjoint(config, inputs, cotangents) if row.adjoint else {}


def lif_inputs(rng, given=(), steps=T):
    inputs = {"x": dyadic(rng, (steps, B, C, 2), 4, 6)}
    if "v" in given:
        inputs["v"] = dyadic(rng, (B, C, 2), 4, 2)
    if "decay" in given:
        inputs["decay"] = rng.choice([0.25, 0.5], C)
    if "threshold" in given:
        inputs["threshold"] = np.asarray(0.75)
    return inputs


def lif_cotangents(rng, steps=T):
    return {"s": dyadic(rng, (steps, B, C, 2), 2, 3), "v": dyadic(rng, (B, C, 2), 2, 3)}


HALF = {"decay": 0.5, "threshold": 0.5}
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
    scrambled = ts.Factorization(view="authors_reshape")
    yield "compose", Composition(kernel_shape=(4, 5, 1, 2), factorization=scrambled), factors, {"kernel": d(4, 5, 1, 2)}
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


# --- the neuron ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [(), ("v", "decay", "threshold")])
@pytest.mark.parametrize("config", [ts.Neuron(**HALF), ts.Neuron(**HALF, reset="soft", decay_input=True)])
def test_long_sequences_in_blocks_equal_the_loop(session, config, given):
    """40 steps scan over blocks with a rest; spikes are equal, gradients within 8 operations per step."""
    rng = np.random.default_rng(5)
    case = ("lif", config, lif_inputs(rng, given, 43), lif_cotangents(rng, 43))
    for want, got in zip(reference_row(*case), run_row(session("f64", True), *case), strict=True):
        for key, value in want.items():
            bound = 8 * 43 * B * 2 * ROUNDOFF * max(1.0, np.abs(value).max())
            np.testing.assert_allclose(got[key], value, rtol=0, atol=bound, err_msg=key)


@pytest.mark.parametrize("steps", [3, 21])
def test_constant_current_equals_its_copies(steps):
    rng = np.random.default_rng(6)
    x, g = dyadic(rng, (B, C, 2), 4, 3), dyadic(rng, (steps, B, C, 2), 2, 2)
    neuron = ts.Neuron(decay=0.5)
    with formats("float64"):
        options = {"neuron": neuron, "decay": None, "threshold": None}
        s, pull = jax.vjp(lambda x: fire(x, steps=steps, constant=True, **options)[0], jnp.asarray(x))
        copies, pull_copies = jax.vjp(lambda x: fire(x, steps=steps, constant=False, **options)[0], jnp.asarray([x] * steps))
        np.testing.assert_array_equal(s, copies)
        wanted = np.asarray(pull_copies(jnp.asarray(g))[0]).sum(axis=0)
        bound = 8 * steps**2 * ROUNDOFF * np.abs(wanted).max()
        np.testing.assert_allclose(pull(jnp.asarray(g))[0], wanted, rtol=0, atol=bound)


def test_a_split_sequence_carries_its_state():
    x = jnp.asarray(dyadic(np.random.default_rng(7), (6, B, C), 4, 6), jnp.float32)
    neuron = ts.Neuron(decay=0.5)
    whole, last = tj.lif(x, neuron=neuron)
    first, v = tj.lif(x[:2], neuron=neuron)
    second, v = tj.lif(x[2:], v, neuron=neuron)
    np.testing.assert_array_equal(whole, jnp.concatenate([first, second]))
    np.testing.assert_array_equal(last, v)


def test_lif_jits_and_vmaps():
    x = jnp.asarray(dyadic(np.random.default_rng(8), (4, T, B, C), 4, 6), jnp.float32)
    decay = jnp.full((4, C), 0.5)

    def loss(x, decay):
        s, v = tj.lif(x, neuron=ts.Neuron(), decay=decay)
        return (s * jnp.arange(C)).sum() + (v * v).sum()

    together = jax.jit(jax.vmap(jax.value_and_grad(loss, argnums=(0, 1))))(x, decay)
    alone = [jax.value_and_grad(loss, argnums=(0, 1))(x[i], decay[i]) for i in range(4)]
    jax.tree.map(np.testing.assert_array_equal, together, jax.tree.map(lambda *a: jnp.stack(a), *alone))


def test_potentials_are_float32_under_bfloat16_currents():
    """0.5 - 2^-10 fires nowhere, but would round to the threshold in bfloat16."""
    x = jnp.asarray([0.375, 0.498046875 - 0.1875], jnp.bfloat16).reshape(2, 1, 1)
    s, u, v = tj.lif_with_potentials(x, neuron=ts.Neuron(decay=0.5))
    assert (s.dtype, u.dtype, v.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    exact = np.float32(x[1, 0, 0]) + 0.1875
    assert float(u[1, 0, 0]) == exact
    g = jax.grad(lambda x: tj.lif(x, neuron=ts.Neuron())[0].astype(jnp.float32).sum())(x)
    assert g.dtype == jnp.bfloat16


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


# --- networks -----------------------------------------------------------------------------------------


def small(event=False):
    """Two exits; a constant shortcut joins the spikes, and a hidden layer fires before the last head."""
    layers = (
        Conv(name="stem", input="input", out_channels=3, kernel=3, padding=1, part="stem"),
        Norm(name="stem.norm", input="stem"),
        Activation(name="one", input="stem.norm"),
        Conv(name="body", input="one", out_channels=4, kernel=3, stride=2, padding=1),
        Norm(name="body.norm", input="body"),
        Conv(name="short", input="input", out_channels=4, kernel=1, stride=2),
        Norm(name="short.norm", input="short"),
        Add(name="sum", input="short.norm", other="body.norm"),
        Activation(name="two", input="sum"),
        GlobalPool(name="f1", input="two"),
        Linear(name="h1", input="f1", out_features=3),
        AvgPool(name="pool", input="two", kernel=2, stride=2),
        GlobalPool(name="f2", input="pool"),
        Linear(name="hidden", input="f2", out_features=5),
        Activation(name="three", input="hidden"),
        Linear(name="h2", input="three", out_features=3),
    )
    exits = (Branch(feature="f1", head="h1"), Branch(feature="f2", head="h2"))
    return Network(name="small", input_shape=(2, 8, 8), event=event, layers=layers, exits=exits)


SMALL, EVENTS = small(), small(event=True)
VARIED = ts.Method(
    time_steps=3,
    neuron=ts.Neuron(decay_scope="channel", threshold_scope="layer", reset="soft", decay_input=True, surrogate=ts.Arctan()),
    batch_norm=ts.BatchNorm(time="folded", gamma_init="threshold", momentum=0.3),
    readout="mean",
    loss=ts.Loss(per_step=True, form="kl", detach_teacher=False, beta=0.01, pairs=("snn1<-ann2", "ann1<-snn2", "snn1<-snn2")),
)
PENALIZED = ts.Method(
    time_steps=3,
    neuron=ts.Neuron(decay_scope="layer", threshold_scope="channel", v_reset=-0.1, surrogate=ts.Triangle(width=2.0)),
    batch_norm=ts.BatchNorm(momentum=0.3),
    factorization=ts.Factorization(matricize="out_by_rest", scope="with_heads", orthogonality=ts.Penalty(weight=0.01)),
    loss=ts.Loss(isolate_ann=True, feature_reduction="mean", beta=0.1),
)
RETRACTED = ts.Method(
    time_steps=2,
    factorization=ts.Factorization(scope="no_stem", rank=2, orthogonality=ts.config.Retract(every=2)),
    batch_norm=ts.BatchNorm(time="folded", momentum=0.3),
    loss=ts.Loss(per_step=True),
)
STEPS = [
    pytest.param(SMALL, ts.Method(), ts.SGD(momentum=0.9), id="default"),
    pytest.param(EVENTS, VARIED, ts.AdamW(weight_decay=0.1, decay_scope="no_norm_bias"), id="events"),
    pytest.param(SMALL, PENALIZED, ts.Adam(weight_decay=0.1), id="penalty"),
    pytest.param(SMALL, RETRACTED, ts.SGD(momentum=0.9, nesterov=True, decay_scope="no_norm_bias"), id="retract"),
    pytest.param(ts.network("digits_cnn", width=4), ts.Method(), ts.SGD(), id="digits", marks=pytest.mark.slow),
    pytest.param(
        ts.network("resnet18", width=4, input_shape=(3, 8, 8)), ts.Method(time_steps=2), ts.SGD(), id="resnet18",
        marks=pytest.mark.slow,
    ),
]  # fmt: skip


def batch(network, method, size=5, seed=0):
    rng = np.random.default_rng(seed)
    lead = (method.time_steps,) if network.event else ()
    return rng.normal(size=(*lead, size, *network.input_shape)), rng.integers(0, network.classes, size)


def varied_state(network, method, optimizer):
    """A state away from its initial constants, where a wrong term would vanish."""
    rng = np.random.default_rng(11)
    state = ts.initial_state(network, method, optimizer, seed=3)
    for name, value in state.items():
        if name.rpartition(".")[2].startswith(("gamma", "beta", "mean", "var")):
            state[name] = value + rng.uniform(0, 0.25, value.shape)
        if name.endswith((".U", ".V")):  # no longer orthonormal, else the penalty is nothing but roundoff
            state[name] = value * rng.uniform(1, 1.25, value.shape)
    return state


def assert_relative(got, want, limit):
    for name, value in want.items():
        assert np.linalg.norm(got[name] - value) <= limit * max(np.linalg.norm(value), 1e-9), name


@pytest.mark.parametrize(("network", "method", "optimizer"), STEPS)
def test_a_training_step_is_the_reference_step(session, network, method, optimizer):
    """Spikes are equal, every gradient and the whole state after two steps agree to 1e-12 of their norms."""
    state, (images, labels) = varied_state(network, method, optimizer), batch(network, method)
    program = session("f64", True).program(network, method, optimizer)
    loaded = program.load(state)
    # gradients towards values too: one of the two forms in which a backend may give those of a constant layer
    traced = program.trace(loaded, images, training=True, labels=labels)
    wanted = reference.trace(network, method, state, images, training=True, labels=labels)
    for layer, values in wanted.items():
        assert traced[layer].keys() == values.keys()
        for key, value in values.items():
            if key == "g_snn" and traced[layer][key].shape[0] == 1:
                value = value.sum(axis=0, keepdims=True)  # noqa: PLW2901
            assert traced[layer][key].shape == value.shape
            if layer in network.activations and key == "snn":
                np.testing.assert_array_equal(traced[layer][key], value)
            else:
                assert_relative(traced[layer], {key: value}, 1e-12)
    found, metrics = program.gradients(loaded, images, labels)
    gradients, _, wanted_metrics = reference.gradients(network, method, state, images, labels)
    assert set(found) == set(gradients)
    assert_relative(found, gradients, 1e-12)
    for field in metrics.__struct_fields__:
        np.testing.assert_allclose(getattr(metrics, field), getattr(wanted_metrics, field), rtol=1e-12, err_msg=field)
    np.testing.assert_array_equal(program.dump(loaded)[STEP], 0)
    for _ in range(2):
        loaded, _ = program.train_step(loaded, images, labels, 0.01)
        state, _ = reference.train_step(network, method, optimizer, state, images, labels, 0.01)
    dumped = program.dump(loaded)
    assert list(dumped) == [entry.name for entry in ts.layout(network, method, optimizer)]
    # two steps, and Adam divides by the root of a squared gradient, which doubles a relative error
    assert_relative(dumped, state, 1e-11)
    evaluated, wanted_evaluation = program.evaluate(loaded, images), reference.evaluate(network, method, state, images)
    for field in evaluated.__struct_fields__:
        np.testing.assert_allclose(getattr(evaluated, field), getattr(wanted_evaluation, field), rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_layer_by_layer_equals_compiled(session):
    state, (images, labels) = varied_state(SMALL, ts.Method(), ts.SGD()), batch(SMALL, ts.Method())
    results = []
    for compiled in (False, True):
        program = session("f64", compiled).program(SMALL, ts.Method(), ts.SGD())
        results.append(program.gradients(program.load(state), images, labels)[0])
    assert_relative(*results, 1e-12)


def test_whatever_a_static_image_feeds_runs_once():
    """The traced training step has one convolution of B images, not of T B, before the first neurons."""
    method = ts.Method(time_steps=4)
    with formats("float32"):
        params, statistics = tj.init(SMALL, method)
        images = jnp.ones((5, 2, 8, 8), jnp.float32)
        twin = run_twin(SMALL, method, "snn", params, statistics, images, True, policy("f32-ieee"))
    shapes = {name: value.shape[: -(3 if value.ndim > 3 else 1)] for name, value in twin.values.items()}
    assert shapes["stem.norm"] == shapes["short.norm"] == (5,)
    assert shapes["one"] == shapes["sum"] == (4, 5)


@pytest.mark.parametrize("precision", ["f32-ieee", "bf16-mixed"])
def test_states_round_trip_bit_for_bit_and_stay_in_their_formats(session, precision):
    """Storage is float32; what layers hand on is bfloat16 under bf16-mixed; the loss is finite and the inputs unchanged."""
    optimizer = ts.SGD(momentum=0.9)
    method = ts.Method(time_steps=2)
    program = session(precision, True).program(SMALL, method, optimizer)
    state = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in varied_state(SMALL, method, optimizer).items()}
    dumped = program.dump(program.load(state))
    for name, value in state.items():
        assert dumped[name].dtype == value.dtype
        np.testing.assert_array_equal(dumped[name], value)
    images, labels = batch(SMALL, method)
    kept = images.copy()
    after, metrics = program.train_step(program.load(state), images, labels, 0.1)
    np.testing.assert_array_equal(images, kept)
    assert all(value.dtype == jnp.float32 for value in jax.tree.leaves((after.params, after.statistics, after.optimizer)))
    assert metrics.loss.dtype == jnp.float32
    assert np.isfinite(metrics.loss)
    np.testing.assert_array_equal(program.dump(after)[STEP], 1)
    twin = run_twin(
        SMALL, method, "snn", after.params, after.statistics, jnp.asarray(images, jnp.float32), True, policy(precision)
    )
    handed = {value.dtype for value in twin.values.values()}
    assert handed == {jnp.dtype(ts.PRECISIONS[precision].activations)}


def test_formats_do_not_depend_on_the_global_flag(session):
    rng = np.random.default_rng(12)
    assert session("f64").from_numpy(rng.normal(size=3)).dtype == np.float64
    assert jnp.ones(2).dtype == jnp.float32, "the user's setting must stay"
    with formats("float64"):
        assert jnp.ones(2, float).dtype == jnp.float64
        for compiled in (False, True):
            s = session("f32-ieee", compiled)
            x = {"x": s.from_numpy(rng.normal(size=(2, 3, 4)))}
            outputs, gradients = s.vjp("lif", ts.Neuron(decay=0.3), x, {})
            assert {v.dtype for v in (*outputs.values(), *gradients.values())} == {jnp.dtype("float32")}


def test_apply_is_a_pure_function_that_jits_and_differentiates():
    method = ts.Method(time_steps=2)
    params, statistics = tj.init(SMALL, method, seed=1)
    images, labels = (jnp.asarray(a, d) for a, d in zip(batch(SMALL, method), ("float32", "int32"), strict=True))
    optimizer = ts.SGD(momentum=0.9)
    transform = tj.make_optimizer(optimizer, tj.decay_mask(SMALL, method, optimizer))

    @jax.jit
    def step(params, statistics, kept):
        def loss(params):
            outputs, after = tj.apply(SMALL, method, params, statistics, images, True)
            return tj.joint_loss(*outputs[:4], labels, config=method.loss).loss, after

        (value, after), g = jax.value_and_grad(loss, has_aux=True)(params)
        updates, kept = transform.update(g, kept, params, learning_rate=0.05)
        return optax.apply_updates(params, updates), after, kept, value

    kept, values = transform.init(params), []
    for _ in range(4):
        params, statistics, kept, value = step(params, statistics, kept)
        values.append(float(value))
    assert values[-1] < values[0]


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


def test_ranks_by_energy_load_whatever_the_seed(session):
    method = ts.Method(time_steps=2, factorization=ts.Factorization(rank=0.5))
    program = session("f64").program(SMALL, method, ts.SGD(momentum=0.9))
    for seed in (0, 1, 2):
        state = ts.initial_state(SMALL, method, ts.SGD(momentum=0.9), seed=seed)
        dumped = program.dump(program.load(state))
        assert all(np.array_equal(dumped[name], value) for name, value in state.items())


def test_refusals_are_one_line(session):
    s = session("f32-ieee")
    program = s.program(SMALL, ts.Method(), ts.SGD())
    state = program.load(ts.initial_state(SMALL, ts.Method(), ts.SGD()))
    images, labels = batch(SMALL, ts.Method())
    x = s.from_numpy(np.zeros((2, 3, 4)))
    refused = [
        lambda: tj.backend.session("tpu"),
        lambda: tj.backend.session("cpu:7"),
        lambda: tj.backend.session("cpu", "f16"),
        lambda: s.forward("lif", ts.BatchNorm(), {"x": x}),
        lambda: s.forward("lif", ts.Neuron(), {"x": np.zeros((2, 3, 4))}),
        lambda: s.vjp("lif", ts.Neuron(), {"x": x}, {"u": x}),
        lambda: s.vjp("lif", ts.Neuron(), {"x": x}, {"s": x[0]}),
        lambda: s.vjp("retract", ts.config.Retract(), {"U": x, "V": x}, {}),
        lambda: s.forward("factorize", ts.Factorization(), {"kernel": s.from_numpy(np.full((2, 2, 1, 1), np.nan))}),
        lambda: program.load({}),
        lambda: program.train_step(state, images[:, :1], labels, 0.1),
        lambda: program.train_step(state, images, labels + 3, 0.1),
        lambda: program.train_step(state, images, labels, float("nan")),
        lambda: program.evaluate(state, images * np.inf),
        lambda: tj.init(SMALL, ts.Method(), dtype=jnp.float16),
        lambda: tj.init(SMALL, ts.Method(), dtype=jnp.float64),
        lambda: tj.lif(jnp.zeros((2, 3)), neuron=ts.Neuron()),
    ]
    for call in refused:
        with pytest.raises(ts.SpecError, match=r"^[^\n]+$"):
            call()


def test_flags_are_read_back(session):
    assert session("f64").flags()["widest format"] == "float64"
    assert session("f32-ieee").flags() == {"widest format": "float32", "product precision": "HIGHEST"}


def test_what_is_claimed_is_there(session):
    claims = tj.backend.capabilities()
    assert isinstance(tj.backend, ts.Backend)
    assert claims.operations == frozenset(OPERATIONS)
    assert "cpu" in claims.devices
    for precision in claims.precisions - {"tf32"}:
        assert tj.backend.session("cpu", precision).precision == precision


def test_the_trace_of_potentials_certifies_itself():
    """Each reported spike is the comparison of its own reported potential, compiled or not, in float32."""
    x = jnp.asarray(np.random.default_rng(13).normal(size=(4, 50, 20)) * 0.6, jnp.float32)
    for run in (tj.lif_with_potentials, jax.jit(tj.lif_with_potentials, static_argnames="neuron")):
        s, u, _ = run(x, neuron=ts.Neuron(decay=0.3, threshold=0.7))
        np.testing.assert_array_equal(s, u >= np.float32(0.7))
    want = reference_neuron.lif(ts.Neuron(decay=0.3, threshold=0.7), np.asarray(x, np.float64))
    assert (np.asarray(s) != want.s).mean() < 1e-3
