"""Checks on several processes, which take them from one list, what takes longest first.

Checks are independent, so that verdicts, examples and digests are those of one process, and records come back in the
order of the checks. What shares compiled programs, such as all checks of one operation, is taken together. Processes are
fresh interpreters: the threads of frameworks do not survive a fork.
"""

from __future__ import annotations

import gc
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import final

from twinspike.errors import refuse
from twinspike_conformance.checks import Check
from twinspike_conformance.raised import said
from twinspike_conformance.report.record import Record, Side
from twinspike_conformance.run.opening import Options
from twinspike_conformance.run.process import Process, alone
from twinspike_conformance.run.profiles import Profile
from twinspike_conformance.run.runner import broken

MOST = 4
"""Processes that are started unasked: each holds a framework and what it compiled, and the longest check is one process's."""

FIRST = 3
"""Failures, the first ones of a run, whose example is asked again in a fresh process, which has to load the backend for it."""

_WAKE = 1.0
"""Seconds after which a wait for results looks whether a signal came."""

FORWARD = frozenset({"network[layers]", "network[evaluation]"})
"""Checks of networks that need no gradients, and so no program of the other ones but a forward run."""


def count(asked: int | None, device: str) -> int:
    """How many processes there are to be: as asked, else as many as cores; one on a GPU, whose memory is shared.

    Raises:
        SpecError: a number below 1 was asked for.
    """
    if asked is None:
        return min(MOST, _cores()) if device == "cpu" else 1
    if asked < 1:
        raise refuse("--jobs", expected="a number of processes of at least 1", got=asked)
    return asked


def limit(asked: float | None, profile: Profile) -> float:
    """Seconds that a check may take: as asked, else the profile's.

    Raises:
        SpecError: no positive number was asked for.
    """
    if asked is None:
        return profile.limit
    if not 0 < asked < math.inf:
        raise refuse("--limit", expected="a positive number of seconds", got=asked)
    return asked


def _cores() -> int:
    """Those that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1


def share_cores(processes: int) -> None:
    """Leave each process its part of the cores, where nobody has said how many threads there are to be.

    To be called before a framework is loaded, which reads this once.
    """
    if processes > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // processes)))


def units(checks: Iterable[Check]) -> list[list[Check]]:
    """Checks that are taken together, since they share programs, in the order in which they are taken: the longest first."""
    found: dict[str, list[Check]] = {}
    for check in checks:
        found.setdefault("forward" if check.id in FORWARD else check.space.operation, []).append(check)

    def rank(item: tuple[str, list[Check]]) -> tuple[int, float]:
        place = ("network", "forward").index(item[0]) if item[0] in ("network", "forward") else 2
        return place, -sum(check.weight * len(check.space.configs) for check in item[1])

    return [unit for _, unit in sorted(found.items(), key=rank)]


def spare_the_collector() -> None:
    """Have Python look for garbage less often, and not among what was imported: tracing makes millions of small objects."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@final
class Team:
    """The processes of a run; a context at whose end none is left, whatever happened."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        """Begin to open the backend in `options.jobs` processes; `say` is told what runs long, from any thread."""
        self._options, self._say = options, say
        self._processes = [Process(options, say) for _ in range(options.jobs)]

    def __enter__(self) -> Team:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.stop()

    def opened(self) -> Side:
        """What was opened; SpecError if it can't be."""
        return self._processes[0].opened()

    def run(self, checks: Sequence[Check], note: Callable[[Record], None]) -> dict[str, Record]:
        """Run checks, and the first failing examples once more, each in a process of its own.

        Args:
            checks: all of them.
            note: is called with each record when it is there, in this thread.

        Returns:
            A record of each check by id.
        """
        todo, found = deque(units(checks)), dict[str, Record]()
        results: SimpleQueue[Record | None] = SimpleQueue()
        threads = [Thread(target=_work, args=(process, todo, results), daemon=True) for process in self._processes]
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                while (record := _next(results)) is not None:
                    found[record.id] = record
                    note(record)
        finally:
            todo.clear()
        records = {check.id: found.get(check.id) or broken(check, "the suite itself failed: no record") for check in checks}
        for name in [name for name, record in records.items() if record.status == "fail"][:FIRST]:
            records[name] = self.alone(records[name])
        return records

    def one(self, check: Check) -> Record:
        """Run one check."""
        return self._processes[0].run(check)

    def alone(self, record: Record) -> Record:
        """The record, which says so if its failing example is right in a process of its own; no other one holds a device then."""
        if record.failure is None or not record.failure.steady:
            return record
        for process in self._processes:
            process.end()
        return alone(record, self._options, self._say)


def _next(results: SimpleQueue[Record | None]) -> Record | None:
    """What comes next; wakes now and then, since a signal that comes just before a thread waits does not wake it."""
    while True:
        try:
            return results.get(timeout=_WAKE)
        except Empty:
            continue


def _work(process: Process, todo: deque[list[Check]], results: SimpleQueue[Record | None]) -> None:
    """Run units until none is left; then None."""
    try:
        while todo:
            for check in _taken(todo):
                try:
                    record = process.run(check)
                except Exception as error:  # of the suite's own, which costs this check alone
                    record = broken(check, f"the suite itself failed: {said(error)}")
                results.put(record)
    finally:
        results.put(None)


def _taken(todo: deque[list[Check]]) -> list[Check]:
    """The next unit; empty where another was faster."""
    try:
        return todo.popleft()
    except IndexError:
        return []
