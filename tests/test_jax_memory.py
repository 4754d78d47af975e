"""What the JAX backend keeps for its backward pass, and its convolutions without overlap."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import twinspike as ts
from twinspike.network import Network, infer_shapes

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402  # after the question whether jax is there

import twinspike_jax as tj  # noqa: E402
from twinspike_jax.convolution import _tiles  # noqa: E402
from twinspike_jax.layers import channels_first, channels_last  # noqa: E402
from twinspike_jax.precision import formats  # noqa: E402
from twinspike_jax.segments import segments  # noqa: E402

RESNET = ts.network("resnet18", width=2, input_shape=(3, 16, 16), classes=4)
VGG = ts.network("vgg16", width=2, input_shape=(3, 32, 32), classes=4)
EVENTS = ts.network("digits_cnn", width=3, input_shape=(2, 9, 8), classes=4, event=True)
LEARNED = ts.Method(
    time_steps=3,
    neuron=ts.Neuron(decay_scope="channel", threshold_scope="layer"),
    batch_norm=ts.BatchNorm(time="folded"),
    loss=ts.Loss(isolate_ann=True),
)


def maps_kept(network: Network, method: ts.Method, precision: str, recompute: bool, size: int) -> int:
    """Bytes of all maps among the residuals of the loss, (B, ...) or (T, B, ...); traced, never run."""
    with formats("float32"):
        params, statistics = tj.init(network, method)
        lead = (method.time_steps, size) if network.event else (size,)
        images, labels = jnp.zeros((*lead, *network.input_shape)), jnp.zeros(size, "int32")

        def loss(params: Any) -> Any:
            outputs, _ = tj.apply(network, method, params, statistics, images, True, precision=precision, recompute=recompute)
            return tj.joint_loss(*outputs[:4], labels, config=method.loss).loss

        residuals = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], params)
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(residuals) if len(a.shape) >= 4)


@pytest.mark.parametrize("precision", ["f32-ieee", "bf16-mixed"])
@pytest.mark.parametrize("network", [RESNET, VGG], ids=["resnet", "vgg"])
def test_recomputation_keeps_what_joins_blocks_and_less_than_half(network: Network, precision: str) -> None:
    method = ts.Method(time_steps=3)
    kept = {}
    for recompute in (False, True):
        more, less = (maps_kept(network, method, precision, recompute, size) for size in (4, 2))
        kept[recompute] = (more - less) // 2
    shapes = infer_shapes(network)
    joints = {name for segment in segments(network) for name in segment.reads}
    size = 4 if precision == "f32-ieee" else 2
    # each segment that reads a joint keeps it: XLA has one buffer for all, residuals name it again
    read = [name for segment in segments(network) for name in segment.reads if name != "input"]
    assert set(read) | {"input"} == joints
    images = 2 * math.prod(shapes["input"]) * size
    assert kept[True] <= images + sum(math.prod(shapes[name]) * size * (1 + method.time_steps) for name in read)
    assert 2 * kept[True] < kept[False]


@pytest.mark.parametrize(("network", "method"), [(RESNET, ts.Method(time_steps=2)), (EVENTS, LEARNED)], ids=["resnet", "events"])
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
        assert _tiles(weight, stride, 0)

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
