"""What the JAX backend keeps for its backward pass, and its convolutions without overlap."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from kept_maps import BLOCKS, EVENTS, LEARNED, RESNET, VGG, bytes_of_layers

import twinspike as ts
from twinspike.network import GlobalPool, Network, infer_shapes, inputs_of

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402  # after the question whether jax is there
from jax.extend.core import Var  # noqa: E402

import twinspike_jax as tj  # noqa: E402
from twinspike_jax import neuron_kernels, residuals  # noqa: E402
from twinspike_jax.convolution import _tiles  # noqa: E402
from twinspike_jax.layers import channels_first, channels_last  # noqa: E402
from twinspike_jax.precision import formats  # noqa: E402
from twinspike_jax.segments import segments  # noqa: E402


def maps_kept(network: Network, method: ts.Method, precision: str, recompute: bool, size: int) -> int:
    """Bytes of distinct maps, (B, ...) or (T, B, ...), among the residuals of both twins, without the loss; traced, never run."""
    with formats("float32"):
        params, statistics = tj.init(network, method)
        lead = (method.time_steps, size) if network.event else (size,)
        images = jnp.zeros((*lead, *network.input_shape))

        def run(params: Any, images: Any) -> Any:
            outputs, _ = tj.apply(network, method, params, statistics, images, True, precision=precision, recompute=recompute)
            return outputs[:4]

        traced = jax.make_jaxpr(lambda params, images: jax.vjp(lambda p: run(p, images), params)[1])(params, images).jaxpr
    given = {*traced.invars, *traced.constvars}
    kept = {value for value in traced.outvars if isinstance(value, Var)}
    return sum(math.prod(v.aval.shape) * v.aval.dtype.itemsize for v in kept - given if len(v.aval.shape) >= 4)


@pytest.mark.parametrize("precision", ["f32-ieee", "bf16-mixed"])
@pytest.mark.parametrize("network", [RESNET, VGG], ids=["resnet", "vgg"])
def test_recomputation_keeps_what_joins_blocks_and_less_than_half(network: Network, precision: str) -> None:
    method = ts.Method(time_steps=3)
    kept = {}
    for recompute in (False, True):
        more, less = (maps_kept(network, method, precision, recompute, size) for size in (4, 2))
        kept[recompute] = (more - less) // 2
    shapes = infer_shapes(network)
    readers = [layer for layer in network.layers if not isinstance(layer, GlobalPool)]  # a mean's gradient needs no values
    needed = {name for layer in readers for name in inputs_of(layer)}
    joints = {name for segment in segments(network) for name in segment.reads} & needed
    size = 4 if precision == "f32-ieee" else 2
    spikes = method.time_steps  # a byte each; rectified values, and images in each twin, in the format of activations
    assert kept[True] == sum(math.prod(shapes[name]) * (2 * size if name == "input" else size + spikes) for name in joints)
    assert 2 * kept[True] < kept[False]


def test_a_step_keeps_convolutions_outputs_once_and_spikes_as_bytes() -> None:
    """Where activations have 16 bits: in float32 such a policy costs time, so that only `recompute` asks for less."""
    method, size = ts.Method(time_steps=3), 2
    expected = 2 * math.prod(RESNET.input_shape) * size + bytes_of_layers(RESNET, method.time_steps, size)
    more, less = (maps_kept(RESNET, method, "bf16-mixed", False, n) for n in (4, 2))
    assert (more - less) // 2 == expected


def test_rectified_values_and_restored_spikes_have_their_gradients() -> None:
    """Zero and below give none; those of restored spikes reach the spikes, forward and in reverse."""
    x, g = jnp.asarray([-1.0, -0.0, 0.0, 0.5, 2.0]), jnp.asarray([3.0, 5.0, 7.0, 11.0, 13.0])
    y, pull = jax.vjp(residuals.rectified, x)
    np.testing.assert_array_equal(y, [0, 0, 0, 0.5, 2])
    np.testing.assert_array_equal(pull(g)[0], [0, 0, 0, 11, 13])
    booleans = jnp.asarray([True, False, True, False, True])
    s, pull = jax.vjp(lambda x: residuals.restored(x, booleans), x)
    np.testing.assert_array_equal(s, [1, 0, 1, 0, 1])
    np.testing.assert_array_equal(pull(g)[0], g)
    np.testing.assert_array_equal(jax.jvp(lambda x: residuals.restored(x, booleans), (x,), (g,))[1], g)


@pytest.mark.parametrize(("network", "method"), [(BLOCKS, ts.Method(time_steps=2)), (EVENTS, LEARNED)], ids=["blocks", "events"])
def test_recomputed_blocks_give_the_same_gradients_and_statistics(network: Network, method: ts.Method) -> None:
    """In float64: spikes are the same, sums may be fused otherwise; 1e-12 is some 4,500 roundings of a norm."""
    optimizer, rng = ts.SGD(), np.random.default_rng(0)
    values = ts.initial_state(network, method, optimizer, seed=1)
    lead = (method.time_steps, 3) if network.event else (3,)
    images, labels = rng.standard_normal((*lead, *network.input_shape)), rng.integers(0, network.classes, 3)
    session, found = tj.backend.session(precision="f64", compiled=True), []
    for recompute in (False, True):
        program = session.program(network, method, optimizer, recompute=recompute)
        state, _ = program.train_step(program.load(values), images, labels, 0.05)
        found.append(program.dump(state))
    for name, value in found[0].items():
        moved = np.linalg.norm(value - values[name])
        assert np.linalg.norm(found[1][name] - value) <= 1e-12 * (moved + np.linalg.norm(value)), name


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recompute"])
@pytest.mark.parametrize("precision", ["f32-ieee", "bf16-mixed"])
@pytest.mark.parametrize(("network", "method"), [(BLOCKS, ts.Method(time_steps=2)), (EVENTS, LEARNED)], ids=["blocks", "events"])
def test_backward_finds_the_currents_that_fired(
    network: Network, method: ts.Method, precision: str, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, so that potentials and surrogates are the forward pass's however near a threshold they lie.

    In programs compiled whole; of those in pieces, float32 with `recompute` may fuse a norm's product and sum differently.
    Scales and shifts of norms are no whole numbers, whose products would be exact wherever they are rounded.
    """
    seen: dict[str, set[bytes]] = {"forward": set(), "backward": set()}

    def watched(name: str) -> Any:
        kernel = getattr(neuron_kernels, name)

        def run(form: Any, inputs: Any, *rest: Any) -> Any:
            def note(x: Any) -> Any:
                seen[name].add(np.asarray(x).tobytes())
                return x

            same = jax.pure_callback(note, jax.ShapeDtypeStruct(inputs.x.shape, inputs.x.dtype), inputs.x)
            return kernel(form, inputs._replace(x=same), *rest)

        return run

    rng = np.random.default_rng(0)
    values = ts.initial_state(network, method, ts.SGD(), seed=1)
    for name, value in values.items():
        if name.rpartition(".")[2].startswith(("gamma_", "beta_")):
            values[name] = value + rng.uniform(0.05, 0.3, value.shape)
    lead = (method.time_steps, 3) if network.event else (3,)
    images, labels = rng.standard_normal((*lead, *network.input_shape)), rng.integers(0, network.classes, 3)
    program = tj.backend.session(precision=precision, compiled=True).program(network, method, ts.SGD(), recompute=recompute)
    jax.clear_caches()
    for name in seen:
        monkeypatch.setattr(neuron_kernels, name, watched(name))
    try:
        program.gradients(program.load(values), images, labels)
    finally:
        jax.clear_caches()  # of what was traced with the callbacks
    assert seen["forward"] == seen["backward"]
    assert len(seen["forward"]) == len(network.activations)


