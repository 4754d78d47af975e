"""The 1797 handwritten digits of 8 x 8 pixels that come with scikit-learn: the data set that needs no download."""

from __future__ import annotations

import numpy as np

from twinspike.errors import SpecError
from twinspike.random import Stream
from twinspike_training.data.source import ArraySplit, Source

TRAIN = 1437
"""Training samples; the other 360 are for the test."""

MEAN, STD = (0.3045,), (0.3756,)
"""Of the training pixels, 16 levels being 1."""


def open_digits() -> Source:
    """Load the digits with their fixed split.

    The first 1437 samples in the order of `Stream(0, "split").permutation(1797)` train, the rest test; not
    stratified by class. Values 0 to 16 become value/16, minus 0.3045, over 0.3756: mean and deviation of the
    training pixels.

    Raises:
        SpecError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # noqa: PLC0415  # untyped, and slow to import
    except ModuleNotFoundError as error:
        raise SpecError(
            f"data.name 'digits': package {error.name!r} is not installed; install it with: pip install 'twinspike[train]'"
        ) from error
    bunch = load_digits()
    rows = bunch.data.astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    order = Stream(0, "split").permutation(len(rows))
    train, test = order[:TRAIN], order[TRAIN:]
    shape = (1, 8, 8)
    return Source(
        train=ArraySplit(rows[train], labels[train], shape),
        test=ArraySplit(rows[test], labels[test], shape),
        input_shape=shape,
        event=False,
        classes=tuple(str(name) for name in bunch.target_names),
        levels=16.0,
        mean=MEAN,
        std=STD,
    )
