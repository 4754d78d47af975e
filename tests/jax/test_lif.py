"""Every kernel of the JAX backend's neuron against the reference: C++ on the CPU, plain XLA, and Triton, interpreted."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax_rows import ROUNDOFF, dyadic

import twinspike as ts
from twinspike.config import _Sloped
from twinspike.reference import neuron as reference
from twinspike.reference.surrogate import derivative
from twinspike_jax import neuron_native, neuron_plain, neuron_triton
from twinspike_jax.native_build import LIF, Library, library
from twinspike_jax.neuron_form import Form, Inputs
from twinspike_jax.precision import formats

STEP = (3, 7, 49)
"""(B, C, space): 1029 neurons, a few more than a block of most kernels."""
KERNELS = ("native", "plain", "plain written out", "triton")


def kernel(name):
    """Its two passes, compiled."""
    if name == "triton":
        passes = [functools.partial(f, interpret=True) for f in (neuron_triton.forward, neuron_triton.backward)]
    elif name == "native":
        built = library(LIF)
        assert isinstance(built, Library), f"these tests need a C++ compiler: {built}"
        passes = [functools.partial(f, built) for f in (neuron_native.forward, neuron_native.backward)]
    else:
        unroll = name == "plain written out"
        passes = [functools.partial(neuron_plain.forward, unroll=unroll), neuron_plain.backward]
    return [jax.jit(f, static_argnums=0) for f in passes]


def run(name, form, given, g, e, dtype="float64"):
    """Outputs and gradients by name, on arrays of one format; the current's, and g's, is `dtype`."""
    wide = "float64" if dtype == "float64" else "float32"
    with formats(wide):
        forward, backward = kernel(name)
        arrays = {k: jnp.asarray(v, dtype if k == "x" else wide) for k, v in given.items()}
        inputs = Inputs(*(arrays.get(k) for k in Inputs._fields))
        outputs = forward(form, inputs)
        gradients = backward(form, inputs, jnp.asarray(g, dtype), None if e is None else jnp.asarray(e, wide))
        found = [{k: np.asarray(v) for k, v in tree._asdict().items() if v is not None} for tree in (outputs, gradients)]
        return found


def expected(form, given, g, e):
    """The same from the reference, of which each neuron has quantities of its own: their gradients are summed here."""
    steps, (batch, channels, space) = form.steps(given["x"]), form.step(given["x"])
    neurons = batch * channels * space

    def own(name):
        if name not in given:
            return None
        return np.broadcast_to(np.reshape(given[name], (-1, 1)), (batch, channels, space)).reshape(neurons)

    x = np.broadcast_to(given["x"], (steps, batch, channels, space)).reshape(steps, 1, neurons)
    v = given["v"].reshape(1, neurons) if "v" in given else None
    learned = own("decay"), own("threshold")
    trace = reference.lif(form.neuron, x, v, *learned)
    last = None if e is None else e.reshape(1, neurons)
    found = reference.lif_adjoint(form.neuron, x, trace, g.reshape(x.shape), last, v, *learned)
    d_x = found.x.sum(axis=0) if form.constant else found.x
    outputs = {"s": trace.s.reshape(g.shape)}
    if form.potentials:
        outputs["u"] = trace.u.reshape(g.shape)
    if form.state:
        outputs["v"] = trace.v[-1].reshape(batch, channels, space)
    gradients = {"x": d_x.reshape(given["x"].shape)}
    if "v" in given:
        gradients["v"] = found.v.reshape(batch, channels, space)
    for name in ("decay", "threshold"):
        if name in given:
            each = getattr(found, name).reshape(batch, channels, space)
            gradients[name] = each.sum(axis=(0, 2) if given[name].ndim else None)
    return outputs, gradients


def arrays(rng, given, steps, constant, step=STEP):
    """Dyadic inputs, of which `v`, `decay` and `threshold` come where named, and cotangents."""
    made = {"x": dyadic(rng, step if constant else (steps, *step), 4, 6)}
    if "v" in given:
        made["v"] = dyadic(rng, step, 4, 2)
    if "decay" in given:
        made["decay"] = rng.choice([0.25, 0.5], step[1])
    if "threshold" in given:
        made["threshold"] = np.asarray(0.75)
    return made, dyadic(rng, (steps, *step), 2, 3), dyadic(rng, step, 2, 3)


SURROGATES = [
    ts.Rectangle(width=2.0), ts.Triangle(width=2.0), ts.Sigmoid(slope=3.0), ts.Arctan(), ts.FastSigmoid(slope=5.0),
    ts.Tanh(slope=1.5),
]  # fmt: skip
RESETS = [{}, {"v_reset": -0.25}, {"reset": "soft"}]
GIVEN = [(), ("v", "decay", "threshold"), ("threshold",), ("v", "decay")]


def configurations():
    """Every surrogate with every reset; detach, weighted input, learned quantities and what is asked take turns."""
    for i, (surrogate, reset) in enumerate(itertools.product(SURROGATES, RESETS)):
        neuron = ts.Neuron(
            decay=0.5, threshold=0.5, surrogate=surrogate, detach_reset=i % 4 == 1, decay_input=i % 5 in (2, 3), **reset
        )
        yield neuron, GIVEN[i % 4], i % 2 == 0, i % 3 != 1, i % 7 == 3


CONFIGURATIONS = list(configurations())


def case_id(case):
    neuron, given = case[:2]
    return "-".join([type(neuron.surrogate).__name__, neuron.reset, *given])


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("case", CONFIGURATIONS, ids=case_id)
def test_every_configuration_is_the_reference(case, name):
    """Dyadic data: spikes and potentials equal; gradients too but where the surrogate itself rounds.

    There each of three steps takes at most 40 operations on magnitudes below 2^9, for each neuron that is summed over.
    """
    neuron, given, potentials, state, constant = case
    steps = 3
    inputs, g, e = arrays(np.random.default_rng(1), given, steps, constant)
    form = Form(neuron, steps if constant else 0, potentials, state)
    wanted, found = expected(form, inputs, g, e), run(name, form, inputs, g, e)
    exact = isinstance(neuron.surrogate, ts.Rectangle | ts.Triangle)
    for want, got, rounded in zip(wanted, found, (False, not exact), strict=True):
        assert want.keys() == got.keys()
        for key, value in want.items():
            summed = math.prod(STEP) if key in ("decay", "threshold") else 1
            assert np.abs(value).max() < 2**9 * summed
            atol = steps * 40 * ROUNDOFF * 2**9 * summed if rounded else 0
            np.testing.assert_allclose(got[key], value, rtol=0, atol=atol, err_msg=key)
            assert np.any(value), f"{key} shows nothing"


@pytest.mark.parametrize("name", KERNELS)
def test_channels_may_come_last(name):
    """(T, B, space, C) gives what (T, B, C, space) gives, with its axes moved; no sum of this data rounds."""
    rng, neuron = np.random.default_rng(6), ts.Neuron(decay=0.5, surrogate=ts.Rectangle(width=2.0))
    inputs, g, e = arrays(rng, ("v", "decay", "threshold"), 3, False)
    inputs["threshold"] = rng.choice([0.5, 0.75], STEP[1])
    last = {k: v if v.ndim == 1 else np.moveaxis(v, -2, -1) for k, v in inputs.items()}
    wanted = run(name, Form(neuron, 0, True, True), inputs, g, e)
    found = run(name, Form(neuron, 0, True, True, last=True), last, np.moveaxis(g, -2, -1), np.moveaxis(e, -2, -1))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.moveaxis(a, -2, -1) if a.ndim > 1 else a, b), wanted, found)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("steps", [1, 8, 9, 21])
def test_sequences_of_any_length(name, steps):
    """Around the numbers of steps that kernels hold at once; potentials are exact, gradients within 12 operations a step."""
    neuron = ts.Neuron(decay=0.5, surrogate=ts.Triangle(width=2.0))
    inputs, g, e = arrays(np.random.default_rng(2), ("v", "decay", "threshold"), steps, False, (2, 3, 5))
    form = Form(neuron, 0, True, True)
    (outputs, gradients), found = expected(form, inputs, g, e), run(name, form, inputs, g, e)
    for key, value in outputs.items():
        np.testing.assert_array_equal(found[0][key], value, err_msg=key)
    for key, value in gradients.items():
        bound = 12 * steps**2 * ROUNDOFF * max(1.0, np.abs(gradients["x"]).max()) * 2**4
        np.testing.assert_allclose(found[1][key], value, rtol=0, atol=bound, err_msg=key)


@pytest.mark.parametrize("name", [name for name in KERNELS if name != "plain written out"])
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_what_is_handed_out_is_what_the_steps_before_are_computed_from(name, reset, steps):
    """e[1] is decay times the very d[1] that x gets: what is evaluated twice may be rounded in two ways (LIF-6, LIF-8)."""
    rng, neuron = np.random.default_rng(8), ts.Neuron(decay=0.3, threshold=1.0, reset=reset, surrogate=ts.Sigmoid(slope=3.0))
    inputs = {"x": rng.standard_normal((steps, 1, 128, 1)), "v": rng.standard_normal((1, 128, 1))}
    _, found = run(name, Form(neuron, 0, True, True), inputs, rng.standard_normal((steps, 1, 128, 1)), None, "float32")
    np.testing.assert_array_equal(found["v"], np.float32(0.3) * found["x"][0])


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_formats_round_once(name, dtype):
    """Potentials are float32 or wider, and only what leaves is rounded to the current's format."""
    neuron = ts.Neuron(decay=0.5, surrogate=ts.Rectangle(width=2.0))
    inputs, g, e = arrays(np.random.default_rng(3), ("v", "threshold"), 3, False)
    form = Form(neuron, 0, True, True)
    (outputs, gradients), found = expected(form, inputs, g, e), run(name, form, inputs, g, e, dtype)
    for want, got in zip((outputs, gradients), found, strict=True):
        for key, value in want.items():
            kept = dtype if key in ("s", "x") else "float32"
            assert got[key].dtype == jnp.dtype(kept), key
            np.testing.assert_array_equal(got[key], jnp.asarray(value, jnp.float32).astype(kept), err_msg=key)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: type(s).__name__)
