"""The PyTorch backend's operations against the reference, its refusals and its switches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch_examples import DIGITS, SURROGATES, U64, batch, both, exact_cases

import twinspike as ts
import twinspike_torch as tt
from twinspike.operations import OPERATIONS, Nothing
from twinspike.parameters import initial_state
from twinspike_torch.precision import _switches, arithmetic


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
        composed = tt.compose(u, torch.from_numpy(got["sigma"]), v, factorization=f, kernel_shape=kernel.shape)
        assert np.abs(composed.numpy() - kernel).max() <= limit
    drifted = (u + 0.1, v - 0.1)
    for by in ("polar", "qr"):
        assert tt.deviation(*tt.retract(*drifted, by=by)) <= 100 * U64


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