def test_segments_are_blocks_and_exits() -> None:
    """Every layer is in one segment, and each reads only what earlier ones write."""
    parts = segments(RESNET)
    assert [layer.name for part in parts for layer in part.layers] == [layer.name for layer in RESNET.layers]
    firsts = [part.layers[0].name for part in parts]
    assert firsts[:3] == ["stem.conv", "stage1.1.1.conv", "stage1.2.1.conv"]
    assert firsts[-3:] == ["branch1.1.conv", "branch2.1.conv", "branch3.1.conv"]
    written = {"input"}
    for part in parts:
        assert written.issuperset(part.reads)
        written |= set(part.writes)


@pytest.mark.parametrize("mixed", [False, True])
def test_convolutions_without_overlap_are_xlas_bit_for_bit(mixed: bool) -> None:
    """On whole numbers, where no order of sums rounds: values and both gradients."""
    rng = np.random.default_rng(0)
    maps, dtype = ("NHWC", "HWIO", "NHWC"), jnp.bfloat16 if mixed else jnp.float32

    def whole(*shape: int) -> Any:
        return jnp.asarray(rng.integers(-2, 3, shape), jnp.float32)

    for (kernel, stride), size in itertools.product(((1, 1), (1, 2), (2, 2), (3, 3)), ((3, 3), (4, 7))):
        x, weight = whole(2, *size, 3).astype(dtype), whole(kernel, kernel, 3, 4)
        assert _tiles(weight.shape, stride, 0)

        def ours(x: Any, weight: Any, stride: int = stride) -> Any:
            first = channels_first(x), weight.transpose(3, 2, 0, 1)
            y = tj.conv2d_mixed(*first, stride) if mixed else tj.conv2d(*first, stride=stride)
            return channels_last(y).astype(jnp.float32)

        def theirs(x: Any, weight: Any, stride: int = stride) -> Any:
            wide = x.astype(jnp.float32)
            return jax.lax.conv_general_dilated(wide, weight, (stride, stride), "VALID", dimension_numbers=maps)

        (y, pull), (expected, pull_expected) = jax.vjp(ours, x, weight), jax.vjp(theirs, x, weight)
        np.testing.assert_array_equal(y, expected)
        g = whole(*y.shape)
        for one, other in zip(pull(g), pull_expected(g), strict=True):
            np.testing.assert_array_equal(np.asarray(one, "float32"), np.asarray(other, "float32"))
