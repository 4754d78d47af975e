"""N-MNIST in one .npz file: what `events` describes as a pack, believed only as far as it has been checked.

The headers of all arrays are read first: types, ranks and lengths must fit one another, and there must be room for their sum,
before an array is allocated. Then values: offsets, labels, ids and coordinates.

Columns of more than `BUDGET` bytes in all are never in memory as a whole: they are unpacked, a piece at a time, to a file without
a name in the folder for temporary files, and a recording's events are read from there by their index.
"""

from __future__ import annotations

import io
import mmap
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from twinspike.errors import SpecError, require
from twinspike_training.memory import require_memory, size

KEYS = ("x", "y", "p", "dt", "offsets", "labels", "ids")

CLASSES = 1 << 16
"""Labels are below this."""

BUDGET = 64 << 20
"""Bytes of columns of events that are kept in memory."""

_PIECE = 1 << 20
"""Bytes that are looked at at a time in a column that is not."""

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
    bits: NDArray[np.uint8]
    """(E / 8,), up: polarities, 0 OFF, 1 ON, the first in the highest bit."""
    dt: NDArray[np.uint16]
    """(E,), microseconds since the recording's last event."""
    offsets: NDArray[np.int64]
    """(N + 1,), from 0 to E, growing: recording i has the events offsets[i] to offsets[i + 1]."""
    labels: NDArray[np.int64]
    """(N,), in [0, CLASSES)."""
    ids: NDArray[np.int64]
    """(N,), different, >= 0."""

    def polarity(self, first: int, last: int) -> NDArray[np.uint8]:
        """Of events `first` to `last - 1`."""
        return np.unpackbits(self.bits[first // 8 : -(-last // 8)])[first % 8 :][: last - first]

    def identify(self, update: Callable[[Any], None]) -> None:
        """Feed all events to a hash, a piece at a time."""
        _feed(self.x, update)
        _feed(self.y, update)
        for first in range(0, len(self.x), _PIECE):
            update(self.polarity(first, min(first + _PIECE, len(self.x))))
        _feed(self.dt, update)
        _feed(self.offsets, update)


def _feed(column: NDArray[Any], update: Callable[[Any], None]) -> None:
    for first in range(0, len(column), _PIECE):
        update(np.ascontiguousarray(column[first : first + _PIECE]))


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
    whole = {key: _whole(file, key, columns[key]) for key in ("offsets", "labels", "ids")}
    pack = Pack(columns["x"], columns["y"], columns["p"], columns["dt"], **whole)
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
    small = sum(_bytes(heads[key]) for key in _EXACT) <= BUDGET
    columns = {}
    for key in KEYS:
        with archive.open(f"{key}.npy") as stream:
            if small or key not in _EXACT:
                columns[key] = np.asarray(npy.read_array(stream, allow_pickle=False))
            else:
                columns[key] = _unpacked(stream, heads[key])
    return columns


def _bytes(head: Head) -> int:
    return head.shape[0] * head.dtype.itemsize


def _unpacked(stream: IO[bytes], head: Head) -> NDArray[Any]:
    """An array of one dimension in a file without a name, mapped; ValueError if the stream ends before it."""
    _read_head(stream)
    with tempfile.TemporaryFile() as place:
        left = _bytes(head)
        while left and (piece := stream.read(min(left, _PIECE))):
            place.write(piece)
            left -= len(piece)
        if left:
            raise ValueError(f"EOF: reading array data, {left} bytes are missing")
        stream.read(1)  # the archive's sum is looked at where it ends
        place.flush()
        return np.frombuffer(mmap.mmap(place.fileno(), 0, access=mmap.ACCESS_READ), head.dtype)


def head_of(file: IO[bytes]) -> Head:
    """Shape and type of an array whose numbers are not read, nor more of its header than one has."""
    return _read_head(io.BytesIO(file.read(_HEAD)))


def _read_head(stream: IO[bytes]) -> Head:
    """Likewise, of a stream that is then at the first number."""
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
    columns = sum(_bytes(heads[key]) for key in _EXACT)
    parts = {"columns of events": min(columns, BUDGET), "recordings": 24 * recordings}
    require_memory(str(file), parts, "copy it again, or use a smaller one")
    if columns > BUDGET:
        folder = tempfile.gettempdir()
        room, do = shutil.disk_usage(folder).free, "copy it again, or set TMPDIR to a folder with room"
        expected = f"room for {size(columns)} of events in {folder}, where they are unpacked"
        require(columns <= room, str(file), expected=expected, got=size(room), do=do)


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
        for first in range(0, len(column), _PIECE):
            piece = column[first : first + _PIECE]
            event = first + int(np.argmax(piece >= side))
            got = f"{column[event]} at event {event}"
            require(int(piece.max()) < side, f"{file}, {key}", expected=f"0 to {side - 1}", got=got)
