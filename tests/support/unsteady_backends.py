"""Backends that are right but for one thing: not the same twice, at an end, or without one. Each is NumPy's with a hook."""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import twinspike
from twinspike_conformance.checks import Bench
from twinspike_conformance.faults.within import Within
from twinspike_conformance.report.record import Record
from twinspike_conformance.run.process import Done, Replayed, packed

Answer = Callable[[], Any]
Hook = Callable[[str, Any, Answer], Any]
"""(operation, its inputs, the right answer) -> an answer."""


class Session(Within):
    """A right session whose operations go through a hook."""

    def __init__(self, inner: Any, hook: Hook) -> None:
        super().__init__(inner)
        self._hook = hook

    def forward(self, operation: str, config: Any, inputs: Any) -> Any:
        return self._hook(operation, inputs, lambda: self.inner.forward(operation, config, inputs))

    def vjp(self, operation: str, config: Any, inputs: Any, cotangents: Any) -> Any:
        return self._hook(operation, inputs, lambda: self.inner.vjp(operation, config, inputs, cotangents))


class Backend:
    """NumPy's claims, and sessions with a hook."""

    def __init__(self, hook: Hook) -> None:
        self.name, self.base, self.hook = "unsteady", twinspike.load("numpy"), hook

    def capabilities(self) -> Any:
        return self.base.capabilities()

    def session(self, device: str = "cpu", precision: str = "f64", compiled: bool = False) -> Any:
        return Session(self.base.session(device, precision, compiled), self.hook)


def bench(hook: Hook) -> Bench:
    """A bench in this process."""
    backend = Backend(hook)
    return Bench(backend, backend.session())


def wrong(answer: Any) -> Any:
    """Every floating number one more."""
    if isinstance(answer, tuple):
        return tuple(map(wrong, answer))
    return {name: value + 1 if value.dtype.kind == "f" else value for name, value in answer.items()}


def calls(bad: Callable[[int], Any]) -> Hook:
    """Wrong, or raising, at the calls of relu that `bad` names, counted from 1."""
    count = itertools.count(1)

    def hook(operation: str, inputs: Any, right: Answer) -> Any:
        return wrong(right()) if operation == "relu" and bad(next(count)) else right()

    return hook


def raising(errors: Callable[[int], BaseException | None]) -> Hook:
    """Raises at calls of relu, counted from 1."""
    count = itertools.count(1)

    def hook(operation: str, inputs: Any, right: Answer) -> Any:
        error = errors(next(count)) if operation == "relu" else None
        if error is not None:
            raise error
        return right()

    return hook


class OtherError(BaseException):
    """No Exception, and with a text that can't be made."""

    def __init__(self, needed: object) -> None:
        self.function = lambda: needed

    def __str__(self) -> str:
        raise ValueError("no text")


def deep() -> None:
    """To the end of the stack."""
    deep()


def _hang_once() -> None:
    place = Path(os.environ["HUNG"])
    if not place.exists():
        place.touch()
        time.sleep(1e6)


def _print() -> None:
    library = ctypes.CDLL(None)
    library.puts(b"printed by C")
    library.fflush(None)
    print("printed by Python")
    assert sys.stdin.readline() == ""


ENDS: dict[str, Callable[[], object]] = {
    "relu": os.abort,
    "compose": lambda: ctypes.string_at(0),
    "penalty": lambda: os._exit(7),
    "readout": lambda: os._exit(0),
    "avg_pool": _hang_once,
    "linear": _print,
}


def _ending(operation: str, inputs: Any, right: Answer) -> Any:
    ENDS.get(operation, lambda: None)()
    return right()


def _small_ones_end(operation: str, inputs: Any, right: Answer) -> Any:
    """Wrong always, but where all sizes are 1, where the process ends."""
    if operation == "relu" and np.size(inputs["x"]) == 1:
        os._exit(9)
    return wrong(right()) if operation == "relu" else right()


def _deaf(operation: str, inputs: Any, right: Answer) -> Any:
    """relu hangs on numbers of many bits, and makes an error of its own of what ends it."""
    if operation == "relu" and np.any(np.asarray(inputs["x"]) * 2.0**20 % 1):
        try:
            time.sleep(1e6)
        except BaseException as error:
            raise RuntimeError("of a library's own") from error
    return right()


def _to_the_suite(text: bytes) -> None:
    """Write where the suite's process answers: the one pipe beside those of standard output and error."""
    for number in range(3, 64):
        with suppress(OSError):
            pipe = stat.S_ISFIFO(os.fstat(number).st_mode)
            if pipe and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
                os.write(number, text)


def _torn(operation: str, inputs: Any, right: Answer) -> Any:
    """relu ends the process while it answers."""
    if operation == "relu":
        _to_the_suite(packed(Replayed(("a sentence",)))[:-6])
        os._exit(4)
    return right()


def _forged(operation: str, inputs: Any, right: Answer) -> Any:
    """relu says that another check has ended."""
    if operation == "relu":
        record = Record(id="another[check]", sentence="Another.", clauses=(), rung="exact", status="pass")
        _to_the_suite(packed(Done(record)))
    return right()


ending = Backend(_ending)
deaf, torn, forged = Backend(_deaf), Backend(_torn), Backend(_forged)
small_ones_end = Backend(_small_ones_end)
late = Backend(calls(lambda n: n > 6))
hanging = Backend(lambda operation, inputs, right: time.sleep(1e6))
