"""Event-camera recordings, binned to T frames of counts when a batch needs them.

A recording's duration, from its first to its last event, is cut into T equal windows: an event at time t falls
into frame floor((t - t_first) T / (t_last - t_first + 1)), in whole microseconds. A frame holds, per pixel and
polarity (channel 0 OFF, 1 ON), the number of events in its window, as float32: no scaling and no clipping, so
that values are small whole numbers whose sum is the number of events.

Two forms of N-MNIST (Orchard et al., Frontiers in Neuroscience 9:437, 2015; 34 x 34 pixels) are read:

    PATH/Train/CLASS/*.bin and PATH/Test/CLASS/*.bin   the original: 40 bits an event, most significant first:
        x (8), y (8), polarity (1), time in microseconds (23); y = 240 marks an overflow of the clock, which
        adds 2^13 us to all that follows and is no event
    PATH, a .npz file (or a folder with just one)      a pack: x, y uint8; p polarity bits (numpy.packbits, uint8);
        dt uint16, microseconds since the previous event of the recording; offsets (N+1), labels (N) and ids (N),
        whole numbers; ids are different, those up to 60000 for training, higher ones for the test
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from twinspike.errors import SpecError, refuse, require
from twinspike_training.data.listing import Left, is_sample, told
from twinspike_training.data.pack import read_pack
from twinspike_training.data.source import Raw, Source, Split, Update
from twinspike_training.memory import require_memory

SIDE = 34
"""Height and width of N-MNIST's sensor window in pixels."""

_POLARITIES = 2
_COUNT = 4
"""Bytes of a count, float32."""

_OVERFLOW_ROW, _OVERFLOW_TIME = 240, 1 << 13
_LAST_TRAIN_ID = 60_000


class Grid(NamedTuple):
    """A sensor's pixels, and the cells of a frame to which they are joined: row y of the sensor falls into y rows // height."""

    height: int
    width: int
    rows: int
    columns: int


NMNIST = Grid(SIDE, SIDE, SIDE, SIDE)


class Recording(NamedTuple):
    """The events of one recording, in order: integer arrays of one length."""

    time: NDArray[np.int64]
    """Microseconds, not decreasing."""
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    polarity: NDArray[np.int64]
    """0 OFF, 1 ON."""


def bin_events(recording: Recording, time_steps: int, what: str, grid: Grid = NMNIST) -> NDArray[np.float32]:
    """Count the events of a recording per window, polarity and cell.

    Args:
        recording: at least one event, within the sensor.
        time_steps: T, >= 1.
        what: the recording, as errors name it.
        grid: sensor and frame.

    Returns:
        (T, 2, rows, columns).

    Raises:
        SpecError: no events, an event outside the sensor, or time that runs backwards.
    """
    time, x, y, polarity = recording
    require(len(time) > 0, what, expected="at least one event", got="none")
    outside = np.flatnonzero((x >= grid.width) | (y >= grid.height))
    if len(outside):
        first, square = outside[0], grid.width == grid.height
        inside = f"x and y 0 to {grid.width - 1}" if square else f"x 0 to {grid.width - 1} and y 0 to {grid.height - 1}"
        raise refuse(f"{what}, event {first}", expected=inside, got=f"x = {x[first]}, y = {y[first]}")
    back = np.flatnonzero(np.diff(time) < 0)
    if len(back):
        got = f"{time[back[0] + 1]} us after {time[back[0]]} us"
        raise refuse(f"{what}, event {back[0] + 1}", expected="times that do not decrease", got=got)
    frame = (time - time[0]) * time_steps // (time[-1] - time[0] + 1)
    row, column = y * grid.rows // grid.height, x * grid.columns // grid.width
    cell = ((frame * _POLARITIES + polarity) * grid.rows + row) * grid.columns + column
    counts = np.bincount(cell, minlength=time_steps * _POLARITIES * grid.rows * grid.columns)
    return counts.astype(np.float32).reshape(time_steps, _POLARITIES, grid.rows, grid.columns)


def decode_events(data: bytes, what: str) -> Recording:
    """Read a recording in the original 40-bit form.

    Args:
        data: the file's bytes.
        what: the file, as errors name it.

    Raises:
        SpecError: the size is no multiple of 5 bytes.
    """
    if len(data) % 5:
        raise refuse(what, expected="whole events of 5 bytes", got=f"{len(data)} bytes", do="it is truncated: copy it again")
    columns = np.frombuffer(data, dtype=np.uint8).reshape(-1, 5).astype(np.int64).T
    x, y, polarity = columns[0], columns[1], columns[2] >> 7
    time = ((columns[2] & 0x7F) << 16) | (columns[3] << 8) | columns[4]
    overflow = y == _OVERFLOW_ROW
    if overflow.any():
        time = time + _OVERFLOW_TIME * np.cumsum(overflow)
        x, y, polarity, time = (column[~overflow] for column in (x, y, polarity, time))
    return Recording(time, x, y, polarity)


@final
class EventSplit:
    """Recordings binned on demand."""

    def __init__(
        self,
        read: Callable[[int], tuple[Recording, str]],
        labels: NDArray[np.int64],
        time_steps: int,
        identify: Callable[[Update], None],
        grid: Grid = NMNIST,
    ) -> None:
        """Say how recordings are read.

        Args:
            read: index -> recording and the name under which errors speak of it.
            labels: (N,).
            time_steps: T.
            identify: feeds the recordings' identity to a hash.
            grid: sensor and frame.
        """
        self._grid = grid
        self._read, self._labels, self._time_steps, self._identify = read, labels, time_steps, identify

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), class numbers from 0."""
        return self._labels

    def images(self, indices: NDArray[np.int64]) -> Raw:
        """(n, T * 2, rows, columns) float32 counts.

        Raises:
            SpecError: a recording can't be read or binned; the line names it.
        """
        rows, columns = self._grid.rows, self._grid.columns
        out = np.empty((len(indices), self._time_steps, _POLARITIES, rows, columns), dtype=np.float32)
        for i, index in enumerate(indices.tolist()):
            recording, what = self._read(index)
            out[i] = bin_events(recording, self._time_steps, what, self._grid)
        return out.reshape(len(indices), -1, rows, columns)

    def identify(self, update: Update) -> None:
        """Labels, T and the recordings' identity."""
        update(self._labels)
        update(f"T = {self._time_steps}".encode())
        self._identify(update)


