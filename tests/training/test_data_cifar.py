"""CIFAR files in the official layout, whole and damaged. Files are sparse, so their full size costs little."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from twinspike.errors import SpecError
from twinspike_training.data import DataConfig, open_dataset
from twinspike_training.data.config import DatasetName

RECORD = {"cifar10": 3073, "cifar100": 3074}
PIXELS = np.arange(3072) % 251


def write(name: DatasetName, root: Path) -> Path:
    """A whole data set of black images, but for one known record in the last training file and in the test file."""
    ten = name == "cifar10"
    folder = root / ("cifar-10-batches-bin" if ten else "cifar-100-binary")
    folder.mkdir(parents=True)
    sizes = {f"data_batch_{i}.bin": 10_000 for i in range(1, 6)} | {"test_batch.bin": 10_000}
    for file, records in (sizes if ten else {"train.bin": 50_000, "test.bin": 10_000}).items():
        with (folder / file).open("wb") as stream:
            stream.truncate(records * RECORD[name])
    label = [7] if ten else [19, 93]
    for file, record in (("data_batch_5.bin", 9_999), ("test_batch.bin", 3)) if ten else (("train.bin", 49_999), ("test.bin", 3)):
        put(folder / file, record * RECORD[name], bytes([*label, *PIXELS]))
    classes = folder / ("batches.meta.txt" if ten else "fine_label_names.txt")
    classes.write_text("".join(f"class {i}\n" for i in range(10 if ten else 100)) + "\n")
    return folder


def put(file: Path, place: int, data: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(place)
        stream.write(data)


def opened(name: DatasetName, path: Path) -> None:
    open_dataset(DataConfig(name=name, path=str(path)), time_steps=1)


@pytest.mark.parametrize(
    ("name", "label", "mean", "std"),
    [
        ("cifar10", 7, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("cifar100", 93, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    ],
)
def test_whole(
    tmp_path: Path, name: DatasetName, label: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    folder = write(name, tmp_path)
    data = open_dataset(DataConfig(name=name, path=str(tmp_path), workers=0, augment="none"), time_steps=3)
    assert (data.train_size, data.test_size, data.input_shape, data.event) == (50_000, 10_000, (3, 32, 32), False)
    assert data.classes[label] == f"class {label}"
    assert len(data.classes) == len(set(data.classes)) == (10 if name == "cifar10" else 100)
    images, labels = next(iter(data.test_batches(4)))
    assert labels.tolist() == [0, 0, 0, label]
    m, s = np.float32(mean)[:, None, None], np.float32(std)[:, None, None]
    expected = (np.float32(PIXELS.reshape(3, 32, 32)) / 255 - m) / s
    # Either form takes at most four roundings, relative to terms no larger than (1 + mean)/std.
    assert np.abs(images[3] - expected).max() <= 8 * 2.0**-24 * (2.0 / min(std))
    assert np.allclose(images[0], -m / s, rtol=4 * 2.0**-24, atol=0)
    raw = data._source.train.images(np.array([49_999, 0]))
    assert np.array_equal(raw[0].ravel(), PIXELS)
    assert not raw[1].any()

    put(folder / ("test_batch.bin" if name == "cifar10" else "test.bin"), 100, b"\x01")
    again = open_dataset(DataConfig(name=name, path=str(folder)), time_steps=3)
    assert again.fingerprint != data.fingerprint
    assert len(again.fingerprint) == 16


def test_truncated(tmp_path: Path) -> None:
    file = write("cifar10", tmp_path) / "data_batch_2.bin"
    with file.open("r+b") as stream:
        stream.truncate(30_729_999)
    with pytest.raises(
        SpecError, match=r"data_batch_2.bin: expected 30730000 bytes \(10000 records of 3073\), got 30729999 bytes; .*unpack"
    ):
        opened("cifar10", tmp_path)


def test_missing(tmp_path: Path) -> None:
    (write("cifar10", tmp_path) / "data_batch_1.bin").unlink()
    with pytest.raises(SpecError, match=r"data_batch_1.bin: expected 30730000 bytes .*, got no file; unpack cifar-10-binary"):
        opened("cifar10", tmp_path)


def test_label_out_of_range(tmp_path: Path) -> None:
    put(write("cifar10", tmp_path) / "data_batch_1.bin", 5 * 3073, b"\x0a")
    with pytest.raises(SpecError, match=r"data_batch_1.bin, record 5: expected a label 0 to 9, got 10; .*not a cifar10 file"):
        opened("cifar10", tmp_path)


def test_wrong_names(tmp_path: Path) -> None:
    (write("cifar100", tmp_path) / "fine_label_names.txt").write_text("apple\napple\n")
    with pytest.raises(SpecError, match=r"fine_label_names.txt: expected 100 different class names.*, got 2 names, 1 different"):
        opened("cifar100", tmp_path)


def test_binary_names(tmp_path: Path) -> None:
    (write("cifar10", tmp_path) / "batches.meta.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match=r"batches.meta.txt: can't be read as text \(UnicodeDecodeError\); unpack"):
        opened("cifar10", tmp_path)


@pytest.mark.parametrize("file", ["data_batch_2.bin", "batches.meta.txt"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, file: str) -> None:
    folder = write("cifar10", tmp_path)
    (folder / file).unlink()
    os.mkfifo(folder / file)
    with pytest.raises(SpecError, match=rf"{file}: expected .*, got a pipe; unpack"):
        opened("cifar10", folder)


def test_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"expected the folder cifar-10-batches-bin or its parent, .*got a folder without them"):
        opened("cifar10", tmp_path)
    with pytest.raises(SpecError, match=r"data.path .*got nothing there"):
        opened("cifar100", tmp_path / "none")
