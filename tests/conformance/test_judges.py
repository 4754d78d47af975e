"""Certificates, taps and the judge: right answers pass, in float64 and in float32, and each of many wrong ones does not."""

from __future__ import annotations

from itertools import islice
from typing import get_args

import numpy as np
import pytest
from differences import SURROGATES

import twinspike as ts
from twinspike.clauses import BY_ID as CLAUSES
from twinspike.config import encode
from twinspike.operations import OPERATIONS, Convolution
from twinspike.precision import PRECISIONS
from twinspike.reference.neuron import lif
from twinspike.reference.surrogate import derivative
from twinspike_conformance.bounds.budget import Budget
from twinspike_conformance.bounds.finding import Rung
from twinspike_conformance.bounds.tracked import TINY, Tracked
from twinspike_conformance.cases import CASES, materialize
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.families import rounded
from twinspike_conformance.cases.structures import NARROW
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.faults import BY_ID
from twinspike_conformance.faults.backend import mutant
from twinspike_conformance.judges import certificates
from twinspike_conformance.judges import operations as judge
from twinspike_conformance.judges.variant import tracked
from twinspike_conformance.strength.kill import kill

NUMPY = ts.load("numpy")
UNIT = 2.0**-24
"""Of float32."""
OF_OPERATIONS = ("lif", "spike", "factorize", "retract", "conv2d", "linear", "batch_norm_train", "joint_loss", "optimizer_step")
LANES = [name for name in CHECKS if name.startswith(tuple(f"operation[{operation}-" for operation in OF_OPERATIONS))]


def _sound(findings):
    """Findings that all pass, and whose words are those of the suite."""
    assert findings
    assert [finding.sentence() for finding in findings if not finding.ok] == []
    for finding in findings:
        assert finding.rung in get_args(Rung)
        assert finding.quantity.strip("X ")
        assert set(finding.clauses) <= set(CLAUSES)
        assert finding.clauses
        assert finding.bound == 0 or finding.rung in ("bound", "certificate")


@pytest.mark.parametrize("check", LANES)
def test_right_answers_pass(check):
    bench = Bench(NUMPY, NUMPY.session("cpu", "f64"))
    for example in islice(CHECKS[check].space.cover(), 12):
        _sound(CHECKS[check].run(bench, example))


@pytest.mark.parametrize("check", LANES)
def test_right_answers_of_float32_pass(check):
    row, space = OPERATIONS[CHECKS[check].space.operation], CHECKS[check].space
    for example in islice(space.cover(), 40):
        material = materialize(CASES[row.name], example, "float32")
        single = [
            {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in part.items()}
            for part in (material.inputs, material.cotangents)
        ]
        outputs = row.forward(material.config, single[0])
        gradients = row.adjoint(material.config, *single) if row.adjoint else {}
        answer = judge.Answer(outputs, gradients, outputs, outputs if row.adjoint else {}, *single)
        findings = judge.judge(row, example, material, answer, PRECISIONS["f32-ieee"])
        assert [finding.sentence() for finding in findings if not finding.ok] == []


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        *((fault, "operation[lif-rounded]") for fault in (
            "subtle-decay", "subtle-membrane", "subtle-soft-reset", "subtle-adjoint", "subtle-surrogate-exp", "lif-reset-late",
            "lif-v-reset-ignored", "lif-reset-detached", "lif-state-detached", "lif-spike-twice", "lif-fire-bfloat16",
        )),
        ("lif-fire-strict", "operation[lif-exact]"),
        ("lif-fire-strict", "operation[spike-rounded]"),
        ("sur-window-closed", "operation[spike-rounded]"),
        ("subtle-surrogate-exp", "operation[spike-rounded]"),
        ("sur-triangle-derivative", "operation[spike-rounded]"),
        ("subtle-svd", "operation[factorize-rounded]"),
        ("fac-rank-off-by-one", "operation[factorize-rounded]"),
        ("fac-reshape-for-permute", "operation[factorize-rounded]"),
        ("fac-keeps-least", "operation[factorize-rounded]"),
        ("subtle-retract", "operation[retract-rounded]"),
        ("ort-qr-sign", "operation[retract-rounded]"),
        ("pre-state-in-place", "operation[lif-rounded]"),
        ("pre-spikes-float32", "operation[lif-rounded]"),
        ("harness-unsteady", "operation[conv2d-rounded]"),
        ("harness-nameless", "operation[lif-rounded]"),
        ("harness-mutates", "operation[linear-rounded]"),
        ("dis-teacher-attached", "operation[joint_loss-rounded]"),
    ],
)  # fmt: skip
def test_wrong_answers_are_found_by_their_own_check(fault, check):
    assert kill(BY_ID[fault], NUMPY, wanted=1, checks={check: CHECKS[check]}).killers == (check,)


