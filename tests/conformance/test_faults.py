"""The fault corpus: every fault is one change of the reference that matters, in the backend and nowhere else."""

from __future__ import annotations

from collections import Counter
from functools import cache

import msgspec
import numpy as np
import pytest

import twinspike as ts
from twinspike.clauses import BY_ID as CLAUSES
from twinspike.config import encode
from twinspike.errors import SpecError
from twinspike.network import Network
from twinspike.operations import OPERATIONS
from twinspike.parameters import initial_state
from twinspike_conformance.cases import CASES, Example, materialize
from twinspike_conformance.cases.structures import BLOCK
from twinspike_conformance.checks import CHECKS
from twinspike_conformance.faults import BY_ID, FAULTS, harness
from twinspike_conformance.faults.backend import MutantProgram, fits, load_mutant, mutant
from twinspike_conformance.faults.diagnose import suspects
from twinspike_conformance.faults.reach import reach
from twinspike_conformance.judges import operations as judge
from twinspike_conformance.judges import variant
from twinspike_conformance.run.profiles import PROFILES, Profile
from twinspike_conformance.strength.kill import kill, survivors

NUMPY = ts.load("numpy")
EDITED = [fault for fault in FAULTS if fault.edits]
OF_OPERATIONS = [fault for fault in EDITED if reach(fault.edits).operations]
OF_NETWORKS = [fault for fault in EDITED if not reach(fault.edits).operations]
EXAMINATIONS = {name: check for name, check in CHECKS.items() if name.startswith(("operation[", "sizes["))}

WIDE = Profile("wide", cover=1.0, draws=40, fresh=True, derandomized=True, both_modes=True, limit=600.0)

NO_BACKEND_ANSWERS_FOR = {
    "FAC-1",
    "ORT-1",
    "BN-7",
    *(c for c in CLAUSES if c.startswith(("INI-", "RND-", "SCH-", "ENE-"))),
    *(f"DEV-{n}" for n in range(1, 8)),
}
"""Layouts, initial values, a metric, streams and schedules are computed by the specification itself; ranks are another corpus."""
IN_BF16_ALONE = {"PRE-2"}
"""Its faults but one need a base in bf16-mixed: they are in torch/test_precision.py."""

RARE = {"sur-sigmoid-overflow", "ort-qr-sign"}
"""Faults that few examples show; each has a test of its own below."""

DEMANDED = (
    "lif-fire-strict",
    "lif-reset-always-soft",
    "lif-v-reset-ignored",
    "lif-decay-exp",
    "lif-reset-late",
    "lif-state-kept",
    "lif-time-batch-swapped",
    "lif-fire-bfloat16",
    "lif-surrogate-at-u",
    "lif-surrogate-after-reset",
    "sur-triangle-derivative",
    "sur-window-closed",
    "lif-reset-detached",
    "lif-state-detached",
    "lif-spike-twice",
    "sur-width-captured",
    "fac-compose-v-columns",
    "fac-v-columns",
    "fac-rank-off-by-one",
    "fac-reshape-for-permute",
    "fac-hwio",
    "lay-conv-hwio",
    "fac-copied",
    "fac-sign-by-first",
    "fac-nan-at-repeated",
    "dis-temperature-squared",
    "dis-kd-direction",
    "dis-kd-mean",
    "dis-teacher-attached",
    "dis-temperature-one-side",
    "dis-alpha-swapped",
    "dis-softmax-unstable",
    "bn-biased-running",
    "bn-momentum-complement",
    "bn-eps-outside",
    "bn-always-folded",
    "bn-eval-updates",
    "bn-statistics-constant",
    "bn-difference-of-squares",
    "opt-sgd-decoupled",
    "opt-sgd-decay-after",
    "opt-sgd-nesterov-old",
    "opt-sgd-rate-in-buffer",
    "opt-decay-everywhere",
    "dis-snn-teaches",
    "fac-half-gradient",
    "bn-ann-twice",
    "harness-mutates",
    "harness-device",
    "harness-precision",
    "harness-cached",
    "harness-zeros",
    "harness-nan",
    "harness-alias",
)
"""The list that the corpus grew from, but for schedules."""


# --- the corpus ------------------------------------------------------------------------------------------


