"""The PyTorch backend against the reference, and its public pieces in ordinary PyTorch use."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import twinspike as ts
import twinspike_torch as tt
from twinspike.network import INPUT, Activation, Branch, Conv, GlobalPool, Linear, Norm
from twinspike.operations import OPERATIONS, Composition, Convolution, Nothing, Pooling, Readout
from twinspike.parameters import initial_state
from twinspike_torch.norm import batch_norm_train
from twinspike_torch.precision import _switches, arithmetic

U64 = 2.0**-53
SURROGATES = [ts.Rectangle(), ts.Triangle(), ts.Sigmoid(), ts.Arctan(), ts.FastSigmoid(), ts.Tanh()]
NEURONS = [
    ts.Neuron(decay=0.5),
    ts.Neuron(reset="soft", surrogate=ts.Triangle()),
    ts.Neuron(decay=0.5, v_reset=-0.25, detach_reset=True),
    ts.Neuron(decay=0.5, decay_input=True, reset="soft", detach_reset=True),
]


def dyadic(rng: np.random.Generator, *shape: int, top: int = 4, unit: float = 0.25) -> np.ndarray:
    """Multiples of `unit` of at most `top` units, exact in every format."""
    return rng.integers(-top, top, shape, endpoint=True) * unit


def exact_cases() -> list[Any]:
    rng = np.random.default_rng(0)

    def d(*shape: int, **options: Any) -> np.ndarray:
        return dyadic(rng, *shape, **options)

    cases = [
        ("relu", Nothing(), {"x": d(3, 4, 5)}),
        ("spike", ts.Neuron(), {"u": d(50, top=8)}),
        ("penalty", Nothing(), {"U": d(2, 4, 3), "V": d(2, 3, 5)}),
        ("conv2d", Convolution(stride=2, padding=1), {"x": d(2, 3, 7, 6), "kernel": d(4, 3, 3, 3)}),
        ("conv2d", Convolution(), {"x": d(2, 3, 5, 5), "kernel": d(4, 3, 1, 1)}),
        ("avg_pool", Pooling(kernel=2, stride=2), {"x": d(2, 3, 5, 7)}),
        ("global_pool", Nothing(), {"x": d(2, 3, 4, 8)}),
        ("linear", Nothing(), {"x": d(3, 5), "weight": d(4, 5), "bias": d(4)}),
        ("readout", Readout(reduction="sum"), {"x": d(3, 2, 5)}),
        ("readout", Readout(reduction="mean"), {"x": d(4, 2, 5)}),
    ]
    for f, shape, factors in [
        (ts.Factorization(), (4, 3, 3, 2), ((3, 2, 4, 2), (3, 2, 2), (3, 2, 2, 3))),
        (ts.Factorization(view="authors_reshape"), (4, 3, 3, 2), ((3, 2, 4, 2), (3, 2, 2), (3, 2, 2, 3))),
        (ts.Factorization(matricize="out_by_rest"), (4, 3, 3, 2), ((4, 3), (3,), (3, 18))),
        (ts.Factorization(scope="with_heads"), (4, 3), ((4, 3), (3,), (3, 3))),
    ]:
        inputs = dict(zip(("U", "sigma", "V"), (d(*s) for s in factors), strict=True))
        cases.append(("compose", Composition(factorization=f, kernel_shape=shape), inputs))
    for reduction in ("sum", "batch_mean", "mean"):
        for detach in (True, False):
            loss = ts.Loss(feature_reduction=reduction, detach_teacher=detach)
            cases.append(("feature_loss", loss, {"snn": d(4, 8), "ann": d(4, 8)}))
    for neuron in NEURONS:
        x = d(3, 2, 4, 3, top=8)
        cases.append(("lif", neuron, {"x": x}))
        cases.append(("lif", neuron, {"x": x, "v": d(2, 4, 3), "decay": np.full(4, 0.5), "threshold": np.full(4, 0.5)}))
        cases.append(("lif", neuron, {"x": x[..., 0], "decay": np.array(0.25), "threshold": np.array(0.75)}))
    return cases


def both(session: Any, name: str, config: Any, inputs: dict[str, np.ndarray], seed: int = 1) -> tuple[Any, ...]:
    """Outputs and gradients of the backend and of the reference, for dyadic cotangents."""
    row, rng = OPERATIONS[name], np.random.default_rng(seed)
    expected = row.forward(config, inputs)
    cotangents = {k: dyadic(rng, *expected[k].shape) for k in row.cotangents}
    tensors = {k: session.from_numpy(np.asarray(v)) for k, v in inputs.items()}
    before = {k: v.clone() for k, v in tensors.items()}
    got, gradients = session.vjp(name, config, tensors, {k: session.from_numpy(v) for k, v in cotangents.items()})
    assert all(torch.equal(tensors[k], before[k]) for k in tensors), "inputs were modified"
    host = [{k: session.to_numpy(v) for k, v in arrays.items()} for arrays in (got, gradients)]
    assert row.adjoint is not None
    return (*host, expected, row.adjoint(config, inputs, cotangents))


@pytest.mark.parametrize("precision", ["f64", "f32-ieee"])
@pytest.mark.parametrize("case", exact_cases(), ids=lambda case: case[0])
def test_exact_operations_agree_bit_for_bit(case: Any, precision: str) -> None:
    got, gradients, expected, expected_gradients = both(tt.backend.session(precision=precision), *case)
    for values, wanted in ((got, expected), (gradients, expected_gradients)):
        assert values.keys() == wanted.keys()
        for key in wanted:
            np.testing.assert_array_equal(values[key], wanted[key], err_msg=key)


def rounded_cases() -> list[Any]:
    rng = np.random.default_rng(0)
    n = rng.standard_normal
    cases: list[Any] = [("spike", ts.Neuron(surrogate=s), {"u": n(40)}) for s in SURROGATES]
    for time in ("per_step", "folded"):
        inputs = {"x": n((3, 4, 5, 2, 2)), "gamma": n(5), "beta": n(5), "mean": n(5), "var": 0.5 + rng.random(5)}
        cases += [(f"batch_norm_{mode}", ts.BatchNorm(time=time, momentum=0.3), inputs) for mode in ("train", "eval")]
    labels = rng.integers(0, 6, 4)
    cases.append(("cross_entropy", Nothing(), {"logits": n((4, 6)), "labels": labels}))
    for form in ("ce", "kl"):
        for detach in (True, False):
            loss = ts.Loss(
                form=form, detach_teacher=detach, alpha=0.3, beta=0.1, pairs=("snn1<-ann2", "ann1<-snn2", "snn2<-snn1")
            )
            cases.append(("distillation", loss, {"student": n((4, 6)), "teacher": n((4, 6))}))
            inputs = {"logits_ann": n((2, 4, 6)), "logits_snn": n((3, 2, 4, 6)), "labels": labels}
            cases.append(("joint_loss", loss, inputs | {"features_ann": n((2, 4, 5)), "features_snn": n((2, 4, 5))}))
    for surrogate in SURROGATES:
        neuron = ts.Neuron(surrogate=surrogate, decay_input=True)
        cases.append(("lif", neuron, {"x": n((4, 2, 3, 2)), "decay": rng.random(3), "threshold": 0.5 + rng.random(3)}))
    return cases


@pytest.mark.parametrize("case", rounded_cases(), ids=lambda case: case[0])
def test_rounded_operations_agree_within_their_rounding(case: Any) -> None:
    """Limit: roundings on the longest path (reductions included) x u x the largest product of three inputs."""
    got, gradients, expected, expected_gradients = both(tt.backend.session(precision="f64"), *case)
    inputs = case[2]
    roundings = max(np.size(v) for v in inputs.values()) + 30
    largest = max(2.0, *(np.abs(v).max() for v in inputs.values())) ** 3
    for values, wanted in ((got, expected), (gradients, expected_gradients)):
        assert values.keys() == wanted.keys()
        for key in wanted:
            limit = roundings * U64 * largest * max(1.0, np.abs(wanted[key]).max())
            assert values[key].shape == wanted[key].shape
            assert np.abs(values[key] - wanted[key]).max() <= limit, key


@pytest.mark.parametrize(
    "optimizer", [ts.SGD(momentum=0.9, nesterov=True), ts.SGD(), ts.Adam(weight_decay=0.1), ts.AdamW(weight_decay=0.1)]
)
def test_optimizer_step(optimizer: Any) -> None:
    rng = np.random.default_rng(0)
    inputs = {k: rng.standard_normal(7) for k in ("p", "g", "momentum", "m")}
    inputs |= {"v": rng.random(7) + 0.1, "lr": np.array(0.1), "step": np.array(3)}
    session = tt.backend.session(precision="f64")
    got = session.forward("optimizer_step", optimizer, {k: session.from_numpy(v) for k, v in inputs.items()})
    expected = OPERATIONS["optimizer_step"].forward(optimizer, inputs)
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert np.abs(session.to_numpy(got[key]) - value).max() <= 20 * U64 * max(1.0, np.abs(value).max())


@pytest.mark.parametrize("rank", ["full", 2, 0.7])
@pytest.mark.parametrize("matricize", ["per_position", "out_by_rest"])
def test_factors_have_their_properties(rank: Any, matricize: Any) -> None:
    f = ts.Factorization(rank=rank, matricize=matricize)
    kernel = np.random.default_rng(0).standard_normal((5, 4, 2, 2))
    session = tt.backend.session(precision="f64")
    got = {k: session.to_numpy(v) for k, v in session.forward("factorize", f, {"kernel": session.from_numpy(kernel)}).items()}
    expected = OPERATIONS["factorize"].forward(f, {"kernel": kernel})
    limit = 100 * U64 * np.linalg.norm(kernel)
    assert {k: v.shape for k, v in got.items()} == {k: v.shape for k, v in expected.items()}
    assert np.abs(got["sigma"] - expected["sigma"]).max() <= limit
    u, v = torch.from_numpy(got["U"]), torch.from_numpy(got["V"])
    assert tt.deviation(u, v) <= 100 * U64
    largest = np.take_along_axis(got["U"], np.abs(got["U"]).argmax(-2)[..., None, :], -2)
    assert (largest > 0).all()
    if rank == "full":
        composed = tt.compose(f, u, torch.from_numpy(got["sigma"]), v, kernel.shape)
        assert np.abs(composed.numpy() - kernel).max() <= limit
    drifted = (u + 0.1, v - 0.1)
    for by in ("polar", "qr"):
        assert tt.deviation(*tt.retract(by, *drifted)) <= 100 * U64


# --- whole networks ------------------------------------------------------------------------------------

DIGITS = ts.network("digits_cnn", width=4)
EVENTS = ts.network("digits_cnn", width=4, event=True)
STEPS = {
    "plain": (DIGITS, ts.Method(), ts.SGD()),
    "events, nesterov": (EVENTS, ts.Method(time_steps=3), ts.SGD(momentum=0.9, nesterov=True)),
    "per-step loss, adam": (DIGITS, ts.Method(loss=ts.Loss(per_step=True, alpha=0.5, beta=0.1)), ts.Adam(weight_decay=0.1)),
    "folded, learned neurons, adamw": (
        DIGITS,
        ts.Method(
            batch_norm=ts.BatchNorm(time="folded"),
            readout="mean",
            neuron=ts.Neuron(
                decay_scope="channel", threshold_scope="layer", decay_input=True, reset="soft", surrogate=ts.Arctan()
            ),
        ),
        ts.AdamW(weight_decay=0.1, decay_scope="no_norm_bias"),
    ),
    "isolated, low rank, penalty": (
        EVENTS,
        ts.Method(
            loss=ts.Loss(isolate_ann=True, detach_teacher=False, form="kl", alpha=0.5, beta=0.1, feature_reduction="mean"),
            factorization=ts.Factorization(
                scope="with_heads", matricize="out_by_rest", rank=3, orthogonality=ts.Penalty(weight=0.1)
            ),
        ),
        ts.SGD(momentum=0.5, decay_scope="no_norm_bias"),
    ),
    "retraction": (
        DIGITS,
        ts.Method(factorization=ts.Factorization(scope="backbone", orthogonality=ts.Retract(every=2, by="qr"))),
        ts.SGD(),
    ),
    "unfactored": (
        DIGITS,
        ts.Method(factorization=ts.Factorization(scope="none"), neuron=ts.Neuron(v_reset=-0.3, detach_reset=True)),
        ts.SGD(),
    ),
    "resnet18": (ts.network("resnet18", width=4, input_shape=(3, 16, 16)), ts.Method(), ts.SGD()),
    "resnet19": (ts.network("resnet19", width=2, input_shape=(3, 8, 8)), ts.Method(time_steps=2), ts.SGD()),
}


def batch(network: ts.Network, method: ts.Method, size: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lead = (method.time_steps,) if network.event else ()
    return rng.standard_normal((*lead, size, *network.input_shape)), rng.integers(0, network.classes, size)


def moved(network: ts.Network, method: ts.Method, optimizer: Any) -> dict[str, np.ndarray]:
    """An initial state with every parameter and statistic off its default."""
    rng = np.random.default_rng(1)
    state = initial_state(network, method, optimizer)
    return {k: v * (1 + 0.1 * rng.standard_normal(v.shape)) if v.dtype.kind == "f" else v for k, v in state.items()}


@pytest.mark.parametrize("case", STEPS.values(), ids=STEPS)
def test_training_steps_equal_the_reference(case: Any) -> None:
    """In float64: spikes equal, and each gradient within 1e-12 of its norm, the bound of the exact rewrites."""
    network, method, optimizer = case
    images, labels = batch(network, method)
    ours = tt.backend.session(precision="f64").program(network, method, optimizer)
    theirs = ts.load("numpy").session(precision="f64").program(network, method, optimizer)
    values = moved(network, method, optimizer)
    for _ in range(2):
        state, reference = ours.load(values), theirs.load(values)
        for training in (False, True):
            taps, expected_taps = ours.trace(state, images, training=training), theirs.trace(reference, images, training=training)
            assert {k: set(v) for k, v in taps.items()} == {k: set(v) for k, v in expected_taps.items()}
            for name in network.activations:
                np.testing.assert_array_equal(taps[name]["snn"], expected_taps[name]["snn"])
            for name in taps:
                for key, value in expected_taps[name].items():
                    assert taps[name][key].shape == value.shape
                    assert np.abs(taps[name][key] - value).max() <= 1e-12 * max(1.0, np.abs(value).max())
        gradients, metrics = ours.gradients(state, images, labels)
        expected, expected_metrics = theirs.gradients(reference, images, labels)
        assert list(gradients) == list(expected)
        for name, g in expected.items():
            assert np.linalg.norm(gradients[name] - g) <= 1e-12 * np.linalg.norm(g), name
        for field in metrics.__struct_fields__:
            value = float(getattr(expected_metrics, field))
            assert abs(float(getattr(metrics, field)) - value) <= 1e-12 * max(1.0, abs(value)), field
        after, _ = ours.train_step(state, images, labels, 0.1)
        expected_after, _ = theirs.train_step(reference, images, labels, 0.1)
        values, expected_values = ours.dump(after), theirs.dump(expected_after)
        assert list(values) == list(expected_values)
        for name, value in expected_values.items():
            assert np.abs(values[name] - value).max() <= 1e-12 * max(1.0, np.abs(value).max()), name
    evaluation = ours.evaluate(ours.load(values), images)
    expected_evaluation = theirs.evaluate(theirs.load(values), images)
    for field in evaluation.__struct_fields__:
        value = getattr(expected_evaluation, field)
        assert np.abs(getattr(evaluation, field).numpy() - value).max() <= 1e-12 * max(1.0, np.abs(value).max())


def test_states_load_and_dump_bit_exactly_and_do_not_interfere() -> None:
    method, optimizer = ts.Method(), ts.SGD(momentum=0.9)
    program = tt.backend.session().program(DIGITS, method, optimizer)
    one, two = (program.load(moved(DIGITS, method, optimizer)) for _ in range(2))
    first = program.dump(one)
    again = program.dump(program.load(first))
    assert all(np.array_equal(first[k], again[k]) and first[k].dtype == again[k].dtype for k in first)
    images, labels = batch(DIGITS, method)
    program.gradients(one, images, labels)
    program.trace(one, images, training=True)
    assert all(np.array_equal(value, first[k]) for k, value in program.dump(one).items())
    one, _ = program.train_step(one, images, labels, 0.1)
    assert all(np.array_equal(value, first[k]) for k, value in program.dump(two).items())
    stepped = program.dump(one)
    two, _ = program.train_step(two, images, labels, 0.1)
    assert all(np.array_equal(value, stepped[k]) for k, value in program.dump(two).items()), "a run is not reproducible"
    assert stepped["optimizer/step"] == 1


def test_a_used_up_state_is_refused() -> None:
    program = tt.backend.session().program(DIGITS, ts.Method(), ts.SGD())
    state = program.load(initial_state(DIGITS, ts.Method(), ts.SGD()))
    images, labels = batch(DIGITS, ts.Method())
    program.train_step(state, images, labels, 0.1)
    with pytest.raises(ts.SpecError, match="used up"):
        program.dump(state)


def test_bf16_casts_at_the_stated_points() -> None:
    session = tt.backend.session(precision="bf16-mixed")
    x, kernel = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
    y = session.forward("conv2d", Convolution(), {"x": x, "kernel": kernel})["y"]
    assert y.dtype == torch.bfloat16
    trace = session.forward("lif", ts.Neuron(), {"x": y[None].expand(3, -1, -1, -1, -1)})
    assert (trace["s"].dtype, trace["u"].dtype, trace["v"].dtype) == (torch.bfloat16, torch.float32, torch.float32)
    program = session.program(DIGITS, ts.Method(), ts.SGD())
    state = program.load(initial_state(DIGITS, ts.Method(), ts.SGD()))
    images, labels = batch(DIGITS, ts.Method())
    gradients, metrics = program.gradients(state, images, labels)
    assert {g.dtype for g in gradients.values()} == {np.dtype(np.float32)}
    assert metrics.loss.dtype == torch.float32
    taps = program.trace(state, images)
    for name, layer in taps.items():
        rounded = torch.from_numpy(layer["snn"]).to(torch.bfloat16).float().numpy()
        assert np.array_equal(rounded, layer["snn"]) != name.endswith("head")
    assert not np.array_equal(
        torch.from_numpy(taps["stage2.act"]["u"]).to(torch.bfloat16).float().numpy(), taps["stage2.act"]["u"]
    )


# --- ordinary PyTorch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [ts.Method(), STEPS["folded, learned neurons, adamw"][1], STEPS["unfactored"][1]])
@pytest.mark.parametrize("name", ["digits_cnn", "resnet18", "resnet19"])
def test_state_dict_has_the_names_of_the_layout(name: str, method: ts.Method) -> None:
    network = ts.network(name, width=2)
    module = tt.build(network, method, seed=3)
    entries, values = ts.layout(network, method), ts.initial_state(network, method, seed=3)
    assert set(module.state_dict()) == {entry.name for entry in entries}
    assert {name for name, _ in module.named_parameters()} == {entry.name for entry in entries if entry.trained}
    for key, value in module.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), values[key].astype(np.float32))


def test_an_ordinary_training_loop() -> None:
    torch.manual_seed(0)
    method = ts.Method(time_steps=2)
    module = tt.build(DIGITS, method)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    labels = torch.randint(0, 10, (16,))
    images = torch.randn(10, 1, 8, 8)[labels] + 0.1 * torch.randn(16, 1, 8, 8)
    first = last = None
    for _ in range(15):
        optimizer.zero_grad()
        loss = tt.joint_loss(method.loss, module(images), labels)
        loss.backward()
        assert all(p.grad is not None for p in module.parameters()), "unused parameters break DDP"
        optimizer.step()
        first, last = loss.item() if first is None else first, loss.item()
    assert first is not None
    assert last is not None
    assert last < first
    twin = copy.deepcopy(module).eval()
    module.eval()
    with torch.no_grad():
        assert torch.equal(twin(images).logits_snn, module(images).logits_snn)
        before = twin(images).logits_snn
        for p in module.parameters():
            p.zero_()
        assert torch.equal(twin(images).logits_snn, before)


def test_running_statistics_move_in_training_only() -> None:
    module, images = tt.build(DIGITS), torch.randn(3, 1, 8, 8)
    before = {k: v.clone() for k, v in module.named_buffers()}
    module.eval()(images)
    assert all(torch.equal(v, before[k]) for k, v in module.named_buffers())
    module.train()(images)
    assert not any(torch.equal(v, before[k]) for k, v in module.named_buffers())


def test_the_static_stem_takes_the_closed_form_of_equal_updates() -> None:
    """T updates with one value: momentum 1 - (1 - m)^T; within T + 3 roundings of the largest value."""
    norm, x = ts.BatchNorm(momentum=0.3), torch.randn(1, 4, 5, 3, 3, dtype=torch.float64)
    arrays = [torch.rand(5, dtype=torch.float64) + 0.5 for _ in range(4)]
    once = batch_norm_train(norm, x, *arrays, repeats=4)
    steps = batch_norm_train(norm, x.expand(4, -1, -1, -1, -1), *arrays)
    for a, b in ((once.y, steps.y[:1]), (once.mean, steps.mean), (once.var, steps.var)):
        assert (a - b).abs().max() <= 40 * U64 * a.abs().max()


def test_channels_last_is_kept_and_changes_nothing() -> None:
    x = torch.randn(3 * 2, 4, 5, 6, dtype=torch.float64).to(memory_format=torch.channels_last).unflatten(0, (3, 2))
    x.requires_grad_()
    s, v = tt.lif(x, neuron=ts.Neuron())
    assert s.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad((s * torch.randn_like(s)).sum() + v.sum(), x)
    assert gradient.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    y = tt.TwinBatchNorm(4, dtype=torch.float64)(x, "snn")
    assert y.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    plain, _ = tt.lif(x.detach().contiguous(), neuron=ts.Neuron())
    assert torch.equal(plain, s)


def test_autocast_keeps_potentials_and_composition_in_float32() -> None:
    module, images, labels = tt.build(DIGITS), torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(images)
        assert module.stage2.conv.kernel("snn").dtype == torch.float32
        tt.joint_loss(ts.Loss(), out, labels).backward()
    assert out.logits_snn.dtype == torch.float32
    s, v = tt.lif(torch.randn(2, 3, 4).bfloat16(), neuron=ts.Neuron())
    assert (s.dtype, v.dtype) == (torch.bfloat16, torch.float32)


def test_pieces_work_on_their_own() -> None:
    convolution = nn.Conv2d(3, 6, 3, padding=1, bias=False)
    layer = tt.FactorizedConv2d.from_kernel(convolution.weight, padding=1)
    x = torch.randn(2, 3, 5, 5)
    limit = 100 * 2.0**-24 * 27
    assert (layer(x, "ann") - convolution(x)).abs().max() <= limit
    y = layer(x.expand(4, -1, -1, -1, -1), "snn")
    assert y.shape == (4, 2, 6, 5, 5)
    neurons = tt.LIF(ts.Neuron(decay_scope="channel", threshold_scope="layer"), 6)
    s, v = neurons(y)
    halves = neurons(y[:2])
    rest = neurons(y[2:], halves.v)
    assert torch.equal(torch.cat([halves.s, rest.s]), s)
    assert torch.equal(rest.v, v)
    s.sum().backward()
    assert neurons.decay is not None
    assert neurons.decay.grad is not None
    assert layer.sigma_snn.grad is not None
    assert layer.sigma_ann.grad is None


def test_surrogates_integrate_to_one() -> None:
    """Midpoint rule on [-w, w]: the tails of arctan and fast sigmoid beyond w hold at most 1/w of the mass."""
    w, n = 2000.0, 4_000_000
    z = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * w / n) - w
    for config in SURROGATES:
        h = tt.surrogate.derivative(config, z)
        assert (h >= 0).all()
        assert abs(float(h.sum() * (2 * w / n)) - 1) <= 1 / w
    for config in (ts.Sigmoid(), ts.Tanh()):
        assert torch.isfinite(tt.surrogate.derivative(config, torch.tensor([-3e38, 3e38]))).all()


# --- refusals, switches, compilation ------------------------------------------------------------------------


def test_refusals_are_one_line() -> None:
    session = tt.backend.session()
    with pytest.raises(ts.SpecError, match="device of backend 'torch'"):
        tt.backend.session(device="tpu")
    with pytest.raises(ts.SpecError, match="precision of backend 'torch'"):
        tt.backend.session(precision="f16")
    with pytest.raises(ts.SpecError, match=r"relu\.x"):
        session.forward("relu", Nothing(), {"x": np.zeros(3)})
    with pytest.raises(ts.SpecError, match=r"lif\.x"):
        tt.lif(torch.zeros(3), neuron=ts.Neuron())
    with pytest.raises(ts.SpecError, match="more than one value per channel"):
        tt.TwinBatchNorm(2)(torch.zeros(1, 2), "ann")
    program = session.program(DIGITS, ts.Method(), ts.SGD())
    with pytest.raises(ts.SpecError, match="labels"):
        program.train_step(
            program.load(initial_state(DIGITS, ts.Method(), ts.SGD())), *batch(DIGITS, ts.Method())[:1], np.full(3, 10), 0.1
        )


def test_switches_of_reduced_products_are_set_and_put_back() -> None:
    found = [getattr(owner, name) for owner, name, *_ in _switches()]
    for precision, level in (("f32-ieee", "highest"), ("tf32", "high")):
        with arithmetic(precision):
            for owner, name, ieee, tf32 in _switches():
                assert getattr(owner, name) == (tf32 if precision == "tf32" else ieee)
            assert torch.get_float32_matmul_precision() == level, "the compiler reads this one"
    assert torch.get_float32_matmul_precision() == "highest"
    assert [getattr(owner, name) for owner, name, *_ in _switches()] == found
    # 1 + 2^-11 survives float32 and is 1 in TF32
    session = tt.backend.session()
    x = session.from_numpy(np.full((1, 1), 1 + 2.0**-11))
    one = {"weight": session.from_numpy(np.ones((1, 1))), "bias": session.from_numpy(np.zeros(1))}
    assert session.forward("linear", Nothing(), {"x": x} | one)["y"].item() == 1 + 2.0**-11


def tiny(event: bool = False) -> ts.Network:
    layers = (
        Conv(name="stem.conv", input=INPUT, out_channels=3, kernel=3, padding=1, part="stem"),
        Norm(name="stem.norm", input="stem.conv"),
        Activation(name="stem.act", input="stem.norm"),
        GlobalPool(name="main.feature", input="stem.act"),
        Linear(name="main.head", input="main.feature", out_features=4),
    )
    exits = (Branch(feature="main.feature", head="main.head"),)
    return ts.Network(name="tiny", input_shape=(2, 4, 4), event=event, layers=layers, exits=exits)


@pytest.mark.parametrize("case", ["per-step loss, adam", "folded, learned neurons, adamw", "isolated, low rank, penalty"])
def test_the_module_traces_as_one_graph(case: str) -> None:
    """Tracing and differentiation ahead of time, without code generation: gradients within 1e-12 of their norm."""
    full, method, _ = STEPS[case]
    network = tiny(full.event)
    module = tt.build(network, method, dtype=torch.float64)
    images, labels = (torch.from_numpy(a) for a in batch(network, method))
    other = copy.deepcopy(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, inside its tracer
        traced = torch.compile(other, backend="aot_eager", fullgraph=True)
        tt.joint_loss(method.loss, traced(images), labels).backward()
    tt.joint_loss(method.loss, module(images), labels).backward()
    for (name, p), q in zip(module.named_parameters(), other.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert (p.grad - q.grad).norm() <= 1e-12 * p.grad.norm(), name


@pytest.mark.slow
@pytest.mark.skipif(not tt.backend.capabilities().compiled, reason="no C++ compiler here")
@pytest.mark.parametrize("precision", ["f64", "bf16-mixed"])
def test_compiled_equals_eager(precision: str) -> None:
    network, method, optimizer = tiny(), ts.Method(time_steps=2), ts.SGD(momentum=0.9)
    images, labels = batch(network, method)
    values = moved(network, method, optimizer)
    roundoff = U64 if precision == "f64" else 2.0**-8  # of the coarsest format; about 100 values per reduction
    gradients = []
    for compiled in (False, True):
        program = tt.backend.session(precision=precision, compiled=compiled).program(network, method, optimizer)
        found, _ = program.gradients(program.load(values), images, labels)
        gradients.append(found)
        state, _ = program.train_step(program.load(values), images, labels, 0.1)
        program.train_step(state, images, labels, 0.1)
    for name, g in gradients[0].items():
        assert np.linalg.norm(gradients[1][name] - g) <= 100 * roundoff * np.linalg.norm(g), name


@pytest.mark.slow
@pytest.mark.skipif(not tt.backend.capabilities().compiled, reason="no C++ compiler here")
def test_compiled_operations_agree_bit_for_bit() -> None:
    session = tt.backend.session(precision="f64", compiled=True)
    for case in [case for case in exact_cases() if case[0] in ("lif", "conv2d")][:4]:
        got, gradients, expected, expected_gradients = both(session, *case)
        for values, wanted in ((got, expected), (gradients, expected_gradients)):
            for key in wanted:
                np.testing.assert_array_equal(values[key], wanted[key], err_msg=key)