@pytest.mark.parametrize("check", ["network[layers]", "network[gradients]"])
def test_right_networks_pass_layer_by_layer(check):
    bench = Bench(NUMPY, NUMPY.session("cpu", "f64"))
    every = [example for example in CHECKS[check].space.cover() if example.config["network"] in NARROW]
    isolating = next(example for example in every if example.config["method"]["loss"]["isolate_ann"])
    others = [next(example for example in every if example.config["network"] == name) for name in sorted(NARROW)]
    for example in (isolating, *others):
        findings = CHECKS[check].run(bench, example)
        assert len(findings) > 50
        _sound(findings)
        assert {clause for finding in findings for clause in finding.clauses} <= set(CHECKS[check].clauses)
        biases = {finding.clauses for finding in findings if finding.quantity.endswith(".bias")}
        assert biases == ({("LAY-3", "DIS-7")} if check == "network[gradients]" else set())


LOSS = {"DIS-1", "DIS-2", "DIS-3", "DIS-4", "DIS-5", "DIS-6", "DIS-8", "DIS-9", "DIS-10", "DIS-11", "DIS-12", "DIS-13"}


@pytest.mark.parametrize(
    ("fault", "check", "quantity", "clauses"),
    [
        ("subtle-conv-products", "network[layers]", "stem.conv (ann)", {"LAY-1", "FAC-1", "FAC-6", "INP-1", "INP-2"}),
        ("subtle-norm-root", "network[layers]", "stem.norm (ann)", {"BN-1", "BN-6"}),
        ("subtle-linear-products", "network[layers]", "main.head (ann)", {"LAY-3", "FAC-1", "FAC-8"}),
        ("lif-reset-late", "network[layers]", "stem.act (snn): u", {"LIF-1", "LIF-3", "LIF-4", "LIF-5"}),
        # what is sent back is the matter of the layer that sends it, not of the one it is sent to, here a pool
        (
            "subtle-linear-products",
            "network[gradients]",
            "gradient towards main.feature (ann)",
            {"LAY-3", "FAC-1", "FAC-8", *LOSS},
        ),
        ("fac-half-gradient", "network[gradients]", "gradient of stem.conv.U", {"FAC-7", "DIS-7"}),
        ("lay-bias-of-ann", "network[gradients]", "gradient of main.head.bias", {"LAY-3", "DIS-7"}),
        ("lif-spike-twice", "network[gradients]", "gradient towards stem.norm (snn)", {"LIF-6", "LIF-7", "LIF-8"}),
        ("dis-ce-sum", "network[gradients]", "gradient towards main.head (ann)", LOSS),
    ],
)
def test_the_wrong_layer_of_a_network_is_named_and_its_clauses(fault, check, quantity, clauses):
    faulty = mutant(BY_ID[fault], NUMPY)
    papers = (c for c in CHECKS[check].space.configs if c["method"] == encode(ts.Method()))
    config = next(c for c in papers if c["network"] == "digits_cnn")
    example = Example("network", config, {"B": 3}, "normal", False, 0)
    findings = CHECKS[check].run(Bench(faulty, faulty.session("cpu", "f64")), example)
    first = next(finding for finding in findings if finding.quantity == quantity and not finding.ok)
    assert set(first.clauses) == clauses


# --- what certificates compare, and within which bounds ---------------------------------------------------

U = 2.0**-24


