"""The suite as its users run it: from the command line, through pytest, and on faulty backends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import unsteady_backends

import twinspike as ts
import twinspike_conformance
from twinspike.clauses import BY_ID as CLAUSES
from twinspike_conformance.bounds.spectral import moved_by
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.commands.command import main as suite
from twinspike_conformance.faults import BY_ID, FAULTS
from twinspike_conformance.faults.backend import mutant
from twinspike_conformance.faults.base import Fault
from twinspike_conformance.judges.variant import Edit
from twinspike_conformance.report import read
from twinspike_conformance.strength.gate import part
from twinspike_conformance.strength.kill import kill

NUMPY = ts.load("numpy")
NO_BACKEND_ANSWERS_FOR = {
    *("FAC-4", "ORT-1", *(c for c in CLAUSES if c.startswith(("INI-", "RND-", "SCH-1", "SCH-2", "ENE-")))),
    *(f"DEV-{n}" for n in range(1, 8)),
}
"""Initial values, metrics, streams, schedules and counts are the specification's own; `cross` asks of many devices."""
USAGE, NOTHING = int(pytest.ExitCode.USAGE_ERROR), int(pytest.ExitCode.NO_TESTS_COLLECTED)


# --- from the command line -------------------------------------------------------------------------------


def test_numpy_conforms_in_smoke(tmp_path, capsys):
    assert suite(["numpy", "--precision", "f64", "--profile", "smoke", "--report", str(tmp_path)]) == 0
    report = read(tmp_path / "report.json")
    assert {record.id for record in report.records} == set(CHECKS)
    assert {record.status for record in report.records} == {"pass", "not supported"}
    assert "conforms to Twinspike" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["no_such_backend"], "no_such_backend"),
        (["numpy", "--precision", "f31"], "f31"),
        (["numpy", "--precision", "f64", "--profile", "daily"], "daily"),
        (["numpy", "--precision", "f64", "--only", "no such check"], "no such check"),
        (["mutant:no-such-fault"], "no-such-fault"),
        (["mutants", "--only", "no-such-fault"], "no-such-fault"),
        (["mutants", "--only", "fac-energy", "--part", "3/2"], "3/2"),
        (["mutants", "--only", "fac-energy", "--part", "half"], "half"),
    ],
)
def test_what_cannot_be_run_is_an_error_of_one_line(words, text, capsys):
    assert suite(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert text in error


def test_failing_example_is_replayed_and_its_fault_named(tmp_path, capsys):
    backend = "mutant:lif-fire-strict"
    assert suite([backend, "--precision", "f64", "--only", "operation[lif-exact]", "--report", str(tmp_path)]) == 1
    (record,) = (r for r in read(tmp_path / "report.json").records if r.status != "not run")
    assert record.failure is not None
    assert any(suspect.startswith("lif-fire-strict:") for suspect in record.failure.suspects)
    capsys.readouterr()
    assert suite(["repro", record.failure.digest, "--backend", backend, "--precision", "f64", "--code"]) == 1
    told = capsys.readouterr().out
    assert record.failure.sentences[0] in told
    assert "suspect: lif-fire-strict:" in told
    assert f"from twinspike_conformance.run.opening import load\nsession = load({backend!r})" in told
    assert suite(["repro", record.failure.digest, "--backend", "numpy", "--precision", "f64"]) == 0


def test_failing_network_is_shown_without_the_suite(tmp_path, capsys):
    backend, check = "mutant:fac-half-gradient", CHECKS["network[gradients]"]
    example = next(e for e in check.space.cover() if e.config["network"] == "block")
    digest = f"{check.id}:{example.digest()}"
    told = {}
    for name in (backend, "numpy"):
        folder = tmp_path / name.partition(":")[0]
        status = suite(["repro", digest, "--backend", name, "--precision", "f64", "--code", str(folder)])
        assert status == (name == backend)
        (script,) = folder.glob("*.py")
        assert f"{script}\n{script.with_suffix('.npz')}" in capsys.readouterr().out
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        words = [line.removeprefix(f"{name} ").split(" largest difference ") for line in done.stdout.splitlines()]
        told[name] = {what: float(sizes.partition(" of ")[0]) for what, sizes in words}
    assert told["numpy"].keys() == told[backend].keys()
    assert set(told["numpy"].values()) == {0.0}
    wrong = {what for what, size in told[backend].items() if size}
    assert {"gradient of stem.U", "gradient of stem.V", "after a step stem.U", "trace stem d_U"} <= wrong
    assert not any(what.startswith(("evaluation", "gradient of stem.norm")) for what in wrong)


def test_mutants_prints_the_matrix_and_judges_it(capsys):
    assert suite(["mutants", "--only", "fac-energy"]) == 0
    told = capsys.readouterr().out
    assert "fac-energy-unsquared [FAC-5]: operation[factorize-rounded]" in told
    assert "2 faults: 2 killed by two checks or more, 0 by one, 0 by none" in told


def test_parts_of_the_corpus_are_the_whole():
    parts = [fault.id for k in range(1, 8) for fault in part(list(FAULTS), f"{k}/7")]
    assert sorted(parts) == sorted(fault.id for fault in FAULTS)
    assert len(parts) == len(FAULTS)


def test_a_reader_who_has_enough_ends_it_quietly():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "twinspike_conformance", "mutants", "--precision", "f64", "--only", "harness-zeros"]
    run = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (run.returncode, run.stderr) == (1, "")


