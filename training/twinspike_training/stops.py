"""Requests to stop a run: signals, and the time at which a leg is over."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import FrameType
from typing import Any


class StopRequests:
    """Turns the first SIGINT, SIGTERM or SIGHUP into a request that the loop sees between two steps.

    In the middle of a step the state's memory may be half reused, so that nothing could be saved there.
    A second signal interrupts at once. One that was ignored before, as SIGHUP is under `nohup`, stays so. The time at which a
    leg is over is a request as well.
    """

    def __init__(self, until: float = math.inf) -> None:
        self._until = until
        self._signalled = False
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether the run is to stop."""
        return self._signalled or time.monotonic() >= self._until

    def __enter__(self) -> StopRequests:
        # Python lets only the main thread set handlers; elsewhere a run can't be asked to stop.
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last is not everywhere
                number = getattr(signal, name, None)
                before = signal.SIG_IGN if number is None else signal.getsignal(number)
                if number is not None and before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = True
