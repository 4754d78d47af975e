"""N-MNIST in one .npz file: what `events` describes as a pack, believed only as far as it has been checked.

The headers of all arrays are read first: types, ranks and lengths must fit one another, and their sum the machine's
memory, before an array is allocated. Then values: offsets, labels, ids and coordinates.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from twinspike.errors import SpecError, require
from twinspike_training.memory import require_memory

KEYS = ("x", "y", "p", "dt", "offsets", "labels", "ids")

CLASSES = 1 << 16
"""Labels are below this."""

_HEAD = 1 << 14
"""Bytes, more than NumPy takes for an array's header; one that says it is longer might be of any size."""

_EXACT = {"x": "uint8", "y": "uint8", "p": "uint8", "dt": "uint16"}
"""Columns whose type is fixed; the others are whole numbers of any type."""


BROKEN = (
    OSError, ValueError, TypeError, EOFError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error, TokenError,
)  # fmt: skip
"""What zipfile and NumPy raise of damaged files."""


class Pack(NamedTuple):
    """The arrays of a checked pack: N recordings, E events in all."""

    x: NDArray[np.uint8]
    """(E,), below `side`."""
    y: NDArray[np.uint8]
    polarity: NDArray[np.uint8]
    """(E,), 0 OFF, 1 ON."""
    dt: NDArray[np.uint16]
    """(E,), microseconds since the recording's last event."""
    offsets: NDArray[np.int64]
    """(N + 1,), from 0 to E, growing: recording i has the events offsets[i] to offsets[i + 1]."""
    labels: NDArray[np.int64]
    """(N,), in [0, CLASSES)."""
    ids: NDArray[np.int64]
    """(N,), different, >= 0."""


class Head(NamedTuple):
    """What an array says of itself."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def read_pack(file: Path, side: int) -> Pack:
    """Read a pack.

    Args:
        file: .npz.
        side: height and width of the sensor in pixels.

    Raises:
        SpecError: it can't be read, or isn't a whole pack that this machine can hold; the line names the array.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            columns = _columns(file, archive)
    except SpecError:
        raise
    except BROKEN as error:
        raise SpecError(f"{file}: can't be read as a .npz pack: {' '.join(str(error).split())}; copy it again") from error
    polarity = np.unpackbits(columns["p"])[: len(columns["x"])]
    whole = {key: _whole(file, key, columns[key]) for key in ("offsets", "labels", "ids")}
    pack = Pack(columns["x"], columns["y"], polarity, columns["dt"], **whole)
    _check(file, pack, side)
    return pack


def _columns(file: Path, archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    there = set(archive.namelist())
    missing = [key for key in KEYS if f"{key}.npy" not in there]
    require(not missing, str(file), expected=f"arrays {', '.join(KEYS)}", got=f"none named {', '.join(missing)}")
    heads = {}
    for key in KEYS:
        with archive.open(f"{key}.npy") as stream:
            heads[key] = head_of(stream)
    _check_heads(file, heads)
    columns = {}
    for key in KEYS:
        with archive.open(f"{key}.npy") as stream:
            columns[key] = np.asarray(npy.read_array(stream, allow_pickle=False))
    return columns


def head_of(file: IO[bytes]) -> Head:
    """Shape and type of an array whose numbers are not read, nor more of its header than one has."""
    stream = io.BytesIO(file.read(_HEAD))
    version = npy.read_magic(stream)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"array format {version} is not known")
    shape, _, dtype = read(stream)
    return Head(shape, dtype)


def _check_heads(file: Path, heads: dict[str, Head]) -> None:
    for key, head in heads.items():
        wanted = _EXACT.get(key, "whole numbers")
        right = head.dtype.name == wanted if key in _EXACT else head.dtype.kind in "iu"
        fits = right and len(head.shape) == 1 and head.shape[0] >= 0
        require(fits, f"{file}, {key}", expected=f"one dimension of {wanted}", got=str(head), do="copy it again")
    (events,), (recordings,) = heads["x"].shape, heads["labels"].shape
    lengths = {"y": events, "dt": events, "p": -(-events // 8), "offsets": recordings + 1, "ids": recordings}
    for key, length in lengths.items():
        got = heads[key].shape[0]
        require(got == length, f"{file}, {key}", expected=f"{length} entries, as x and labels have", got=got, do="copy it again")
    sizes = {key: head.shape[0] * head.dtype.itemsize for key, head in heads.items()}
    parts = {"columns of events": sum(sizes[key] for key in _EXACT) + events, "recordings": 24 * recordings}
    require_memory(str(file), parts, "copy it again, or use a smaller one")


def _whole(file: Path, key: str, column: NDArray[Any]) -> NDArray[np.int64]:
    """As int64, values that it can't hold refused."""
    low, high = (int(column.min()), int(column.max())) if len(column) else (0, 0)
    most = CLASSES - 1 if key == "labels" else (1 << 63) - 1
    require(0 <= low <= high <= most, f"{file}, {key}", expected=f"values 0 to {most}", got=f"{low} to {high}")
    return column.astype(np.int64)


def _check(file: Path, pack: Pack, side: int) -> None:
    require(len(pack.labels) > 0, str(file), expected="recordings", got="none")
    ends = (int(pack.offsets[0]), int(pack.offsets[-1]))
    require(ends == (0, len(pack.x)), f"{file}, offsets", expected=f"from 0 to {len(pack.x)}, the events", got=ends)
    lengths = np.diff(pack.offsets)
    short = int(np.argmax(lengths <= 0))
    do = "every recording has an event"
    require(bool((lengths > 0).all()), f"{file}, offsets", expected="growing ones", got=f"{lengths[short]} at {short}", do=do)
    different = len(np.unique(pack.ids))
    require(different == len(pack.ids), f"{file}, ids", expected="different ones", got=f"{different} of {len(pack.ids)}")
    for key, column in (("x", pack.x), ("y", pack.y)):
        event = int(np.argmax(column >= side))
        got = f"{column[event]} at event {event}"
        require(int(column.max()) < side, f"{file}, {key}", expected=f"0 to {side - 1}", got=got)
