"""The JAX backend's neuron: its functions as a user calls them, and every kernel against the reference."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_rows import HALF, ROUNDOFF, B, C, T, dyadic, lif_cotangents, lif_inputs, opened, reference_row, run_row

import twinspike as ts
import twinspike_jax as tj
from twinspike.reference import neuron as reference
from twinspike_jax.neuron import fire
from twinspike_jax.precision import formats


@pytest.fixture(scope="session")
def session(device):
    """Sessions on the device under test, by precision and mode."""
    return functools.partial(opened, device)


@pytest.mark.parametrize("given", [(), ("v", "decay", "threshold")])
@pytest.mark.parametrize("config", [ts.Neuron(**HALF), ts.Neuron(**HALF, reset="soft", decay_input=True)])
def test_long_sequences_equal_the_loop(session, config, given):
    """43 steps; spikes are equal, gradients within 8 operations per step."""
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
    s, u, v = tj.lif_traced(x, neuron=ts.Neuron(decay=0.5))
    assert (s.dtype, u.dtype, v.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    exact = np.float32(x[1, 0, 0]) + 0.1875
    assert float(u[1, 0, 0]) == exact
    g = jax.grad(lambda x: tj.lif(x, neuron=ts.Neuron())[0].astype(jnp.float32).sum())(x)
    assert g.dtype == jnp.bfloat16


def test_the_trace_of_potentials_certifies_itself():
    """Each reported spike is the comparison of its own reported potential, compiled or not, in float32."""
    x = jnp.asarray(np.random.default_rng(13).normal(size=(4, 50, 20)) * 0.6, jnp.float32)
    for run in (tj.lif_traced, jax.jit(tj.lif_traced, static_argnames="neuron")):
        s, u, _ = run(x, neuron=ts.Neuron(decay=0.3, threshold=0.7))
        np.testing.assert_array_equal(s, u >= np.float32(0.7))
    want = reference.lif(ts.Neuron(decay=0.3, threshold=0.7), np.asarray(x, np.float64))
    assert (np.asarray(s) != want.s).mean() < 1e-3
