"""Functions that JAX sessions run primitive by primitive: what they give, what is compiled once, and what programs share."""

from __future__ import annotations

import numpy as np
import pytest

import twinspike as ts

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402  # where JAX is there

from twinspike_jax import piecewise  # noqa: E402
from twinspike_jax.neuron import lif  # noqa: E402

DEVICE = jax.devices("cpu")[0]
NEURON = ts.Neuron(reset="soft", decay=0.5)


def placed(*values):
    return [jax.device_put(np.asarray(value, np.float32), DEVICE) for value in values]


def scanned(x):
    """A loop, a constant array, a result that is a literal and one that is an argument."""
    total, parts = jax.lax.scan(lambda c, y: (c + y, c * 2.0), jnp.zeros(3), x)
    return {"total": total + np.arange(3.0, dtype=np.float32), "parts": parts, "one": 1.0, "same": x}


def neuron_gradients(x):
    def loss(x):
        s, v = lif(x, neuron=NEURON)
        return (s * x).sum() + (v**2).sum()

    return jax.value_and_grad(loss)(x)


@pytest.mark.parametrize("function", [scanned, neuron_gradients, jax.checkpoint(neuron_gradients)])
def test_results_are_those_of_the_function(function):
    """On values of few bits, so that no order or fusion rounds."""
    (x,) = placed(np.random.default_rng(0).integers(-4, 5, (4, 3) if function is scanned else (4, 3, 2)) / 4)
    found, wanted = piecewise.Pieces(function, DEVICE)(x), jax.jit(function)(x)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_equal_primitives_are_compiled_once_whatever_their_constants():
    (x,) = placed(np.ones((5, 7, 11)))
    piecewise.Pieces(lambda x: jnp.sqrt(x * 3.0) + 1.0, DEVICE)(x)
    known = len(piecewise._PIECES)
    (y,) = jax.tree.leaves(piecewise.Pieces(lambda x: jnp.sqrt(x * 5.0) + 2.0, DEVICE)(x))
    np.testing.assert_array_equal(y, np.sqrt(np.float32(5.0)) + np.float32(2.0))
    assert len(piecewise._PIECES) == known
    piecewise.Pieces(lambda x: jnp.sqrt(x * 5.0) - 2.0, DEVICE)(x)
    assert len(piecewise._PIECES) == known + 1


def test_parameters_of_primitives_are_told_apart():
    (x,) = placed(np.arange(24.0).reshape(2, 3, 4))
    for axis in range(3):
        np.testing.assert_array_equal(piecewise.Pieces(lambda x, a=axis: jnp.flip(x, a), DEVICE)(x), np.flip(np.asarray(x), axis))


def test_bodies_of_loops_are_told_apart():
    (x,) = placed(np.arange(4.0))
    for factor in (2.0, 3.0):
        found = piecewise.Pieces(lambda x, k=factor: jax.lax.scan(lambda c, y: (c + k * y, None), 0.0, x)[0], DEVICE)(x)
        assert float(found) == 6.0 * factor


def test_a_value_that_several_read_is_computed_once():
    """u[1] follows from the u[0] that is reported: a fused program may compute it twice and round it in two ways."""
    rng = np.random.default_rng(14)
    session = ts.load("jax").session("cpu", "f32-ieee", False)
    inputs = {"x": rng.standard_normal((2, 25, 41)), "v": rng.standard_normal((25, 41)), "decay": rng.uniform(0.2, 0.9, 41)}
    neuron = ts.Neuron(decay_scope="channel", v_reset=-0.25)
    given = {name: session.from_numpy(value) for name, value in inputs.items()}
    u = session.to_numpy(session.forward("lif", neuron, given)["u"])
    x, decay = (session.to_numpy(given[name]) for name in ("x", "decay"))
    after = np.where(u[0] >= np.float32(neuron.threshold), np.float32(neuron.v_reset), u[0])
    np.testing.assert_array_equal(u[1], decay * after + x[1])


@pytest.mark.parametrize("compiled", [False, True])
def test_programs_of_equal_descriptions_are_shared_and_others_are_not(compiled):
    session = ts.load("jax").session("cpu", "f32-ieee", compiled)
    network = ts.network("digits_cnn", width=2, input_shape=(1, 8, 8), classes=3)
    first = session.program(network, ts.Method(), ts.SGD())
    assert session.program(network, ts.Method(), ts.SGD()) is first
    assert session.program(network, ts.Method(time_steps=3), ts.SGD()) is not first
    assert session.program(network, ts.Method(), ts.SGD(), recompute=True) is not first


def test_unknown_wishes_are_left_out(monkeypatch):
    assert piecewise.quick_options("tpu") is None
    piecewise.quick_options.cache_clear()
    monkeypatch.setattr(piecewise, "WISHES", {"xla_no_such_option": 1, "xla_backend_optimization_level": 0})
    assert piecewise.quick_options("cpu") == {"xla_backend_optimization_level": 0}
    piecewise.quick_options.cache_clear()
