"""How an evaluation goes through its samples."""

from __future__ import annotations

import pytest

from twinspike_training.evaluation import even


@pytest.mark.parametrize(("samples", "most", "size"), [(10_000, 128, 125), (360, 32, 30), (512, 512, 512), (1, 1, 1), (9, 4, 3)])
def test_batches_are_alike_where_that_is_to_be_had(samples: int, most: int, size: int) -> None:
    assert even(samples, most) == size


@pytest.mark.parametrize(("samples", "most"), [(10_007, 128), (7, 4), (14, 5), (5, 64)])
def test_elsewhere_they_are_as_large_as_they_may_be(samples: int, most: int) -> None:
    """No divisor is more than half of what may be; or there is one batch."""
    assert even(samples, most) == most
