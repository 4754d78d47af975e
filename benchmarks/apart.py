"""Variants in processes of their own, one per framework, that take turns.

Several frameworks in one process share its allocator and its cores with each other's pools of threads, some of which
keep a core busy for milliseconds after their work. Here only one process works at a time, and each of the others waits
for its pipe.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from measure import CLOCKS, Clock, restrict

SETTLED = 0.01
"""Seconds after a turn: libgomp's threads, for one, keep their cores busy for some milliseconds after their work."""

Made = Mapping[str, tuple[Callable[[], object], dict[str, Any]]]
"""Variant -> its call, and what else is known of it."""


class Apart:
    """A process that makes variants and times them when asked to."""

    def __init__(self, threads: int, clock: Clock, make: Callable[..., Made], *arguments: Any) -> None:
        """Begin one.

        Args:
            threads: that it may use, on as many cores.
            clock: see `measure.CLOCKS`.
            make: gives the variants, from the arguments; a function of a module, as is each argument's type.
            arguments: of `make`.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, threads, clock, make, arguments))
        self._process.start()
        theirs.close()
        self.facts: dict[str, dict[str, Any]] = self._answer()
        """What is known of each variant, by name."""

    def timer(self, name: str) -> Callable[[int], float]:
        """What takes a number of calls of a variant, and gives the seconds that all of them took."""

        def timed(count: int) -> float:
            self._pipe.send((name, count))
            return float(self._answer())

        return timed

    def end(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"a benchmark's process ended with exit code {self._process.exitcode}") from None


def _serve(pipe: Connection, threads: int, clock: Clock, make: Callable[..., Made], arguments: tuple[Any, ...]) -> None:
    restrict(threads)
    made, now = make(*arguments), CLOCKS[clock]
    gc.collect()
    gc.disable()
    pipe.send({name: facts for name, (_, facts) in made.items()})
    while (asked := pipe.recv()) is not None:
        name, count = asked
        call = made[name][0]
        call()  # whoever worked last has left the caches full
        began = now()
        for _ in range(count):
            call()
        took = now() - began
        time.sleep(SETTLED)
        pipe.send(took)
