"""What a run trains on, as a checked config; the number of time steps belongs to the method, not to the data."""

from __future__ import annotations

import math
from typing import Literal, get_args

from twinspike.config import Config
from twinspike.errors import require

DatasetName = Literal["digits", "cifar10", "cifar100", "folder", "events", "recordings"]

Policy = Literal["crop", "flip", "autoaugment", "cutout", "roll", "drop"]
"""One augmentation; `twinspike_training.data.augment` says what each does."""

Quirk = Literal["black_cutout", "bicubic_shear", "positive_rotation", "subpolicy_16"]
"""One thing in which the authors' script varies samples otherwise: cutout before normalization, so that it is black and not
the mean colour; AutoAugment's shear with bicubic interpolation, its rotation counter-clockwise alone, and the second equalize
of its sub-policy 16 with probability 0.8 and not 0.6."""

QUIRKS: tuple[Quirk, ...] = get_args(Quirk)

POLICIES: tuple[Policy, ...] = get_args(Policy)
"""All of them; `augment.vary` says in which order they are applied, whatever the order in which a config names them."""

_IMAGES: tuple[Policy, ...] = ("crop", "flip", "autoaugment", "cutout")

_DEFAULTS: dict[DatasetName, tuple[Policy, ...]] = {
    "digits": (),
    "cifar10": _IMAGES,
    "cifar100": _IMAGES,
    "folder": ("crop", "flip"),
    "events": (),
    "recordings": (),
}

_RGB = ("cifar10", "cifar100", "folder")


