"""Whole networks of the PyTorch backend against the reference, eager and compiled."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch_examples import DIGITS, STEPS, U64, batch, both, exact_cases, moved, tiny

import twinspike as ts
import twinspike_torch as tt
from twinspike.operations import Convolution
from twinspike.parameters import initial_state
from twinspike_torch.compiling import compiler_warnings_ignored


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


@pytest.mark.parametrize("case", ["per-step loss, adam", "folded, learned neurons, adamw", "isolated, low rank, penalty"])
def test_the_module_traces_as_one_graph(case: str) -> None:
    """Tracing and differentiation ahead of time, without code generation: gradients within 1e-12 of their norm."""
    full, method, _ = STEPS[case]
    network = tiny(full.event)
    module = tt.build(network, method, dtype=torch.float64)
    images, labels = (torch.from_numpy(a) for a in batch(network, method))
    other = copy.deepcopy(module)
    with compiler_warnings_ignored():
        traced = torch.compile(other, backend="aot_eager", fullgraph=True)
        tt.joint_loss(*traced(images)[:4], labels, config=method.loss).loss.backward()
    tt.joint_loss(*module(images)[:4], labels, config=method.loss).loss.backward()
    for (name, p), q in zip(module.named_parameters(), other.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert (p.grad - q.grad).norm() <= 1e-12 * p.grad.norm(), name


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", ["per-step loss, adam", "folded, learned neurons, adamw", "isolated, low rank, penalty"])
def test_the_module_traces_as_one_graph_without_gradients(case: str, training: bool) -> None:
    """As an evaluation does; outputs within 1e-12 of their size."""
    full, method, _ = STEPS[case]
    network = tiny(full.event)
    module = tt.build(network, method, dtype=torch.float64).train(training)
    images = torch.from_numpy(batch(network, method)[0])
    torch.compiler.reset()  # it counts how often one function is compiled, whoever asks
    traced = torch.compile(copy.deepcopy(module), backend="aot_eager", fullgraph=True)
    with torch.no_grad(), compiler_warnings_ignored():
        for found, expected in zip(traced(images), module(images), strict=True):
            if expected is not None:
                assert (found - expected).norm() <= 1e-12 * expected.norm()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("activations", [None, torch.bfloat16])
def test_off_the_cpu_a_training_step_goes_through(layout: torch.memory_format, activations: torch.dtype | None) -> None:
    """Every operation of an eager step on a GPU, on the device that computes nothing."""
    network, method = DIGITS, ts.Method(time_steps=2)
    module = tt.TwinNetwork(network, method, activations=activations, kernel="plain", device="meta", dtype=torch.float32)
    images = torch.empty(3, *network.input_shape, device="meta").contiguous(memory_format=layout)
    labels = torch.zeros(3, dtype=torch.int64, device="meta")
    loss = tt.joint_loss(*module(images)[:4], labels, config=method.loss).loss
    found = torch.autograd.grad(loss, list(module.parameters()))
    assert [g.shape for g in found] == [p.shape for p in module.parameters()]


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