# --- through pytest --------------------------------------------------------------------------------------


def through_pytest(
    folder: Path, backend: str, *words: str, precision: str = "f64", profile: str = "smoke", env: dict[str, str] | None = None
) -> tuple[int, str]:
    """Exit status and what was printed."""
    options = ["--backend", backend, "--precision", precision, "--profile", profile]
    command = [sys.executable, "-m", "pytest", "--pyargs", "twinspike_conformance", "-p", "twinspike_conformance.plugin"]
    command += ["-p", "no:cacheprovider", *options, *words]
    environment = os.environ | (env or {})
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    return run.returncode, run.stdout + run.stderr


def test_pytest_passes_on_numpy(tmp_path):
    status, told = through_pytest(tmp_path, "numpy")
    assert status == 0, told
    assert f"{len(CHECKS)} items" in told


def test_pytest_fails_on_a_mutant(tmp_path):
    status, told = through_pytest(tmp_path, "mutant:lif-fire-strict", "-k", "operation and lif")
    assert status == 1
    assert "suspect: lif-fire-strict" in told


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"backend": "no_such_backend"}, "no_such_backend"),
        ({"backend": "numpy", "precision": "f31"}, "f31"),
        ({"backend": "numpy", "profile": "daily"}, "daily"),
        ({"backend": "numpy", "words": ("--limit", "0")}, "--limit"),
        ({"backend": "numpy", "words": ("--report", __file__)}, "--report"),
        ({"backend": "numpy", "words": ("--expectations", __file__)}, "expected TOML"),
    ],
)
def test_pytest_refuses_what_cannot_be_run(tmp_path, changes, text):
    status, told = through_pytest(tmp_path, changes.pop("backend"), *changes.pop("words", ()), **changes)
    assert status == USAGE
    assert text in told


def test_what_pytest_leaves_out_makes_a_part_that_is_not_verified(tmp_path, capsys):
    status, told = through_pytest(tmp_path, "numpy", "-k", "operation and relu and exact", "--report", "out")
    assert status == 0
    found = read(tmp_path / "out" / "report.json")
    assert {record.id for record in found.records} == set(CHECKS)
    assert [record.id for record in found.records if record.status == "pass"] == ["operation[relu-exact]"]
    assert (found.verdict, found.header.narrowed) == ("incomplete", "left out by pytest -k 'operation and relu and exact'")
    assert "conforms to" not in told
    assert f"incomplete, 1 of {len(CHECKS)} tests" in (tmp_path / "out" / "badge.svg").read_text(encoding="utf-8")
    assert suite(["verify", str(tmp_path / "out" / "report.json")]) == 2
    assert "a part does not stand for the whole" in capsys.readouterr().err


def test_what_pytest_does_not_come_to_is_left_out(tmp_path):
    status, _ = through_pytest(tmp_path, "mutant:lif-fire-strict", "-x", "--report", "out")
    assert status == 1
    found = read(tmp_path / "out" / "report.json")
    assert {record.id for record in found.records} == set(CHECKS)
    assert (found.verdict, found.header.narrowed) == ("fail", "left out by pytest")


def test_pytest_outlives_a_backend_that_ends_its_process(tmp_path):
    with_tests = {"PYTHONPATH": os.pathsep.join([str(Path(unsteady_backends.__file__).parent), os.environ.get("PYTHONPATH", "")])}
    status, told = through_pytest(tmp_path, "unsteady_backends:ending", "-k", "compose and rounded", env=with_tests)
    assert status == 1
    assert "error: the process that ran it was ended by SIGSEGV" in told
    assert "replay: operation[compose-rounded]:" in told


