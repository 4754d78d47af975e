"""An official run: what it refuses, the mark that it leaves, and who may carry it; the Action that runs one for others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conformance_examples import header, passing, report, side

import twinspike as ts
from twinspike.mark import Mark, read_mark, read_marks
from twinspike_conformance.commands.command import main as suite
from twinspike_conformance.report import badge, official, store, terminal
from twinspike_conformance.report.record import NO_EXAMPLE, Report

ROOT = Path(__file__).parents[2]
SUITE = [record.id for record in passing().records]
MARK = Mark(
    backend="own", specification="0.1.0", profile="ci", precision="f64", device="cpu", compiled=False, date="2026-01-31",
    passed=3, unsupported=0, report="0" * 64,
)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "relu"], "--official --only: expected the whole suite, got relu"),
        (["--profile", "smoke"], "--official --profile: expected one of ci, deep, got smoke"),
        (["--expectations", "known.toml"], "--official --expectations: expected none"),
        ([], "--official --report: expected a folder"),
    ],
)
def test_what_narrows_an_official_run_is_refused_before_its_first_check(words: list[str], told: str, capsys: Any) -> None:
    assert suite(["numpy", "--precision", "f64", "--official", *words]) == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert told in error


def test_a_fault_put_into_a_backend_is_none(tmp_path: Path, capsys: Any) -> None:
    assert suite(["mutant:lif-fire-strict", "--precision", "f64", "--official", "--report", str(tmp_path)]) == 2
    assert "--official backend: expected a backend" in capsys.readouterr().err


def earned(changed: Report) -> str:
    return official.obstacle(changed, SUITE)


def with_header(**changes: Any) -> Report:
    return msgspec.structs.replace(passing(), header=header(**changes))


def test_a_whole_run_earns_a_mark_and_no_other_does() -> None:
    whole = passing()
    assert earned(whole) == ""
    assert earned(with_header(profile="smoke")) == "its profile is smoke"
    assert earned(with_header(narrowed="interrupted")) == "it is of a part: interrupted"
    assert earned(with_header(against=side())) == "it is about two backends"
    assert earned(report()) == "its verdict is fail"
    assert earned(msgspec.structs.replace(whole, records=whole.records[1:])) == "its tests are not those of the suite"
    left = msgspec.structs.replace(whole.records[0], status="not run", reason="why")
    assert earned(msgspec.structs.replace(whole, records=(left, *whole.records[1:]))) == f"{left.id} is not run"
    unasked = msgspec.structs.replace(left, reason=NO_EXAMPLE)  # whole steps in float32, say
    assert earned(msgspec.structs.replace(whole, records=(unasked, *whole.records[1:]))) == ""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A report of an official run and its mark."""
    store.write(official.settled(passing(), SUITE), tmp_path / "report.json")
    official.write_mark(tmp_path, SUITE)
    return tmp_path


def test_a_mark_speaks_of_its_report_alone(kept: Path) -> None:
    mark = official.check_mark(kept / "mark.json", kept / "report.json", SUITE)
    assert (mark.backend, mark.precision, mark.profile, mark.date) == ("torch", "f32-ieee", "ci", "2026-05-04")
    assert "official" in badge.message(store.read(kept / "report.json"))
    (kept / "report.json").write_bytes((kept / "report.json").read_bytes() + b"\n")
    with pytest.raises(ts.SpecError, match=r"mark\.json: report: expected "):
        official.check_mark(kept / "mark.json", kept / "report.json", SUITE)


def test_a_report_that_says_it_is_official_and_is_not_is_refused(kept: Path) -> None:
    liar = msgspec.structs.replace(passing(), header=header(official=True, profile="smoke"))
    store.write(liar, kept / "report.json")
    with pytest.raises(ts.SpecError, match="expected the report of an official run, got its profile is smoke"):
        official.mark_of(kept / "report.json", SUITE)
    store.write(passing(), kept / "report.json")
    with pytest.raises(ts.SpecError, match="it was not asked for as one"):
        official.mark_of(kept / "report.json", SUITE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"date": "yesterday"}, "mark.date: expected a day"),
        ({"report": "abc"}, "mark.report: expected 64 hexadecimal digits"),
        ({"passed": 0}, "mark.passed: expected a whole number >= 1"),
        ({"precision": 3}, "expected a mark of an official run"),
        ({"more": 1}, "expected a mark of an official run"),
    ],
)
def test_what_is_no_mark_is_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    (tmp_path / "mark.json").write_text(json.dumps(msgspec.to_builtins(MARK) | change), encoding="utf-8")
    with pytest.raises(ts.SpecError, match=told):
        read_mark(tmp_path / "mark.json")