def test_ids_are_unique_and_clauses_known():
    assert len(BY_ID) == len(FAULTS) >= 120
    assert all(CLAUSES[fault.clause].level == "MUST" for fault in FAULTS)
    assert all("\n" not in fault.description and fault.description for fault in FAULTS)


def test_demanded_faults_are_there():
    assert [name for name in DEMANDED if name not in BY_ID] == []


def test_every_clause_that_a_backend_answers_for_has_two_faults():
    counts = Counter(fault.clause for fault in FAULTS)
    must = {name for name, clause in CLAUSES.items() if clause.level == "MUST"}
    assert {name for name in must if counts[name] < 2} == NO_BACKEND_ANSWERS_FOR | IN_BF16_ALONE


def test_every_edit_applies_and_touches_something():
    for fault in EDITED:
        for module in {edit.module for edit in fault.edits}:
            compile(variant.apply(fault.edits, module), fault.id, "exec")
        found = reach(fault.edits)
        assert found.operations or found.program, fault.id


def test_edit_that_does_not_apply_is_refused():
    with pytest.raises(SpecError, match="expected text that occurs once"):
        variant.load([variant.Edit("neuron", "no such text", "")])


# --- reach -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "operations", "program"),
    [
        ("lif-fire-strict", {"lif", "spike"}, True),
        ("lif-reset-late", {"lif"}, True),
        ("lif-state-before-reset", {"lif"}, False),
        ("fac-keeps-least", {"factorize"}, False),
        ("out-last-of-equals", set(), True),
        ("dis-isolation-forgets-bias", set(), True),
        ("dis-softmax-unstable", {"cross_entropy", "distillation", "joint_loss"}, True),
    ],
)
def test_reach(fault, operations, program):
    found = reach(BY_ID[fault].edits)
    assert (found.operations, found.program) == (operations, program)


# --- every fault matters ---------------------------------------------------------------------------------


def test_faults_of_operations_are_found_by_examination():
    unfound = []
    for fault in OF_OPERATIONS:
        row = kill(fault, NUMPY, wanted=1, profile=WIDE, checks=EXAMINATIONS)
        if bool(row.killers) == bool(fault.equivalent):
            unfound.append(fault.id)
    assert set(unfound) <= RARE, unfound


def test_signs_of_q_differ_from_the_reference():
    rng = np.random.default_rng(0)
    inputs = {"U": rng.standard_normal((8, 5, 3)), "V": rng.standard_normal((8, 3, 4))}
    config = ts.Retract(by="qr")
    found = mutant(BY_ID["ort-qr-sign"], NUMPY).session("cpu", "f64").forward("retract", config, inputs)
    assert not np.array_equal(np.sign(found["U"]), np.sign(OPERATIONS["retract"].forward(config, inputs)["U"]))


def test_overflow_of_the_sigmoid_shows_far_below_threshold():
    config = ts.Neuron(surrogate=ts.Sigmoid(slope=3.0))
    examples = [Example("spike", encode(config), {"B": 33, "C": 129}, "heavy", False, seed) for seed in range(30)]
    session = mutant(BY_ID["sur-sigmoid-overflow"], NUMPY).session("cpu", "f64")
    assert not all(finding.ok for example in examples for finding in judge.examine(session, example))


def _network(event: bool) -> Network:
    return msgspec.structs.replace(BLOCK, event=event)


_LOSS = {"alpha": 0.4, "beta": 0.1, "temperature": 2.0}
_SCOPED = ts.Factorization(scope="no_stem", orthogonality=ts.Penalty(weight=0.05))
_RETRACTED = ts.Factorization(orthogonality=ts.Retract(every=2))
_SETTINGS = (
    (False, ts.Method(time_steps=3, loss=ts.Loss(**_LOSS), factorization=_SCOPED), ts.SGD(momentum=0.5, weight_decay=0.1)),
    (
        True,
        ts.Method(time_steps=3, readout="mean", loss=ts.Loss(**_LOSS, isolate_ann=True), factorization=_RETRACTED),
        ts.SGD(momentum=0.5, weight_decay=0.2, decay_scope="no_norm_bias"),
    ),
    (False, ts.Method(time_steps=2, loss=ts.Loss(**_LOSS, per_step=True)), ts.AdamW(weight_decay=0.1)),
    (
        False,
        ts.Method(time_steps=2, neuron=ts.Neuron(decay_scope="channel", threshold_scope="channel"), loss=ts.Loss(**_LOSS)),
        ts.SGD(momentum=0.5, decay_scope="no_norm_bias"),
    ),
)


