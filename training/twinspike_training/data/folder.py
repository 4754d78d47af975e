"""Image folders: one subfolder per class, or the layout of Tiny-ImageNet; decoded when a batch needs them.

    PATH/train/CLASS/**/*.png|jpg|jpeg       PATH/val/CLASS/**/* or PATH/test/CLASS/**/*
    PATH/train/WNID/images/*.JPEG            PATH/val/images/*.JPEG and PATH/val/val_annotations.txt

Nothing is decoded at opening but the first image, so a damaged image is an error, with its name, in the
first epoch. Where both exist, `val` is taken: the `test` of Tiny-ImageNet has no labels.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from twinspike.errors import refuse, require
from twinspike_training.data.images import decode
from twinspike_training.data.listing import ANNOTATIONS, Left, Samples, annotated, by_class, told
from twinspike_training.data.source import Raw, Source, Update

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB in [0, 1]: those of ImageNet, the usual choice for photographs."""


@final
class FolderSplit:
    """Images decoded on demand, as RGB of one size."""

    def __init__(self, root: Path, samples: Samples, classes: tuple[str, ...], side: tuple[int, int], resize: bool) -> None:
        """Number the classes.

        Args:
            root: the data set's folder, left out of the identity.
            samples: files and classes.
            classes: all class names; a class's place is its number.
            side: (H, W) of every image.
            resize: whether images of another size are resized, bilinear, or refused.
        """
        number = {name: i for i, name in enumerate(classes)}
        self._root, self._files = root, [file for file, _ in samples]
        self._labels = np.array([number[name] for _, name in samples], dtype=np.int64)
        self._side, self._resize = side, resize

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), class numbers from 0."""
        return self._labels

    def images(self, indices: NDArray[np.int64]) -> Raw:
        """(n, 3, H, W) uint8.

        Raises:
            SpecError: an image can't be decoded or has another size; the line names it.
        """
        out = np.empty((len(indices), 3, *self._side), dtype=np.uint8)
        for i, index in enumerate(indices.tolist()):
            image = decode(self._files[index], self._side if self._resize else None)
            if image.shape[:2] != self._side:
                height, width = image.shape[:2]
                raise refuse(
                    str(self._files[index]),
                    expected=f"{self._side[1]} x {self._side[0]} pixels, as the first image",
                    got=f"{width} x {height}",
                    do="give data.size to resize all images",
                )
            out[i] = image.transpose(2, 0, 1)
        return out

    def identify(self, update: Update) -> None:
        """Labels, and each file's name within the folder and size in bytes; not the pixels, which are too many."""
        update(self._labels)
        for file in self._files:
            update(os.fsencode(f"{file.relative_to(self._root).as_posix()} {file.stat().st_size}\n"))


def open_folder(path: str, size: int) -> Source:
    """List the images of a folder; what it leaves out is said by the source's notes.

    Args:
        path: the folder that holds `train` and `val` or `test`.
        size: side to which images are resized (not cropped); 0: all must have the size of the first
            training image.

    Raises:
        SpecError: a part is missing or empty, an annotation names no image or class, or training and test do
            not have the same classes.
    """
    root, left = Path(path), Left()
    train_folder = root / "train"
    require(train_folder.is_dir(), f"data.path {root}", expected="a folder with train and val or test", got="no train in it")
    test_folder = next((root / part for part in ("val", "test") if (root / part).is_dir()), None)
    if test_folder is None:
        raise refuse(f"data.path {root}", expected="a folder with val or test beside train", got="neither")
    train = by_class(train_folder, left)
    annotations = test_folder / ANNOTATIONS
    test = annotated(annotations, left) if annotations.is_file() else by_class(test_folder, left)
    notes = told(len(train) + len(test), left)
    if test_folder.name == "val" and (root / "test").is_dir():
        notes += ("tested on val; the folder test is not read",)
    classes = tuple(sorted({name for _, name in train}))
    extra = {name for _, name in test} ^ set(classes)
    if extra:
        only = sorted(extra)[0]
        has, lacks = (train_folder, test_folder) if only in classes else (test_folder, train_folder)
        raise refuse(
            str(root),
            expected=f"the same classes in {train_folder.name} and {test_folder.name}",
            got=f"class {only!r} with images in {has.name} and none in {lacks.name} ({len(extra)} such classes)",
        )
    side = (size, size) if size else decode(train[0][0]).shape[:2]
    return Source(
        train=FolderSplit(root, train, classes, side, resize=bool(size)),
        test=FolderSplit(root, test, classes, side, resize=bool(size)),
        input_shape=(3, *side),
        event=False,
        classes=classes,
        levels=255.0,
        mean=MEAN,
        std=STD,
        notes=tuple(f"data.path {root}: {note}" for note in notes),
    )
