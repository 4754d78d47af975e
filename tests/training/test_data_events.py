"""Event recordings: the 40-bit form, the pack, and their frames, against hand-made events."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinspike.errors import SpecError
from twinspike_training.data import DataConfig, Dataset, open_dataset
from twinspike_training.data.events import Recording, bin_events, decode_events

Event = tuple[int, int, int, int]
"""Time, x, y, polarity."""


def some_events(seed: int, count: int = 60) -> list[Event]:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(5, 300_000, count))
    return [(int(t), *(int(v) for v in rng.integers(0, 34, 2)), int(rng.integers(2))) for t in times]


def encode(events: list[Event]) -> bytes:
    words = (x << 32 | y << 24 | p << 23 | t for t, x, y, p in events)
    return b"".join(word.to_bytes(5, "big") for word in words)


def recording(events: list[Event]) -> Recording:
    time, x, y, polarity = np.array(events, dtype=np.int64).reshape(-1, 4).T
    return Recording(time, x, y, polarity)


def write_folders(root: Path) -> Path:
    for part, count in (("Train", 3), ("Test", 2)):
        for digit in range(2):
            folder = root / part / str(digit)
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i:05d}.bin").write_bytes(encode(some_events(100 * digit + 10 * (part == "Test") + i)))
    return root


def test_what_is_left_out_is_counted_and_said(tmp_path: Path) -> None:
    root = write_folders(tmp_path)
    one = root / "Train" / "0"
    (one / "deeper").mkdir()
    for name in ("notes.txt", "deeper/x.bin", "README"):
        (one / name).write_bytes(b"")
    (one / "gone.bin").symlink_to("nowhere")
    (one / "upper.BIN").write_bytes((one / "00000.bin").read_bytes())
    data = open_dataset(DataConfig(name="events", path=str(root), workers=0), time_steps=2)
    assert (data.train_size, data.test_size) == (7, 4)
    assert data.notes == (
        f"data.path {root}: 4 of 15 files left out: .txt 1, dead links 1, in deeper folders 1, without a suffix 1; "
        "samples are *.bin in class folders",
    )


def write_pack(file: Path, **changes: Any) -> Path:
    """The recordings of `write_folders`, in another order than by class."""
    keys = [(digit, test, i) for i in range(3) for digit in range(2) for test in (0, 1) if i < 3 - test]
    parts = [some_events(100 * digit + 10 * test + i) for digit, test, i in keys]
    time, x, y, p = (np.concatenate([recording(e)[k] for e in parts]) for k in range(4))
    lengths = [len(e) for e in parts]
    offsets = np.cumsum([0, *lengths])
    dt = np.diff(time, prepend=0)
    dt[offsets[:-1]] = time[offsets[:-1]]
    columns = {
        "x": x.astype(np.uint8),
        "y": y.astype(np.uint8),
        "p": np.packbits(p.astype(np.uint8)),
        "dt": dt.astype(np.uint16),
        "offsets": offsets.astype(np.uint32),
        "labels": np.array([digit for digit, _, _ in keys], dtype=np.uint8),
        "ids": np.array([60_001 * test + 10 * digit + i + 1 for digit, test, i in keys], dtype=np.uint32),
    }
    assert (dt == columns["dt"]).all()
    np.savez(file, **(columns | changes))
    return file


def opened(path: Path, time_steps: int = 3) -> Dataset:
    return open_dataset(DataConfig(name="events", path=str(path), workers=0), time_steps=time_steps)


@pytest.mark.parametrize("time_steps", [1, 3, 4, 7])
def test_frames_by_definition(time_steps: int) -> None:
    events = some_events(5)
    first, last = events[0][0], events[-1][0]
    expected = np.zeros((time_steps, 2, 34, 34))
    for t, x, y, p in events:
        expected[floor(Fraction((t - first) * time_steps, last - first + 1)), p, y, x] += 1
    frames = bin_events(recording(events), time_steps, "r")
    assert frames.dtype == np.float32
    assert np.array_equal(frames, expected)
    assert frames.sum() == len(events)


def test_windows_are_equal_and_closed_on_the_left() -> None:
    events = [(t, 0, 0, 1) for t in range(100, 108)]
    assert bin_events(recording(events), 4, "r")[:, 1, 0, 0].tolist() == [2, 2, 2, 2]
    assert bin_events(recording(events[:1] * 5), 4, "r")[:, 1, 0, 0].tolist() == [5, 0, 0, 0]


def test_forty_bits() -> None:
    time, x, y, polarity = decode_events(encode([(0x7FFFFF, 1, 33, 1), (0x012345, 33, 2, 0)]), "r")
    assert (time.tolist(), x.tolist(), y.tolist(), polarity.tolist()) == ([0x7FFFFF, 0x012345], [1, 33], [33, 2], [1, 0])


def test_overflow_of_the_clock() -> None:
    time, x, _, _ = decode_events(encode([(10, 1, 1, 1), (0, 0, 240, 0), (3, 2, 1, 1), (0, 0, 240, 0), (4, 3, 1, 0)]), "r")
    assert time.tolist() == [10, 8192 + 3, 2 * 8192 + 4]
    assert x.tolist() == [1, 2, 3]


def test_both_forms_agree(tmp_path: Path) -> None:
    folders, pack = opened(write_folders(tmp_path / "f")), opened(write_pack(tmp_path / "p.npz"))
    in_folder = opened(tmp_path)
    assert in_folder.fingerprint == pack.fingerprint != opened(tmp_path / "p.npz", 4).fingerprint
    for data in (folders, pack):
        assert (data.event, data.input_shape, data.classes) == (True, (2, 34, 34), ("0", "1"))
        assert (data.train_size, data.test_size) == (6, 4)
    for part in ("train", "test"):
        a, b = getattr(folders._source, part), getattr(pack._source, part)
        every = np.arange(len(a.labels))
        order = np.argsort(b.labels, kind="stable")
        assert np.array_equal(a.labels, b.labels[order])
        assert np.array_equal(a.images(every), b.images(every)[order])


def test_batches_put_time_first(tmp_path: Path) -> None:
    data = opened(write_folders(tmp_path))
    images, labels = next(iter(data.test_batches(3)))
    assert images.shape == (3, 3, 2, 34, 34)
    assert images.flags.c_contiguous
    assert labels.tolist() == [0, 0, 1]
    expected = bin_events(recording(some_events(110)), 3, "r")
    assert np.array_equal(images[:, 2], expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected at least one event, got none"),
        (encode(some_events(0))[:-1], "expected whole events of 5 bytes, got 299 bytes; it is truncated"),
        (encode([(1, 34, 0, 0)]), "event 0: expected x and y 0 to 33, got x = 34, y = 0"),
        (encode([(9, 1, 0, 0), (8, 1, 0, 0)]), "event 1: expected times that do not decrease, got 8 us after 9 us"),
    ],
)
def test_damaged_recording(tmp_path: Path, data: bytes, message: str) -> None:
    (write_folders(tmp_path) / "Train" / "1" / "00002.bin").write_bytes(data)
    with pytest.raises(SpecError, match=f"00002.bin.*{message}"):
        list(opened(tmp_path).train_batches(0, 0, 6))


def test_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"expected N-MNIST: a folder with Train and Test, or a .npz pack, got a folder without"):
        opened(tmp_path)
    with pytest.raises(SpecError, match="got nothing there"):
        opened(tmp_path / "none.npz")
    write_folders(tmp_path)
    (tmp_path / "Train" / "2").mkdir()
    with pytest.raises(SpecError, match=r"expected the same class folders in Train and Test, got 0, 1, 2 and 0, 1"):
        opened(tmp_path)
    (tmp_path / "Test" / "2").mkdir()
    with pytest.raises(SpecError, match=r"2: expected recordings \(\*.bin\), got none"):
        opened(tmp_path)