def open_events(path: str, time_steps: int) -> Source:
    """Open N-MNIST in either form; the recordings of the original one are read when a batch needs them.

    Args:
        path: see the module.
        time_steps: T, frames per recording.

    Raises:
        SpecError: neither form is there, a part of it is missing or damaged, or not one recording's frames fit in memory.
    """
    _frames_fit(time_steps, NMNIST)
    root = Path(path)
    if root.is_dir() and not (root / "Train").is_dir():
        packs = sorted(root.glob("*.npz"))
        if len(packs) == 1:
            root = packs[0]
    if root.is_file():
        train, test, classes, notes = _open_pack(root, time_steps)
    elif (root / "Train").is_dir() and (root / "Test").is_dir():
        train, test, classes, notes = _open_folders(root, time_steps)
    else:
        got = "a folder without them" if root.is_dir() else "nothing there"
        raise refuse(f"data.path {root}", expected="N-MNIST: a folder with Train and Test, or a .npz pack", got=got)
    return event_source(train, test, classes, NMNIST, time_steps, notes)


def _frames_fit(time_steps: int, grid: Grid) -> None:
    frames = {"the frames of one recording": time_steps * _POLARITIES * grid.rows * grid.columns * _COUNT}
    require_memory(f"time_steps = {time_steps}", frames, "use fewer")


def event_source(
    train: Split, test: Split, classes: tuple[str, ...], grid: Grid, time_steps: int, notes: tuple[str, ...] = ()
) -> Source:
    """What frames of counts are to who makes batches; SpecError where not one recording's frames fit in memory."""
    _frames_fit(time_steps, grid)
    return Source(
        train=train,
        test=test,
        input_shape=(_POLARITIES, grid.rows, grid.columns),
        event=True,
        classes=classes,
        levels=1.0,
        mean=(0.0,) * _POLARITIES,
        std=(1.0,) * _POLARITIES,
        notes=notes,
    )


_Opened = tuple[EventSplit, EventSplit, tuple[str, ...], tuple[str, ...]]
"""Training and test samples, names of classes, notes."""


def _open_folders(root: Path, time_steps: int) -> _Opened:
    left = Left()
    names = {part: tuple(sorted(f.name for f in (root / part).iterdir() if f.is_dir())) for part in ("Train", "Test")}
    classes = names["Train"]
    require(
        names["Test"] == classes and bool(classes),
        str(root),
        expected="the same class folders in Train and Test",
        got=f"{', '.join(classes) or 'none'} and {', '.join(names['Test']) or 'none'}",
    )

    def split(part: str) -> EventSplit:
        files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            found = _recordings(root / part / name, left)
            require(bool(found), str(root / part / name), expected="recordings (*.bin)", got="none")
            files += found
            labels += [label] * len(found)

        def read(index: int) -> tuple[Recording, str]:
            what = str(files[index])
            try:
                data = files[index].read_bytes()
            except OSError as error:
                raise SpecError(f"{what}: can't be read ({error.strerror})") from error
            return decode_events(data, what), what

        def identify(update: Update) -> None:
            for file in files:
                update(os.fsencode(f"{file.relative_to(root).as_posix()} {file.stat().st_size}\n"))

        return EventSplit(read, np.array(labels, dtype=np.int64), time_steps, identify)

    train, test = split("Train"), split("Test")
    notes = told(len(train.labels) + len(test.labels), left, "*.bin in class folders")
    return train, test, classes, tuple(f"data.path {root}: {note}" for note in notes)


def _recordings(folder: Path, left: Left) -> list[Path]:
    """The recordings in a class's folder, by name; what else there is, and below it, is counted."""
    found = []
    for where, _, names in os.walk(folder):
        for name in names:
            if Path(where) != folder:
                left["in deeper folders"] += 1
            elif is_sample(os.path.join(where, name), left, (".bin",)):
                found.append(folder / name)
    return sorted(found)


def _open_pack(file: Path, time_steps: int) -> _Opened:
    pack = read_pack(file, SIDE)

    def split(members: NDArray[np.int64]) -> EventSplit:
        def read(index: int) -> tuple[Recording, str]:
            which = int(members[index])
            part = slice(int(pack.offsets[which]), int(pack.offsets[which + 1]))
            columns = (pack.x[part], pack.y[part], pack.polarity(part.start, part.stop))
            x, y, polarity = (column.astype(np.int64) for column in columns)
            what = f"{file}, recording {pack.ids[which]}"
            return Recording(np.cumsum(pack.dt[part], dtype=np.int64), x, y, polarity), what

        def identify(update: Update) -> None:
            update(pack.ids[members])
            pack.identify(update)

        return EventSplit(read, pack.labels[members], time_steps, identify)

    train, test = np.flatnonzero(pack.ids <= _LAST_TRAIN_ID), np.flatnonzero(pack.ids > _LAST_TRAIN_ID)
    require(len(train) > 0 and len(test) > 0, str(file), expected="recordings of both parts", got=f"{len(train)} and {len(test)}")
    return split(train), split(test), tuple(str(i) for i in range(int(pack.labels.max()) + 1)), ()
