"""CIFAR-10 and CIFAR-100 in their authors' binary layout, checked record by record when opened.

Layout: https://www.cs.toronto.edu/~kriz/cifar.html. A record is the label (one byte; in CIFAR-100 coarse, then
fine) and 1024 red, 1024 green, 1024 blue bytes. The fine labels of CIFAR-100 are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twinspike.errors import SpecError, refuse
from twinspike_training.data.source import ArraySplit, Source
from twinspike_training.files import FILE, found

SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True, kw_only=True)
class _Layout:
    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    records: int
    """In each training file; a test file has 10,000."""
    label_bytes: int
    """The last of them is the label."""
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


LAYOUTS = {
    "cifar10": _Layout(
        folder="cifar-10-batches-bin",
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test="test_batch.bin",
        names="batches.meta.txt",
        records=10_000,
        label_bytes=1,
        classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    "cifar100": _Layout(
        folder="cifar-100-binary",
        train=("train.bin",),
        test="test.bin",
        names="fine_label_names.txt",
        records=50_000,
        label_bytes=2,
        classes=100,
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
    ),
}
_TEST_RECORDS = 10_000


def open_cifar(name: Literal["cifar10", "cifar100"], path: str) -> Source:
    """Read a CIFAR data set into memory as bytes (185 MB).

    Args:
        name: which one.
        path: its folder (`cifar-10-batches-bin`, `cifar-100-binary`) or the folder that holds it.

    Raises:
        SpecError: a file is missing, has another size, or holds a label out of range; the line names the file.
    """
    layout = LAYOUTS[name]
    folder = _find(name, layout, Path(path))
    classes = _class_names(name, layout, folder / layout.names)
    return Source(
        train=_read(name, layout, [folder / file for file in layout.train], layout.records),
        test=_read(name, layout, [folder / layout.test], _TEST_RECORDS),
        input_shape=SHAPE,
        event=False,
        classes=classes,
        levels=255.0,
        mean=layout.mean,
        std=layout.std,
    )


def _advice(name: str) -> str:
    kind = "cifar-10-binary.tar.gz" if name == "cifar10" else "cifar-100-binary.tar.gz"
    return f"unpack {kind} from https://www.cs.toronto.edu/~kriz/cifar.html again"


def _find(name: str, layout: _Layout, path: Path) -> Path:
    for folder in (path, path / layout.folder):
        if any((folder / file).is_file() for file in (*layout.train, layout.test, layout.names)):
            return folder
    got = "a folder without them" if path.is_dir() else "a file" if path.exists() else "nothing there"
    raise refuse(
        f"data.path {path}",
        expected=f"the folder {layout.folder} or its parent, with {layout.train[0]}",
        got=got,
        do=f"{_advice(name)} (the binary version)",
    )


def _class_names(name: str, layout: _Layout, file: Path) -> tuple[str, ...]:
    if (kind := found(file)) not in (FILE, "no such file"):  # a pipe would be waited for
        raise refuse(str(file), expected="a file", got=kind, do=_advice(name))
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{file}: can't be read as text ({type(error).__name__}); {_advice(name)}") from error
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(names) != layout.classes or len(set(names)) != layout.classes:
        got = f"{len(names)} names, {len(set(names))} different"
        raise refuse(str(file), expected=f"{layout.classes} different class names, one a line", got=got, do=_advice(name))
    return names


def _read(name: str, layout: _Layout, files: list[Path], records: int) -> ArraySplit:
    size = layout.label_bytes + _PIXELS
    rows = np.empty((len(files) * records, size), dtype=np.uint8)
    for i, file in enumerate(files):
        _fill(name, file, rows[i * records : (i + 1) * records])
        labels = rows[i * records : (i + 1) * records, layout.label_bytes - 1]
        wrong = np.flatnonzero(labels >= layout.classes)
        if len(wrong):
            raise refuse(
                f"{file}, record {wrong[0]}",
                expected=f"a label 0 to {layout.classes - 1}",
                got=int(labels[wrong[0]]),
                do=f"it is not a {name} file, or damaged: {_advice(name)}",
            )
    return ArraySplit(rows, rows[:, layout.label_bytes - 1].astype(np.int64), SHAPE, skip=layout.label_bytes)


def _fill(name: str, file: Path, rows: NDArray[np.uint8]) -> None:
    """Read one file of exactly the rows' size."""
    expected = f"{rows.nbytes} bytes ({len(rows)} records of {rows.shape[1]})"
    if (kind := found(file)) not in (FILE, "no such file"):
        raise refuse(str(file), expected=expected, got=kind, do=_advice(name))
    try:
        with file.open("rb") as stream:
            got = stream.seek(0, 2)
            if got == rows.nbytes:
                stream.seek(0)
                got = stream.readinto(rows.data.cast("B"))
    except FileNotFoundError as error:
        raise refuse(str(file), expected=expected, got="no file", do=_advice(name)) from error
    except OSError as error:
        raise SpecError(f"{file}: can't be read ({error.strerror}); {_advice(name)}") from error
    if got != rows.nbytes:
        raise refuse(str(file), expected=expected, got=f"{got} bytes", do=f"it is truncated or another file: {_advice(name)}")
