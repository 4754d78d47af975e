"""Augmentation draws of whole batches are the spec's streams, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twinspike.random import Stream
from twinspike_training.data.draws import augment_uniforms

WORD = st.integers(0, 2**64 - 1)


@example(seed=2**64 - 1, epoch=2**64 - 1, indices=[0, 2**63 - 1], size=10)
@example(seed=0, epoch=0, indices=[0], size=1)
@given(seed=WORD, epoch=WORD, indices=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5), size=st.integers(1, 13))
def test_equal_streams(seed: int, epoch: int, indices: list[int], size: int) -> None:
    drawn = augment_uniforms(seed, epoch, np.array(indices), size)
    expected = np.stack([Stream(seed, "augment", epoch, i).uniform(size) for i in indices])
    assert np.array_equal(drawn, expected)


@pytest.mark.parametrize("size", [3, 4, 5, 8])
def test_more_draws_do_not_change_the_first(size: int) -> None:
    many = augment_uniforms(7, 3, np.arange(6), 12)
    assert np.array_equal(augment_uniforms(7, 3, np.arange(6), size), many[:, :size])
