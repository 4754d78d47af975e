"""A run that is ended early: what it found is reported, the rest is not run, and no process goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import unsteady_backends

from twinspike_conformance.checks import CHECKS
from twinspike_conformance.commands.command import main as suite
from twinspike_conformance.interrupts import SIGNALS, Interrupt, Interrupts
from twinspike_conformance.raised import interrupted
from twinspike_conformance.report import read, store, verify
from twinspike_conformance.run import jobs, process
from twinspike_conformance.run import opening as session

RUNS = {
    "run": (["unsteady_backends:deaf", "--jobs", "1"], "operation[relu-{}]"),
    "cross": (["cross", "unsteady_backends:deaf", "numpy"], "cross[relu-{}]"),
}
"""The first check of each passes, the second one hangs."""


def begun(*words: str, **environment: str) -> subprocess.Popen[str]:
    """The suite in a group of its own, to which all signals come: who runs the tests in the background may have some ignored."""
    path = os.pathsep.join([str(Path(unsteady_backends.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS[1:]}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "twinspike_conformance", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path} | environment,
            start_new_session=True,
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def left(group: int) -> list[str]:
    """States of processes of a group that run."""
    states = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = place.read_text(encoding="utf-8").rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        states += [state] if int(of) == group and state not in "ZX" else []
    return states


def ended(group: int) -> None:
    """Wait until nothing of a group runs."""
    deadline = time.monotonic() + 120
    while left(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left(group)


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("command", RUNS)
def test_what_was_found_is_reported(command: str, number: signal.Signals, tmp_path: Path) -> None:
    """Whoever else of the group gets the signal; on SIGKILL, of the suite alone, by the JSON that is there."""
    words, name = RUNS[command]
    only = name.partition("-")[0]
    run = begun(*words, "--precision", "f64", "--profile", "smoke", "--only", only, "--report", str(tmp_path))
    assert run.stdout is not None
    told = ""
    while not told.endswith("\n.") and (letter := run.stdout.read(1)):
        told += letter
    if number == signal.SIGKILL:
        run.kill()
    else:
        os.killpg(run.pid, number)
    rest, error = run.communicate(timeout=300)  # a process that goes on keeps the pipes open
    assert run.returncode == (-number if number == signal.SIGKILL else 128 + number), told + rest + error
    found = verify(tmp_path / "report.json")
    records = {record.id: (record.status, record.reason) for record in found.records}
    assert records[name.format("exact")] == ("pass", "")
    assert records[name.format("rounded")] == ("not run", "interrupted")
    assert {status for status, _ in records.values()} == {"pass", "not run"}
    assert (found.verdict, found.header.narrowed) == ("incomplete", f"--only {only}, interrupted")
    if number != signal.SIGKILL:
        assert {path.name for path in tmp_path.iterdir()} == set(store.FORMS)
        assert f"report: {tmp_path / 'report.html'}" in rest
        assert "Traceback" not in error
    ended(run.pid)


def test_a_run_that_has_found_nothing_says_one_line(tmp_path: Path) -> None:
    """While its backend is loaded."""
    (tmp_path / "opening_backend.py").write_text(
        "import os, time\nopen(os.environ['LOADED'], 'w')\ntime.sleep(1e6)\n", encoding="utf-8"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = begun("opening_backend:backend", "--report", str(tmp_path / "out"), PYTHONPATH=path, LOADED=str(tmp_path / "loaded"))
    while not (tmp_path / "loaded").exists():
        assert run.poll() is None
        time.sleep(0.1)
    run.terminate()
    assert run.communicate() == ("", "interrupted\n")
    assert run.returncode == 128 + signal.SIGTERM
    assert not list((tmp_path / "out").iterdir())
    ended(run.pid)


def test_a_second_signal_does_not_disturb_the_first() -> None:
    with Interrupts() as interrupts:
        with interrupts.part():
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        assert interrupts.status(0) == 128 + signal.SIGTERM
        with pytest.raises(Interrupt):
            interrupts.look()


def test_a_signal_that_does_not_wake_the_waiting_thread_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when it comes just before that thread waits: here another thread gets it."""
    monkeypatch.setattr(process, "PATIENCE", 20.0)
    told: list[str] = []  # that the check has been running for so long
    options = session.Options(backend="unsteady_backends:hanging", precision="f64", profile="smoke", limit=40.0)
    with Interrupts() as interrupts, jobs.Team(options, told.append) as team:
        team.opened()
        another = threading.Timer(1.0, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM))
        with interrupts.part():
            another.start()
            team.run([CHECKS["operation[relu-exact]"]], lambda _: None)
    assert told == []
    assert interrupts.status(0) == 128 + signal.SIGTERM


def test_what_is_over_is_not_interrupted_any_more() -> None:
    with Interrupts() as interrupts:
        with interrupts.part():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.status(3) == 3


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_is_the_user_s_where_interrupts_are_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert interrupted(Interrupt())
        assert not interrupted(KeyboardInterrupt())
    finally:
        signal.signal(signal.SIGINT, before)


def test_nothing_of_an_earlier_run_stands_beside_what_is_kept(tmp_path: Path) -> None:
    words = ["numpy", "--precision", "f64", "--profile", "smoke", "--only", "operation[relu-exact]", "--jobs", "1"]
    assert suite([*words, "--report", str(tmp_path)]) == 0
    session.keep(read(tmp_path / "report.json"), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
