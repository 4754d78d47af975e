"""The heap of the C library, told to keep what is freed."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""Parameters of glibc's `mallopt`, see `man 3 mallopt`."""


def keep() -> bool:
    """Keep freed memory for the next array, rather than give it back to the system; to be called before numpy is imported.

    A training step makes arrays of the same sizes as the step before. glibc takes large ones from the system and returns
    them, again and again, and every page of four KiB that is touched first costs up to two microseconds. What is kept stays
    the process's: its peak grows, by a third in jax, whose step is one block among others.

    Returns:
        whether it is done: not on other systems than Linux, nor where the C library is another than glibc, nor where the
        user's environment has settings of malloc (`MALLOC_...`), which stand.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Blocks of other arenas than the first come from the system however large the first one is.
    return all([mallopt(M_TRIM_THRESHOLD, -1), mallopt(M_MMAP_MAX, 0), mallopt(M_ARENA_MAX, 1)])
