"""Every row of the operations table: adjoints against finite differences on the smooth twin, formats, purity.

Differences are central, at steps h and h/2: their own disagreement bounds the truncation error, and
operations x roundoff x magnitude / h the rounding.
"""

from __future__ import annotations

import numpy as np
import pytest
from differences import SURROGATES, normal, slope_at_zero

import twinspike as ts
from twinspike.operations import OPERATIONS, Composition, Convolution, Nothing, Pooling, Readout
from twinspike.reference import neuron


def inner(a, b):
    return sum(float((a[key] * b[key]).sum()) for key in a)


def inner_size(a, b):
    return sum(float(np.abs(a[key] * b[key]).sum()) for key in a)


# --- every row of the table ------------------------------------------------------------------------------

T, B, C, H, W, K, N, F = 3, 4, 2, 6, 5, 7, 3, 5
SMOOTH = ts.Sigmoid(slope=2.0)


def lif_inputs(shape=()):
    return {"x": normal(T, B, C, H), "v": normal(B, C, H), "decay": np.full(shape, 0.3), "threshold": np.full(shape, 0.7)}


def factors(rank=3):
    return {"U": normal(3, 2, 4, rank), "sigma": normal(3, 2, rank), "V": normal(3, 2, rank, 5)}


def norm_inputs():
    inputs = {key: 1 + 0.3 * normal(C, seed=i) for i, key in enumerate(("gamma", "beta", "mean"))}
    return {"x": 2 + normal(T, B, C, H), **inputs, "var": np.array([0.5, 2.0])}


def loss_inputs(slices=1):
    labels = np.array([0, 6, 3, 3])
    logits = {"logits_ann": 3 * normal(N, B, K), "logits_snn": 3 * normal(slices, N, B, K)}
    return {**logits, "features_ann": normal(N, B, F), "features_snn": normal(N, B, F, seed=1), "labels": labels}


def two(width, *names):
    return {name: normal(B, width, seed=i) for i, name in enumerate(names)}


FREE = ts.Loss(alpha=0.3, beta=0.2, temperature=2.0, detach_teacher=False)
CASES = [
    *(("lif", ts.Neuron(surrogate=s), lif_inputs()) for s in SURROGATES[2:]),
    ("lif", ts.Neuron(surrogate=SMOOTH, reset="soft"), lif_inputs()),
    ("lif", ts.Neuron(surrogate=SMOOTH, reset="soft", decay_input=True), lif_inputs((C,))),
    ("lif", ts.Neuron(surrogate=SMOOTH, v_reset=-0.4, decay_input=True), lif_inputs((C,))),
    ("lif", ts.Neuron(surrogate=SMOOTH, v_reset=0.25), {"x": normal(T, B, C)}),
    *(("spike", ts.Neuron(surrogate=s), {"u": 0.2 + normal(4, 3)}) for s in SURROGATES),
    ("relu", Nothing(), {"x": np.sign(normal(4, 3)) * (0.1 + np.abs(normal(4, 3)))}),
    ("compose", Composition(kernel_shape=(4, 5, 3, 2)), factors()),
    (
        "compose",
        Composition(factorization=ts.Factorization(matricize="out_by_rest"), kernel_shape=(4, 5, 3, 2)),
        {"U": normal(4, 2), "sigma": normal(2), "V": normal(2, 30)},
    ),
    ("penalty", Nothing(), {"U": normal(3, 2, 4, 3), "V": normal(3, 2, 3, 5)}),
    ("conv2d", Convolution(stride=1, padding=1), {"x": normal(B, C, H, W), "kernel": normal(3, C, 3, 3)}),
    ("conv2d", Convolution(stride=2, padding=0), {"x": normal(B, C, H, W), "kernel": normal(3, C, 2, 3)}),
    ("avg_pool", Pooling(kernel=2, stride=2), {"x": normal(B, C, H, W)}),
    ("avg_pool", Pooling(kernel=3, stride=2), {"x": normal(B, C, H, W)}),
    ("global_pool", Nothing(), {"x": normal(B, C, H, W)}),
    ("linear", Nothing(), {"x": normal(B, 5), "weight": normal(3, 5), "bias": normal(3)}),
    *(("batch_norm_train", ts.BatchNorm(time=time, momentum=0.3, eps=0.01), norm_inputs()) for time in ("per_step", "folded")),
    ("batch_norm_eval", ts.BatchNorm(eps=0.01), norm_inputs()),
    *(("readout", Readout(reduction=how), {"x": normal(T, B, F)}) for how in ("sum", "mean")),
    ("cross_entropy", Nothing(), {"logits": 3 * normal(B, K), "labels": np.array([0, 6, 3, 3])}),
    *(
        ("distillation", ts.Loss(temperature=2.0, form=form, detach_teacher=False), two(K, "student", "teacher"))
        for form in ("ce", "kl")
    ),
    *(
        ("feature_loss", ts.Loss(feature_reduction=how, detach_teacher=False), two(F, "snn", "ann"))
        for how in ("sum", "batch_mean", "mean")
    ),
    ("joint_loss", FREE, loss_inputs()),
    ("joint_loss", ts.Loss(alpha=0.6, beta=0.1, form="kl", per_step=True, detach_teacher=False), loss_inputs(T)),
    ("joint_loss", ts.Loss(alpha=0.6, pairs=("ann1<-snn3", "snn2<-snn3"), per_step=True, detach_teacher=False), loss_inputs(T)),
]  # fmt: skip
LEFTOVER = [
    ("factorize", ts.Factorization(rank=2), {"kernel": normal(4, 5, 3, 3)}),
    ("factorize", ts.Factorization(rank=0.8, matricize="out_by_rest"), {"kernel": normal(4, 5, 3, 3)}),
    ("retract", ts.Retract(by="qr"), {"U": normal(3, 2, 4, 3), "V": normal(3, 2, 3, 5)}),
    ("retract", ts.Retract(by="polar"), {"U": normal(4, 3), "V": normal(3, 5)}),
    *(
        ("optimizer_step", o, {"p": normal(3), "g": normal(3, seed=1), "lr": np.array(0.1), "step": np.array(3)})
        for o in (ts.SGD(), ts.SGD(momentum=0.9, nesterov=True), ts.Adam(weight_decay=0.1), ts.AdamW(weight_decay=0.1))
    ),
]
NAMES = [f"{i}-{name}" for i, (name, _, _) in enumerate(CASES + LEFTOVER)]


