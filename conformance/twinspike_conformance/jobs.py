"""Checks on several processes: this one and workers take them from one list, what takes longest first.

Checks are independent, so that verdicts, examples and digests are those of one process, and records come back in the
order of the checks. What shares compiled programs, such as all checks of one operation, is taken together. Workers are
fresh interpreters: the threads of frameworks do not survive a fork.
"""

from __future__ import annotations

import base64
import gc
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from threading import Thread

import msgspec

from twinspike.errors import refuse
from twinspike_conformance.checks import Check
from twinspike_conformance.record import Record
from twinspike_conformance.runner import broken
from twinspike_conformance.session import Options

MOST = 4
"""Processes that are started unasked: each holds a framework and what it compiled, and the longest check is one process's."""

FORWARD = frozenset({"network[layers]", "network[evaluation]"})
"""Checks of networks that need no gradients, and so no program of the other ones but a forward run."""


def packed(record: Record) -> bytes:
    """One line: msgpack in base64, since JSON knows no infinity."""
    return base64.b64encode(msgspec.msgpack.encode(record)) + b"\n"


def unpacked(line: bytes) -> Record:
    """What `packed` made a line of."""
    return msgspec.msgpack.decode(base64.b64decode(line), type=Record)


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


def spread(
    checks: Sequence[Check], options: Options, processes: int, run: Callable[[Check], Record], told: Callable[[Record], None]
) -> dict[str, Record]:
    """Run checks here and on workers.

    Args:
        checks: all of them.
        options: from which a worker opens the same bench.
        processes: how many there are, this one counted.
        run: runs a check in this process.
        told: is called with each record when it is there, from any thread.

    Returns:
        Records by id; of a check whose worker came to its end, one of status `error`.
    """
    todo, found = deque(units(checks)), dict[str, Record]()

    def keep(record: Record) -> None:
        found[record.id] = record
        told(record)

    workers = [_Worker(options, todo, keep) for _ in range(min(processes, len(todo)) - 1)]
    try:
        while todo:
            for check in _taken(todo):
                keep(run(check))
        for worker in workers:
            worker.wait()
        for check in (check for unit in todo for check in unit):  # what a worker gave back at its end
            keep(run(check))
    finally:
        todo.clear()
        for worker in workers:
            worker.stop()
    return found


def _taken(todo: deque[list[Check]]) -> list[Check]:
    """The next unit; empty where another was faster."""
    try:
        return todo.popleft()
    except IndexError:
        return []


class _Worker:
    """A process that answers, and the thread that asks it."""

    def __init__(self, options: Options, todo: deque[list[Check]], keep: Callable[[Record], None]) -> None:
        self._todo, self._keep = todo, keep
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "twinspike_conformance.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": paths},
        )
        self._thread = Thread(target=self._ask, args=(msgspec.json.encode(options) + b"\n",), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is left to ask."""
        self._thread.join()

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._thread.join()
        self._process.communicate()

    def _ask(self, line: bytes) -> None:
        while self._todo:
            unit = deque(_taken(self._todo))
            while unit:
                answer = self._answer(line + unit[0].id.encode() + b"\n")
                line = b""
                if not answer:
                    status = self._process.wait()
                    self._keep(broken(unit.popleft(), f"the worker that ran it ended with status {status}"))
                    self._todo.appendleft(list(unit))
                    return
                self._keep(unpacked(answer))
                unit.popleft()

    def _answer(self, line: bytes) -> bytes:
        """What comes back; nothing from a process that has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:
            return b""
        return self._process.stdout.readline()