def test_surrogates_keep_their_digits_far_from_the_threshold(surrogate, dtype, name):
    """One step passes g h(x - threshold) on: within 16 roundings of its own size, and of exp's argument."""
    x = np.concatenate([np.linspace(-24, 24, 1537), [0.5]]).reshape(1, 1, 1, -1)
    form = Form(ts.Neuron(threshold=0.5, surrogate=surrogate), 0, False, False)
    got = run(name, form, {"x": x}, np.ones_like(x), None, dtype)[1]["x"]
    z = x - 0.5
    want = derivative(surrogate, z)
    roundoff = ROUNDOFF if dtype == "float64" else 2.0**-24
    grown = 2.0 * np.abs(z) * getattr(surrogate, "slope", 1.0)
    edge = 2 * roundoff * (1 + np.abs(z)) if isinstance(surrogate, ts.Triangle) else 0  # 1 - |z|/width, near its zero
    assert (np.abs(got - want) <= roundoff * (16 + grown) * want + edge).all()


class Cubic(_Sloped, tag="cubic", tag_field="kind", frozen=True, kw_only=True):
    """A surrogate that no kernel knows."""


@pytest.mark.parametrize("name", KERNELS)
def test_an_unknown_surrogate_is_an_error(name):
    neuron, x = ts.Neuron(), np.ones((1, 1, 1, 1))
    msgspec.structs.force_setattr(neuron, "surrogate", Cubic())  # which a config refuses
    with pytest.raises((AssertionError, KeyError), match="Cubic"):
        run(name, Form(neuron, 0, False, False), {"x": x}, x, None)


