"""Epochs of batches: order, resumption, and the same numbers from any number and kind of workers."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from twinspike.config import decode, encode
from twinspike.errors import SpecError
from twinspike.random import Stream
from twinspike_training.data import Batch, DataConfig, Dataset, open_dataset

VARIED = ("crop", "flip", "cutout")


def digits(**fields: object) -> Dataset:
    return open_dataset(decode(DataConfig, fields), time_steps=4)


def same(first: list[Batch], second: list[Batch]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in pairs)


def test_digits() -> None:
    data = digits()
    assert (data.input_shape, data.event, data.train_size, data.test_size) == ((1, 8, 8), False, 1437, 360)
    assert data.classes == tuple("0123456789")
    assert data.fingerprint == digits(augment=VARIED, workers=0).fingerprint != digits(limit=1436).fingerprint
    images, labels = zip(*data.test_batches(100), strict=True)
    assert [len(part) for part in labels] == [100, 100, 100, 60]
    assert all(part.dtype == np.float32 and part.shape[1:] == (1, 8, 8) for part in images)
    assert all(part.dtype == np.int64 for part in labels)


def test_order_and_dropped_rest() -> None:
    """RND-3."""
    data = digits(workers=0)
    assert data.steps_per_epoch(200) == 7
    batches = list(data.train_batches(3, 5, 200))
    order = Stream(3, "order", 5).permutation(1437)[:1400]
    assert np.array_equal(np.concatenate([labels for _, labels in batches]), data._source.train.labels[order])
    raw = data._source.train.images(order).astype(np.float32)
    expected = (raw - np.float32(16 * 0.3045)) * np.float32(1 / (16 * 0.3756))
    assert np.array_equal(np.concatenate([images for images, _ in batches]), expected)
    assert not same(batches, list(data.train_batches(3, 6, 200)))
    assert not same(batches, list(data.train_batches(4, 5, 200)))


def test_each_sample_is_varied_by_its_own_stream() -> None:
    data = digits(workers=0, augment=VARIED, limit=60)

    def by_sample(batch_size: int, epoch: int) -> dict[int, bytes]:
        order = Stream(1, "order", epoch).permutation(60)
        images = np.concatenate([images for images, _ in data.train_batches(1, epoch, batch_size)])
        return {int(i): image.tobytes() for i, image in zip(order, images, strict=True)}

    assert by_sample(60, 0) == by_sample(15, 0) == by_sample(1, 0)
    assert sum(a == b for a, b in zip(by_sample(60, 0).values(), by_sample(60, 1).values(), strict=True)) < 10


def test_a_sample_is_varied_by_ten_uniforms_each_at_its_place() -> None:
    """RND-4, from its words; digits are 8 x 8, so p = q = 1."""
    plain, varied = (digits(workers=0, augment=augment, limit=12) for augment in ((), VARIED))
    used = plain._used.train
    raw = {int(i): plain._source.train.images(np.array([i]))[0, 0] for i in used}
    images = np.concatenate([images for images, _ in varied.train_batches(9, 4, 3)])
    for i, image in zip(used[Stream(9, "order", 4).permutation(12)].tolist(), images, strict=True):
        u = Stream(9, "augment", 4, i).uniform(10)
        y, x = (int(np.floor(a * 3)) for a in u[:2])
        want = np.pad(raw[i], 1)[y : y + 8, x : x + 8].astype(np.float32)
        want = want[:, ::-1] if u[2] < 0.5 else want
        want = (want - np.float32(16 * 0.3045)) * np.float32(1 / (16 * 0.3756))
        row, column = (int(np.floor(a * 8)) for a in u[8:])
        want[max(0, row - 2) : row + 2, max(0, column - 2) : column + 2] = 0
        assert np.array_equal(image[0], want)


@pytest.mark.parametrize("start", [0, 1, 6, 7])
def test_start_skips_batches(start: int) -> None:
    data = digits(augment=VARIED)
    whole = list(data.train_batches(0, 2, 200))
    assert same(list(data.train_batches(0, 2, 200, start=start)), whole[start:])


def test_workers_change_nothing() -> None:
    expected = list(digits(augment=VARIED, workers=0).train_batches(9, 1, 100))
    expected_test = list(digits(workers=0).test_batches(100))
    for workers, worker in ((1, "thread"), (5, "thread"), (2, "process")):
        with digits(augment=VARIED, workers=workers, worker=worker) as data:
            assert same(list(data.train_batches(9, 1, 100)), expected), (workers, worker)
            assert same(list(data.test_batches(100)), expected_test), (workers, worker)


def test_train_and_test_may_be_read_side_by_side() -> None:
    data = digits()
    train, test = list(data.train_batches(0, 0, 90)), list(data.test_batches(90))
    mixed = zip(data.train_batches(0, 0, 90), data.test_batches(90), strict=False)
    for i, (a, b) in enumerate(mixed):
        assert same([a, b], [train[i], test[i]])


@pytest.mark.parametrize("field", [{"mean": [1e308]}, {"std": [1e-300]}, {"std": [1e308]}])
def test_a_mean_and_a_deviation_are_ones_that_can_be_computed_with(field: dict[str, list[float]]) -> None:
    (name,) = field
    with pytest.raises(SpecError, match=f"^data.{name}: expected numbers that float32 holds"):
        digits(**field)


def test_test_samples_are_never_varied() -> None:
    assert same(list(digits(augment=VARIED).test_batches(70)), list(digits(augment="none").test_batches(70)))


def test_no_batch_shares_memory_with_the_data() -> None:
    data = digits(workers=0)
    first = next(iter(data.test_batches(360)))
    kept = first[0].copy(), first[1].copy()
    first[0][:] = 0
    first[1][:] = 0
    assert same([next(iter(data.test_batches(360)))], [kept])
    batches = [images for images, _ in data.train_batches(0, 0, 100)]
    assert not any(np.shares_memory(a, b) for a, b in pairwise(batches))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 1438, 0), "batch_size: expected 1 to 1437, the number of training samples, got 1438"),
        ((0, 0, 0, 0), "batch_size: expected 1 to 1437"),
        ((-1, 0, 10, 0), "seed: expected 0 to 2^64 - 1, got -1"),
        ((0, -1, 10, 0), "epoch: expected 0 or more, got -1"),
        ((0, 0, 200, 8), "start: expected 0 to 7, the batches of an epoch, got 8"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(arguments: tuple[int, int, int, int], message: str) -> None:
    seed, epoch, batch_size, start = arguments
    with pytest.raises(SpecError, match=re.escape(message)):
        digits().train_batches(seed, epoch, batch_size, start=start)


def test_wrong_test_batch_and_time_steps() -> None:
    with pytest.raises(SpecError, match="batch_size: expected 1 or more, got 0"):
        digits().test_batches(0)
    with pytest.raises(SpecError, match="time_steps: expected a whole number >= 1, got 0"):
        open_dataset(DataConfig(), time_steps=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "mnist"}, "Invalid enum value 'mnist'"),
        ({"path": "here"}, "data.path: expected nothing with data.name = 'digits', got here"),
        ({"name": "cifar10"}, "data.path: expected where cifar10 lies, got nothing"),
        ({"size": 32}, "data.size: expected 0, or 8 to 1024 with data.name = 'folder' or 'recordings', got 32"),
        ({"name": "folder", "path": "x", "size": 7}, "data.size"),
        ({"workers": 65}, "data.workers: expected 0 to 64, got 65"),
        ({"limit": -1}, "data.limit: expected 0 or more, got -1"),
        ({"test_limit": -1}, "data.test_limit: expected 0 or more, got -1"),
        ({"validation": -1}, "data.validation: expected a whole number >= 0, or a fraction in (0, 1), got -1"),
        ({"validation": 1.0}, "data.validation: expected a whole number >= 0, or a fraction in (0, 1), got 1.0"),
        ({"validation": float("nan")}, "data.validation"),
        ({"validation": True}, "data.validation"),
        ({"worker": "fork"}, "Invalid enum value 'fork'"),
        ({"augment": ["crop", "crop"]}, "data.augment: expected different policies among crop, flip, autoaugment, cutout"),
        ({"augment": ["mixup"]}, "augment"),
        ({"augment": ["autoaugment"]}, "data.augment: expected no autoaugment with data.name = 'digits'"),
    ],
)
def test_wrong_configs(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        decode(DataConfig, fields, "data")


def test_config_resolves_auto() -> None:
    cifar = DataConfig(name="cifar10", path="x")
    assert cifar.policies() == {"crop", "flip", "autoaugment", "cutout"}
    assert cifar.worker_processes()
    assert not DataConfig(name="cifar10", path="x", workers=0).worker_processes()
    assert not DataConfig(name="cifar10", path="x", augment=("crop", "flip")).worker_processes()
    assert not DataConfig(name="cifar10", path="x", worker="thread").worker_processes()
    assert not DataConfig().worker_processes()
    assert DataConfig(augment="none").policies() == DataConfig().policies() == frozenset()
    assert DataConfig(name="folder", path="x").policies() == {"crop", "flip"}
    assert decode(DataConfig, encode(cifar)) == cifar