@pytest.mark.parametrize("unit", [2.0**-24, 2.0**-52])
@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: type(s).__name__)
def test_surrogates_are_bounded_as_their_clause_says(surrogate, unit):
    """SUR-1, at z without an error of its own; of float32 also the reference in float32, constants rounded to it."""
    z = np.concatenate([np.linspace(-1.5, 1.5, 301), np.geomspace(1.5, 40.0, 200)]).astype(np.float32).astype(np.float64)
    h = derivative(surrogate, z)
    windowed = isinstance(surrogate, ts.Rectangle | ts.Triangle)
    limit = unit * (12 / surrogate.width if windowed else (32 + 10 * surrogate.slope * np.abs(z)) * h)
    seen = (h == 0) | (h > 2.0**-90)  # between, what is flushed to zero counts
    if not isinstance(surrogate, ts.Rectangle):  # which has an edge, and a judge of its own
        bound = tracked()["surrogate"].derivative(surrogate, Tracked(z, roundoff=unit)).error
        assert (bound <= limit * (1 + 2.0**-12) + 8 * TINY[unit])[seen].all()
    if unit == 2.0**-24:
        short = derivative(surrogate, z.astype(np.float32)).astype(np.float64)
        edge = np.abs(np.abs(z) - getattr(surrogate, "width", np.inf) / 2) < 2.0**-20
        assert (np.abs(short - h) <= limit + TINY[unit])[seen & ~edge].all()


def test_examples_have_neurons_at_which_a_fused_and_an_unfused_charge_part_either_way():
    """LIF-11, of float32, whose products are exact in float64; tests/proofs/ says why the decay is no power of two."""
    cases, parted = CASES["lif"], {True: 0, False: 0}
    config = ts.Neuron(decay_scope="channel", threshold_scope="channel")
    for seed, family in enumerate(("normal", "sparse", "constant") * 3):
        example = Example("lif", encode(config), {"T": 3, "B": 9, "C": 41, "given": 1}, family, False, seed)
        inputs = materialize(cases, example, "float32").inputs
        product, x = inputs["decay"] * inputs["v"], inputs["x"][0]
        fused = (product + x).astype(np.float32) >= inputs["threshold"]
        unfused = product.astype(np.float32) + x.astype(np.float32) >= inputs["threshold"]
        for fires in parted:
            parted[fires] += int((fused != unfused)[fused == fires].sum())
    assert min(parted.values()) >= 20


LIF = ts.Neuron(reset="soft", decay_scope="layer", threshold_scope="layer", surrogate=ts.Sigmoid(slope=2.0))


def _sequence(form, threshold=0.3):
    """Inputs, cotangents, outputs and gradients of a neuron that learns all it can, in a format."""
    rng = np.random.default_rng(0)
    inputs = {
        "x": rng.standard_normal((4, 2, 3)),
        "v": rng.standard_normal((2, 3)),
        "decay": np.array(0.7),
        "threshold": np.array(threshold),
    }
    cotangents = {"s": rng.standard_normal((4, 2, 3)), "v": rng.standard_normal((2, 3))}
    inputs, cotangents = ({k: v.astype(form) for k, v in part.items()} for part in (inputs, cotangents))
    row = OPERATIONS["lif"]
    return inputs, cotangents, row.forward(LIF, inputs), row.adjoint(LIF, inputs, cotangents)


def test_a_sequence_is_compared_in_every_quantity_and_clause():
    inputs, cotangents, out, gradients = _sequence(np.float32)
    forward = certificates.lif_forward(LIF, inputs, out, U)
    backward = certificates.lif_backward(LIF, inputs, out, cotangents, gradients, U)
    assert [(f.quantity, f.clauses) for f in forward] == [
        ("s is 0 or 1", ("LIF-2",)),
        ("u", ("LIF-1", "LIF-3", "LIF-4", "LIF-5")),
        ("s", ("LIF-2",)),
        ("v", ("LIF-3", "LIF-4", "LIF-5")),
    ]
    assert [(f.quantity, f.clauses) for f in backward] == [
        ("gradient of x", ("LIF-6", "LIF-7", "LIF-8")),
        ("gradient of v", ("LIF-5", "LIF-8")),
        ("gradient of decay", ("LIF-9",)),
        ("gradient of threshold", ("LIF-10",)),
    ]
    assert all(f.ok and f.rung == "certificate" for f in forward + backward)
    spikes = certificates.spike_backward(LIF, {"u": out["u"]}, cotangents, {"u": np.zeros((4, 2, 3))}, U)
    assert [(f.quantity, f.rung, f.clauses) for f in spikes] == [
        ("gradient of u", "certificate", ("SUR-2", "SUR-3", "SUR-4", "SUR-5", "SUR-6", "SUR-7"))
    ]


