"""Recordings of events as others publish them in .npz files, one a sample, believed only as far as they were checked.

A file holds either `frames`, (T, 2, H, W), counts or what was made of them, or the events themselves, `t`, `x`, `y` and `p`,
whole numbers of one length: microseconds, column, row, and polarity 0 or 1. Other arrays in it are not read, and no pickled
object ever is. What a header says must fit in the file, at the densest that a .npz is packed, before an array is allocated.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from twinspike.errors import SpecError, refuse, require
from twinspike_training.data.events import Grid, Recording
from twinspike_training.data.pack import BROKEN, Head, head_of
from twinspike_training.data.source import Raw, Update
from twinspike_training.memory import require_memory

_EVENTS = ("t", "x", "y", "p")
_DENSEST = 1032
"""Bytes that deflate makes of one, at most."""


def frame_shape(file: Path) -> tuple[int, int, int, int] | None:
    """The shape (T, 2, H, W) that a file says its frames have; None where it holds events.

    Raises:
        SpecError: it can't be read, or holds neither.
    """
    found: tuple[int, int, int, int] | None
    found, _ = _arrays(file, lambda heads: _shape(file, heads["frames"]) if "frames" in heads else None)
    return found


def read_frames(file: Path, shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """A file's frames.

    Args:
        file: .npz with `frames`.
        shape: that they must have.

    Raises:
        SpecError: it can't be read, has other frames, or one that is negative or not finite.
    """

    def fits(heads: dict[str, Head]) -> tuple[str, ...]:
        require("frames" in heads, str(file), expected="an array named frames, as the first file has", got="none")
        require(_shape(file, heads["frames"]) == shape, f"{file}, frames", expected=f"shape {shape}", got=heads["frames"].shape)
        return ("frames",)

    frames = _arrays(file, fits, read=True)[1]["frames"].astype(np.float32)
    require(
        bool(np.isfinite(frames).all() and frames.min() >= 0), f"{file}, frames", expected="finite numbers >= 0", got="others"
    )
    return frames


def read_events(file: Path) -> Recording:
    """A file's events.

    Raises:
        SpecError: it can't be read, or its arrays are no events.
    """

    def fits(heads: dict[str, Head]) -> tuple[str, ...]:
        require("frames" not in heads, str(file), expected="events, as the first file has", got="frames")
        for key in _EVENTS:
            head = heads[key]
            right = len(head.shape) == 1 and head.dtype.kind in "iub" and head.shape == heads["t"].shape
            require(right, f"{file}, {key}", expected=f"whole numbers of shape {heads['t'].shape}", got=str(head))
        return _EVENTS

    columns = {key: column.astype(np.int64) for key, column in _arrays(file, fits, read=True)[1].items()}
    for key, column in columns.items():
        most = 1 if key == "p" else (1 << 62)
        low, high = (int(column.min()), int(column.max())) if len(column) else (0, 0)
        require(0 <= low <= high <= most, f"{file}, {key}", expected=f"values 0 to {most}", got=f"{low} to {high}")
    return Recording(columns["t"], columns["x"], columns["y"], columns["p"])


def _shape(file: Path, head: Head) -> tuple[int, int, int, int]:
    right = len(head.shape) == 4 and head.dtype.kind in "iuf" and min(head.shape) >= 1 and head.shape[1] == 2
    require(right, f"{file}, frames", expected="numbers of shape (T, 2, height, width)", got=str(head))
    return (head.shape[0], 2, head.shape[2], head.shape[3])


def _arrays(file: Path, fits: Callable[[dict[str, Head]], Any], *, read: bool = False) -> tuple[Any, dict[str, NDArray[Any]]]:
    """What `fits` says of the headers, and if wanted the arrays whose names it says."""
    try:
        room = _DENSEST * file.stat().st_size
        with zipfile.ZipFile(file) as archive:
            there = set(archive.namelist())
            keys = ("frames",) if "frames.npy" in there else _EVENTS
            missing = [key for key in keys if f"{key}.npy" not in there]
            require(not missing, str(file), expected="an array frames, or t, x, y and p", got=f"none named {', '.join(missing)}")
            heads = {}
            for key in keys:
                with archive.open(f"{key}.npy") as stream:
                    heads[key] = head_of(stream)
                need = math.prod(heads[key].shape) * heads[key].dtype.itemsize
                say = f"{heads[key]} in a file of {room // _DENSEST} bytes"
                require(0 <= need <= room, f"{file}, {key}", expected="as much as the file can hold", got=say, do="copy it again")
            told = fits(heads)
            if read:  # as they are stored, and as the eight bytes that a number becomes
                parts = {key: math.prod(heads[key].shape) * (heads[key].dtype.itemsize + 8) for key in told}
                require_memory(str(file), parts, "copy it again")
            columns = {}
            for key in told if read else ():
                with archive.open(f"{key}.npy") as stream:
                    columns[key] = np.asarray(npy.read_array(stream, allow_pickle=False))
            return told, columns
    except SpecError:
        raise
    except BROKEN as error:
        raise SpecError(f"{file}: can't be read as .npz: {' '.join(str(error).split())}; copy it again") from error


def _joins(pixels: int, cells: int) -> NDArray[np.float32]:
    """(cells, pixels), 1 where a pixel falls into a cell (`events.Grid`)."""
    return np.asarray(np.arange(pixels) * cells // pixels == np.arange(cells)[:, None], dtype=np.float32)


@final
class FrameSplit:
    """Files of frames, read when a batch needs them."""

    def __init__(self, files: list[Path], labels: NDArray[np.int64], steps: int, grid: Grid, identify: Callable[[Update], None]):
        """Say which.

        Args:
            files: a sample each.
            labels: (N,).
            steps: T, which all of them must have.
            grid: their frames' pixels, and the cells to which they are joined.
            identify: feeds the files' identity to a hash.
        """
        self._files, self._labels, self._steps, self._grid, self._identify = files, labels, steps, grid, identify

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,), class numbers from 0."""
        return self._labels

    def images(self, indices: NDArray[np.int64]) -> Raw:
        """(n, T * 2, rows, columns) float32, pixels of one cell summed.

        Raises:
            SpecError: a file can't be read, or has other frames; the line names it.
        """
        g, found = self._grid, []
        for index in indices.tolist():
            frames = read_frames(self._files[index], (self._steps, 2, g.height, g.width))
            if (g.rows, g.columns) != (g.height, g.width):
                frames = np.asarray(_joins(g.height, g.rows) @ frames @ _joins(g.width, g.columns).T, dtype=np.float32)
            found.append(frames.reshape(-1, g.rows, g.columns))
        return np.stack(found)

    def identify(self, update: Update) -> None:
        """Labels, T and the files' identity."""
        update(self._labels)
        update(f"T = {self._steps}".encode())
        self._identify(update)


def steps_of(file: Path, shape: tuple[int, int, int, int], time_steps: int) -> None:
    """Refuse files of frames for another T."""
    if shape[0] != time_steps:
        raise refuse(
            str(file), expected=f"{time_steps} frames, as time_steps says", got=shape[0], do=f"use time_steps = {shape[0]}"
        )
