"""Runs the parts of `gpu.py`: each a process, in order of worth, within one budget of time, and none able to end another.

A part has what its result file says, whatever becomes of the process: the report is written whole after each number
that a part notes, and again when it ends. Parts that measure take the lock of the device while they do (`gpu_parts.py`),
so that only one measures, while the next is already imported or compiled; for parts that prove something, and may share
the device, the lock is taken here. A part is first asked to end, so that the suite can leave its report, and no part
outlives this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from measure import ROOT, cores

LEAST = 10.0
"""Seconds that must be left for a part to be begun."""
TICK = 0.1
GRACE = 5.0
"""Seconds that a part has to end once it was asked to."""
FAILED = ("fail", "error")
_C = ctypes.CDLL(None)
_PDEATHSIG = 1
"""PR_SET_PDEATHSIG of Linux: the signal that a process gets when the thread that started it ends."""


class Part(NamedTuple):
    """One process."""

    name: str
    command: list[str]
    result: Path
    """File that it leaves behind: JSON, the suite's report or JUnit."""
    limit: float
    """Seconds after which it is ended, without those that it waits for the device."""
    stage: int
    """Begun when all parts of earlier stages have ended."""
    alone: bool = False
    """Whether it measures: it takes the lock itself."""
    early: bool = False
    """Whether it is begun after stage 0 already, since it compiles for long before it needs the device."""
    fails: bool = False
    """Whether failing is what it must do."""
    spare: float = 0.0
    """Seconds of the budget that it leaves to parts that measure, as long as there are any."""
    lacks: str = ""
    """Why it can't be run here; it is then only told."""
    threads: int | None = None
    """Of OpenMP, for parts that run beside others; None: as many as there are cores."""


