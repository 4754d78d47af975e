"""Backends that are not the same twice, hang or end their process, and errors of the suite itself: nothing costs the report."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from unsteady_backends import OtherError, bench, calls, deep, raising, wrong

from twinspike_conformance.cases.base import from_digest
from twinspike_conformance.checks import CHECKS
from twinspike_conformance.commands.command import main as suite
from twinspike_conformance.report import read, verify
from twinspike_conformance.report.record import Record
from twinspike_conformance.run import jobs, process, runner
from twinspike_conformance.run.opening import Options
from twinspike_conformance.run.profiles import PROFILES
from twinspike_conformance.run.runner import covering, run_check

CHECK = CHECKS["operation[relu-exact]"]
CI = PROFILES["ci"]
NOT_TWICE = "the answer is not the same twice, or depends on earlier calls: the same example, asked"


def recursion(n: int) -> BaseException | None:
    """What comes of recursion without end."""
    try:
        deep()
    except RecursionError as error:
        return error
    return None


# --- not the same twice ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hook", "then"),
    [
        (calls(lambda n: n == 1), "again, was right"),
        (calls(lambda n: n % 7 == 0), "again, was right"),
        (calls(lambda n: n == 40), "again, was right"),
        (raising(lambda n: RuntimeError("a race") if n == 5 else None), "again, was right"),
        (raising(lambda n: SystemExit(n) if n == 5 else None), "again, was right"),
        (
            raising(lambda n: (KeyError, ValueError, OSError)[n % 3]("a race")),
            "again, was wrong in another way: answer: expected",
        ),
        (raising(lambda n: ValueError(f"call {n}")), "again, was wrong in another way: answer: expected"),
    ],
)
def test_an_answer_that_is_not_the_same_twice_fails_with_its_example(hook, then):
    record = run_check(CHECK, bench(hook), CI, 0)
    assert record.status == "fail"
    assert record.failure is not None
    assert not record.failure.steady
    assert record.failure.sentences[0].startswith(f"{NOT_TWICE} {then}")
    assert "got" in record.failure.sentences[1]  # what it gave at first
    assert record.failure.digest.startswith(f"{CHECK.id}:")


def test_an_answer_that_changes_among_the_examples_that_are_drawn_fails_too():
    cover = len(covering(CHECK, 1.0))
    for n in range(1, 40):
        record = run_check(CHECK, bench(calls(lambda k, n=n: k == n)), CI, 0)
        if record.examples > cover + 1:
            break
    assert cover + 1 < record.examples < cover + CI.draws  # drawn, and no more after it
    assert record.failure is not None
    assert not record.failure.steady


def test_what_is_the_same_twice_is_steady_and_made_small():
    record = run_check(CHECK, bench(calls(lambda n: True)), CI, 0)
    assert record.failure is not None
    assert record.failure.steady
    assert not any(NOT_TWICE in sentence for sentence in record.failure.sentences)
    assert from_digest(record.failure.digest.partition(":")[2]).sizes == {"B": 1, "C": 1}


def test_a_smaller_example_that_is_not_the_same_twice_is_not_taken():
    seen: set[tuple[int, ...]] = set()

    def hook(operation, inputs, right):
        shape = inputs["x"].shape
        if operation == "relu" and (shape == (3, 5) or shape not in seen):
            seen.add(shape)
            return wrong(right())
        return right()

    record = run_check(CHECK, bench(hook), CI, 0)
    assert record.failure is not None
    assert record.failure.steady
    assert from_digest(record.failure.digest.partition(":")[2]).sizes == {"B": 3, "C": 5}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (lambda n: SystemExit(3), "SystemExit: 3"),
        (lambda n: GeneratorExit(), "GeneratorExit ("),
        (lambda n: MemoryError(), "MemoryError ("),
        (recursion, "RecursionError: maximum recursion depth"),
        (OtherError, "OtherError: a text that can't be had"),
        (lambda n: ValueError("two\nlines and half a pair \ud800"), r"ValueError: two lines and half a pair \ud800"),
        (lambda n: TypeError(f"{object()}"), "TypeError: <object object>"),
        (lambda n: ValueError("long" * 1000), "..."),
    ],
)
def test_whatever_is_raised_is_a_failure_of_one_legible_line(error, text):
    record = run_check(CHECK, bench(raising(error)), PROFILES["smoke"], 0)
    assert record.failure is not None
    (line, *_) = record.failure.sentences
    assert text in line
    assert "\n" not in line
    assert len(line) < 600
    assert process.unpacked(process.packed(process.Done(record))) == process.Done(record)


def test_an_interrupt_is_the_user_s():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what runs behind it ignore interrupts
    try:
        with pytest.raises(KeyboardInterrupt):
            run_check(CHECK, bench(raising(lambda n: KeyboardInterrupt())), PROFILES["smoke"], 0)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_suspect_gives_the_outputs_of_two_examples():
    asked = []

    def suspects(given, check, example):
        asked.append(example)
        return ("always: a fault",) if len(asked) % 2 else ("other: a fault", "always: a fault")

    assert run_check(CHECK, bench(calls(lambda n: True)), CI, 0, suspects).failure.suspects == ("always: a fault",)
    assert len({example.digest() for example in asked}) == len(asked) == 2
    by_chance = iter((("one: a fault",), ("two: a fault",)))
    assert run_check(CHECK, bench(calls(lambda n: True)), CI, 0, lambda *_: next(by_chance)).failure.suspects == ()


def test_a_suspect_of_one_example_alone_is_not_named():
    def hook(operation, inputs, right):
        return wrong(right()) if operation == "relu" and np.array_equal(inputs["x"], only) else right()

    seen = []
    run_check(CHECK, bench(lambda operation, inputs, right: seen.append(inputs) or right()), PROFILES["smoke"], 0)
    only = seen[0]["x"]
    record = run_check(CHECK, bench(hook), PROFILES["smoke"], 0, lambda *_: ("one: a fault",))
    assert record.status == "fail"
    assert record.failure.suspects == ()


# --- errors of the suite itself --------------------------------------------------------------------------


def test_an_error_of_a_check_is_no_failure_of_a_backend():
    def run(bench, example):
        return [1 // 0]

    record = run_check(msgspec.structs.replace(CHECK, run=run), bench(calls(lambda n: False)), CI, 0)
    assert record.status == "error"
    assert record.reason.startswith(
        "the suite itself failed, on a right backend too: answer: expected a result, got ZeroDivision"
    )


def test_an_error_beside_a_check_is_a_record(monkeypatch):
    monkeypatch.setattr(runner, "covering", lambda check, share: 1 // 0)
    record = run_check(CHECK, bench(calls(lambda n: False)), CI, 0)
    assert (record.status, record.reason) == (
        "error",
        "the suite itself failed: ZeroDivisionError: integer division or modulo by zero",
    )


@pytest.mark.parametrize("part", ["minimize", "reproduction", "suspects"])
def test_an_error_in_what_explains_a_failure_leaves_the_failure(part, monkeypatch):
    def fail(*_):
        raise RuntimeError("of the suite")

    if part != "suspects":
        monkeypatch.setattr(runner, part, fail)
    record = run_check(CHECK, bench(calls(lambda n: True)), CI, 0, fail if part == "suspects" else None)
    assert record.status == "fail"
    assert record.failure is not None
    assert record.failure.sentences[0].startswith("y")
    assert record.failure.sentences[-1].endswith("the suite itself failed: RuntimeError: of the suite")


# --- through processes -----------------------------------------------------------------------------------


def run(folder: Path, backend: str, *words: str, status: int) -> dict[str, Record]:
    """Records of a run by id, whose report must be there."""
    given = [f"unsteady_backends:{backend}", "--precision", "f64", "--profile", "smoke", "--report", str(folder), *words]
    assert suite(given) == status
    return {record.id: record for record in read(folder / "report.json").records}


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_process_that_ends_or_hangs_costs_one_check(jobs, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HUNG", str(tmp_path / "hung"))
    monkeypatch.setattr(process, "PATIENCE", 1.0)
    records = run(tmp_path / "report", "ending", "--jobs", jobs, "--limit", "15", status=3)
    for name, reason in (
        ("relu-exact", "was ended by SIGABRT"),
        ("compose-rounded", "was ended by SIGSEGV"),
        ("penalty-rounded", "ended with status 7"),
        ("readout-exact", "ended with status 0"),
    ):
        record = records[f"operation[{name}]"]
        assert (record.status, record.reason) == ("error", f"the process that ran it {reason}")
        assert record.failure is not None
        assert from_digest(record.failure.digest.partition(":")[2]).operation == name.partition("-")[0]
        assert record.failure.example.startswith(f"{name.partition('-')[0]} {{")
    (hung,) = (record for record in records.values() if "limit" in record.reason)
    assert hung.reason == "the process that ran it was ended at the limit of 15 s; --limit says another"
    assert {record.status for name, record in records.items() if "avg_pool" in name} <= {"error", "pass", "not supported"}
    assert sum(record.status == "error" for name, record in records.items() if "avg_pool" in name) == 1
    assert {record.status for name, record in records.items() if "linear" in name} == {"pass", "not supported"}
    assert {records[f"network[{name}]"].status for name in ("layers", "step", "gradients")} == {"pass"}
    told = capfd.readouterr()
    assert f"\n{hung.id} has been running for " in told.out
    assert "printed by" not in told.out
    assert "printed by C" in told.err
    assert "Fatal Python error: Segmentation fault" in told.err
    verify(tmp_path / "report" / "report.json", CHECKS)


def test_a_process_that_ends_between_two_checks_costs_none():
    one = process.Process(Options(backend="numpy", precision="f64", profile="smoke"), print)
    try:
        assert one.run(CHECK).status == "pass"
        one._popen.kill()
        one._popen.wait()
        assert one.run(CHECK).status == "pass"
    finally:
        one.stop()


def alone(backend: str) -> Record:
    """The record of one check in a process of its own, which has to go on with the next one."""
    one = process.Process(Options(backend=backend, precision="f64", profile="smoke"), print)
    try:
        record = one.run(CHECK)
        assert one.run(CHECKS["operation[linear-exact]"]).status == "pass"
        return record
    finally:
        one.stop()


def test_a_line_that_is_cut_short_is_the_end():
    record = alone("unsteady_backends:torn")
    assert (record.status, record.reason) == ("error", "the process that ran it ended with status 4")


def test_a_check_has_ended_when_its_own_record_comes():
    assert (alone("unsteady_backends:forged").id, alone("unsteady_backends:forged").status) == (CHECK.id, "pass")


def test_what_an_ended_process_said_is_heard_out(monkeypatch):
    """However late this process comes to read it."""

    def late(popen, lines):
        with popen.stdout:
            for line in popen.stdout:
                time.sleep(2.5)
                lines.put(line)
        lines.put(None)

    monkeypatch.setattr(process, "_listen", late)
    monkeypatch.setattr(process, "_LAST", 60.0)
    one = process.Process(Options(backend="unsteady_backends:ending", precision="f64", profile="smoke"), print)
    try:
        record = one.run(CHECK)
    finally:
        one.stop()
    assert record.reason == "the process that ran it was ended by SIGABRT"
    assert record.failure is not None
    assert record.failure.example.startswith("relu ")


def test_nothing_is_imported_from_the_folder_in_which_it_is_run(tmp_path, monkeypatch):
    (tmp_path / "msgspec.py").write_text("raise ImportError('another')\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)
    one = process.Process(Options(backend="numpy", precision="f64"), print)
    try:
        assert one.opened().backend == "numpy"
    finally:
        one.stop()


def test_an_error_beside_a_process_costs_one_check(monkeypatch):
    right = process.Process.run

    def run(self, check):
        return right(self, check) if check is not CHECK else 1 // 0

    monkeypatch.setattr(process.Process, "run", run)
    other = CHECKS["operation[linear-exact]"]
    with jobs.Team(Options(backend="numpy", precision="f64", profile="smoke"), print) as team:
        found = team.run([CHECK, other], lambda record: None)
    assert found[CHECK.id].reason == "the suite itself failed: ZeroDivisionError: integer division or modulo by zero"
    assert found[other.id].status == "pass"


def test_a_failure_stands_if_the_process_ends_while_it_is_made_small(tmp_path):
    record = run(tmp_path, "small_ones_end", "--only", "operation[relu-exact]", status=1)["operation[relu-exact]"]
    assert record.status == "fail"
    assert record.failure is not None
    assert record.failure.sentences[0].startswith("y[0, 0]: expected")
    assert record.failure.sentences[-1] == "no smaller example: the process that ran it ended with status 9"


def test_an_example_that_is_right_alone_says_that_earlier_calls_matter(tmp_path, capsys):
    record = run(tmp_path, "late", "--only", "operation[relu", status=1)["operation[relu-rounded]"]
    assert record.failure is not None
    assert not record.failure.steady
    assert record.failure.sentences[0] == f"{NOT_TWICE} alone in a fresh process, was right"
    assert NOT_TWICE in capsys.readouterr().out
    where = ["--backend", "numpy", "--precision", "f64"]
    assert suite(["repro", record.failure.digest, *where]) == 0
    assert "the answer depends on earlier calls" in capsys.readouterr().out


OPENING = {
    "import os\nos._exit(5)\n": "its process ended with status 5",
    "import sys\nsys.exit(5)\n": "SystemExit: 5",
    "import ctypes\nctypes.string_at(0)\n": "its process was ended by SIGSEGV",
    "raise KeyboardInterrupt\n": "KeyboardInterrupt",
    "1 // 0\n": "ZeroDivisionError",
    "import time\ntime.sleep(1e6)\n": "its process was ended at the limit of 2 s",
}


@pytest.mark.parametrize("text", OPENING)
def test_a_backend_that_cannot_be_opened_is_one_line(text, tmp_path, monkeypatch, capsys):
    (tmp_path / "opening_backend.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    limit = "2" if "sleep" in text else "60"
    assert suite(["opening_backend:backend", "--precision", "f64", "--limit", limit]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert OPENING[text] in told.err
    assert told.out == ""