class DataConfig(Config, frozen=True, kw_only=True):
    """The data set, where it lies, and how training samples are varied."""

    name: DatasetName = "digits"
    """digits comes with scikit-learn; the others are read from `path`."""
    path: str = ""
    """Folder (or, for packed events, file) of the data set; must stay empty for digits. A folder of images is read by the
    rule of torchvision's ImageFolder, PNG and JPEG alone; what is left out is counted and said."""
    augment: Literal["auto", "none"] | tuple[Policy, ...] = "auto"
    """auto: crop, flip, autoaugment and cutout for CIFAR, crop and flip for folders, none for digits and events. roll moves a
    sample round by up to an eighth of its sides, drop leaves out frames or a rectangle of events and recordings, all frames of
    one alike. Training samples only."""
    quirks: tuple[Quirk, ...] = ()
    """In what samples are varied as the authors' script does and not as the papers of the augmentations say."""
    mean: tuple[float, ...] = ()
    """Subtracted from every sample, per channel, white being 1; empty: the data set's own. Not for events and recordings."""
    std: tuple[float, ...] = ()
    """What every sample is then divided by, > 0, likewise."""
    size: int = 0
    """Side in pixels to which a folder's images are resized, or to whose cells a sensor's pixels are joined (recordings),
    8 to 1024; 0 keeps the data set's own."""
    sensor: tuple[int, ...] = ()
    """Height and width in pixels, 1 to 4096, of the sensor of recordings in the 40-bit form, [180, 240] for N-Caltech101, and of
    events in .npz files; AEDAT recordings are those of a DVS128."""
    test_share: float = 0.1
    """Share of each class, the last recordings by number, that tests where recordings have no split of their own, in (0, 1)."""
    workers: int = 2
    """Workers that prepare batches in the background, 0 to 64; 0 prepares each batch when it is asked for."""
    worker: Literal["auto", "thread", "process"] = "auto"
    """What a worker is. Threads start at once and share the data, but take turns with the thread that drives the
    accelerator; processes don't, but start within a second or two and each hold their own copy of what the data
    set keeps in memory (CIFAR 185 MB). auto: processes where AutoAugment, images of a folder or recordings of
    events make batches dear, else threads. The batches are the same."""
    validation: int | float = 0
    """Training samples held out of training, a count or a fraction in (0, 1), drawn per class, the same for every seed;
    "best" is then chosen on them. 0: none, and "best" is chosen on the test set, as the authors do."""
    limit: int = 0
    """Train on this many of the samples only, drawn per class, for trials; 0 trains on all."""
    test_limit: int = 0
    """Test on this many of the test samples only, drawn per class, for trials; 0 tests on all."""

    def _check(self) -> None:
        names = get_args(DatasetName)
        require(self.name in names, "data.name", expected=f"one of {', '.join(names)}", got=self.name)
        if self.name == "digits":
            require(not self.path, "data.path", expected="nothing with data.name = 'digits'", got=self.path)
        else:
            require(bool(self.path), "data.path", expected=f"where {self.name} lies", got="nothing")
        require(
            self.size == 0 or (self.name in ("folder", "recordings") and 8 <= self.size <= 1024),
            "data.size",
            expected="0, or 8 to 1024 with data.name = 'folder' or 'recordings'",
            got=self.size,
        )
        right = not self.sensor or (
            self.name == "recordings" and len(self.sensor) == 2 and all(1 <= n <= 4096 for n in self.sensor)
        )
        expected = "nothing, or height and width, 1 to 4096, with data.name = 'recordings'"
        require(right, "data.sensor", expected=expected, got=self.sensor)
        require(0 < self.test_share < 1, "data.test_share", expected="a fraction in (0, 1)", got=self.test_share)
        require(0 <= self.workers <= 64, "data.workers", expected="0 to 64", got=self.workers)
        require(self.worker in ("auto", "thread", "process"), "data.worker", expected="auto, thread or process", got=self.worker)
        require(self.limit >= 0, "data.limit", expected="0 or more", got=self.limit)
        require(self.test_limit >= 0, "data.test_limit", expected="0 or more", got=self.test_limit)
        part = self.validation
        require(
            part >= 0 and (isinstance(part, int) or part < 1),
            "data.validation",
            expected="a whole number >= 0, or a fraction in (0, 1)",
            got=part,
        )
        require(
            set(self.quirks) <= set(QUIRKS) and len(set(self.quirks)) == len(self.quirks),
            "data.quirks",
            expected=f"different ones among {', '.join(QUIRKS)}",
            got=self.quirks,
        )
        for name, right in (("mean", all(map(math.isfinite, self.mean))), ("std", all(0 < v < math.inf for v in self.std))):
            value = getattr(self, name)
            what = "finite numbers" if name == "mean" else "finite numbers > 0"
            require(right, f"data.{name}", expected=what, got=value)
            counts = self.name in ("events", "recordings")
            require(not value or not counts, f"data.{name}", expected=f"nothing with data.name = {self.name!r}", got=value)
        if isinstance(self.augment, str):
            require(self.augment in ("auto", "none"), "data.augment", expected="auto, none or a list", got=self.augment)
            return
        known = set(self.augment) <= set(POLICIES) and len(set(self.augment)) == len(self.augment)
        require(known, "data.augment", expected=f"different policies among {', '.join(POLICIES)}", got=self.augment)
        require(
            "autoaugment" not in self.augment or self.name in _RGB,
            "data.augment",
            expected=f"no autoaugment with data.name = {self.name!r} (it is defined for 8-bit RGB images)",
            got=self.augment,
        )

        require(
            "drop" not in self.augment or self.name in ("events", "recordings"),
            "data.augment",
            expected=f"no drop with data.name = {self.name!r} (it is defined for frames of events)",
            got=self.augment,
        )

    def policies(self) -> frozenset[Policy]:
        """The augmentations in force, with `auto` resolved."""
        if isinstance(self.augment, str):
            return frozenset(_DEFAULTS[self.name] if self.augment == "auto" else ())
        return frozenset(self.augment)

    def worker_processes(self) -> bool:
        """Whether workers are processes, with `auto` resolved."""
        dear = self.name in ("folder", "events", "recordings") or "autoaugment" in self.policies()
        return self.workers > 0 and (self.worker == "process" or (self.worker == "auto" and dear))