class _Job:
    """A part that runs."""

    def __init__(self, part: Part, environment: dict[str, str], until: float, output: Path) -> None:
        self.output = output
        self.part, self.until, self.began = part, until, time.monotonic()
        self.beside: set[str] = set()
        self.seen = 0
        self.asked: float | None = None
        """When it was asked to end."""
        _remove(part.result)
        part.result.parent.mkdir(parents=True, exist_ok=True)
        with output.open("wb") as to:
            self.process = subprocess.Popen(
                part.command,
                cwd=ROOT,
                env=environment,
                stdout=to,
                stderr=to,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # this process has no threads
            )

    def waits(self) -> bool:
        """Whether it stands before the lock."""
        return waiting(self.part.result).exists()

    def noted(self) -> bool:
        """Whether it has noted something since it was asked last; what is written at the end alone is not looked at."""
        if self.part.result.suffix != ".json" or self.part.result.name == "report.json":
            return False
        with contextlib.suppress(OSError):
            before, self.seen = self.seen, self.part.result.stat().st_mtime_ns
            return before != self.seen
        return False

    def ask(self) -> None:
        """Ask it and all its children to end, once."""
        if self.asked is None:
            self.asked = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)

    def runs(self) -> bool:
        """Whether it goes on; not where it was asked to end and has had its time."""
        late = self.asked is not None and time.monotonic() >= self.asked + GRACE
        return self.process.poll() is None and not late

    def end(self) -> None:
        """End it with all its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Runner:
    """Runs parts and writes `gpu.json`, `gpu.log` and `reports.tar.gz` as they come."""

    def __init__(self, out: Path, scratch: Path, report: dict[str, Any], environment: dict[str, str], seconds: float) -> None:
        self.out, self.scratch, self.report, self.environment = out, scratch, report, environment
        self.deadline = time.monotonic() + seconds
        self.lock = (scratch / "device.lock").open("w")
        self.held = False

    def run(self, parts: list[Part], words: list[str]) -> None:
        """Run all whose name contains one of the words; no words: all."""
        pending: list[Part] = []
        for part in parts:
            if words and not any(word in part.name for word in words):
                self._not_run(part, "left out by --parts")
            elif part.lacks:
                self._not_run(part, part.lacks)
            else:
                pending.append(part)
        running: list[_Job] = []
        try:
            while pending or running:
                running = [job for job in running if not self._ended(job)]
                for part in pending.copy():
                    self._begin(part, pending, running)
                if self.held and not any(not job.part.alone for job in running):
                    self._hold(False)
                time.sleep(TICK)
        finally:
            self._end_all(running, pending)

    def _end_all(self, running: list[_Job], pending: list[Part]) -> None:
        """Leave nothing that runs, and then note what can be noted."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        for job in running:
            job.ask()
        while any(job.runs() for job in running):
            time.sleep(TICK)
        for job in running:
            job.end()
        for job in running:
            with contextlib.suppress(Exception):  # of a full disk, as a rule, which costs no other part its note
                self._note(job, "stopped: gpu.py was ended")
        for part in pending:
            with contextlib.suppress(Exception):
                self._not_run(part, "gpu.py was ended")
        self.lock.close()
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    # --- what may begin --------------------------------------------------------------------------------------

    def _begin(self, part: Part, pending: list[Part], running: list[_Job]) -> None:
        """Begin a part if its turn has come, or drop it if no time is left."""
        now = time.monotonic()
        if self.deadline - now < LEAST:
            pending.remove(part)
            self._not_run(part, f"no time left: {max(0.0, self.deadline - now):.0f} s of the budget, {LEAST:.0f} are the least")
            return
        if self._blocked(part, pending, running) or not (part.alone or self._hold(True)):
            return
        pending.remove(part)
        until = min(now + part.limit, self.deadline - self._spared(part, pending, running))
        threads = {"OMP_NUM_THREADS": str(part.threads)} if part.threads else {}
        try:
            job = _Job(part, self.environment | threads, until, self.scratch / f"{part.name.replace(' ', '-')}.log")
        except OSError as error:
            self._record(part, {"status": f"failed to begin: {error}"})
            return
        for other in running:
            other.beside.add(part.name)
            job.beside.add(other.part.name)
        running.append(job)

    def _blocked(self, part: Part, pending: list[Part], running: list[_Job]) -> bool:
        kin = [job for job in running if (job.part.alone, job.part.early) == (part.alone, part.early)]
        if len(kin) >= slots(part):
            return True
        before = 1 if part.early else part.stage
        waited_for = [job.part for job in running] + [p for p in pending if not self._spares(p, pending, running)]
        if any(other.stage < before and not other.early for other in waited_for):
            return True
        return self._spares(part, pending, running)

    def _spares(self, part: Part, pending: list[Part], running: list[_Job]) -> bool:
        """Whether a part is put off so that others may measure."""
        return self.deadline - time.monotonic() - self._spared(part, pending, running) < LEAST

    def _spared(self, part: Part, pending: list[Part], running: list[_Job]) -> float:
        measuring = any(other.alone for other in pending) or any(job.part.alone for job in running)
        return part.spare if measuring else 0.0

    def _hold(self, wanted: bool) -> bool:
        """Take or leave the device's lock for parts that share it; whether it is held then."""
        if wanted != self.held:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB if wanted else fcntl.LOCK_UN)
                self.held = wanted
        return self.held

    # --- what has ended --------------------------------------------------------------------------------------

    def _ended(self, job: _Job) -> bool:
        """Note what is new of a part that runs, and whether it runs no longer."""
        now = time.monotonic()
        if job.waits():
            job.until = min(job.until + TICK, self.deadline)
        code = job.process.poll()
        if code is None and now >= job.until:
            job.ask()
        if job.runs():
            if job.noted():
                with contextlib.suppress(Exception):  # it may be writing; what it leaves in the end is judged
                    self._record(job.part, {"status": "running"} | read(job.part.result), quiet=True)
            return False
        job.end()
        self._note(job, said(job.process.returncode) if job.asked is None else f"stopped after {job.asked - job.began:.0f} s")
        return True

    def _note(self, job: _Job, status: str) -> None:
        """Record how a part ended and what it found."""
        part = job.part
        found: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - job.began, 1)}
        found |= {"beside": sorted(job.beside)} if job.beside else {}
        found |= _read(part.result)
        if part.fails:
            statuses = found.get("statuses", {})
            caught = statuses.get("fail") and not statuses.get("error")
            found["status"] = "ok" if caught else f"expected a check that fails and none that is an error: {found['status']}"
        elif status == "ok" and "unread" in found:
            found["status"] = "failed: its result can't be read"
        text = job.output.read_text(encoding="utf-8", errors="replace")
        if found["status"] != "ok":
            found["said"] = text.rstrip().rpartition("\n")[2]
        with (self.out / "gpu.log").open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(part.command)}\n{text}\n{found['status']}\n\n")
        if part.result.name == "report.json":
            self._pack()
        self._record(part, found)

    def _not_run(self, part: Part, reason: str) -> None:
        """Say so, unless an earlier run of the same report has found something."""
        known = self.report["parts"].get(part.name, {"status": "not run"})
        if known["status"] in ("not run", "running"):
            self._record(part, {"status": "not run", "reason": reason})

    def _record(self, part: Part, found: dict[str, Any], quiet: bool = False) -> None:
        self.report["parts"][part.name] = found
        if not quiet:
            with contextlib.suppress(OSError):  # nobody may read it any more
                print(f"{part.name}: {json.dumps(found, default=str)}", flush=True)
        text = json.dumps(self.report, indent=1, default=str)
        for folder, name in ((self.scratch, "SCRATCH"), (ROOT, "CHECKOUT")):
            text = text.replace(str(folder), name)
        replace(self.out / "gpu.json", lambda path: path.write_text(text + "\n", encoding="utf-8"))

    def _pack(self) -> None:
        """All reports of the suite that there are."""

        def write(path: Path) -> None:
            with tarfile.open(path, "w:gz") as archive:
                for found in sorted(self.scratch.glob("*/report.json")):  # which is there first
                    archive.add(found.parent, found.parent.name)

        replace(self.out / "reports.tar.gz", write)


