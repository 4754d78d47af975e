"""What a reader of one storage format hands over: raw samples by index, not yet varied, normalized or ordered.

Readers know files; `dataset` knows order, augmentation and batches. Neither knows the other's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

Raw = NDArray[Any]
"""(n, P, H, W), P planes: uint8 colour channels, or float32 event counts with P = T C, time slowest."""

Update = Callable[[Any], None]
"""Feeds bytes or a contiguous array to a hash."""


class Split(Protocol):
    """The training or the test samples of a data set; safe to read from several threads."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), class numbers from 0."""
        ...

    def images(self, indices: NDArray[np.int64]) -> Raw:
        """Raw samples in the order of `indices`, each in [0, N); the caller may overwrite the result."""
        ...

    def identify(self, update: Update) -> None:
        """Feed what makes this split itself, and no path of this machine, to a hash."""
        ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """An opened data set before batches are made of it."""

    train: Split
    test: Split
    input_shape: tuple[int, int, int]
    """(C, H, W) of one image or one frame."""
    event: bool
    classes: tuple[str, ...]
    levels: float
    """Raw value that stands for 1.0."""
    mean: tuple[float, ...]
    """Per channel, in units of `levels`."""
    std: tuple[float, ...]
    """Per channel, in units of `levels`, > 0."""
    notes: tuple[str, ...] = ()
    """What a user should know of what was found, a line each."""


@final
class ArraySplit:
    """Samples that fit in memory, one flat row each, channels first."""

    def __init__(self, rows: NDArray[np.uint8], labels: NDArray[np.int64], shape: tuple[int, int, int], skip: int = 0) -> None:
        """Wrap rows without copying them.

        Args:
            rows: (N, skip + C*H*W).
            labels: (N,).
            shape: (C, H, W).
            skip: leading bytes of each row that are not pixels.
        """
        self._rows, self._labels, self._shape, self._skip = rows, labels, shape, skip

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), class numbers from 0."""
        return self._labels

    def images(self, indices: NDArray[np.int64]) -> Raw:
        """(n, C, H, W) uint8."""
        # Whole rows are gathered first: one memcpy each, which is faster than gathering a strided view.
        rows = np.take(self._rows, indices, axis=0)
        return np.ascontiguousarray(rows[:, self._skip :]).reshape(-1, *self._shape)

    def identify(self, update: Update) -> None:
        """Every label and every byte of every row."""
        update(self._labels)
        update(np.ascontiguousarray(self._rows))
