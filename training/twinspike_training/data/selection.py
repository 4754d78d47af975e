"""Which samples of a split a run uses: parts of every class, drawn by the spec's streams, the same for every seed of a run.

Within a split the samples are put in the order of `Stream(0, "split", index=PART).permutation(N)`. The r-th sample of
its class in this order, r from 0, of a class of n, has the place (r + 1/2)/n; a part of m samples is the m with the
lowest places, equal ones in the drawn order. So each class gives its share to within one sample, and a larger part
holds a smaller one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twinspike.errors import require
from twinspike.random import Stream
from twinspike_training.data.config import DataConfig
from twinspike_training.data.source import Source

VALIDATION, LIMIT, TEST_LIMIT = 1, 2, 3
"""Index of the stream that draws each part; 0 is the split of the digits."""

Indices = NDArray[np.int64]


class Selection(NamedTuple):
    """Numbers of the samples in use, ascending."""

    train: Indices
    """In the source's training split."""
    validation: Indices
    """In the source's training split, none of `train`."""
    test: Indices
    """In the source's test split."""


def part(labels: NDArray[np.int64], size: int, index: int) -> NDArray[np.bool_]:
    """Which samples belong to a part of every class.

    Args:
        labels: (N,).
        size: of the part, 0 to N.
        index: of the stream.

    Returns:
        (N,), `size` of them true.
    """
    order = Stream(0, "split", index=index).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels[order] == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = np.zeros(len(labels), dtype=np.bool_)
    chosen[order[np.argsort(place, kind="stable")[:size]]] = True
    return chosen


def select(source: Source, config: DataConfig) -> Selection:
    """The samples that a config uses; the limit is one of what the validation part leaves.

    Raises:
        SpecError: the validation part leaves nothing to train on, or is a fraction that comes to no sample.
    """
    labels = source.train.labels
    wanted = config.validation
    held = wanted if isinstance(wanted, int) else round(wanted * len(labels))
    require(
        held < len(labels) and (held > 0 or wanted == 0),
        "data.validation",
        expected=f"a part of the {len(labels)} training samples that leaves some",
        got=wanted,
    )
    validation = part(labels, held, VALIDATION)
    rest = np.flatnonzero(~validation)
    return Selection(
        train=rest[_limited(labels[rest], config.limit, LIMIT)],
        validation=np.flatnonzero(validation),
        test=_limited(source.test.labels, config.test_limit, TEST_LIMIT),
    )


def _limited(labels: NDArray[np.int64], limit: int, index: int) -> Indices:
    if not 0 < limit < len(labels):
        return np.arange(len(labels))
    return np.flatnonzero(part(labels, limit, index))
