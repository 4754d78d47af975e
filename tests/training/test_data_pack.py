"""A pack of events is believed only as far as it was checked, and nothing is allocated before."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinspike.errors import SpecError
from twinspike_training.data import DataConfig, open_dataset
from twinspike_training.data import pack as pack_module
from twinspike_training.data.events import SIDE, open_events
from twinspike_training.data.pack import KEYS, read_pack


def columns(recordings: int = 20, each: int = 31) -> dict[str, Any]:
    """A small pack; ids of the last five are those of tests."""
    rng, events = np.random.default_rng(0), recordings * each
    return {
        "x": rng.integers(0, SIDE, events).astype(np.uint8),
        "y": rng.integers(0, SIDE, events).astype(np.uint8),
        "p": np.packbits(rng.integers(0, 2, events).astype(bool)),
        "dt": rng.integers(0, 900, events).astype(np.uint16),
        "offsets": np.arange(0, events + 1, each),
        "labels": np.arange(recordings) % 10,
        "ids": np.r_[np.arange(1, recordings - 4), 60_000 + np.arange(1, 6)],
    }


def write(file: Path, **changes: Any) -> Path:
    np.savez_compressed(file, **(columns() | changes))
    return file


def test_a_whole_pack(tmp_path: Path) -> None:
    pack = read_pack(write(tmp_path / "p.npz"), SIDE)
    assert pack.offsets.tolist() == list(range(0, 621, 31))
    assert np.array_equal(np.packbits(pack.polarity(0, 620)), columns()["p"])
    source = open_events(str(tmp_path / "p.npz"), 3)
    assert (len(source.train.labels), len(source.test.labels), len(source.classes)) == (15, 5, 10)


ONE = "expected one dimension of"
BROKEN: dict[str, tuple[str, Any, str]] = {
    "coordinates as float": ("x", np.zeros(620), f"x: {ONE} uint8, got float64 (620,); copy it again"),
    "coordinates as int8": ("y", np.zeros(620, np.int8), f"y: {ONE} uint8, got int8 (620,)"),
    "times as int16": ("dt", np.zeros(620, np.int16), f"dt: {ONE} uint16, got int16 (620,)"),
    "times in another byte order": ("dt", np.zeros(620, ">u2").astype(">u2"), ""),
    "polarity as booleans": ("p", np.zeros(620, bool), f"p: {ONE} uint8, got bool (620,)"),
    "labels as float": ("labels", np.zeros(20), f"labels: {ONE} whole numbers, got float64 (20,)"),
    "labels as objects": ("labels", np.array([None] * 20), f"labels: {ONE} whole numbers, got object (20,)"),
    "labels as text": ("labels", np.array(["1"] * 20), f"labels: {ONE} whole numbers, got <U1 (20,)"),
    "labels of two dimensions": ("labels", np.zeros((20, 1), int), f"labels: {ONE} whole numbers, got int64 (20, 1)"),
    "a label alone": ("labels", np.int64(3), f"labels: {ONE} whole numbers, got int64 ()"),
    "a column too short": ("y", np.zeros(3, np.uint8), "y: expected 620 entries, as x and labels have, got 3; copy it again"),
    "bits too many": ("p", np.zeros(79, np.uint8), "p: expected 78 entries, as x and labels have, got 79"),
    "offsets too few": ("offsets", np.arange(20), "offsets: expected 21 entries, as x and labels have, got 20"),
    "no recordings": ("labels", np.zeros(0, int), "offsets: expected 1 entries, as x and labels have, got 21"),
    "offsets that end early": ("offsets", np.r_[0:620:31, 619], "offsets: expected from 0 to 620, the events, got (0, 619)"),
    "offsets that start late": ("offsets", np.r_[1, 31:621:31], "offsets: expected from 0 to 620, the events, got (1, 620)"),
    "an empty recording": ("offsets", np.r_[0, 31, 31, 93:621:31], "offsets: expected growing ones, got 0 at 1; every"),
    "offsets that fall": ("offsets", np.r_[0, 62, 31, 93:621:31], "offsets: expected growing ones, got -31 at 1"),
    "offsets below 0": ("offsets", np.r_[-1, 31:621:31], "offsets: expected values 0 to 9223372036854775807, got -1 to 620"),
    "labels below 0": ("labels", np.r_[-1, 1:20], "labels: expected values 0 to 65535, got -1 to 19"),
    "labels without bound": ("labels", np.full(20, 2**62), "labels: expected values 0 to 65535, got 4611686018427387904 to"),
    "ids beyond int64": ("ids", np.arange(2**63, 2**63 + 20, dtype=np.uint64), "ids: expected values 0 to 9223372036854775807"),
    "ids twice": ("ids", np.r_[1, 1:15, 60_001:60_006], "ids: expected different ones, got 19 of 20"),
    "a column outside the sensor": ("x", np.r_[np.zeros(619), 34].astype(np.uint8), "x: expected 0 to 33, got 34 at event 619"),
    "a row outside the sensor": ("y", np.full(620, 255, np.uint8), "y: expected 0 to 33, got 255 at event 0"),
    "training alone": ("ids", np.arange(1, 21), "p.npz: expected recordings of both parts, got 20 and 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_pack_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    key, value, message = BROKEN[case]
    file = write(tmp_path / "p.npz", **{key: value})
    if not message:
        assert open_events(str(file), 2).event
        return
    with pytest.raises(SpecError, match=re.escape(message)) as caught:
        open_events(str(file), 2)
    assert str(caught.value).count(str(file)) == 1
    assert "\n" not in str(caught.value)


def lying(file: Path, key: str, shape: tuple[int, ...], dtype: str, content: bytes = b"") -> Path:
    """A pack in which one array's header claims another size than it has."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, column in columns().items():
            stream = io.BytesIO()
            if name == key:
                head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
                stream.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content)
            else:
                np.save(stream, np.asarray(column))
            archive.writestr(f"{name}.npy", stream.getvalue())
    return file