def _end_with_parent() -> None:
    """Within a part before it begins: Linux ends it when this process is gone, however it ended. Elsewhere nothing does."""
    if sys.platform == "linux":
        _C.prctl(_PDEATHSIG, signal.SIGKILL)


def slots(part: Part) -> int:
    """How many of its kind run at once: two that measure, so that one imports while the other has the device."""
    return min(2, cores()) if part.alone else max(1, min(6, (cores() - 2) // 2))


def said(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return "ok" if code == 0 else f"failed with {code}"


def waiting(result: Path) -> Path:
    """The file that a part has beside its result while it waits for the device."""
    return result.with_suffix(".waiting")


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all."""
    part = path.with_suffix(".part")
    write(part)
    part.replace(path)


def _remove(result: Path) -> None:
    """What an earlier run has left where a part will write."""
    if result.name == "report.json":
        shutil.rmtree(result.parent, ignore_errors=True)
    for path in (result, waiting(result)):
        path.unlink(missing_ok=True)


def _read(result: Path) -> dict[str, Any]:
    """What a part left behind; what is cut short or foreign is set aside and told."""
    if not result.is_file():
        return {"unread": f"no {result.name}"}
    try:
        return read(result)
    except Exception as error:  # whatever a file holds, it costs its own part only
        aside = set_aside(result)
        return {"unread": f"{result.name} is cut short or foreign, set aside as {aside.name}: {type(error).__name__}: {error}"}


def set_aside(path: Path) -> Path:
    """Give a file another name, and keep it."""
    number = 1
    while (aside := path.with_name(f"{path.name}.aside{number}")).exists():
        number += 1
    return path.rename(aside)


def read(result: Path) -> dict[str, Any]:
    """The JSON of a part, the counts of a report of the suite, or those of a JUnit file."""
    if result.name == "report.json":
        records = json.loads(result.read_text(encoding="utf-8"))["records"]
        chosen = [record for record in records if record["reason"] != "left out by --only"]
        counts: dict[str, Any] = {"statuses": {}, "comparisons": sum(record["comparisons"] for record in chosen)}
        for record in chosen:
            counts["statuses"][record["status"]] = counts["statuses"].get(record["status"], 0) + 1
        failed = [record["id"] for record in chosen if record["status"] in FAILED]
        cut = any(record["reason"] == "interrupted" for record in chosen)
        return counts | {"failed": failed, "verdict": "fail" if failed else "incomplete" if cut else "pass"}
    if result.suffix == ".json":
        found = json.loads(result.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"expected an object, got {type(found).__name__}")
        return found
    (suite,) = ElementTree.parse(result).getroot().iter("testsuite")
    counted: dict[str, Any] = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    bad = [case for case in suite.iter("testcase") if case.find("failure") is not None or case.find("error") is not None]
    return counted | {"failed": [f"{case.get('classname')}::{case.get('name')}" for case in bad]}


def earlier(out: Path) -> dict[str, Any]:
    """The parts of an earlier `gpu.json`; one that is cut short or foreign is set aside and told."""
    path = out / "gpu.json"
    if not path.is_file():
        return {}
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
        if not all(isinstance(found, dict) and "status" in found for found in parts.values()):
            raise ValueError("its parts have no status")
    except Exception as error:  # whatever the file holds, this run goes on
        print(f"{path.name} is cut short or foreign, set aside as {set_aside(path).name}: {type(error).__name__}: {error}")
        return {}
    return dict(parts)
