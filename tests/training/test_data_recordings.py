"""Recordings of other cameras: files written byte by byte after the formats' descriptions, and what is read of them."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinspike.errors import SpecError
from twinspike_training import memory
from twinspike_training.data import DataConfig, Dataset, open_dataset
from twinspike_training.data.aedat import decode_aedat2, decode_aedat3
from twinspike_training.data.events import Grid, Recording, bin_events

Event = tuple[int, int, int, int]
"""Time, x, y from the top, polarity."""

EVENTS: list[Event] = [(10, 0, 0, 1), (11, 127, 5, 0), (11, 3, 127, 1), (400_000, 64, 63, 0)]

HEADER_2 = b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n# Timestamps tick is 1 us\r\n"
HEADER_3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-01-01 00:00:00 (TZ+0000)\r\n#!END-HEADER\r\n"


def aedat2(events: list[Event], others: int = 0) -> bytes:
    """Events of pixels, and before them some that come from elsewhere, bit 15."""
    rows = [struct.pack(">ii", 1 << 15, 0)] * others
    rows += [struct.pack(">ii", (127 - y) << 8 | x << 1 | p, t) for t, x, y, p in events]
    return HEADER_2 + b"".join(rows)


def packet(events: list[Event], kind: int = 1, overflow: int = 0, invalid: int = 0) -> bytes:
    words = [struct.pack("<Ii", x << 17 | y << 2 | p << 1 | (i >= invalid), t) for i, (t, x, y, p) in enumerate(events)]
    count = len(events)
    return struct.pack("<hhiiiiii", kind, 1, 8, 4, overflow, count, count, count - invalid) + b"".join(words)


def rows(found: Recording) -> list[Event]:
    return [(int(t), int(x), int(y), int(p)) for t, x, y, p in zip(*found, strict=True)]


def test_aedat_2_is_read_by_its_bits() -> None:
    assert rows(decode_aedat2(aedat2(EVENTS, others=2), "a")) == EVENTS


def test_aedat_3_is_read_by_its_packets() -> None:
    late = [(5, 1, 2, 1)]
    data = HEADER_3 + packet(EVENTS[:2], invalid=1) + packet(EVENTS, kind=2) + packet(EVENTS[2:]) + packet(late, overflow=1)
    assert rows(decode_aedat3(data, "a")) == [*EVENTS[1:], (2**31 + 5, 1, 2, 1)]
    assert rows(decode_aedat3(data, "a", 11, 400_000)) == EVENTS[1:3]
    assert rows(decode_aedat3(HEADER_3, "a")) == []


@pytest.mark.parametrize(
    ("decode", "data", "line"),
    [
        (decode_aedat2, aedat2(EVENTS)[:-1], "expected whole events of 8 bytes, got 31 bytes; it is truncated: copy it again"),
        (decode_aedat2, HEADER_3, "expected a file that begins with #!AER-DAT2.0, got '#!AER-DAT3.1'"),
        (decode_aedat2, b"", "expected a file that begins with #!AER-DAT2.0, got ''"),
        (decode_aedat3, HEADER_3[:30], "expected a header whose lines end, got one that does not; copy the file again"),
        (decode_aedat3, HEADER_3.replace(b"#!END", b"#END"), "expected the line #!END-HEADER, got none"),
        (decode_aedat3, HEADER_3 + packet(EVENTS)[:-1], "got a packet cut off at byte "),
        (decode_aedat3, HEADER_3 + packet(EVENTS)[:20], "got a packet cut off at byte "),
        (
            decode_aedat3,
            HEADER_3 + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, 2, 2),
            "expected packets of events, got 2 of 8 bytes",
        ),
        (decode_aedat3, HEADER_3 + struct.pack("<hhiiiiii", 1, 1, -8, 4, 0, 2, 2, 2), "expected packets of events, got 2 of -8"),
    ],
)
def test_what_is_damaged_is_one_line(decode: Any, data: bytes, line: str) -> None:
    with pytest.raises(SpecError) as caught:
        decode(data, "a")
    assert str(caught.value).startswith("a: ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pixels_are_joined_to_cells_and_none_is_lost() -> None:
    grid = Grid(180, 240, 45, 48)
    found = bin_events(Recording(*np.array([(0, 239, 179, 1), (1, 0, 0, 0), (1, 4, 3, 0)]).T), 1, "a", grid)
    assert found.shape == (1, 2, 45, 48)
    assert (found[0, 1, 44, 47], found[0, 0, 0, 0], found.sum()) == (1, 2, 3)
    with pytest.raises(SpecError, match="a, event 0: expected x 0 to 239 and y 0 to 179, got x = 240, y = 0"):
        bin_events(Recording(*np.array([(0, 240, 0, 1)]).T), 1, "a", grid)


def opened(path: Path, **changes: Any) -> Dataset:
    return open_dataset(DataConfig(name="recordings", path=str(path), workers=0, **changes), time_steps=2)


def drawn(seed: int, width: int, height: int) -> list[Event]:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 10_000, 30))
    return [(int(t), int(rng.integers(width)), int(rng.integers(height)), int(rng.integers(2))) for t in times]


def test_cifar10_dvs_is_split_by_the_numbers_in_its_names(tmp_path: Path) -> None:
    for label, name in enumerate(("airplane", "truck")):
        (tmp_path / name).mkdir()
        for i in range(11):
            (tmp_path / name / f"cifar10_{name}_{i}.aedat").write_bytes(aedat2(drawn(100 * label + i, 128, 128)))
    data = opened(tmp_path, size=16, augment=("crop", "flip"), test_share=0.2)
    assert (data.train_size, data.test_size, data.classes, data.input_shape) == (18, 4, ("airplane", "truck"), (2, 16, 16))
    frames, labels = next(iter(data.test_batches(4)))
    assert (frames.shape, labels.tolist()) == ((2, 4, 2, 16, 16), [0, 0, 1, 1])
    first = np.array(drawn(9, 128, 128))  # numbers 9 and 10 test, though 10 comes before 2 by its letters
    assert np.array_equal(frames[:, 0], bin_events(Recording(*first.T), 2, "a", Grid(128, 128, 16, 16)))
    varied = np.concatenate([images.sum((0, 2, 3, 4)) for images, _ in data.train_batches(0, 0, 6)])
    assert varied.max() <= 30  # a crop loses what it pushes out, and adds nothing


def test_n_caltech_is_read_with_its_sensor(tmp_path: Path) -> None:
    for label, name in enumerate(("ant", "wrench")):
        (tmp_path / name).mkdir()
        for i in range(3):
            words = [x << 32 | y << 24 | p << 23 | t for t, x, y, p in drawn(10 * label + i, 240, 180)]
            (tmp_path / name / f"image_{i:04d}.bin").write_bytes(b"".join(word.to_bytes(5, "big") for word in words))
    data = opened(tmp_path, sensor=(180, 240))
    assert (data.train_size, data.test_size, data.input_shape) == (4, 2, (2, 180, 240))
    frames, _ = next(iter(data.test_batches(2)))
    assert frames.sum() == 60
    with pytest.raises(SpecError, match=r"data\.sensor: expected height and width of the sensor"):
        opened(tmp_path)


def gestures(root: Path) -> Path:
    for user, part in ((1, "train"), (2, "train"), (3, "test")):
        name = f"user{user:02d}_led"
        events = [(1000 * user + t, x, y, p) for t, x, y, p in drawn(user, 128, 128)]
        (root / f"{name}.aedat").write_bytes(HEADER_3 + packet(events[:17]) + packet(events[17:]))
        middle = events[15][0]
        (root / f"{name}_labels.csv").write_text(
            f"class,startTime_usec,endTime_usec\n1,{1000 * user},{middle}\n11,{middle},{1000 * user + 10_000}\n"
        )
        with (root / f"trials_to_{part}.txt").open("a") as file:
            file.write(f"{name}.aedat\n")
    return root


def test_gestures_are_parts_of_recordings(tmp_path: Path) -> None:
    data = opened(gestures(tmp_path))
    assert (data.train_size, data.test_size, len(data.classes)) == (4, 2, 11)
    frames, labels = next(iter(data.test_batches(2)))
    assert labels.tolist() == [0, 10]
    assert frames.sum() == 30
    assert all(frames[:, i].sum() > 0 for i in range(2))
    same = opened(tmp_path).fingerprint
    assert data.fingerprint == same
    (tmp_path / "user03_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n2,3000,13000\n")
    assert opened(tmp_path).fingerprint != same


def test_a_broken_set_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected a folder of recordings, got nothing there"):
        opened(tmp_path / "none")
    with pytest.raises(SpecError, match=r"expected a folder of recordings for each class, or trials_to_train\.txt, got neither"):
        opened(tmp_path)
    gestures(tmp_path)
    table = tmp_path / "user01_led_labels.csv"
    for text, line in (
        ("class\n1\n", "expected class,startTime_usec,endTime_usec, got"),
        ("class,startTime_usec,endTime_usec\n0,1,2\n", "line 2: expected a class from 1, and where it begins and ends"),
        ("class,startTime_usec,endTime_usec\n1,2,2\n", "line 2: expected a class from 1"),
    ):
        table.write_text(text)
        with pytest.raises(SpecError, match=line):
            opened(tmp_path)
    table.write_text("class,startTime_usec,endTime_usec\n1,500000000,500000001\n")
    with pytest.raises(SpecError, match=r"user01_led\.aedat, 500000000 to 500000001 us: expected at least one event, got none"):
        list(opened(tmp_path).train_batches(0, 0, 3))
    (tmp_path / "trials_to_test.txt").write_text("../user03_led.aedat\n")
    with pytest.raises(SpecError, match=r"expected bare names of \.aedat files"):
        opened(tmp_path)


def published(root: Path, *, framed: bool, parts: tuple[str, ...] = ("train", "test")) -> Path:
    """Two classes of two samples in each part, as frames of 2 steps of 16 x 12 pixels or as events of that sensor."""
    for part in parts:
        for label, name in enumerate(("left", "right")):
            (root / part / name).mkdir(parents=True)
            for i in range(2):
                t, x, y, p = np.array(drawn(50 * label + i, 12, 16)).T
                file = root / part / name / f"{name}_{i}.npz"
                if framed:
                    frames = bin_events(Recording(t, x, y, p), 2, "a", Grid(16, 12, 16, 12))
                    np.savez_compressed(file, frames=frames.astype(np.uint8))
                else:
                    np.savez_compressed(file, t=t, x=x.astype(np.int16), y=y, p=p.astype(bool))
    return root


@pytest.mark.parametrize("size", [0, 8])
def test_frames_that_others_publish_are_those_of_the_events(tmp_path: Path, size: int) -> None:
    frames = opened(published(tmp_path / "frames", framed=True), size=size)
    events = opened(published(tmp_path / "events", framed=False), size=size, sensor=(16, 12))
    assert (frames.train_size, frames.test_size, frames.classes) == (4, 4, ("left", "right"))
    assert frames.input_shape == events.input_shape == (2, *((8, 8) if size else (16, 12)))
    for found, other in zip(frames.test_batches(3), events.test_batches(3), strict=True):
        assert all(map(np.array_equal, found, other))
    with pytest.raises(SpecError, match=r"expected 3 frames, as time_steps says, got 2; use time_steps = 2"):
        open_dataset(DataConfig(name="recordings", path=str(tmp_path / "frames")), time_steps=3)


def test_without_parts_the_last_files_of_each_class_test(tmp_path: Path) -> None:
    data = opened(published(tmp_path, framed=True, parts=(".",)))
    assert (data.train_size, data.test_size) == (2, 2)


def _claims(file: Path, **shapes: tuple[int, ...]) -> None:
    """A file whose arrays claim a shape and hold four bytes each."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, shape in shapes.items():
            head = io.BytesIO()
            np.lib.format.write_array_header_1_0(head, {"descr": "<i8", "fortran_order": False, "shape": shape})
            archive.writestr(f"{name}.npy", head.getvalue() + b"\0\0\0\0")


