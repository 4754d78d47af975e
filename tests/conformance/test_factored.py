"""The bound of convolutions that meet a kernel factor by factor: float32 keeps it, and it is needed."""

from __future__ import annotations

import numpy as np
import pytest

from twinspike.config import Factorization, Method
from twinspike.network import Branch, Conv, GlobalPool, Linear, Network
from twinspike.precision import PRECISIONS
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.judges import factored
from twinspike_conformance.judges import networks as taps
from twinspike_conformance.judges.operations import roundoff_of
from twinspike_conformance.judges.variant import tracked

UNIT = roundoff_of(PRECISIONS["f32-ieee"])
SHAPES = [
    # N, I, H, W, O, k, r, stride, padding
    (3, 4, 5, 6, 7, 3, 2, 1, 1),
    (2, 33, 4, 4, 9, 3, 9, 2, 1),
    (2, 64, 1, 1, 48, 3, 48, 1, 1),
    (2, 5, 7, 6, 3, 2, 3, 3, 0),
    (4, 6, 3, 3, 5, 1, 1, 1, 0),
]


def _tracked(*arrays):
    return [Tracked(np.asarray(a, np.float64), roundoff=UNIT) for a in arrays]


def _drawn(shape, seed):
    """x, U, sigma, V and g in float32, and the convolution's stride and padding."""
    n, into, height, width, out, k, r, stride, padding = shape
    rng = np.random.default_rng(seed)
    after = [(size + 2 * padding - k) // stride + 1 for size in (height, width)]
    sizes = (n, into, height, width), (k, k, out, r), (k, k, r), (k, k, r, into), (n, out, *after)
    return [rng.standard_normal(size).astype(np.float32) for size in sizes], stride, padding


def _sums(terms):
    """Over the last axis in float32, one by one: the order that errs most."""
    total = np.zeros(terms.shape[:-1], np.float32)
    for i in range(terms.shape[-1]):
        total = total + terms[..., i]
    return total


def _times(a, b):
    """Products of rows (n, k) and a matrix (k, m) in float32, summed one by one."""
    return _sums(a[:, None, :] * b.T[None])


def _by_factors(x, u, sigma, v, g, stride, padding):
    """Output and gradients in float32, tap by tap."""
    k, edge = u.shape[0], ((0, 0), (0, 0), (padding, padding), (padding, padding))
    maps, (n, out, height, width) = np.pad(x, edge).transpose(0, 2, 3, 1), g.shape
    rows_g = g.transpose(0, 2, 3, 1).reshape(-1, out)
    y, d_maps = np.zeros((len(rows_g), out), np.float32), np.zeros_like(maps)
    d_u, d_sigma, d_v = np.zeros_like(u), np.zeros_like(sigma), np.zeros_like(v)
    for i in range(k):
        for j in range(k):
            met = slice(None), *(slice(a, a + stride * (size - 1) + 1, stride) for a, size in ((i, height), (j, width)))
            rows = maps[met].reshape(len(rows_g), -1)
            z, h = _times(rows, v[i, j].T), _times(rows_g, u[i, j])
            y = y + _times(z * sigma[i, j], u[i, j].T)
            d_u[i, j] = _times(rows_g.T, z * sigma[i, j])
            d_sigma[i, j] = _sums((z * h).T)
            d_v[i, j] = _times((h * sigma[i, j]).T, rows)
            d_maps[met] += _times(h * sigma[i, j], v[i, j]).reshape(n, height, width, -1)
    d_x = d_maps.transpose(0, 3, 1, 2)[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]]
    return y.reshape(n, height, width, out).transpose(0, 3, 1, 2), (d_x, d_u, d_sigma, d_v)