def _run(setting: int, fault: str | None) -> dict[str, np.ndarray]:
    """Everything that a program says about one small network: gradients, three steps, evaluation, inner values."""
    event, method, optimizer = _SETTINGS[setting]
    network = _network(event)
    rng = np.random.default_rng(setting)
    initial = initial_state(network, method, optimizer, seed=1)
    initial = {k: v + 0.2 * rng.random(v.shape) if v.dtype.kind == "f" else v for k, v in initial.items()}
    heads = [k for k in initial if k.startswith(("head.weight", "side.head.weight"))]
    initial |= {k: rng.standard_normal(initial[k].shape) for k in heads}  # so that predictions differ between samples and steps
    learned = [k for k in initial if k.startswith("optimizer/momentum/") and k.endswith((".decay", ".threshold"))]
    initial |= {k: 40.0 * rng.standard_normal(initial[k].shape) for k in learned}  # so that they leave their domain
    images = rng.standard_normal((3, 16, 2, 4, 6) if event else (16, 2, 4, 6))
    labels = rng.integers(0, 3, 16)
    backend = NUMPY if fault is None else mutant(BY_ID[fault], NUMPY)
    session = backend.session("cpu", "f64")
    program = session.program(network, method, optimizer)
    assert fault is None or isinstance(program, MutantProgram)
    state = program.load(initial)
    gradients, metrics = program.gradients(state, images, labels)
    found = {f"gradient {k}": v for k, v in gradients.items()}
    found |= {f"metric {k}": session.to_numpy(getattr(metrics, k)) for k in metrics.__struct_fields__}
    for step in range(3):
        state, _ = program.train_step(state, images, labels, 0.05)
        found |= {f"{step} {k}": v for k, v in program.dump(state).items()}
    equal = {k: np.zeros_like(v) if k.startswith(("head", "side.head")) else v for k, v in initial.items()}
    _, metrics = program.gradients(program.load(equal), images, np.full(16, 2))
    found["equal logits"] = session.to_numpy(metrics.correct_snn)
    for label in range(3):  # how often each class is predicted: single hits may cancel
        _, metrics = program.gradients(program.load(initial), images, np.full(16, label))
        found[f"predicted {label}"] = session.to_numpy(metrics.correct_snn)
    evaluation = program.evaluate(state, images)
    found |= {k: session.to_numpy(getattr(evaluation, k)) for k in evaluation.__struct_fields__}
    for layer, taps in program.trace(state, images).items():
        found |= {f"{layer} {k}": v for k, v in taps.items()}
    return found


_reference = cache(lambda setting: _run(setting, None))


def _differs(fault: str, setting: int) -> bool:
    found, want = _run(setting, fault), _reference(setting)
    assert set(found) == set(want)
    return any(not np.array_equal(found[k], want[k]) for k in want)


@pytest.mark.parametrize("fault", [fault.id for fault in OF_NETWORKS])
def test_faults_of_networks_change_what_a_program_says(fault):
    assert any(_differs(fault, setting) for setting in range(len(_SETTINGS)))


def test_a_program_without_fault_says_what_the_reference_says():
    harmless = BY_ID["fac-sign-by-first"]
    assert not reach(harmless.edits).program
    assert (
        type(mutant(harmless, NUMPY).session("cpu", "f64").program(_network(False), *_SETTINGS[0][1:])).__name__ == "NumpyProgram"
    )


# --- mutants ---------------------------------------------------------------------------------------------


def test_a_mutant_claims_what_its_base_claims():
    faulty = load_mutant("mutant:lif-fire-strict")
    assert faulty.name == "mutant:lif-fire-strict"
    assert faulty.capabilities() == NUMPY.capabilities()
    session = faulty.session("cpu", "f64")
    assert (session.device, session.precision, session.compiled) == ("cpu", "f64", False)
    with pytest.raises(SpecError, match="device"):
        faulty.session("abacus", "f64")
    assert isinstance(faulty, ts.backend.Backend)


