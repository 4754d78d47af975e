"""The parts of a data set that a run uses: of every class its share, disjoint, and drawn by the spec's stream."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinspike.config import decode
from twinspike.errors import SpecError
from twinspike.random import Stream
from twinspike_training.data import DataConfig, Dataset, open_dataset
from twinspike_training.data.selection import part


def digits(**fields: object) -> Dataset:
    return open_dataset(decode(DataConfig, {"workers": 0, **fields}), time_steps=4)


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=6), share=st.floats(0, 1), index=st.integers(1, 3))
def test_a_part_holds_the_share_of_every_class(counts: list[int], share: float, index: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)  # sorted by class, as folders are
    size = round(share * len(labels))
    chosen = part(labels, size, index)
    assert chosen.sum() == size
    of_class = np.bincount(labels[chosen], minlength=len(counts))
    assert np.all(np.abs(of_class - size * np.array(counts) / len(labels)) <= 1)


def test_a_part_is_the_first_of_each_class_in_the_drawn_order() -> None:
    labels = np.tile(np.arange(5), 20)
    order = Stream(0, "split", index=2).permutation(100)
    first = [order[labels[order] == label][:3] for label in range(5)]
    assert np.array_equal(np.flatnonzero(part(labels, 15, 2)), np.sort(np.concatenate(first)))


def test_a_larger_part_holds_a_smaller_one() -> None:
    labels = np.repeat([0, 1, 2], [7, 30, 11])
    parts = [part(labels, size, 1) for size in range(49)]
    assert all(np.all(smaller <= larger) for smaller, larger in pairwise(parts))


def samples(data: Dataset, which: str) -> NDArray[np.int64]:
    return np.asarray(getattr(data._used, which))


def test_training_validation_and_test_are_disjoint_and_as_large_as_asked() -> None:
    data = digits(validation=0.1, limit=200, test_limit=50)
    assert (data.train_size, data.validation_size, data.test_size) == (200, 144, 50)
    assert not set(samples(data, "train")) & set(samples(data, "validation"))
    assert sum(len(labels) for _, labels in data.test_batches(32)) == 50
    held = np.concatenate([labels for _, labels in data.test_batches(32, "validation")])
    assert np.array_equal(held, data._source.train.labels[samples(data, "validation")])
    whole = digits(validation=144)
    assert np.array_equal(samples(whole, "validation"), samples(data, "validation"))
    assert (whole.train_size, whole.test_size) == (1437 - 144, 360)
    ((_, labels),) = data.train_batches(0, 0, 200)
    assert np.array_equal(np.sort(labels), np.sort(data._source.train.labels[samples(data, "train")]))
    assert np.ptp(np.bincount(labels)) <= 3
    assert digits(limit=5000).train_size == 1437


def test_held_out_samples_are_not_varied() -> None:
    varied, plain = (digits(validation=20, augment=augment) for augment in (["crop", "flip", "cutout"], "none"))
    for a, b in zip(varied.test_batches(20, "validation"), plain.test_batches(20, "validation"), strict=True):
        assert np.array_equal(a[0], b[0])


def test_a_sample_is_varied_alike_whatever_the_limit() -> None:
    def by_sample(data: Dataset) -> dict[int, bytes]:
        order = samples(data, "train")[Stream(1, "order", 3).permutation(data.train_size)]
        images = np.concatenate([images for images, _ in data.train_batches(1, 3, data.train_size)])
        return {int(i): image.tobytes() for i, image in zip(order, images, strict=True)}

    few, all_ = by_sample(digits(augment=["crop", "flip"], limit=30)), by_sample(digits(augment=["crop", "flip"]))
    assert all(all_[i] == image for i, image in few.items())


def test_parts_are_told_apart_by_the_fingerprint() -> None:
    found = {digits(**fields).fingerprint for fields in ({}, {"limit": 9}, {"test_limit": 9}, {"validation": 9})}
    assert len(found) == 4


@pytest.mark.parametrize(("part", "got"), [(1437, "1437"), (0.9999, "0.9999"), (1e-9, "1e-09")])
def test_a_validation_part_leaves_something_and_holds_something(part: float, got: str) -> None:
    message = f"data.validation: expected a part of the 1437 training samples that leaves some, got {got}"
    with pytest.raises(SpecError, match=re.escape(message)):
        digits(validation=part)
