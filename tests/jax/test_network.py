"""The JAX backend's networks and training steps against the reference, and what of them a user composes alone."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]  # it ships no types
import pytest
from jax_networks import SMALL, batch, small
from jax_rows import opened
from kept_maps import BLOCKS

import twinspike as ts
import twinspike_jax as tj
from twinspike.parameters import STEP
from twinspike.reference import step as reference
from twinspike_jax.precision import formats, policy
from twinspike_jax.twin import run_twin

EVENTS = small(event=True)
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
    pytest.param(BLOCKS, ts.Method(time_steps=2), ts.SGD(), id="blocks", marks=pytest.mark.slow),
]


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


@pytest.fixture(scope="session")
def session(device):
    """Sessions on the device under test, by precision and mode."""
    return functools.partial(opened, device)


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


def test_ranks_by_energy_load_whatever_the_seed(session):
    method = ts.Method(time_steps=2, factorization=ts.Factorization(rank=0.5))
    program = session("f64").program(SMALL, method, ts.SGD(momentum=0.9))
    for seed in (0, 1, 2):
        state = ts.initial_state(SMALL, method, ts.SGD(momentum=0.9), seed=seed)
        dumped = program.dump(program.load(state))
        assert all(np.array_equal(dumped[name], value) for name, value in state.items())
