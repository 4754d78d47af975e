"""Image folders: one subfolder per class, or the layout of Tiny-ImageNet; decoded when a batch needs them.

    PATH/train/CLASS/*.png|jpg|jpeg          PATH/val/CLASS/* or PATH/test/CLASS/*
    PATH/train/WNID/images/*.JPEG            PATH/val/images/*.JPEG and PATH/val/val_annotations.txt

Nothing is decoded at opening but the first image, so a damaged image is an error, with its name, in the
first epoch. Where both exist, `val` is taken: the `test` of Tiny-ImageNet has no labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from twinspike.errors import SpecError, refuse, require
from twinspike_training.data.source import Raw, Source, Update

SUFFIXES = (".png", ".jpg", ".jpeg")

FORMATS = ("PNG", "JPEG")
"""The only decoders that a file may ask for, whatever it is called. Pillow would take any by the content, and for
PostScript start another program."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB in [0, 1]: those of ImageNet, the usual choice for photographs."""

_ANNOTATIONS = "val_annotations.txt"

Samples = list[tuple[Path, str]]
"""Image files with the names of their classes, in order."""


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
            update(f"{file.relative_to(self._root).as_posix()} {file.stat().st_size}\n".encode())


def decode(file: Path, side: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """One image as (H, W, 3) RGB.

    Args:
        file: PNG or JPEG; of several pictures in one JPEG file (MPO, as phones write), the first.
        side: (H, W) to which it is resized, bilinear, if it has another size.

    Raises:
        SpecError: it can't be decoded; the line names it.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            rgb = image.convert("RGB")
            if side is not None and rgb.size != (side[1], side[0]):
                rgb = rgb.resize((side[1], side[0]), Image.Resampling.BILINEAR)
            return np.asarray(rgb)
    except UnidentifiedImageError as error:
        raise SpecError(f"{file}: can't be decoded: neither PNG nor JPEG; replace or remove it") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SpecError(f"{file}: can't be decoded: {' '.join(str(error).split())}; replace or remove it") from error


def open_folder(path: str, size: int) -> Source:
    """List the images of a folder.

    Args:
        path: the folder that holds `train` and `val` or `test`.
        size: side to which images are resized (not cropped); 0: all must have the size of the first
            training image.

    Raises:
        SpecError: a part is missing or empty, an annotation names no image or class, or training and test do
            not have the same classes.
    """
    root = Path(path)
    train_folder = root / "train"
    require(train_folder.is_dir(), f"data.path {root}", expected="a folder with train and val or test", got="no train in it")
    train = _by_class(train_folder)
    test_folder = next((root / part for part in ("val", "test") if (root / part).is_dir()), None)
    if test_folder is None:
        raise refuse(f"data.path {root}", expected="a folder with val or test beside train", got="neither")
    annotations = test_folder / _ANNOTATIONS
    test = _annotated(annotations) if annotations.is_file() else _by_class(test_folder)
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
    )


def _images_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())


def _by_class(folder: Path) -> Samples:
    """Images below the subfolders of a folder, or below `images` in them, sorted by class, then by name."""
    samples: Samples = []
    for part in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        inner = part / "images"
        files = _images_in(inner if inner.is_dir() else part)
        require(bool(files), str(part), expected=f"images ({', '.join(SUFFIXES)})", got="none")
        samples += [(file, part.name) for file in files]
    require(bool(samples), str(folder), expected="one subfolder of images per class", got="no subfolder")
    return samples


def _annotated(file: Path) -> Samples:
    """Images named by lines of `file name <tab> class <tab> ...`, sorted by file name."""
    folder = file.parent / "images"
    samples: Samples = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split("\t")
        image = folder / fields[0]
        if len(fields) < 2 or not image.is_file():
            raise refuse(
                f"{file}, line {number}", expected=f"an image in {folder.name} and its class, with a tab between", got=line
            )
        samples.append((image, fields[1]))
    require(bool(samples), str(file), expected="a line per image", got="an empty file")
    return sorted(samples)
