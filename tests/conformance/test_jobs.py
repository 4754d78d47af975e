"""The suite on several processes: the same report as on one, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

import twinspike as ts
from twinspike.errors import SpecError
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.commands.command import main as suite
from twinspike_conformance.report import read
from twinspike_conformance.report.record import Record
from twinspike_conformance.run import jobs, process
from twinspike_conformance.run.profiles import PROFILES
from twinspike_conformance.run.runner import run_check


def told(folder: Path, *words: str) -> list[Record]:
    """Records without their times."""
    suite([*words, "--report", str(folder)])
    times = {"seconds": 0.0, "compile_seconds": 0.0}
    return [msgspec.structs.replace(record, **times) for record in read(folder / "report.json").records]


@pytest.mark.parametrize("backend", ["numpy", "mutant:lif-fire-strict"])
def test_two_processes_tell_what_one_does(backend, tmp_path, capsys):
    words = (backend, "--precision", "f64", "--profile", "smoke")
    one, two = (told(tmp_path / n, *words, "--jobs", n) for n in ("1", "2"))
    assert one == two
    assert "on 2 processes" in capsys.readouterr().out
    assert read(tmp_path / "2" / "report.json").header.jobs == 2


def test_units_are_the_checks_and_keep_together_what_shares_programs():
    found = jobs.units(CHECKS.values())
    assert sorted(check.id for unit in found for check in unit) == sorted(CHECKS)
    of = {check.id: i for i, unit in enumerate(found) for check in unit}
    assert of["operation[lif-exact]"] == of["operation[lif-rounded]"] == of["matters[lif]"]
    assert of["network[gradients]"] == 0
    assert of["network[layers]"] == 1
    for unit in found[2:]:
        assert len({check.space.operation for check in unit}) == 1


@pytest.mark.parametrize(("asked", "device", "count"), [(3, "cpu", 3), (None, "cuda:0", 1), (None, "cpu", 2), (1, "cpu", 1)])
def test_processes_are_as_many_as_cores_unless_asked(asked, device, count, monkeypatch):
    monkeypatch.setattr(jobs, "_cores", lambda: 2)
    assert jobs.count(asked, device) == count


def test_fewer_than_one_process_is_refused(capsys):
    with pytest.raises(SpecError, match="--jobs"):
        jobs.count(0, "cpu")
    assert suite(["numpy", "--precision", "f64", "--jobs", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_infinities_and_failures_survive_the_way_back():
    backend = ts.load("numpy")
    record = run_check(CHECKS["operation[relu-exact]"], Bench(backend, backend.session("cpu", "f64")), PROFILES["smoke"], 0)
    record = msgspec.structs.replace(record, worst_ratio=float("inf"))
    assert process.unpacked(process.packed(process.Done(record))) == process.Done(record)


@pytest.mark.parametrize("asked", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_is_a_positive_number_of_seconds(asked, capsys):
    with pytest.raises(SpecError, match="--limit"):
        jobs.limit(asked, PROFILES["ci"])
    assert suite(["numpy", "--precision", "f64", "--limit", str(asked)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_limits_are_the_profile_s_unless_asked():
    assert [jobs.limit(None, PROFILES[name]) for name in ("smoke", "ci", "deep")] == [600.0, 1800.0, 36000.0]
    assert jobs.limit(7.0, PROFILES["ci"]) == 7.0


def test_processes_share_the_cores_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(jobs, "_cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    jobs.share_cores(1)
    assert "OMP_NUM_THREADS" not in os.environ
    jobs.share_cores(4)
    assert os.environ["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    jobs.share_cores(2)
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_an_interrupt_leaves_no_process_behind(tmp_path):
    command = [sys.executable, "-m", "twinspike_conformance", "numpy", "--precision", "f64", "--profile", "ci", "--jobs", "2"]
    # Whoever started the tests in the background may have interrupts ignored, which a process inherits.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    signal.signal(signal.SIGINT, before)
    assert run.stdout is not None
    while run.stdout.read(1) not in (b".", b""):
        pass
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode != 0
    deadline = time.monotonic() + 60
    while _lives(run.pid) and time.monotonic() < deadline:  # who ended is there until the system has noticed
        time.sleep(0.01)
    assert not _lives(run.pid)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
