"""Work in pieces shared out to threads of Python's, for functions that don't hold its lock.

The threads are not Numba's and not OpenMP's: those end a process that forks, or that calls them from two threads at
once. Waking one takes some microseconds, during which the caller works: pieces are taken, not dealt out.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

_lock = threading.Lock()
_helpers: list[SimpleQueue[_Work]] = []
"""Where each helper waits for work."""


def run(piece: Callable[[int], None], count: int, threads: int) -> None:
    """Call a function for each of `count` pieces, in as many threads, this one among them; its exceptions are raised here.

    A thread begins with its own share of the pieces: what it worked on in the last call may still be in its caches.
    """
    if threads <= 1:
        for number in range(count):
            piece(number)
        return
    work = _Work(piece, count, threads)
    for helper in _some(threads - 1):
        helper.put(work)
    work.help(0)
    work.wait()


class _Work:
    """Pieces that are left, and what became of the others."""

    def __init__(self, piece: Callable[[int], None], count: int, threads: int) -> None:
        self._piece, self._count = piece, count
        self._left = [deque(range(count * i // threads, count * (i + 1) // threads)) for i in range(threads)]
        self._ended: SimpleQueue[int | BaseException] = SimpleQueue()

    def help(self, share: int) -> None:
        """Take pieces, of a share and then of the others, until none is left; who comes too late finds none, and nobody waits."""
        done = 0
        try:
            for left in (*self._left[share:], *self._left[:share]):
                with contextlib.suppress(IndexError):
                    while True:
                        number = left.popleft()
                        self._piece(number)
                        done += 1
        except BaseException as error:
            self._ended.put(error)
        else:
            if done:
                self._ended.put(done)

    def wait(self) -> None:
        """Until all pieces are done, or one has failed."""
        done = 0
        while done < self._count:
            ended = self._ended.get()
            if isinstance(ended, BaseException):
                for left in self._left:
                    left.clear()
                raise ended
            done += ended


def _some(count: int) -> list[SimpleQueue[_Work]]:
    """The first helpers, begun where they are not there yet."""
    with _lock:
        for number in range(len(_helpers), count):
            _helpers.append(SimpleQueue())
            threading.Thread(target=_serve, args=(_helpers[number], number + 1), name=f"lif-{number}", daemon=True).start()
        return _helpers[:count]


def _serve(asked: SimpleQueue[_Work], share: int) -> None:
    while True:
        asked.get().help(share)


def _forget() -> None:
    global _lock, _helpers
    _lock, _helpers = threading.Lock(), []


# A forked process has none of its parent's threads.
os.register_at_fork(after_in_child=_forget)