@pytest.mark.parametrize("number", [-1, 6])
def test_the_native_kernel_refuses_a_number_that_is_no_surrogate_s(monkeypatch, number):
    """It does not compute the last of those that there are."""
    monkeypatch.setitem(neuron_native._NUMBERS, ts.Tanh, number)
    x = np.ones((1, 1, 1, 1))
    with pytest.raises(jax.errors.JaxRuntimeError, match="unknown surrogate"):
        run("native", Form(ts.Neuron(surrogate=ts.Tanh()), 0, False, False), {"x": x}, x, None)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_vmap(name):
    """Over currents and learned quantities, and over currents alone, as one by one."""
    rng = np.random.default_rng(4)
    form = Form(ts.Neuron(decay=0.5, surrogate=ts.Triangle(width=2.0)), 0, True, True)
    sets = [arrays(rng, ("v", "decay", "threshold"), 3, False, (2, 5, 6)) for _ in range(3)]
    with formats("float64"):
        forward, backward = kernel(name)
        each = [Inputs(**{k: jnp.asarray(v) for k, v in inputs.items()}) for inputs, _, _ in sets]
        g, e = (jnp.asarray([s[i] for s in sets]) for i in (1, 2))
        for axes in (Inputs(0, 0, 0, 0), Inputs(0, None, None, 0)):
            inputs = Inputs(*(jnp.stack(a) if axis == 0 else a[0] for a, axis in zip(zip(*each, strict=True), axes, strict=True)))
            together = (
                jax.vmap(functools.partial(forward, form), (axes,))(inputs),
                jax.vmap(functools.partial(backward, form), (axes, 0, 0))(inputs, g, e),
            )
            for i, one in enumerate(each):
                own = Inputs(*(a if axis == 0 else first for a, first, axis in zip(one, each[0], axes, strict=True)))
                alone = forward(form, own), backward(form, own, g[i], e[i])
                jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), together, alone)


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: type(s).__name__)
def test_the_triton_kernels_lower_for_a_gpu_without_one(surrogate, steps):
    """To one Triton call for each direction: every operation in them is one that Triton has."""
    form = Form(ts.Neuron(surrogate=surrogate, reset="soft", decay_input=True), 0, True, True)

    def shaped(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def both(inputs, g, e):
        return neuron_triton.forward(form, inputs), neuron_triton.backward(form, inputs, g, e)

    x, v = jax.ShapeDtypeStruct((steps, *STEP), jnp.bfloat16), shaped(*STEP)
    with described_gpu():
        lowered = jax.jit(both).trace(Inputs(x, v, shaped(STEP[1]), shaped()), x, v).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("custom_call @__gpu$xla.gpu.triton") == 2


def described_gpu():
    """Newer versions of JAX lower Triton's kernels only for a GPU that is there or, as here, described."""
    if not hasattr(jax.sharding, "AbstractDevice") or "abstract_device" not in inspect.signature(AbstractMesh).parameters:
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", 132, "cuda")
    return jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("x",), abstract_device=device))


