"""Hostile data sets: images, recordings of events, packs of them and folders, whole at the border and damaged inside."""

from __future__ import annotations

import io
import os
import shutil
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from hostile import TEXTS, Counts, mutated
from hypothesis import strategies as st
from PIL import Image

from twinspike_training.data.events import bin_events, decode_events, open_events
from twinspike_training.data.folder import open_folder
from twinspike_training.data.images import decode

SIDE = 6
"""Pixels, of images made here."""

_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_NAMES = st.one_of(st.sampled_from(["a.png", "b.JPG", "c.bmp", "images", "n1", ".hidden.png", "d", "\udce9.png"]), TEXTS)


class DataParts:
    """Parts by name, as `fuzz.Parts`."""

    def __init__(self, folder: Path, counts: Counts) -> None:
        self._folder, self._counts = folder, counts
        self._image = folder / "x.png"

    def images(self, data: st.DataObject) -> None:
        """A PNG or JPEG changed, in PNGs also under checksums that are right."""
        image = Image.new(data.draw(st.sampled_from(_MODES)), (SIDE, SIDE), data.draw(st.integers(0, 1)))
        made = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = data.draw(st.sampled_from([1, 6, 0, 9, 65535]))
        if data.draw(st.booleans()):
            image.save(made, "PNG", exif=exif)
            content = _png(data, made.getvalue()) if data.draw(st.booleans()) else mutated(data, made.getvalue())
        else:
            image.convert(data.draw(st.sampled_from(["L", "RGB", "CMYK"]))).save(made, "JPEG", exif=exif)
            content = mutated(data, made.getvalue())
        self._image.write_bytes(content)
        size = data.draw(st.sampled_from([None, (8, 8)]))
        self._counts.told(lambda: _quietly(lambda: decode(self._image, size)))

    def recordings(self, data: st.DataObject) -> None:
        """A recording of five bytes an event: any bytes, and those near it."""
        event = st.tuples(st.integers(0, 40), st.one_of(st.integers(0, 33), st.just(240)), st.binary(min_size=3, max_size=3))
        drawn = st.lists(event.map(lambda e: bytes(e[:2]) + e[2]), max_size=6).map(b"".join)
        sorted_ = st.lists(st.integers(0, 2**23 - 1), min_size=1, max_size=6).map(
            lambda times: b"".join(bytes([1, 2]) + t.to_bytes(3, "big") for t in sorted(times))
        )
        content = data.draw(st.one_of(st.binary(max_size=30), drawn, sorted_))
        steps = data.draw(st.integers(1, 9))
        self._counts.told(lambda: bin_events(decode_events(content, "x.bin"), steps, "x.bin"))

    def packs(self, data: st.DataObject) -> None:
        """A pack whose columns are of other types, lengths and values, or whose headers lie under a right checksum."""
        events = np.arange(12)
        columns: dict[str, Any] = {
            "x": (events % 34).astype(np.uint8), "y": (events % 30).astype(np.uint8), "p": np.packbits(events % 2 == 0),
            "dt": events.astype(np.uint16), "offsets": np.array([0, 3, 6, 9, 12]), "labels": np.array([0, 1, 0, 1]),
            "ids": np.array([1, 2, 60_001, 60_002]),
        }  # fmt: skip
        for key in data.draw(st.lists(st.sampled_from(sorted(columns)), max_size=2, unique=True)):
            columns[key] = _column(data, columns[key])
        file = self._folder / "x.npz"
        with zipfile.ZipFile(file, "w", data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as archive:
            for key, column in columns.items():
                made = io.BytesIO()
                np.save(made, column, allow_pickle=True)  # as a forger would
                content = made.getvalue()
                archive.writestr(f"{key}.npy", mutated(data, content) if data.draw(st.integers(0, 9)) == 0 else content)
        if data.draw(st.integers(0, 3)) == 0:
            file.write_bytes(mutated(data, file.read_bytes()))

        def use() -> None:
            source = open_events(str(file), 2)
            source.test.images(np.arange(len(source.test.labels)))

        self._counts.told(use)

    def listings(self, data: st.DataObject) -> None:
        """A folder of images whose names, depth and annotations are anyone's."""
        root = self._folder / "d"
        shutil.rmtree(root, ignore_errors=True)
        content = io.BytesIO()
        Image.new("RGB", (SIDE, SIDE)).save(content, "PNG")
        for part in ("train", "val"):
            for name in ("n1", "n2"):
                (root / part / name).mkdir(parents=True)
                (root / part / name / "a.png").write_bytes(content.getvalue())
        for _ in range(data.draw(st.integers(0, 4))):
            place = root / data.draw(st.sampled_from(["train", "val", "train/n1", "val/n2", "val/images", "."]))
            _put(data, place / data.draw(_NAMES).replace("/", "|")[:80], content.getvalue())
        if data.draw(st.booleans()):
            if not os.path.lexists(root / "val" / "images"):
                (root / "val" / "images").mkdir()
                (root / "val" / "images" / "v.png").write_bytes(content.getvalue())
            (root / "val" / "val_annotations.txt").write_bytes(mutated(data, b"v.png\tn1\t0\t0\t5\t5\n"))

        def use() -> None:
            source = open_folder(str(root), data.draw(st.sampled_from([0, 8])))
            source.train.identify(lambda _: None)
            source.train.images(np.arange(len(source.train.labels)))

        self._counts.told(use)


def _quietly(call: Any) -> None:
    """What a picture makes Pillow warn of is said by Python, and is no error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()


def _png(data: st.DataObject, content: bytes) -> bytes:
    """A PNG whose chunks are changed, doubled or left out, each with its own right checksum."""
    found, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    names = st.sampled_from([b"tRNS", b"PLTE", b"zTXt", b"acTL", b"eXIf", b"iCCP"])
    more = data.draw(st.lists(st.tuples(names, st.binary()), max_size=2))
    place = data.draw(st.integers(0, len(found)))
    found[place:place] = more
    chosen = data.draw(st.integers(0, len(found) - 1))
    name, inner = found[chosen]
    raw = zlib.decompress(inner) if name == b"IDAT" else inner
    changed = mutated(data, raw)
    if name == b"IHDR":  # no sizes that Pillow takes seconds for
        changed = b"\0\0\0" + changed[3:4] + b"\0\0\0" + changed[7:]
    found[chosen] = (name, zlib.compress(changed) if name == b"IDAT" else changed)
    chunks = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in found)
    return content[:8] + b"".join(chunks)


def _column(data: st.DataObject, column: Any) -> Any:
    """Another column: of another type, rank or length, or with values that are not a pack's."""
    how = data.draw(st.integers(0, 4))
    if how == 0:
        kinds = ["uint8", "int8", "float32", "float16", "complex64", "bool", "<U3", "object", "M8[s]", ">u2", "uint64", "V3"]
        with np.errstate(all="ignore"):
            return np.zeros(len(column), data.draw(st.sampled_from(kinds)))
    if how == 1:
        return column[: data.draw(st.integers(0, len(column)))]
    if how == 2:
        return column.reshape(data.draw(st.sampled_from([(1, -1), (-1, 1), (-1,)])))
    if how == 3:
        return column[0]
    low, high = np.iinfo(column.dtype).min, np.iinfo(column.dtype).max
    column = column.copy()
    value = data.draw(st.one_of(st.sampled_from([low, high]), st.integers(low, high)))
    column[data.draw(st.integers(0, len(column) - 1))] = value
    return column


def _put(data: st.DataObject, path: Path, content: bytes) -> None:
    """Something at a place, where the system lets it be."""
    try:
        if os.path.lexists(path):
            return
        path.parent.mkdir(exist_ok=True)
        how = data.draw(st.integers(0, 4))
        if how == 0:
            path.mkdir()
        elif how == 1:
            path.symlink_to(data.draw(st.sampled_from(["/nowhere", ".", "..", "a.png", "../n1"])))
        elif how == 2:
            os.mkfifo(path)
        else:
            path.write_bytes(content if how == 3 else b"")
    except (OSError, ValueError):  # the name is taken, or none that can be
        pass