def smooth_forward(name, config, inputs):
    """The row's forward, with the surrogate's primitive in place of the step."""
    if name == "lif":
        trace = neuron.lif(config, **inputs, smooth=True)
        return {"s": trace.s, "v": trace.v[-1]}
    if name == "spike":
        return {"s": neuron.fire(config, inputs["u"], config.threshold, smooth=True)}
    return OPERATIONS[name].forward(config, inputs)


def smooth_adjoint(name, config, inputs, cotangents):
    if name == "lif":
        trace = neuron.lif(config, **inputs, smooth=True)
        options = {key: value for key, value in inputs.items() if key != "x"}
        found = neuron.lif_adjoint(config, inputs["x"], trace, cotangents["s"], cotangents["v"], **options)._asdict()
        return {key: found[key] for key in inputs}
    return OPERATIONS[name].adjoint(config, inputs, cotangents)


@pytest.mark.parametrize(("name", "config", "inputs"), CASES, ids=NAMES[: len(CASES)])
def test_adjoints_are_those_of_finite_differences(name, config, inputs):
    row = OPERATIONS[name]
    outputs = smooth_forward(name, config, inputs)
    c = {key: normal(*outputs[key].shape, seed=7) for key in row.cotangents}
    gradients = smooth_adjoint(name, config, inputs, c)
    assert set(gradients) == set(row.differentiable) & set(inputs)
    for key in gradients:  # input by input, so that no large gradient hides a small one
        t = normal(*inputs[key].shape, seed=8)

        def along(step, key=key, t=t):
            moved = smooth_forward(name, config, {**inputs, key: inputs[key] + step * t})
            return inner(c, moved)

        expected, bound = slope_at_zero(along, inner_size(c, outputs))
        assert gradients[key].shape == inputs[key].shape
        assert abs(float((gradients[key] * t).sum()) - expected) <= bound
        assert bound < 1e-3 * (1 + abs(expected))  # else the comparison says nothing


@pytest.mark.parametrize(("name", "config", "inputs"), CASES + LEFTOVER, ids=NAMES)
def test_rows_compute_in_the_format_of_their_inputs_and_leave_them_alone(name, config, inputs):
    single = {key: value.astype(np.float32) if value.dtype.kind == "f" else value for key, value in inputs.items()}
    before = {key: value.copy() for key, value in single.items()}
    row = OPERATIONS[name]
    outputs = row.forward(config, single)
    results = list(outputs.values())
    if row.adjoint:
        results += row.adjoint(config, single, {key: np.ones_like(outputs[key]) for key in row.cotangents}).values()
    assert all(result.dtype == np.float32 for result in results)
    assert all(not np.shares_memory(result, value) for result in results for value in single.values())
    assert all(np.array_equal(single[key], before[key]) for key in before)
    assert set(outputs) <= set(row.outputs)


@pytest.mark.parametrize(("name", "config", "inputs"), CASES, ids=NAMES[: len(CASES)])
def test_missing_cotangents_are_zero(name, config, inputs):
    for gradient in OPERATIONS[name].adjoint(config, inputs, {}).values():
        assert not gradient.any()
