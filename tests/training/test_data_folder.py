"""Image folders, by class and in the layout of Tiny-ImageNet, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twinspike.errors import SpecError
from twinspike_training.data import DataConfig, Dataset, open_dataset


def save(file: Path, value: int, size: tuple[int, int] = (10, 8), mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 2 * value, 3 * value)).save(file)


def plain(root: Path, part: str = "val") -> Path:
    for i, name in enumerate(("cat", "ant")):
        for k in range(3):
            save(root / "train" / name / f"{k}.png", 10 * i + k)
        save(root / part / name / "x.PNG", 50 + i)
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    return root


def opened(root: Path, size: int = 0) -> Dataset:
    return open_dataset(DataConfig(name="folder", path=str(root), size=size, workers=0, augment="none"), time_steps=2)


def pixels(data: Dataset, part: str, index: int) -> list[int]:
    split = data._source.train if part == "train" else data._source.test
    return [int(v) for v in split.images(np.array([index]))[0, :, 0, 0]]


@pytest.mark.parametrize("part", ["val", "test"])
def test_by_class(tmp_path: Path, part: str) -> None:
    data = opened(plain(tmp_path, part))
    assert (data.classes, data.input_shape, data.train_size, data.test_size) == (("ant", "cat"), (3, 8, 10), 6, 2)
    assert data._source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert pixels(data, "train", 2) == [12, 24, 36]
    images, labels = next(iter(data.test_batches(5)))
    assert labels.tolist() == [0, 1]
    expected = (np.array([51, 102, 153]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    # Four roundings, relative to terms no larger than (1 + mean)/std.
    assert np.abs(images[0, :, 3, 3] - expected).max() <= 8 * 2.0**-24 * 2 / 0.224


def test_tiny_imagenet(tmp_path: Path) -> None:
    for i, name in enumerate(("n01", "n02")):
        save(tmp_path / "train" / name / "images" / f"{name}_0.JPEG", 40 * i)
        save(tmp_path / "val" / "images" / f"val_{1 - i}.JPEG", 40 * i)
    (tmp_path / "val" / "val_annotations.txt").write_text("val_1.JPEG\tn01\t0\t0\t9\t9\nval_0.JPEG\tn02\t0\t0\t9\t9\n")
    (tmp_path / "test" / "images").mkdir(parents=True)
    data = opened(tmp_path)
    assert data.notes == (f"data.path {tmp_path}: tested on val; the folder test is not read",)
    assert (data.classes, data.train_size, data.test_size) == (("n01", "n02"), 2, 2)
    assert data._source.test.labels.tolist() == [1, 0]
    assert [pixels(data, "test", i) for i in (0, 1)] == [pixels(data, "train", i) for i in (1, 0)]


def test_sizes(tmp_path: Path) -> None:
    save(plain(tmp_path) / "train" / "ant" / "1.png", 9, size=(12, 12))
    with pytest.raises(SpecError, match=r"1.png: expected 10 x 8 pixels, as the first image, got 12 x 12; give data.size"):
        list(opened(tmp_path).train_batches(0, 0, 6))
    resized = opened(tmp_path, size=16)
    images, _ = next(iter(resized.train_batches(0, 0, 6)))
    assert images.shape == (6, 3, 16, 16)
    assert pixels(resized, "train", 1) == [9, 18, 27]


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    save(plain(tmp_path) / "train" / "ant" / "0.png", 77, mode="L")
    assert pixels(opened(tmp_path), "train", 0) == [77, 77, 77]


@pytest.mark.parametrize(("cut", "message"), [(40, "can't be decoded"), (0, "can't be decoded: neither PNG nor JPEG")])
def test_damaged(tmp_path: Path, cut: int, message: str) -> None:
    file = plain(tmp_path) / "train" / "cat" / "2.png"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(SpecError, match=rf"cat.2.png: {message}.*replace or remove it") as caught:
        list(opened(tmp_path).train_batches(0, 0, 6))
    assert "\n" not in str(caught.value)


def test_classes_must_match(tmp_path: Path) -> None:
    save(plain(tmp_path) / "val" / "eel" / "0.png", 1)
    with pytest.raises(
        SpecError, match=r"the same classes in train and val, got class 'eel' with images in val and none in train"
    ):
        opened(tmp_path)


def test_parts_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"a folder with train and val or test, got no train in it"):
        opened(tmp_path)
    save(tmp_path / "train" / "ant" / "0.png", 1)
    with pytest.raises(SpecError, match=r"a folder with val or test beside train, got neither"):
        opened(tmp_path)
    (tmp_path / "val" / "ant").mkdir(parents=True)
    with pytest.raises(SpecError, match=r"ant: expected images \(.png, .jpg, .jpeg\), got none"):
        opened(tmp_path)


def test_fingerprint(tmp_path: Path) -> None:
    first = opened(plain(tmp_path / "a")).fingerprint
    assert opened(plain(tmp_path / "b")).fingerprint == first
    assert opened(tmp_path / "b", size=16).fingerprint != first
    save(tmp_path / "b" / "val" / "ant" / "y.png", 1)
    assert opened(tmp_path / "b").fingerprint != first
