"""Functions that JAX sessions run primitive by primitive: what they give, what is compiled once, and what programs share."""

from __future__ import annotations

import gc

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


@pytest.fixture(params=["one program", "programs of two", "primitive by primitive"])
def grouping(request, monkeypatch):
    """Ways in which a function is cut into programs."""
    if request.param == "primitive by primitive":
        monkeypatch.setattr(piecewise, "joint_options", lambda platform: None)
    elif request.param == "programs of two":
        monkeypatch.setattr(piecewise, "TOGETHER", 2)
    return request.param


def test_equal_programs_are_compiled_once_whatever_their_constants(grouping):
    (x,) = placed(np.ones((5, 7, 11)))
    first = piecewise.Pieces(lambda x: jnp.sqrt(x * 3.0) + 1.0, DEVICE)
    first(x)
    known = len(piecewise._PIECES)
    second = piecewise.Pieces(lambda x: jnp.sqrt(x * 5.0) + 2.0, DEVICE)
    np.testing.assert_array_equal(second(x), np.sqrt(np.float32(5.0)) + np.float32(2.0))
    assert len(piecewise._PIECES) == known
    third = piecewise.Pieces(lambda x: jnp.sqrt(x * 5.0) - 2.0, DEVICE)
    np.testing.assert_array_equal(third(x), np.sqrt(np.float32(5.0)) - np.float32(2.0))
    assert len(piecewise._PIECES) == known + 1


def test_programs_live_as_long_as_someone_needs_them():
    (x,) = placed(np.ones((5, 7, 13)))
    known = len(piecewise._PIECES)
    function = piecewise.Pieces(lambda x: jnp.sqrt(x * 3.0) + 1.0, DEVICE)
    function(x)
    assert len(piecewise._PIECES) == known + 1
    del function
    gc.collect()
    assert len(piecewise._PIECES) == known


@pytest.mark.parametrize("most", [200, 2])
def test_every_primitive_rounds_by_itself_however_many_make_a_program(most, monkeypatch):
    """No multiply-add, no quotient by a reciprocal, no product of exponentials as that of a sum, no cast left out."""
    monkeypatch.setattr(piecewise, "TOGETHER", most)
    x, y, z = placed(*np.random.default_rng(3).uniform(0.1, 9.0, (3, 257)))

    def function(x, y, z):
        short = (x * y).astype(jnp.bfloat16).astype(jnp.float32)
        return x * y + z, x * y - x * y * z, x / 3.0 / y, x / jnp.sqrt(y), short * z - z * short, jnp.exp(x) * jnp.exp(y)

    def one(primitive, *values):
        return np.asarray(jax.jit(primitive, compiler_options=piecewise.quick_options("cpu"))(*values))

    a, b, c = (np.asarray(value) for value in (x, y, z))
    wanted = [a * b + c, a * b - a * b * c, a / np.float32(3.0) / b, a / np.sqrt(b), np.zeros_like(a)]
    wanted.append(one(jnp.exp, x) * one(jnp.exp, y))
    found = piecewise.Pieces(function, DEVICE)(x, y, z)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    exact = piecewise.Pieces(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), DEVICE)(x)
    assert not np.array_equal(exact, x)


def test_a_version_of_xla_that_joins_roundings_gets_one_primitive_a_program(monkeypatch):
    """At full optimization XLA contracts the multiply-add, which the probe sees."""
    assert piecewise.joint_options("cpu") is not None
    monkeypatch.setattr(piecewise, "WISHES", {"xla_cpu_use_fusion_emitters": True})
    piecewise.quick_options.cache_clear()
    piecewise.joint_options.cache_clear()
    assert piecewise.joint_options("cpu") is None
    piecewise.quick_options.cache_clear()
    piecewise.joint_options.cache_clear()


def test_a_session_keeps_the_latest_operations_alone(monkeypatch):
    monkeypatch.setattr("twinspike_jax.session.ROWS_KEPT", 2)
    session = ts.load("jax").session("cpu", "f32-ieee", False)
    x = session.from_numpy(np.ones((2, 3)))
    for threshold in (0.5, 1.0, 2.0):
        session.forward("spike", ts.Neuron(threshold=threshold), {"u": x})
    assert [key[2].threshold for key in session._pieces] == [1.0, 2.0]


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
