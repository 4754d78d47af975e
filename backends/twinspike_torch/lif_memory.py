"""Memory of the CPU kernel's outputs, used again when nobody holds it any more.

A fresh page costs a microsecond or two, more than the kernel needs for the thousand numbers on it, and malloc gives
large blocks back to the system at every `free`. So does this store, but only beyond what malloc itself keeps at most.
An output's memory returns when torch frees its storage: not before the last tensor, view or array of it is gone.
"""

from __future__ import annotations

import math
import os
import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KEPT = 64 << 20
"""Bytes that wait to be used again: glibc's greatest `M_TRIM_THRESHOLD`, twice its greatest `M_MMAP_THRESHOLD`."""
LEAST = 64 << 10
"""Bytes of an output below which malloc does not ask the system."""
ALIGNED = 64
"""Bytes of a line of the caches, and of the longest vector; torch aligns its own tensors to it as well."""

NUMPY = {
    dtype: (np.dtype(kind).str, np.dtype(kind).itemsize)
    for dtype, kind in ((torch.float32, "f4"), (torch.float64, "f8"), (torch.bfloat16, "u2"))
}
"""Formats as NumPy names them, and their bytes; bfloat16, which it lacks, by its bits."""

Memory = NDArray[np.uint8]


def empty(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An unfilled tensor on the CPU that is dense in memory, in whatever order of axes.

    Args:
        shape: of the tensor.
        strides: of the tensor, in elements.
        dtype: of the tensor.
    """
    kind, width = NUMPY[dtype]
    size = math.prod(shape) * width
    if size < LEAST:
        return torch.empty_strided(shape, strides, dtype=dtype)
    lease = _Lease(_store, _store.take(size), shape, tuple(n * width for n in strides), kind)
    memory = torch.from_numpy(np.asarray(lease))
    if memory.dtype == dtype:
        return memory
    # Not a view of it, which autograd would forbid to change in place.
    whole: Tensor = torch.empty(0, dtype=dtype).set_(memory.untyped_storage(), 0, shape, strides)
    return whole


class _Store:
    """Memory that waits, by size."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, also where another thread held the lock as the process forked."""
        self._lock = threading.Lock()
        self._waiting: dict[int, list[Memory]] = {}
        self._bytes = 0

    def take(self, size: int) -> Memory:
        with self._lock:
            if waiting := self._waiting.get(size):
                self._bytes -= size
                return waiting.pop()
        # NumPy asks for large pages where they are worth it.
        whole = np.empty(size + ALIGNED, np.uint8)
        first = -whole.ctypes.data % ALIGNED
        return whole[first : first + size]

    def give_back(self, memory: Memory) -> None:
        """Keep it; where that would be too much, what waits goes first."""
        # A storage may end while this thread is in `take`: its memory then goes back to the system.
        if len(memory) > KEPT or not self._lock.acquire(blocking=False):
            return
        try:
            if self._bytes + len(memory) > KEPT:
                self._waiting.clear()
                self._bytes = 0
            self._waiting.setdefault(len(memory), []).append(memory)
            self._bytes += len(memory)
        finally:
            self._lock.release()


class _Lease:
    """What a storage holds as long as it lives, by the array that it was made from."""

    def __init__(self, store: _Store, memory: Memory, shape: tuple[int, ...], byte_strides: tuple[int, ...], kind: str) -> None:
        self._store, self._memory = store, memory
        data = memory.__array_interface__["data"]
        self.__array_interface__ = {"version": 3, "data": data, "shape": shape, "strides": byte_strides, "typestr": kind}

    def __del__(self) -> None:
        self._store.give_back(self._memory)


_store = _Store()
os.register_at_fork(after_in_child=_store.forget)
