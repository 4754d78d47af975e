"""All randomness of the specification: Philox 4x64 keyed by (seed, purpose) and (epoch, index).

Every draw is a pure function of its key, so runs resume exactly and backends see equal numbers.
Only the raw 64-bit stream of the bit generator is used, which NumPy guarantees across versions;
what is made of it is said here, so that an implementation in another language can do the same.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twinspike.errors import require

Purpose = Literal["init", "order", "augment", "split"]

_PURPOSES: dict[str, int] = {"init": 1, "order": 2, "augment": 3, "split": 4}


class Stream:
    """A stream of numbers that depends on its key alone (clauses RND-*)."""

    def __init__(self, seed: int, purpose: Purpose, epoch: int = 0, index: int = 0) -> None:
        """Open the stream.

        Args:
            seed: of the run, in [0, 2^64).
            purpose: what the numbers are for.
            epoch: in [0, 2^64).
            index: of the sample or parameter, in [0, 2^64).

        Raises:
            SpecError: one of them is out of range, or no such purpose.
        """
        require(purpose in _PURPOSES, "purpose", expected=f"one of {', '.join(_PURPOSES)}", got=purpose)
        for what, value in (("seed", seed), ("epoch", epoch), ("index", index)):
            whole = isinstance(value, int | np.integer) and 0 <= value < 2**64
            require(whole, what, expected="a whole number in [0, 2^64)", got=value)
        self._bits = np.random.Philox(
            key=np.array([seed, _PURPOSES[purpose]], dtype=np.uint64),
            counter=np.array([0, 0, epoch, index], dtype=np.uint64),
        )

    def raw(self, size: int) -> NDArray[np.uint64]:
        """The next `size` raw words."""
        return np.asarray(self._bits.random_raw(size), dtype=np.uint64)

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        """Float64 in [0, 1): the top 53 bits of a word, times 2^-53."""
        words = self.raw(int(np.prod(shape, dtype=np.int64)))
        return np.asarray((words >> np.uint64(11)) * 2.0**-53, dtype=np.float64).reshape(shape)

    def normal(self, *shape: int) -> NDArray[np.float64]:
        """Standard normal float64 by Box-Muller: sqrt(-2 log(1 - a)) (cos, sin)(2 pi b), all cosines first."""
        size = int(np.prod(shape, dtype=np.int64))
        half = (size + 1) // 2
        radius = np.sqrt(-2.0 * np.log1p(-self.uniform(half)))
        angle = 2.0 * np.pi * self.uniform(half)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size].reshape(shape)

    def integers(self, high: int, *shape: int) -> NDArray[np.int64]:
        """Integers in [0, high): floor(uniform * high); high at most 2^32."""
        return np.floor(self.uniform(*shape) * high).astype(np.int64)

    def permutation(self, size: int) -> NDArray[np.int64]:
        """A permutation of range(size): the stable sort order of `size` raw words."""
        return np.argsort(self.raw(size), kind="stable").astype(np.int64)