def _composed(x, u, sigma, v, g, stride, padding):
    """Output and gradients by the reference with the kernel composed, with bounds."""
    layers, factorization, f = tracked()["layers"], tracked()["factorization"], Factorization()
    assert f.matricize == "per_position"
    kernel = factorization.compose(f, u, sigma, v, (u.shape[2], v.shape[3], *u.shape[:2]))
    d_x, d_kernel = layers.conv2d_adjoint(x, kernel, g, stride, padding)
    return layers.conv2d(x, kernel, stride, padding), (d_x, *factorization.compose_adjoint(f, u, sigma, v, d_kernel))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_float32_by_factors_is_within_the_bound_and_both_orders_have_one_value(shape, seed):
    (x, u, sigma, v, g), stride, padding = _drawn(shape, seed)
    y, gradients = _by_factors(x, u, sigma, v, g, stride, padding)
    lifted = _tracked(x, u, sigma, v, g)
    factors = factored.Factors(*lifted[1:4])
    found = [factored.forward(lifted[0], factors, stride, padding)]
    found.append(factored.maps_adjoint(lifted[0], factors, lifted[4], stride, padding))
    found += factored.factors_adjoint(lifted[0], factors, lifted[4], stride, padding)
    want, others = _composed(*lifted, stride, padding)
    for got, bounded, other in zip((y, *gradients), found, (want, *others), strict=True):
        assert got.shape == bounded.shape == other.shape
        assert np.all(np.abs(got - bounded.value) <= bounded.error)
        assert np.all(np.abs(other.value - bounded.value) <= 2.0**-20 * bounded.error)


def _cancelling(channels):
    """A kernel of two ranks that nearly cancel, and maps that make float32's sums round to different sides in each."""
    x = np.ones((1, channels, 1, 1))
    x[0, 0] = 2.0**24
    u, sigma = np.array([[1.0, -1.0]])[None, None], np.ones((1, 1, 2))
    v = np.stack([np.ones(channels), np.full(channels, 1.0 + 2.0**-23)])[None, None]
    return [a.astype(np.float32) for a in (x, u, sigma, v, np.ones((1, 1, 1, 1)))]


def test_the_composed_order_alone_would_accuse_a_right_answer():
    given = _cancelling(256)
    y, _ = _by_factors(*given, 1, 0)
    x, u, sigma, v, g = _tracked(*given)
    composed, _ = _composed(x, u, sigma, v, g, 1, 0)
    both = factored.either(composed, factored.forward(x, factored.Factors(u, sigma, v), 1, 0))
    off = np.abs(y - composed.value)
    assert np.all(off > composed.error)
    assert np.all(off <= both.error)


@pytest.mark.parametrize(("precision", "orders"), [("f32-ieee", 2), ("bf16-mixed", 1)])
def test_networks_may_meet_factors_but_where_the_composed_kernel_is_cast(precision, orders):
    given = _cancelling(256)
    y, _ = _by_factors(*given, 1, 0)
    x, u, sigma, v, _ = given
    layers = (
        Conv(name="stem", input="input", out_channels=1, kernel=1),
        GlobalPool(name="feature", input="stem"),
        Linear(name="head", input="feature", out_features=2),
    )
    network = Network(name="one", input_shape=x.shape[1:], layers=layers, exits=(Branch(feature="feature", head="head"),))
    state, trace = {"stem.U": u, "stem.sigma_ann": sigma, "stem.V": v}, {"stem": {"ann": y}}
    seen = taps.Taps(network, Method(), PRECISIONS[precision], UNIT, state, x, False, trace)
    assert (seen.apart(layers[0], "ann") is None) == (orders == 1)
    bare = taps.Taps(network, Method(), PRECISIONS["f32-ieee"], UNIT, state, x, False, trace).kernel(layers[0], "ann")
    cast = 2.0**-8 if orders == 1 else 0.0
    assert np.array_equal(seen.kernel(layers[0], "ann").error, bare.error + cast * np.abs(bare.value))
    if orders == 2:
        assert next(taps.forward(seen)).ok


def test_either_order_is_never_narrower_than_the_composed_one():
    one, other = (Tracked(np.full(3, value), error, roundoff=UNIT) for value, error in ((1.0, [1, 2, 3]), (1.5, [3, 1, 2.75])))
    found = factored.either(one, other)
    assert found.value.tolist() == [1.0] * 3
    assert found.error.tolist() == [3.5, 2.0, 3.25]