@pytest.mark.parametrize("name", ["native", "plain"])
def test_many_blocks_on_many_threads_give_the_same_again(name):
    """65,541 neurons: rounding data, whose spikes are those of their own potentials, twice bit for bit."""
    rng = np.random.default_rng(5)
    step = (3, 7, 3121)
    inputs = {"x": rng.normal(size=(4, *step)), "decay": rng.uniform(0.2, 0.8, 7), "threshold": rng.uniform(0.4, 0.8, 7)}
    form = Form(ts.Neuron(surrogate=ts.Sigmoid(slope=3.0)), 0, True, True)
    g, e = rng.normal(size=(4, *step)), rng.normal(size=step)
    first, second = (run(name, form, inputs, g, e, "float32") for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    fired = first[0]["u"] >= inputs["threshold"].astype(np.float32).reshape(7, 1)
    np.testing.assert_array_equal(first[0]["s"], fired)
    assert math.isclose(fired.mean(), 0.3, abs_tol=0.2)


@pytest.mark.parametrize("step", [(3, 5, 700), (400, 7, 3), (2, 3, 2500), (64, 512, 1), (1, 2100, 1)])
@pytest.mark.parametrize("learned", [("decay",), ("threshold",), ("v", "decay", "threshold")], ids="-".join)
def test_every_cut_of_channels_is_the_reference(learned, step):
    """Channels that fill many blocks, parts of one, or one many times: dyadic data, of which no sum rounds."""
    neuron = ts.Neuron(decay=0.5, surrogate=ts.Rectangle(width=2.0), decay_input="v" in learned)
    rng = np.random.default_rng(7)
    inputs, g, e = arrays(rng, learned, 3, False, step)
    if "v" not in learned and "threshold" in learned:
        inputs["threshold"] = rng.choice([0.5, 0.75], step[1])
    form = Form(neuron, 0, True, True)
    wanted, found = expected(form, inputs, g, e), run("native", form, inputs, g, e)
    jax.tree.map(np.testing.assert_array_equal, wanted, tuple(found))


SUMS = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
import hashlib, jax, numpy as np, twinspike as ts, twinspike_jax
rng = np.random.default_rng(0)
for step in ((16, 4096, 1), (3, 7, 3121), (16, 16, 256)):
    for shape in ((), step[1:2]):
        x, g = rng.normal(size=(2, 4, *step)).astype(np.float32)
        decay, threshold = rng.uniform(0.3, 0.7, (2, *shape)).astype(np.float32)
        lif = lambda *inputs: twinspike_jax.lif(inputs[0], neuron=ts.Neuron(), decay=inputs[1], threshold=inputs[2])[0]
        found = jax.vjp(lif, x, decay, threshold)[1](g)
        print(step, shape, hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in found)).hexdigest())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2, reason="needs two cores to choose among")
def test_sums_of_gradients_do_not_depend_on_threads():
    """Bit for bit on one core and on two, of which XLA has as many threads."""
    one, two = (
        subprocess.run([sys.executable, "-c", SUMS, cores], capture_output=True, text=True, check=True).stdout for cores in "12"
    )
    assert one == two
    assert one.count("\n") == 6


@pytest.mark.parametrize("name", ["native", "plain"])
@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 2, 3, 0)])
def test_empty_sequences_are_empty(shape, name):
    form = Form(ts.Neuron(), 0, True, False)
    outputs, gradients = run(name, form, {"x": np.zeros(shape)}, np.zeros(shape), None)
    assert outputs["s"].shape == outputs["u"].shape == gradients["x"].shape == shape
