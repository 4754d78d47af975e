"""Recordings of other event cameras than N-MNIST's, in the forms in which their data sets are downloaded.

    PATH/CLASS/*.aedat          CIFAR10-DVS: AEDAT 2.0 of a DVS128
    PATH/CLASS/*.bin            N-Caltech101: the 40 bits of N-MNIST (`events`), from a sensor of `data.sensor`
    PATH/CLASS/*.npz            frames, or events of a sensor of `data.sensor`, as others publish them (`npz`)
    PATH/trials_to_train.txt    DVS128 Gesture, with trials_to_test.txt: a name of an AEDAT 3.1 file in each line, beside which
                                NAME_labels.csv has the samples, `class,startTime_usec,endTime_usec`, classes from 1

The first three may stand in PATH/train and PATH/test. If not they have no split of their own: of each class the last
recordings test, by the numbers in their names.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from twinspike.errors import SpecError, refuse, require
from twinspike_training.data.aedat import DVS128, decode_aedat2, decode_aedat3
from twinspike_training.data.events import EventSplit, Grid, Recording, decode_events, event_source
from twinspike_training.data.npz import FrameSplit, frame_shape, read_events, steps_of
from twinspike_training.data.source import Source, Update

_TRIALS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}

_HEADER = ["class", "startTime_usec", "endTime_usec"]

_CLASSES = 1 << 16


class _Sample(NamedTuple):
    file: Path
    label: int
    begin: int = 0
    """Microseconds, of a part of a file."""
    end: int = 0


def open_recordings(path: str, time_steps: int, sensor: tuple[int, ...], side: int, share: float) -> Source:
    """Open a data set of recordings, which are read when a batch needs them.

    Args:
        path: see the module.
        time_steps: T, frames per recording.
        sensor: height and width in pixels of recordings of 40 bits; empty for AEDAT, whose sensor is known.
        side: rows and columns of a frame, to which pixels are joined; 0: the sensor's own.
        share: of each class that tests, where the data set has no split.

    Raises:
        SpecError: no such data set is there, a part of it is missing or damaged, or a recording's frames fit in no memory.
    """
    root = Path(path)
    if (root / _TRIALS["train"]).is_file():
        train, test, classes, read = _gestures(root)
        require(not sensor, "data.sensor", expected="nothing with DVS128 Gesture, whose sensor is known", got=sensor)
        pixels, shape = (DVS128, DVS128), None
    else:
        require(root.is_dir(), f"data.path {root}", expected="a folder of recordings", got="nothing there")
        train, test, classes, suffix = _class_folders(root, share)
        read = _READERS[suffix]
        shape = frame_shape(train[0].file) if suffix == ".npz" else None
        if suffix == ".aedat":
            require(not sensor, "data.sensor", expected="nothing with AEDAT 2.0 of a DVS128, which is known", got=sensor)
            pixels = (DVS128, DVS128)
        elif shape is not None:
            require(not sensor, "data.sensor", expected="nothing with frames, which have a size", got=sensor)
            steps_of(train[0].file, shape, time_steps)
            pixels = shape[2:]
        else:
            require(
                len(sensor) == 2, "data.sensor", expected="height and width of the sensor, [180, 240] of N-Caltech101", got=sensor
            )
            pixels = (sensor[0], sensor[1])
    framed = shape is not None
    grid = Grid(*pixels, side or pixels[0], side or pixels[1])

    def split(samples: list[_Sample]) -> EventSplit | FrameSplit:
        def one(index: int) -> tuple[Recording, str]:
            sample = samples[index]
            what = str(sample.file) + (f", {sample.begin} to {sample.end} us" if sample.end else "")
            try:
                return read(sample, what), what
            except OSError as error:
                raise SpecError(f"{what}: can't be read ({error.strerror})") from error

        def identify(update: Update) -> None:
            for sample in samples:
                name, size = sample.file.relative_to(root).as_posix(), sample.file.stat().st_size
                update(os.fsencode(f"{name} {size} {sample.begin} {sample.end}\n"))

        labels = np.array([sample.label for sample in samples], dtype=np.int64)
        if framed:
            return FrameSplit([sample.file for sample in samples], labels, time_steps, grid, identify)
        return EventSplit(one, labels, time_steps, identify, grid)

    return event_source(split(train), split(test), classes, grid, time_steps)


def _read_aedat2(sample: _Sample, what: str) -> Recording:
    return decode_aedat2(sample.file.read_bytes(), what)


def _read_40_bits(sample: _Sample, what: str) -> Recording:
    return decode_events(sample.file.read_bytes(), what)


def _read_npz(sample: _Sample, what: str) -> Recording:
    return read_events(sample.file)


_READERS: dict[str, Callable[[_Sample, str], Recording]] = {".aedat": _read_aedat2, ".bin": _read_40_bits, ".npz": _read_npz}
"""Ending of a file's name -> what reads it."""


