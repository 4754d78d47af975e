"""A data set as numbered epochs of batches, each a pure function of (seed, epoch, place).

Order and augmentation are drawn by the spec's streams, and a batch is made from its own numbers alone, so the
same batches come whatever the number and kind of workers, and a run resumes in the middle of an epoch at no
cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from types import TracebackType
from typing import Literal, Self, final

import numpy as np
from numpy.typing import NDArray

from twinspike.errors import require
from twinspike.random import Stream
from twinspike.replicas import portion, share
from twinspike_training.data.batch import Batch, Make, Maker, Task, open_maker
from twinspike_training.data.config import DataConfig
from twinspike_training.data.ordered import in_order
from twinspike_training.data.selection import select
from twinspike_training.data.worker import Pool


@final
class Dataset:
    """An opened data set; `close` ends its worker processes, as does its garbage collection."""

    def __init__(self, maker: Maker, config: DataConfig, time_steps: int) -> None:
        """Wrap what makes batches; `open_dataset` is the way to get one.

        Args:
            maker: of batches, over the opened source.
            config: for its workers and the parts in use.
            time_steps: T, for the worker processes.
        """
        self._source, self._maker, self._config, self._time_steps = maker.source, maker, config, time_steps
        self._pool: Pool | None = None
        self._used = select(maker.source, config)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image or one frame."""
        return self._source.input_shape

    @property
    def event(self) -> bool:
        """Whether samples are T frames rather than one image."""
        return self._source.event

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; a class's place is its label."""
        return self._source.classes

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the files, such as how many are left out and why; a line each."""
        return self._source.notes

    @property
    def train_size(self) -> int:
        """Training samples in use."""
        return len(self._used.train)

    @property
    def validation_size(self) -> int:
        """Training samples held out to choose the best epoch on."""
        return len(self._used.validation)

    @property
    def test_size(self) -> int:
        """Test samples in use."""
        return len(self._used.test)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with the samples (before augmentation), the parts in use, size or T.

        Computed once: CIFAR, digits and packs by every byte, folders of files by their names and sizes.
        """
        digest = hashlib.blake2b(digest_size=8)
        sizes = (self.train_size, self.validation_size, self.test_size)
        digest.update(repr((self.input_shape, self.event, self.classes, sizes)).encode())
        self._source.train.identify(digest.update)
        self._source.test.identify(digest.update)
        return digest.hexdigest()

    def steps_per_epoch(self, batch_size: int, *, drop_last: bool = True) -> int:
        """Batches in the training set.

        Args:
            batch_size: B.
            drop_last: count full ones only.

        Raises:
            SpecError: the batch is larger than the training set or smaller than 1, or the last would be one sample, whose
                statistics are undefined (clause BN-8).
        """
        require(
            1 <= batch_size <= self.train_size,
            "batch_size",
            expected=f"1 to {self.train_size}, the number of training samples",
            got=batch_size,
        )
        full, rest = divmod(self.train_size, batch_size)
        require(
            drop_last or rest != 1 or batch_size == 1,
            "training.drop_last",
            expected=f"true where the last of batches of {batch_size} would be one sample",
            got="false",
        )
        return full + (rest > 0 and not drop_last)

    def train_batches(
        self,
        seed: int,
        epoch: int,
        batch_size: int,
        *,
        start: int = 0,
        drop_last: bool = True,
        process: int = 0,
        processes: int = 1,
    ) -> Iterator[Batch]:
        """The training batches of one epoch: shuffled, augmented, normalized.

        The order is `Stream(seed, "order", epoch).permutation(train_size)` of the samples in use, ascending; sample i
        is varied by `Stream(seed, "augment", epoch, i)`, i its number in the whole training set.

        Args:
            seed: of the run, in [0, 2^64).
            epoch: from 0.
            batch_size: B, 1 to `train_size`.
            start: batches to skip, 0 to `steps_per_epoch`; they are not computed.
            drop_last: leave an incomplete last batch out.
            process: of which the part of every batch is wanted (clause DEV-1).
            processes: that share them.

        Returns:
            A generator, to be read to its end or closed; see `Batch` for the shapes.

        Raises:
            SpecError: an argument is out of range; a sample can't be read (when its batch is due).
        """
        steps = self.steps_per_epoch(batch_size, drop_last=drop_last)
        require(0 <= seed < 2**64, "seed", expected="0 to 2^64 - 1", got=seed)
        require(0 <= epoch < 2**64, "epoch", expected="0 or more", got=epoch)
        require(0 <= start <= steps, "start", expected=f"0 to {steps}, the batches of an epoch", got=start)
        order = self._used.train[Stream(seed, "order", epoch).permutation(self.train_size)]
        whole = (order[step * batch_size : (step + 1) * batch_size] for step in range(start, steps))
        chosen = (batch[share(len(batch), processes, process)] for batch in whole)
        return in_order(self._make(), (Task(c, "train", True, seed, epoch) for c in chosen), self._config.workers)

    def batch(self, seed: int, epoch: int, place: int, batch_size: int) -> Batch:
        """One training batch worked out from its place alone, in the calling thread: what `train_batches` gives there.

        Args:
            seed: of the run.
            epoch: from 0.
            place: of the batch in its epoch, from 0.
            batch_size: B; the batch has fewer samples where the epoch ends.
        """
        order = Stream(seed, "order", epoch).permutation(self.train_size)[place * batch_size : (place + 1) * batch_size]
        return self._maker(Task(self._used.train[order], "train", True, seed, epoch))

    def test_batches(
        self, batch_size: int, part: Literal["test", "validation"] = "test", *, process: int = 0, processes: int = 1
    ) -> Iterator[Batch]:
        """All samples of a part in their stored order, normalized; the last batch may be short.

        Args:
            batch_size: B, >= 1.
            part: the test samples in use, or the training samples held out.
            process: of which the portion is wanted (clause DEV-7).
            processes: that share them.

        Returns:
            A generator, to be read to its end or closed.

        Raises:
            SpecError: the batch size is below 1; a sample can't be read (when its batch is due).
        """
        require(batch_size >= 1, "batch_size", expected="1 or more", got=batch_size)
        every = self._used.test if part == "test" else self._used.validation
        every = every[portion(len(every), processes, process)]
        split: Literal["train", "test"] = "test" if part == "test" else "train"
        chosen = (every[first : first + batch_size] for first in range(0, len(every), batch_size))
        return in_order(self._make(), (Task(c, split) for c in chosen), self._config.workers)

    def present(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images from elsewhere as test samples are: normalized.

        Args:
            images: (n, C, H, W), white being 1.
        """
        require(not self.event, "images", expected="a data set of static images", got="one of event frames")
        return self._maker.present(images * np.float32(self._source.levels))

    def _make(self) -> Make:
        """What the workers call: the maker itself, or the processes that hold one each."""
        if not self._config.worker_processes():
            return self._maker
        if self._pool is None:
            self._pool = Pool(self._config, self._time_steps)
        return self._pool

    def close(self) -> None:
        """End the worker processes, if any; a later batch starts new ones."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_dataset(config: DataConfig, *, time_steps: int) -> Dataset:
    """Open the data set that a config names and check that it is whole.

    Args:
        config: what and where.
        time_steps: T of the method, >= 1; only event data depend on it.

    Raises:
        SpecError: a file is missing, damaged or not what it should be; the line names it and says what to do.
    """
    require(time_steps >= 1, "time_steps", expected="a whole number >= 1", got=time_steps)
    return Dataset(open_maker(config, time_steps), config, time_steps)
