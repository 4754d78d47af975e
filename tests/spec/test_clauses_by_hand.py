"""What clauses say in numbers and names, worked out from their words and held against the reference."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from differences import dyadic, normal

import twinspike as ts
from twinspike.network import Activation, AvgPool, Branch, Conv, GlobalPool, Linear, Network, Norm, _output_shape
from twinspike.parameters import domain, initial_state, layout
from twinspike.random import Stream
from twinspike.reference import factorization, layers, neuron, norm, optimizer

U = 2.0**-53

# --- neuron ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_the_adjoint_follows_its_recurrence_in_rational_arithmetic(reset, detach, given):
    """LIF-6 to LIF-8, from e[T+1], which is the caller's or 0, to e[1], the initial state's gradient."""
    steps, entries, decay, threshold, v_reset = 5, 40, Fraction(1, 4), Fraction(1, 2), Fraction(-1, 8) * (reset == "hard")
    n = ts.Neuron(reset=reset, v_reset=float(v_reset), detach_reset=detach, surrogate=ts.Rectangle(width=2.0))
    x, g, v = dyadic(steps, 1, entries), dyadic(steps, 1, entries, seed=1), dyadic(1, entries, seed=2)
    end = dyadic(1, entries, seed=3) if given else None
    found = neuron.lif_adjoint(n, x, neuron.lif(n, x, v), g, end, v)
    for i in range(entries):
        before, trace = Fraction(float(v[0, i])), []
        for t in range(steps):
            u = decay * before + Fraction(float(x[t, 0, i]))
            s = int(u >= threshold)
            before = ((1 - s) * u + s * v_reset) if reset == "hard" else u - s * threshold
            trace.append((u, s))
        e = Fraction(float(end[0, i])) if given else Fraction(0)  # e[T+1]
        for t in reversed(range(steps)):
            u, s = trace[t]
            h = Fraction(1, 2) if abs(u - threshold) < 1 else Fraction(0)
            r, k = (v_reset - u, 1 - s) if reset == "hard" else (-threshold, 1)
            d = (Fraction(float(g[t, 0, i])) + (0 if detach else e * r)) * h + e * k
            assert Fraction(float(found.x[t, 0, i])) == d
            e = decay * d
        assert Fraction(float(found.v[0, i])) == e


# --- weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["polar", "qr"])
def test_retraction_is_the_formula_of_its_clause(by):
    """ORT-3, on matrices whose singular values lie within a factor of 4 or so: either side errs by a few n u times that."""
    u, v = normal(3, 3, 9, 4) + 3 * np.eye(9, 4), normal(3, 3, 4, 11) + 3 * np.eye(4, 11)
    new_u, new_v = factorization.retract(by, u, v)
    for a, q in ((u, new_u), (v.swapaxes(-2, -1), new_v.swapaxes(-2, -1))):
        gram = a.swapaxes(-2, -1) @ a
        if by == "polar":
            values, vectors = np.linalg.eigh(gram)
            want = a @ (vectors / np.sqrt(values)[..., None, :]) @ vectors.swapaxes(-2, -1)
        else:  # A'A = R'R with a positive diagonal
            want = a @ np.linalg.inv(np.linalg.cholesky(gram).swapaxes(-2, -1))
        condition = np.linalg.cond(a).max() ** 2
        assert np.abs(q - want).max() <= 8 * 11**1.5 * U * condition


# --- layers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(5, 5), (6, 9), (7, 8)])
@pytest.mark.parametrize(("kernel", "stride", "padding"), list(itertools.product([1, 2, 3, 5], [1, 2, 3], [0, 1, 2])))
def test_sizes_are_those_of_the_clauses(size, kernel, stride, padding):
    """LAY-1, LAY-2: the arrays of the reference, and the shapes that a network infers."""
    rows, columns = (math.floor((n + 2 * padding - kernel) / stride) + 1 for n in size)
    x = dyadic(1, 2, *size)
    y = layers.conv2d(x, dyadic(3, 2, kernel, kernel), stride, padding)
    assert y.shape == (1, 3, rows, columns)
    pooled = tuple(math.floor((n - kernel) / stride) + 1 for n in size)
    assert layers.avg_pool(x, kernel, stride).shape == (1, 2, *pooled)
    assert layers.avg_pool(x, kernel, stride)[0, 0, -1, -1] == pytest.approx(
        x[0, 0, (pooled[0] - 1) * stride :, (pooled[1] - 1) * stride :][:kernel, :kernel].mean(), abs=kernel**2 * U * 4
    )
    conv = Conv(name="conv", input="input", out_channels=3, kernel=kernel, stride=stride, padding=padding)
    pool = AvgPool(name="pool", input="input", kernel=kernel, stride=stride)
    shapes = {"input": (2, *size)}
    assert _output_shape(pool, shapes, "pool") == (2, *pooled)
    if padding < kernel:
        assert _output_shape(conv, shapes, "conv") == (3, rows, columns)


# --- initial values and names ----------------------------------------------------------------------------


def small(**method):
    """A network of each kind of layer that has arrays, its method and index of its layers."""
    net = Network(
        name="small",
        input_shape=(2, 6, 6),
        layers=(
            Conv(name="a.conv", input="input", out_channels=4, kernel=3, part="stem"),
            Norm(name="a.norm", input="a.conv"),
            Activation(name="a.act", input="a.norm"),
            GlobalPool(name="pool", input="a.act"),
            Linear(name="head", input="pool", out_features=3),
        ),
        exits=(Branch(feature="pool", head="head"),),
    )
    return net, ts.Method(**method)


def test_arrays_fill_row_by_row_with_normals_of_box_muller():
    """INI-2, RND-2: word by word."""
    net, method = small(factorization=ts.Factorization(scope="none"))
    state = initial_state(net, method, seed=3)
    kernel, half = state["a.conv.weight_snn"], 4 * 2 * 3 * 3 // 2
    words = Stream(3, "init", index=0).raw(2 * half)
    uniform = [int(word) // 2**11 * U for word in words]
    for o, i, y, x in np.ndindex(kernel.shape):
        n = ((o * 2 + i) * 3 + y) * 3 + x
        a, b = uniform[n % half], uniform[half + n % half]
        wave = math.cos(2 * math.pi * b) if n < half else math.sin(2 * math.pi * b)
        want = math.sqrt(-2 * math.log1p(-a)) * wave * math.sqrt(2 / (4 * 9))
        assert kernel[o, i, y, x] == pytest.approx(want, abs=16 * U * math.sqrt(-2 * math.log1p(-a)))
    weight = state["head.weight_ann"]
    words = Stream(3, "init", index=8).raw(12)
    for o, i in np.ndindex(weight.shape):
        assert weight[o, i] == (2 * (int(words[o * 4 + i]) // 2**11 * U) - 1) / 2


NORM = {f"a.norm.{quantity}_{twin}": (4,) for quantity in ("gamma", "beta", "mean", "var") for twin in ("ann", "snn")}
FREE = {"a.conv.weight_ann": (4, 2, 3, 3), "a.conv.weight_snn": (4, 2, 3, 3)}
BY_POSITION = {
    "a.conv.U": (3, 3, 4, 2),
    "a.conv.sigma_ann": (3, 3, 2),
    "a.conv.sigma_snn": (3, 3, 2),
    "a.conv.V": (3, 3, 2, 2),
}
BY_REST = {"a.conv.U": (4, 4), "a.conv.sigma_ann": (4,), "a.conv.sigma_snn": (4,), "a.conv.V": (4, 18)}
HEAD = {"head.weight_ann": (3, 4), "head.weight_snn": (3, 4), "head.bias": (3,)}
HEAD_FACTORED = {"head.U": (3, 3), "head.sigma_ann": (3,), "head.sigma_snn": (3,), "head.V": (3, 4), "head.bias": (3,)}
LEARNED = {"a.act.decay": (), "a.act.threshold": (4,)}


@pytest.mark.parametrize(
    ("method", "arrays"),
    [
        ({"factorization": ts.Factorization(scope="none")}, FREE | HEAD),
        ({"factorization": ts.Factorization(scope="no_stem")}, FREE | HEAD),
        ({}, BY_POSITION | HEAD),
        ({"factorization": ts.Factorization(scope="with_heads")}, BY_POSITION | HEAD_FACTORED),
        ({"factorization": ts.Factorization(matricize="out_by_rest")}, BY_REST | HEAD),
        ({"neuron": ts.Neuron(decay_scope="layer", threshold_scope="channel")}, BY_POSITION | HEAD | LEARNED),
    ],
)
@pytest.mark.parametrize(
    ("kind", "slots"),
    [(None, ()), (ts.SGD(), ()), (ts.SGD(momentum=0.5), ("momentum",)), (ts.Adam(), ("m", "v")), (ts.AdamW(), ("m", "v"))],
)
def test_a_state_has_the_names_and_shapes_of_its_clause(method, arrays, kind, slots):
    """INI-5, FAC-1, FAC-2."""
    net, options = small(**method)
    trained = arrays | {name: shape for name, shape in NORM.items() if "gamma" in name or "beta" in name}
    want = arrays | NORM | {f"optimizer/{slot}/{name}": shape for slot in slots for name, shape in trained.items()}
    want |= {} if kind is None else {"optimizer/step": ()}
    assert {entry.name: entry.shape for entry in layout(net, options, kind)} == want
    state = initial_state(net, options, kind)
    assert {name: value.shape for name, value in state.items()} == want
    assert kind is None or state["optimizer/step"].dtype == np.int64


# --- optimizers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [np.float32, np.float64])
@pytest.mark.parametrize(("v_reset", "least"), [(-0.5, 0.5 / 1024), (0.25, 0.25 + 0.25 / 1024)])
def test_learned_quantities_are_projected_onto_the_intervals_of_their_clause(v_reset, least, form):
    """OPT-8: to the ends' nearest numbers of the format, to the bit; a NaN stays one."""
    net, m = small(neuron=ts.Neuron(decay_scope="layer", threshold_scope="channel", v_reset=v_reset))
    domains = {entry.name: domain(entry, m) for entry in layout(net, m, ts.Adam())}
    assert {name: ends for name, ends in domains.items() if ends is not None} == {
        "a.act.decay": (0.0, 1.0),
        "a.act.threshold": (least, math.inf),
    }
    below, above = np.nextafter(form(0), form(-1)), np.nextafter(form(1), form(2))
    p = np.array([-3.0, below, 0.0, 0.3, 1.0, above, np.nan], form)
    decay, threshold = (optimizer.projected(p, domains[f"a.act.{quantity}"]) for quantity in ("decay", "threshold"))
    assert decay.dtype == threshold.dtype == form
    assert np.array_equal(decay, np.array([0.0, 0.0, 0.0, 0.3, 1.0, 1.0, np.nan], form), equal_nan=True)
    assert np.array_equal(threshold, np.array([*[least] * 3, 0.3, 1.0, above, np.nan], form), equal_nan=True)


