"""Background work: order, bounds, errors and shutdown, of threads and of processes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from twinspike.errors import SpecError
from twinspike_training.data import DataConfig, Dataset, open_dataset
from twinspike_training.data.ordered import AHEAD, in_order


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("twinspike-data")]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_results_come_in_order(workers: int) -> None:
    def slow_first(i: int) -> int:
        time.sleep(0.005 * (i % 3 == 0))
        return i * i

    assert list(in_order(slow_first, range(20), workers)) == [i * i for i in range(20)]
    assert not threads()


@pytest.mark.parametrize("workers", [1, 3])
def test_work_ahead_is_bounded(workers: int) -> None:
    begun: list[int] = []
    results = in_order(begun.append, range(1000), workers)
    next(results)
    time.sleep(0.05)
    assert len(begun) <= AHEAD * workers + 1
    results.close()
    assert not threads()


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_come_where_their_result_was_due(workers: int) -> None:
    def fail_at_five(i: int) -> int:
        if i == 5:
            raise SpecError("sample 5: is damaged")
        return i

    results = in_order(fail_at_five, range(100), workers)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(SpecError, match=r"^sample 5: is damaged$"):
        next(results)
    assert not threads()


def test_an_interrupt_leaves_no_thread() -> None:
    def consume() -> None:
        for i in in_order(lambda i: i, range(1000), 3):
            if i == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert not threads()


def folder(root: Path) -> Path:
    for part in ("train", "val"):
        for name in "ab":
            (root / part / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (8, 8), (i, i, i)).save(root / part / name / f"{i}.png")
    return root


def processes(root: Path, workers: int = 1) -> Dataset:
    return open_dataset(DataConfig(name="folder", path=str(root), workers=workers), time_steps=1)


def test_a_process_passes_errors_on_and_goes_on(tmp_path: Path) -> None:
    with processes(folder(tmp_path)) as data:
        good = (tmp_path / "val" / "a" / "1.png").read_bytes()
        (tmp_path / "val" / "a" / "1.png").write_bytes(good[:50])
        with pytest.raises(SpecError, match=r"1.png: can't be decoded") as caught:
            list(data.test_batches(3))
        assert "\n" not in str(caught.value)
        (tmp_path / "val" / "a" / "1.png").write_bytes(good)
        assert sum(len(labels) for _, labels in data.test_batches(4)) == 6
    assert not threads()


def test_a_process_that_cannot_open_the_data_says_why(tmp_path: Path) -> None:
    with processes(folder(tmp_path)) as data:
        (tmp_path / "val").rename(tmp_path / "gone")
        with pytest.raises(SpecError, match="a folder with val or test beside train, got neither"):
            list(data.test_batches(3))


def test_a_process_that_dies_is_reported(tmp_path: Path) -> None:
    with processes(folder(tmp_path)) as data:
        next(iter(data.test_batches(3)))
        assert data._pool is not None
        (process,) = data._pool.processes
        process.kill()
        with pytest.raises(SpecError, match=r"data worker: ended by (signal 9|exit status 1) before its batch was done"):
            list(data.test_batches(3))
    with processes(tmp_path) as data:
        assert len(list(data.test_batches(3))) == 2


def test_closing_ends_the_processes_and_a_later_batch_starts_new_ones(tmp_path: Path) -> None:
    data = processes(folder(tmp_path), workers=2)
    data.close()
    for _ in range(2):
        assert len(list(data.train_batches(0, 0, 2))) == 3
        assert data._pool is not None
        running = data._pool.processes
        assert [process.poll() for process in running] == [None, None]
        data.close()
        assert [process.poll() for process in running] == [0, 0]


def test_processes_end_with_their_data_set(tmp_path: Path) -> None:
    data = processes(folder(tmp_path))
    list(data.test_batches(6))
    assert data._pool is not None
    (process,) = data._pool.processes
    del data
    assert process.poll() == 0