def _wide(part):
    return {k: np.asarray(v, np.float64) for k, v in part.items()}


def _numbers(findings):
    return [(f.quantity, f.ratio, f.index, f.got, f.want, f.bound) for f in findings]


def test_certificates_compute_in_float64_whatever_they_are_given():
    inputs, cotangents, out, gradients = _sequence(np.float32)
    parts = [(inputs, out, cotangents, gradients), tuple(map(_wide, (inputs, out, cotangents, gradients)))]
    one, other = (certificates.lif_forward(LIF, i, o, U) + certificates.lif_backward(LIF, i, o, c, g, U) for i, o, c, g in parts)
    assert _numbers(one) == _numbers(other)
    rng = np.random.default_rng(1)
    for name, config, given in (
        ("retract", ts.Retract(by="polar"), {"U": rng.standard_normal((5, 3)), "V": rng.standard_normal((3, 4))}),
        ("factorize", ts.Factorization(rank=2), {"kernel": rng.standard_normal((4, 5, 2, 2))}),
    ):
        single = {k: v.astype(np.float32) for k, v in given.items()}
        found = OPERATIONS[name].forward(config, single)
        certify = getattr(certificates, name)
        assert _numbers(certify(config, _wide(single), found, U)) == _numbers(certify(config, _wide(single), _wide(found), U))


def test_decompositions_are_compared_within_multiples_of_their_backward_error():
    f, kernel = ts.Factorization(rank=1), np.diag([4.0, 2.0])[:, :, None, None]
    out = OPERATIONS["factorize"].forward(f, {"kernel": kernel})
    unit, least = 4**1.5 * U, 2.0**-126 * 4
    bounds = {finding.quantity: finding.bound for finding in certificates.factorize(f, {"kernel": kernel}, out, U)}
    scale = unit * 4.0 + least
    assert bounds == {
        "rank": 0.0, "U'U - I": unit, "VV' - I": unit, "sigma": scale, "truncation error": scale,
        "sigma >= 0": 0.0, "sigma descending": 0.0,
    }  # fmt: skip
    given = {"U": 2.0 * np.eye(3, 2), "V": np.eye(2, 4)}
    for by in ("polar", "qr"):
        config = ts.Retract(by=by)
        found = certificates.retract(config, given, OPERATIONS["retract"].forward(config, given), U)
        want = {}
        for name, rows, norm in (("U", 3, 2.0), ("V", 4, 1.0)):
            unit = (rows + 2) ** 1.5 * U
            want |= {f"{name}: Q'Q - I": 3 * unit, f"{name}: Q R - A": 3 * unit * norm}
            want |= {f"{name}: form of R": 5 * unit * norm, f"{name}: sign of R": 0.0}
        assert {finding.quantity: finding.bound for finding in found} == want
        assert all(finding.ok and finding.clauses == ("ORT-3",) for finding in found)


@pytest.mark.parametrize(
    ("spikes", "form", "ok"),
    [
        ((0, 0, 1), "f32-ieee", True),
        ((0, 1, 1), "f32-ieee", True),
        ((0, 0, 1), "f64", False),
        ((0, 1, 1), "f64", True),
        ((1, 1, 1), "f32-ieee", False),
    ],
)
def test_a_threshold_between_two_numbers_of_a_format_leaves_one_spike_open(spikes, form, ok):
    """0.3 is no number of float32: a potential that is its rounding may fire or not; in float64 it fires."""
    config = ts.Neuron(threshold=0.3)
    storage = np.float32 if form == "f32-ieee" else np.float64
    theta = storage(0.3)
    u = np.array([[np.nextafter(theta, storage(0)), theta, np.nextafter(theta, storage(1))]], np.float64)
    answer = judge.Answer({"s": np.array([spikes], storage)}, {"u": np.zeros((1, 3), storage)}, {}, {}, {}, {})
    material = judge.Material(config, {"u": u}, {"s": np.zeros((1, 3))})
    finding = judge._certify_spike(OPERATIONS["spike"], material, answer, PRECISIONS[form])[0]
    assert (finding.quantity, finding.rung, finding.clauses, finding.ok) == ("s", "certificate", ("LIF-2",), ok)