def _read_part(sample: _Sample, what: str) -> Recording:
    with sample.file.open("rb") as file:
        require(os.fstat(file.fileno()).st_size > 0, what, expected="an AEDAT 3.1 file", got="an empty one")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return decode_aedat3(data, what, sample.begin, sample.end)


_ENDINGS = "*.aedat, *.bin or *.npz"


def _by_number(file: Path) -> list[tuple[int, str]]:
    """The order of names by the numbers in them: image_2 before image_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]


def _class_folders(root: Path, share: float) -> tuple[list[_Sample], list[_Sample], tuple[str, ...], str]:
    parts = [root / part for part in ("train", "test") if (root / part).is_dir()]
    tops = parts if len(parts) == 2 else [root]
    named = [tuple(sorted(folder.name for folder in top.iterdir() if folder.is_dir())) for top in tops]
    classes, got = named[0], f"{', '.join(named[0])} and {', '.join(named[-1])}"
    require(named[-1] == classes, str(root), expected="the same class folders in train and test", got=got)
    require(bool(classes), str(root), expected="a folder of recordings for each class, or trials_to_train.txt", got="neither")
    train: list[_Sample] = []
    test: list[_Sample] = []
    kinds: set[str] = set()
    for label, name in enumerate(classes):
        found = [sorted((f for f in (t / name).iterdir() if f.suffix in _READERS and f.is_file()), key=_by_number) for t in tops]
        kinds |= {file.suffix for files in found for file in files}
        require(len(kinds) < 2, str(root), expected="recordings of one kind", got=", ".join(sorted(kinds)))
        if len(tops) == 1:
            files = found[0]
            last = max(1, round(share * len(files)))
            found = [files[:-last], files[-last:]]
        count = [len(files) for files in found]
        require(min(count) > 0, str(root / name), expected=f"recordings ({_ENDINGS}) to train and test", got=count)
        train += [_Sample(file, label) for file in found[0]]
        test += [_Sample(file, label) for file in found[1]]
    return train, test, classes, kinds.pop()


def _gestures(root: Path) -> tuple[list[_Sample], list[_Sample], tuple[str, ...], Callable[[_Sample, str], Recording]]:
    parts = {}
    for part, name in _TRIALS.items():
        names = [line.strip() for line in _text(root / name).splitlines() if line.strip()]
        wrong = [file for file in names if "/" in file or not file.endswith(".aedat")]
        require(not wrong, str(root / name), expected="bare names of .aedat files", got=", ".join(wrong[:1]))
        parts[part] = [sample for file in names for sample in _labelled(root / file)]
        require(bool(parts[part]), str(root / name), expected="recordings with samples", got="none")
    count = 1 + max(sample.label for samples in parts.values() for sample in samples)
    return parts["train"], parts["test"], tuple(str(i + 1) for i in range(count)), _read_part


def _labelled(file: Path) -> list[_Sample]:
    table = file.with_name(f"{file.stem}_labels.csv")
    require(file.is_file(), str(file), expected="a recording, as its list says", got="no file")
    head, *lines = _text(table).splitlines() or [""]
    require(head.strip().split(",") == _HEADER, str(table), expected=",".join(_HEADER), got=ascii(head))
    samples = []
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split(",")]
        right = len(cells) == 3 and all(cell.isdecimal() and len(cell) < 19 for cell in cells)
        right = right and 1 <= int(cells[0]) <= _CLASSES and int(cells[1]) < int(cells[2])
        require(right, f"{table}, line {number}", expected="a class from 1, and where it begins and ends", got=ascii(line))
        samples.append(_Sample(file, int(cells[0]) - 1, int(cells[1]), int(cells[2])))
    return samples


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise refuse(str(file), expected="readable UTF-8 text", got=getattr(error, "strerror", None) or str(error)) from None
