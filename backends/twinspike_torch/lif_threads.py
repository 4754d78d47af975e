"""Work shared out to threads of Python's, for functions that take their pieces themselves and don't hold Python's lock.

A thread that comes back for Python's lock after each piece waits for it longer than a piece takes, so a thread makes one
call. The threads are not Numba's and not OpenMP's: those end a process that forks, or that calls them from two threads at
once. Waking one takes some microseconds, during which the caller works: pieces are taken, not dealt out.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[int], int]
"""Takes pieces until none is left and returns how many are done by now, by all threads; its argument is the thread's number."""

PATIENCE = 100
"""How often to ask whether other threads have ended their last pieces before giving up the core, which takes 50 us or more."""

_lock = threading.Lock()
_helpers: list[SimpleQueue[Work]] = []
"""Where each helper waits for work."""


def run(work: Work, count: int, threads: int) -> None:
    """Call a function in as many threads, this one among them as number 0, until `count` pieces are done.

    It must not fail after it has taken a piece. A thread that comes too late finds none left, and nobody waits for it.
    """
    if threads > 1:
        for helper in _some(threads - 1):
            helper.put(work)
    asked = 0
    while work(0) < count:
        asked += 1
        if asked > PATIENCE:
            time.sleep(0)


def _some(count: int) -> list[SimpleQueue[Work]]:
    """The first helpers, begun where they are not there yet."""
    if count <= len(_helpers):
        return _helpers[:count]
    with _lock:
        for number in range(len(_helpers), count):
            _helpers.append(SimpleQueue())
            threading.Thread(target=_serve, args=(_helpers[number], number + 1), name=f"lif-{number}", daemon=True).start()
        return _helpers[:count]


def _serve(asked: SimpleQueue[Work], number: int) -> None:
    while True:
        asked.get()(number)


def _forget() -> None:
    global _lock, _helpers
    _lock, _helpers = threading.Lock(), []


# A forked process has none of its parent's threads.
os.register_at_fork(after_in_child=_forget)
