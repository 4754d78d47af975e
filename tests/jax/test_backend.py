"""The JAX backend behind the specification's contract: what it claims, refuses and leaves alone."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from jax_networks import SMALL, batch
from jax_rows import opened

import twinspike as ts
import twinspike_jax as tj
from twinspike.operations import OPERATIONS
from twinspike_jax.precision import formats


@pytest.fixture(scope="session")
def session(device):
    """Sessions on the device under test, by precision and mode."""
    return functools.partial(opened, device)


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


def test_a_platform_that_jax_may_not_use_is_one_line(monkeypatch):
    def none(backend):
        raise RuntimeError(f"Unknown backend: '{backend}' requested")

    monkeypatch.setattr("jax.local_devices", none)
    with pytest.raises(
        ts.SpecError, match=r"^device of backend 'jax': expected a cpu that JAX can use, got none; see JAX_PLATFORMS"
    ):
        tj.backend.session("cpu")


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
