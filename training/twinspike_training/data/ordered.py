"""Batches prepared ahead of the accelerator by background threads, in order, bounded, and stopped cleanly.

The threads make batches themselves, or wait for the processes that do (`worker`). A generator that is closed,
or left by an error or an interrupt, waits for the few batches in work, drops the rest, and leaves no thread
behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2
"""Finished results per worker that may wait to be taken."""


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Generator[Result, None, None]:
    """Apply a function to items on background threads; results come in the order of the items.

    Args:
        function: must not depend on the order of its calls. Its error is raised where its result was due.
        items: read on the caller's thread, at most `AHEAD * workers` ahead of the results.
        workers: threads, >= 0; 0 computes each result on the caller's thread when it is asked for.
    """
    if workers == 0:
        for item in items:
            yield function(item)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="twinspike-data")
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