@pytest.mark.parametrize(
    ("key", "shape", "dtype", "message"),
    [
        ("x", (10**13,), "|u1", "y: expected 10000000000000 entries, as x and labels have, got 620"),
        ("labels", (10**15,), "<i8", "offsets: expected 1000000000000001 entries, as x and labels have, got 21"),
        ("dt", (10**12,), "<u2", "dt: expected 620 entries"),
        ("x", (620,), "|u1", "can't be read as a .npz pack"),
        ("x", (-1,), "|u1", "x: expected"),
        ("x", (620,), "|O", "x: expected one dimension of uint8, got object (620,)"),
    ],
)
def test_a_header_that_lies_allocates_nothing(tmp_path: Path, key: str, shape: tuple[int, ...], dtype: str, message: str) -> None:
    file = lying(tmp_path / "p.npz", key, shape, dtype)
    tracemalloc.start()
    with pytest.raises(SpecError, match=re.escape(message)):
        open_events(str(file), 2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_header_without_end_is_not_read(tmp_path: Path) -> None:
    file = write(tmp_path / "p.npz")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in KEYS:
            archive.writestr(f"{key}.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 100 << 20) + b" " * (100 << 20))
            break
        for key in KEYS[1:]:
            archive.writestr(f"{key}.npy", b"")
    tracemalloc.start()
    with pytest.raises(SpecError, match=r"p.npz: can't be read as a .npz pack: EOF: reading array header"):
        read_pack(file, SIDE)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_a_pack_larger_than_the_disk_is_refused_by_its_headers(tmp_path: Path) -> None:
    events = 10**14
    lengths = {"x": (events, "|u1"), "y": (events, "|u1"), "p": (events // 8, "|u1"), "dt": (events, "<u2"),
               "offsets": (21, "<i8"), "labels": (20, "<i8"), "ids": (20, "<i8")}  # fmt: skip
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        for key, (length, dtype) in lengths.items():
            head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({length},), }}".encode().ljust(117) + b"\n"
            archive.writestr(f"{key}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
    with pytest.raises(SpecError, match=r"p.npz: expected room for 375 TiB of events in .*, where they are unpacked, got"):
        read_pack(tmp_path / "p.npz", SIDE)


@pytest.fixture
def by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """No event is kept in memory, and pieces are small."""
    monkeypatch.setattr(pack_module, "BUDGET", 0)
    monkeypatch.setattr(pack_module, "_PIECE", 97)


def test_events_read_by_their_index_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples in their order, bit for bit, and the fingerprint by which a run knows its data."""

    def seen() -> tuple[str, list[Any]]:
        config = DataConfig(name="events", path=str(write(tmp_path / "p.npz")), workers=0, augment=("crop", "flip"))
        with open_dataset(config, time_steps=3) as data:
            return data.fingerprint, [*data.train_batches(3, 1, 4), *data.test_batches(4)]

    whole = seen()
    monkeypatch.setattr(pack_module, "BUDGET", 0)
    monkeypatch.setattr(pack_module, "_PIECE", 97)
    parts = seen()
    assert parts[0] == whole[0]
    for (images, labels), (others, their) in zip(whole[1], parts[1], strict=True):
        assert images.tobytes() == others.tobytes()
        assert np.array_equal(labels, their)


def test_events_beyond_the_budget_are_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = columns(recordings=20, each=200_000)
    np.savez(tmp_path / "p.npz", **events)
    monkeypatch.setattr(pack_module, "BUDGET", 1 << 20)
    tracemalloc.start()
    read = read_pack(tmp_path / "p.npz", SIDE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20 < sum(events[key].nbytes for key in ("x", "y", "p", "dt"))
    assert all(np.array_equal(column, events[key]) for key, column in (("x", read.x), ("dt", read.dt), ("p", read.bits)))


def test_what_is_damaged_is_one_line_where_events_are_read_by_index(tmp_path: Path, by_index: None) -> None:
    content = write(tmp_path / "p.npz").read_bytes()
    for end in range(0, len(content), 211):
        (tmp_path / "cut.npz").write_bytes(content[:end])
        with pytest.raises(SpecError, match=r"cut.npz"):
            read_pack(tmp_path / "cut.npz", SIDE)
    with pytest.raises(SpecError, match="x: expected 0 to 33, got 34 at event 619"):
        read_pack(write(tmp_path / "p.npz", x=np.r_[np.zeros(619), 34].astype(np.uint8)), SIDE)
    with pytest.raises(SpecError, match=r"can't be read as a .npz pack: EOF: reading array data, 620 bytes are missing"):
        read_pack(lying(tmp_path / "l.npz", "x", (620,), "|u1"), SIDE)


def test_what_is_no_pack(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(SpecError, match=r"a.npz: can't be read as a .npz pack: File is not a zip file; copy it again"):
        read_pack(tmp_path / "a.npz", SIDE)
    np.savez(tmp_path / "b.npz", x=np.zeros(1))
    with pytest.raises(SpecError, match=rf"b.npz: expected arrays {', '.join(KEYS)}, got none named y, p, dt"):
        read_pack(tmp_path / "b.npz", SIDE)


def test_every_cut_of_a_pack_is_one_line(tmp_path: Path) -> None:
    content = write(tmp_path / "p.npz").read_bytes()
    for end in range(0, len(content), 41):
        (tmp_path / "cut.npz").write_bytes(content[:end])
        with pytest.raises(SpecError, match=r"cut.npz"):
            read_pack(tmp_path / "cut.npz", SIDE)


def test_every_altered_byte_is_seen_or_is_none_of_the_arrays(tmp_path: Path) -> None:
    content = write(tmp_path / "p.npz").read_bytes()
    whole = read_pack(tmp_path / "p.npz", SIDE)
    for place in range(0, len(content), 7):
        altered = bytearray(content)
        altered[place] ^= 0x55
        (tmp_path / "x.npz").write_bytes(altered)
        try:
            found = read_pack(tmp_path / "x.npz", SIDE)
        except SpecError:
            continue
        assert all(np.array_equal(a, b) for a, b in zip(found, whole, strict=True)), place