def test_an_example_is_exact_in_a_profile_if_its_bits_fit_the_format_of_its_products():
    check = CHECKS["operation[conv2d-exact]"]
    for example in islice(check.space.cover(), 4):
        material, budget = materialize(CASES["conv2d"], example, "float32"), Budget()
        CASES["conv2d"].budget(budget, material.config, material.inputs, material.cotangents)
        for name, bits in (("f64", 53), ("f32-ieee", 24), ("tf32", 11), ("bf16-mixed", 8)):
            assert judge.proved_exact(example, material, PRECISIONS[name]) == (budget.bits <= bits)


def test_convolutions_of_bf16_mixed_are_judged_by_their_rounding_and_nothing_else_is():
    rng = np.random.default_rng(2)
    given = {
        "x": rounded(rng.standard_normal((2, 3, 5, 5)), "bfloat16"),
        "kernel": rounded(rng.standard_normal((4, 3, 3, 3)), "bfloat16"),
    }
    row, config = OPERATIONS["conv2d"], Convolution(padding=1)
    y = row.forward(config, given)["y"]
    size = 2.0**-7 * row.forward(config, {k: np.abs(v) for k, v in given.items()})["y"]
    g = {"y": np.zeros_like(y)}
    gradients = row.adjoint(config, given, g)
    answer = judge.Answer({"y": rounded(y, "bfloat16")}, gradients, {}, {}, {}, {})
    finding = judge._bounded(row, judge.Material(config, given, g), answer, PRECISIONS["bf16-mixed"])[0]
    assert finding.ok
    assert size[finding.index] <= finding.bound <= size[finding.index] * (1 + 2.0**-8)
    linear = {"x": np.ones((1, 4)), "weight": np.ones((2, 4)), "bias": np.zeros(2)}
    answer = judge.Answer({"y": np.full((1, 2), 4.0 * (1 + 2.0**-9))}, {}, {}, {}, {}, {})
    material = judge.Material(OPERATIONS["linear"].config(), linear, {"y": np.zeros((1, 2))})
    assert not judge._bounded(OPERATIONS["linear"], material, answer, PRECISIONS["bf16-mixed"])[0].ok


@pytest.mark.parametrize("neuron", [ts.Neuron(), ts.Neuron(reset="soft", decay_input=True, decay=0.3, threshold=0.4)])
@pytest.mark.parametrize("begun", [False, True])
def test_a_followed_sequence_has_the_potentials_of_its_spikes(neuron, begun):
    rng = np.random.default_rng(0)
    x, v = rng.standard_normal((6, 2, 3, 4)), rng.standard_normal((2, 3, 4))
    given = {"x": x, "v": v} if begun else {"x": x}
    want = lif(neuron, **given)
    found = certificates.followed(neuron, given, want.s, UNIT)
    assert np.all(np.abs(found.value - want.u) <= found.error)
    assert found.error.max() < 100 * UNIT


def test_an_edge_of_the_window_within_rounding_is_open():
    theta = Tracked(0.3, 0.3 * UNIT, roundoff=UNIT)
    found = certificates.surrogate_at(ts.Neuron(threshold=0.3), np.array([0.3, 0.8, 0.9]), theta, UNIT)
    assert found.error[1] == 1.0
    assert found.error[[0, 2]].max() < 10 * UNIT


def test_operands_of_products_are_rounded_in_tf32_alone():
    assert {name for name, precision in PRECISIONS.items() if judge.product_of(precision)} == {"tf32"}
    assert judge.product_of(PRECISIONS["tf32"]) == 2.0**-11
