"""Runs that are ended early: Ctrl-C, SIGTERM and SIGHUP are one thing, and what was found by then is reported."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, final

INTERRUPTED = "interrupted"
"""The reason of checks that a run did not come to."""

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Those that ask a process to end; not every platform has the last."""


class Interrupt(KeyboardInterrupt):
    """One of the signals came."""


@final
class Interrupts:
    """A context in which these signals raise `Interrupt` in the main thread, until the run's `part` is left.

    A signal that was ignored before, as by `nohup`, stays so.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that came first."""
        self._over = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # no other one may say what signals do
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._came)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _came(self, number: int, _: FrameType | None) -> None:
        if not self._over:  # again and again, since a backend may make an error of its own of what is raised in it
            self.number = self.number or number
            raise Interrupt

    @contextmanager
    def part(self) -> Iterator[None]:
        """What a signal ends without ending what comes after, which none ends any more."""
        try:
            yield
        except KeyboardInterrupt:
            self.number = self.number or signal.SIGINT
        finally:
            self._over = True

    def look(self) -> None:
        """Raise `Interrupt` if a signal came: whatever was running may have taken it for an error of its own."""
        if self.number is not None:
            raise Interrupt

    def status(self, other: int) -> int:
        """The exit status: that of the signal if one came, as shells have it, else the other one."""
        return other if self.number is None else 128 + self.number