def test_no_test_is_a_failure(tmp_path):
    assert through_pytest(tmp_path, "numpy", "-k", "no_such_check")[0] == NOTHING


# --- what the suite is made of ---------------------------------------------------------------------------


def test_no_tolerance_is_written_down():
    root = Path(twinspike_conformance.__file__).parent
    word = re.compile(r"\b(rtol|atol|allclose|isclose|approx)\b")
    assert [str(path) for path in root.rglob("*.py") if word.search(path.read_text(encoding="utf-8"))] == []


def test_every_clause_that_a_backend_answers_for_is_named_by_a_check():
    named = {clause for check in CHECKS.values() for clause in check.clauses}
    assert named <= {name for name, clause in CLAUSES.items() if clause.level != "WITHDRAWN"}
    must = {name for name, clause in CLAUSES.items() if clause.level == "MUST"}
    assert must - named == NO_BACKEND_ANSWERS_FOR


def test_every_check_says_a_sentence():
    assert [c.id for c in CHECKS.values() if not c.sentence.strip().endswith(".") or len(c.sentence) < 30] == []


def test_whole_steps_are_compared_in_float64_alone():
    check = CHECKS["network[step]"]
    example = next(check.space.cover())
    assert check.run(Bench(NUMPY, NUMPY.session("cpu", "f64")), example)
    assert check.run(Bench(NUMPY, SimpleNamespace(precision="f32-ieee")), example) == []


def test_bounds_of_whole_steps_are_finite_and_see_a_change_of_one_part_in_a_thousand():
    check = CHECKS["network[step]"]
    findings = check.run(Bench(NUMPY, NUMPY.session("cpu", "f64")), next(check.space.cover()))
    assert all(np.isfinite(finding.bound) for finding in findings)
    assert sum(finding.bound < 1e-3 * abs(float(finding.want)) for finding in findings) > 0.9 * len(findings)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("bn-difference-of-squares", "shifted[batch_norm_train]"),
        ("bn-eval-gradient-gamma", "rescaled[batch_norm_eval]"),
        ("bn-eval-gradient-through", "samples[batch_norm_eval]"),
        ("dis-softmax-unstable", "shifted[distillation]"),
        ("fac-keeps-least", "left_out[factorize]"),
        ("fac-energy-at-one-position", "left_out[factorize]"),
        ("opt-adam-eps-inside", "rescaled[optimizer_step]"),
        ("ort-qr-sign", "known[retract]"),
        ("sur-tanh-overflow", "even[spike]"),
        ("out-last-of-equals", "network[predictions]"),
        ("opt-counter-from-one", "network[step]"),
    ],
)
def test_each_law_finds_its_fault(fault, check):
    assert kill(BY_ID[fault], NUMPY, wanted=1, checks={check: CHECKS[check]}).killers == (check,)


def test_statistics_in_one_long_chain_are_found():
    """PRE-7: as a fused kernel for channels last adds up, https://github.com/pytorch/pytorch/issues/121651."""
    chain = "np.moveaxis(x, 2, 0).reshape(x.shape[2], -1).cumsum(axis=-1)[:, -1] / (x.size // x.shape[2])"
    edit = Edit("norm", "    m = x.mean(axis=_axes(x))\n", f"    m = {chain}\n")
    fault = Fault("chain", "PRE-7", "batch statistics add up all values one after another", (edit,))
    check = CHECKS["sums[batch_norm_train]"]
    assert kill(fault, NUMPY, wanted=1, checks={check.id: check}).killers == (check.id,)


@pytest.mark.parametrize("by", ["polar", "qr"])
def test_bound_of_a_retraction_holds_and_is_not_idle(by):
    retract = mutant(BY_ID["lif-fire-strict"], NUMPY).session("cpu", "f64")
    rng = np.random.default_rng(5)
    a = rng.standard_normal((40, 5, 3)) + 2.0 * np.eye(5, 3)
    noise = 1e-7 * rng.standard_normal(a.shape)
    v = np.zeros((40, 3, 4)) + np.eye(3, 4)
    config = ts.Retract(by=by)
    plain, moved = (retract.forward("retract", config, {"U": u, "V": v})["U"] for u in (a, a + noise))
    bound = moved_by(by, a, np.linalg.norm(noise, axis=(-2, -1)), 2.0**-52)
    ratio = np.abs(plain - moved) / bound
    assert ratio.max() < 1.0
    assert ratio.max() > 0.01