# --- learning rate ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("warmup", "unit"), list(itertools.product([0.0, 1.5, 2.0], ["epoch", "step"])))
def test_the_rate_is_the_formula_of_its_clauses(warmup, unit):
    """SCH-1, SCH-2: E is what the warm-up leaves of the epochs."""
    base, floor, epochs, per_epoch = 0.3, 0.01, 7, 4
    for n, (epoch, step) in enumerate(itertools.product(range(epochs), range(per_epoch)), start=1):
        rate = ts.learning_rate(
            ts.Cosine(floor=floor, unit=unit, warmup_epochs=warmup), base, epoch, step, epochs=epochs, steps_per_epoch=per_epoch
        )
        if epoch + step / per_epoch < warmup:
            want = base * n / (warmup * per_epoch)
        else:
            e = max(0.0, (epoch if unit == "epoch" else epoch + step / per_epoch) - warmup)
            want = floor + (base - floor) * (1 + math.cos(math.pi * e / (epochs - warmup))) / 2
        assert abs(rate - want) <= 16 * U * base


# --- precision -------------------------------------------------------------------------------------------


def test_statistics_of_many_values_are_off_by_no_more_than_the_clause_says():
    """PRE-7: the reference in float32 against itself in float64, a million values of a channel, far from 0."""
    values, cotangent = normal(1, 1025, 1, 32, 32) + 3.0, normal(1, 1025, 1, 32, 32, seed=1) + 0.3
    values, cotangent = values.astype(np.float32), cotangent.astype(np.float32)

    def step(form):
        x, g = values.astype(form), cotangent.astype(form)
        one, zero = np.ones(1, form), np.zeros(1, form)
        found = norm.batch_norm_train(ts.BatchNorm(momentum=1.0), x, one, zero, zero, one)
        return [found.mean, found.var, *norm.batch_norm_train_adjoint(ts.BatchNorm(), x, one, g)[1:]]

    mean, var, d_gamma, d_beta = (
        np.abs(a - b).item() / 2.0**-24 for a, b in zip(step(np.float32), step(np.float64), strict=True)
    )
    z = (values - values.mean()) / values.std()
    assert mean <= 256 * np.abs(values).mean()
    assert var <= 256 * values.var()
    assert d_gamma <= 256 * np.abs(cotangent * z).sum()
    assert d_beta <= 256 * np.abs(cotangent).sum()
