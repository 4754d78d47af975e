"""One batch as a pure function of one task: what every worker, thread or process, computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from twinspike.errors import require
from twinspike_training.data.augment import DRAWS, cover, vary
from twinspike_training.data.cifar import open_cifar
from twinspike_training.data.config import DataConfig
from twinspike_training.data.digits import open_digits
from twinspike_training.data.draws import augment_uniforms
from twinspike_training.data.events import open_events
from twinspike_training.data.folder import open_folder
from twinspike_training.data.recordings import open_recordings
from twinspike_training.data.source import Raw, Source
from twinspike_training.files import expand

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Images, (B, C, H, W) or for events (T, B, C, H, W), and labels (B,)."""


class Task(NamedTuple):
    """Which samples to make a batch of, and how."""

    indices: NDArray[np.int64]
    """(B,), in the source's split."""
    split: Literal["train", "test"]
    varied: bool = False
    """Whether they are augmented."""
    seed: int = 0
    epoch: int = 0


Make = Callable[[Task], Batch]


@final
class Maker:
    """Makes batches from a source in the calling thread; holds no state that changes."""

    def __init__(self, source: Source, config: DataConfig, time_steps: int) -> None:
        """Fix everything but the task.

        Args:
            source: raw samples.
            config: for its augmentation and normalization.
            time_steps: T; frames per recording of an event source.

        Raises:
            SpecError: the config's mean or deviation is not one per channel.
        """
        self.source = source
        self._policies, self._quirks = config.policies(), frozenset(config.quirks)
        self._time_steps = time_steps
        # (value - levels * mean) / (levels * std), as one subtraction and one product in float32
        self._centre = self._per_channel("mean", config.mean, source.mean, lambda mean: source.levels * mean)
        self._scale = self._per_channel("std", config.std, source.std, lambda std: 1.0 / (source.levels * std))

    def _per_channel(
        self, name: str, wanted: tuple[float, ...], own: tuple[float, ...], use: Callable[[float], float]
    ) -> NDArray[np.float32]:
        """(C, 1, 1), what is computed with."""
        require(len(wanted) in (0, len(own)), f"data.{name}", expected=f"one number for each of {len(own)} channels", got=wanted)
        with np.errstate(over="ignore", under="ignore"):
            used = np.array([use(value) for value in wanted or own]).astype(np.float32)
        sensible = np.isfinite(used).all() and (name == "mean" or used.all())
        require(bool(sensible), f"data.{name}", expected="numbers that float32 holds, times or over the levels", got=wanted)
        return used[:, None, None]

    def __call__(self, task: Task) -> Batch:
        """The task's batch.

        Raises:
            SpecError: a sample can't be read; the line names it.
        """
        split = self.source.train if task.split == "train" else self.source.test
        raw = split.images(task.indices)
        if task.varied and self._policies:
            uniforms = augment_uniforms(task.seed, task.epoch, task.indices, DRAWS)
            images = vary(raw, uniforms, self._policies, self._quirks)
            black = "black_cutout" in self._quirks
            images = self._normalize(cover(images, uniforms, self._policies) if black else images)
            images = images if black else cover(images, uniforms, self._policies)
        else:
            images = self._normalize(raw)
        return self._shape(images), split.labels[task.indices]

    def present(self, raw: Raw) -> NDArray[np.float32]:
        """Raw samples (n, P, H, W) from elsewhere as a batch's images that are not varied."""
        return self._shape(self._normalize(raw))

    def _normalize(self, raw: Raw) -> NDArray[np.float32]:
        images = raw.astype(np.float32)
        if not self.source.event:
            images -= self._centre
            images *= self._scale
        return images

    def _shape(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, C, H, W), or (T, B, C, H, W) where the planes hold T frames."""
        if not self.source.event:
            return images
        frames = images.reshape(len(images), self._time_steps, *self.source.input_shape)
        return np.ascontiguousarray(frames.swapaxes(0, 1))


def open_maker(config: DataConfig, time_steps: int) -> Maker:
    """Open the data set that a config names.

    Raises:
        SpecError: a file is missing, damaged or not what it should be.
    """
    return Maker(_open(config, time_steps), config, time_steps)


def _open(config: DataConfig, time_steps: int) -> Source:
    path = str(expand(config.path))
    match config.name:
        case "digits":
            return open_digits()
        case "cifar10" | "cifar100":
            return open_cifar(config.name, path)
        case "folder":
            return open_folder(path, config.size)
        case "events":
            return open_events(path, time_steps)
        case "recordings":
            return open_recordings(path, time_steps, config.sensor, config.size, config.test_share)