@pytest.mark.parametrize("name", ["mutant:no-such-fault", "lif-fire-strict", "mutant:", "mutant:lif-fire-strict@no_such_backend"])
def test_a_mutant_that_is_none_is_refused(name):
    with pytest.raises(SpecError):
        load_mutant(name)


def test_only_what_the_fault_touches_is_wrong():
    session = mutant(BY_ID["lif-fire-strict"], NUMPY).session("cpu", "f64")
    for check in EXAMINATIONS.values():
        if check.needs & {"lif", "spike"}:
            continue
        example = next(iter(check.space.cover()))
        assert all(finding.ok for finding in judge.examine(session, example)), check.id


def test_a_mutant_refuses_what_its_base_refuses():
    right, faulty = (b.session("cpu", "f64") for b in (NUMPY, mutant(BY_ID["lif-reset-late"], NUMPY)))
    for inputs in ({}, {"x": np.zeros(3)}, {"x": np.zeros((2, 2, 2), np.int64)}):
        lines = []
        for session in (right, faulty):
            with pytest.raises(SpecError) as caught:
                session.forward("lif", ts.Neuron(), inputs)
            lines.append(str(caught.value))
        assert lines[0] == lines[1]


def test_memory_of_a_fault_ends_with_its_session():
    faulty = mutant(BY_ID["lif-state-kept"], NUMPY)
    x = {"x": np.full((2, 1, 1), 0.375)}
    first, second = (faulty.session("cpu", "f64") for _ in range(2))
    kept = [session.forward("lif", ts.Neuron(decay=0.25), x)["u"][0, 0, 0] for session in (first, first, second)]
    assert kept[0] == kept[2] == 0.375 != kept[1]


# --- the kill matrix -------------------------------------------------------------------------------------


def test_two_tests_find_a_fault():
    row = kill(BY_ID["lif-fire-strict"], NUMPY)
    assert row.killers == ("operation[lif-exact]", "operation[spike-exact]") or len(set(row.killers)) == 2
    assert len(row.rungs) == len(row.examples) == 2
    assert survivors([row]) == ()


def test_an_alias_and_equivalent_faults_pass():
    for fault in FAULTS:
        if fault.equivalent:
            row = kill(fault, NUMPY, profile=PROFILES["smoke"], checks=EXAMINATIONS)
            assert row.killers == ()
            assert survivors([row]) == ()


@pytest.mark.parametrize("fault", [f.id for f in harness.FAULTS if not f.equivalent])
def test_null_backends_are_found(fault):
    assert kill(BY_ID[fault], NUMPY, wanted=1, profile=PROFILES["smoke"]).killers


def test_a_survivor_is_reported():
    row = kill(BY_ID["lif-fire-strict"], NUMPY, checks={})
    assert survivors([row]) == (row,)
    assert all(fits(fault, NUMPY) for fault in FAULTS)


# --- diagnosis -------------------------------------------------------------------------------------------


def test_the_fault_behind_an_answer_is_found():
    """On dyadic data the neuron's faults reproduce their own answers, most of them alone."""
    alone = []
    check = EXAMINATIONS["operation[lif-exact]"]
    faults = [
        f for f in OF_OPERATIONS if f.id.startswith("lif-") and "lif" in reach(f.edits).operations and f.id != "lif-state-kept"
    ]
    for fault in faults:
        session = mutant(fault, NUMPY).session("cpu", "f64")
        for example in check.space.cover():
            material = materialize(CASES["lif"], example, "float64")
            answer = judge.ask(session, OPERATIONS["lif"], material)
            if all(f.ok for f in judge.judge(OPERATIONS["lif"], example, material, answer, ts.precision.PRECISIONS["f64"])):
                continue
            found = suspects(example, material, answer)
            assert fault.id in found, (fault.id, found)
            alone.append(len(found) == 1)
            break
    assert np.mean(alone) > 0.5


def test_a_right_answer_has_no_suspects_but_faults_that_don_t_show():
    example = Example("relu", {}, {"B": 3, "C": 5}, "ties", True, 0)
    material = materialize(CASES["relu"], example, "float64")
    answer = judge.ask(NUMPY.session("cpu", "f64"), OPERATIONS["relu"], material)
    answer.outputs["y"] = answer.outputs["y"] + 0.25
    assert suspects(example, material, answer) == ()
