"""Blocks of the neuron's loops on the CPU that threads take from memory of their own, without Python's lock."""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.extending import intrinsic

from twinspike_torch.lif_numba_numbers import compiled

LINE = 8
"""Numbers of 64 bits to a line of the caches: counters that threads write lie so far apart."""


def counters(threads: int) -> int:
    """How many numbers, 0 at first, the threads of a call need between them: blocks done, and those taken of each share."""
    return LINE * (threads + 1)


@intrinsic  # type: ignore[untyped-decorator]  # untyped in Numba
def add(context: Any, address: Any, amount: Any) -> Any:
    """Add to an int64 in memory that other threads add to; gives what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "seq_cst")

    return numba.types.int64(numba.types.int64, numba.types.int64), generate


@compiled
def take(counters: int, share: int, shares: int, blocks: int) -> int:
    """A block that nobody has taken, or -1: of the thread's own share first, which its caches may hold from the last call."""
    for k in range(shares):
        own = (share + k) % shares
        block: int = blocks * own // shares + add(counters + 8 * LINE * (own + 1), 1)
        if block < blocks * (own + 1) // shares:
            return block
    return -1