def capable(**changes: Any) -> ts.Capabilities:
    base = {"operations": frozenset(), "networks": False, "devices": ("cpu",), "compiled": False, "versions": {}}
    return ts.Capabilities(**{**base, "precisions": frozenset({"f64"}), **changes})


def test_a_backend_carries_marks_of_what_it_claims(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(MARK))
    assert capable(conformance=read_marks(tmp_path)).conformance == (MARK,)
    assert read_marks(tmp_path / "none") == ()
    with pytest.raises(ts.SpecError, match=r"mark\.precision: expected one that the backend claims \(f32-ieee\), got f64"):
        capable(precisions=frozenset({"f32-ieee"}), conformance=(MARK,))
    with pytest.raises(ts.SpecError, match=r"mark\.compiled: expected false"):
        capable(conformance=(msgspec.structs.replace(MARK, compiled=True),))


def test_an_old_backend_is_told_from_one_that_ignores_an_option() -> None:
    failed = msgspec.structs.replace(report(), header=header(written_for="0.0.9"))
    old = "torch was written for version 0.0.9 of the specification and is judged by 0.1.0: it can't know what lies between"
    assert old in terminal.render(failed)
    for said in ("", "0.1.0"):
        assert "written for" not in terminal.render(msgspec.structs.replace(report(), header=header(written_for=said)))


SMALL = """
import numpy as np, twinspike as ts
from twinspike.checks import check_claim, check_cotangents, check_operation, shapes_of
class Session:
    def __init__(self, device, precision, compiled): self.device, self.precision, self.compiled = device, precision, compiled
    def flags(self): return {}
    def from_numpy(self, values): return np.array(values)
    def to_numpy(self, tensor): return np.array(tensor)
    def forward(self, operation, config, inputs):
        if operation != "relu": raise ts.SpecError(f"operation: expected relu, got {operation}")
        check_operation(operation, config, shapes_of(inputs), {n: v.dtype.kind == "f" for n, v in inputs.items()})
        return {"y": np.maximum(inputs["x"], 0)}
    def vjp(self, operation, config, inputs, cotangents):
        out = self.forward(operation, config, inputs)
        floating = {n: v.dtype.kind == "f" for n, v in cotangents.items()}
        check_cotangents(operation, shapes_of(cotangents), floating, shapes_of(out))
        return out, {"x": cotangents.get("y", np.zeros_like(inputs["x"])) * (inputs["x"] > 0)}
    def program(self, network, method, optimizer, *, recompute=False): raise ts.SpecError("program: expected operations only")
class Small:
    name = "small"
    def capabilities(self):
        return ts.Capabilities(operations=frozenset({"relu"}), networks=False, precisions=frozenset({"f64"}), devices=("cpu",),
            compiled=False, versions={}, specification="0.1.0")
    def session(self, device="cpu", precision="f64", compiled=False):
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        return Session(device, precision, compiled)
backend = Small()
"""


def step(name: str) -> str:
    """The shell text of a step of the Action."""
    lines = (ROOT / "action.yml").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line == f"    - name: {name}")
    start = next(i for i, line in enumerate(lines[start:], start) if line == "      run: |") + 1
    end = next((i for i, line in enumerate(lines[start:], start) if line and not line.startswith("        ")), len(lines))
    return "\n".join(line[8:] for line in lines[start:end])


def action(folder: Path, **changes: str) -> int:
    environment = os.environ | {
        "BACKEND": "small:backend", "PRECISION": "f64", "DEVICE": "cpu", "COMPILED": "false", "PROFILE": "ci", "OFFICIAL": "true",
        "REPORT": "report", "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]), **changes,
    }  # fmt: skip
    done = subprocess.run(["bash", "-e", "-c", step("Judge")], cwd=folder, env=environment, capture_output=True, check=False)
    return done.returncode


def test_the_action_judges_a_backend_and_leaves_report_badge_and_mark(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "small.py").write_text(SMALL, encoding="utf-8")
    assert action(tmp_path) == 0
    assert "small · f64 · cpu · ci: pass, official" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert {file.name for file in (tmp_path / "report").iterdir()} == {*store.FORMS, store.MARK}
    assert suite(["verify", str(tmp_path / "report" / "report.json"), "--official"]) == 0
    assert "mark: conformed to" in capsys.readouterr().out
    assert action(tmp_path, PROFILE="smoke") == 2
    assert action(tmp_path, PRECISION="f32-ieee") == 2