def test_hostile_npz_files_are_one_line(tmp_path: Path) -> None:
    file = published(tmp_path, framed=True) / "train" / "left" / "left_0.npz"
    wide = {"frames": (2, 2, 1 << 20, 1 << 20)}
    long = dict.fromkeys("txyp", (1 << 40,))
    for make, line in (
        (lambda: file.write_bytes(b"PK"), "can't be read as .npz: File is not a zip file; copy it again"),
        (
            lambda: np.savez(file, frames=np.array([{}], dtype=object)),
            "frames: expected numbers of shape (T, 2, height, width), got",
        ),
        (lambda: np.savez(file, other=np.zeros(3)), "expected an array frames, or t, x, y and p, got none named t, x, y, p"),
        (lambda: np.savez(file, frames=np.zeros((2, 3, 4, 4))), "expected numbers of shape (T, 2, height, width), got"),
        (lambda: _claims(file, **wide), "frames: expected as much as the file can hold, got int64 (2, 2, 1048576, 1048576)"),
        (lambda: _claims(file, **long), "t: expected as much as the file can hold, got int64 (1099511627776,) in a file of"),
    ):
        make()
        with pytest.raises(SpecError) as caught:
            opened(tmp_path)
        assert line in str(caught.value)
        assert "\n" not in str(caught.value)


def test_events_that_no_memory_holds_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = published(tmp_path, framed=False)
    data = opened(root, sensor=(16, 12))
    monkeypatch.setattr(memory, "machine_memory", lambda: 100)
    with pytest.raises(SpecError, match=r"_\d\.npz: needs at least .* of memory \(.* for [txyp]\), this machine has"):
        list(data.train_batches(0, 0, 4))


def test_damaged_samples_are_one_line_when_they_are_due(tmp_path: Path) -> None:
    frames = published(tmp_path / "frames", framed=True)
    np.savez(frames / "train" / "left" / "left_1.npz", frames=np.full((2, 2, 16, 12), -1.0))
    events = published(tmp_path / "events", framed=False)
    np.savez(events / "train" / "left" / "left_1.npz", t=np.arange(3), x=np.arange(3), y=np.arange(3), p=np.arange(3))
    for root, changes, line in (
        (frames, {}, "left_1.npz, frames: expected finite numbers >= 0"),
        (events, {"sensor": (16, 12)}, "left_1.npz, p: expected values 0 to 1, got 0 to 2"),
    ):
        with pytest.raises(SpecError, match=line):
            list(opened(root, **changes).train_batches(0, 0, 4))
