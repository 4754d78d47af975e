"""The samples that don't fill a last batch: left out, or a smaller batch, and the same after a resumption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_runs import assert_equal_runs, lines, quiet, train

from twinspike.errors import SpecError
from twinspike.random import Stream
from twinspike_training import loop
from twinspike_training.data import DataConfig, open_dataset
from twinspike_training.run import read_config


def test_the_last_batch_holds_the_rest() -> None:
    data = open_dataset(DataConfig(limit=100, workers=0), time_steps=1)
    assert (data.steps_per_epoch(30), data.steps_per_epoch(30, drop_last=False), data.steps_per_epoch(50, drop_last=False)) == (
        3,
        4,
        2,
    )
    whole, cut = list(data.train_batches(1, 2, 30, drop_last=False)), list(data.train_batches(1, 2, 30))
    assert [len(labels) for _, labels in whole] == [30, 30, 30, 10]
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(whole, cut, strict=False))
    order = data._used.train[Stream(1, "order", 2).permutation(100)]
    assert np.array_equal(np.concatenate([labels for _, labels in whole]), data._source.train.labels[order])
    (last,) = data.train_batches(1, 2, 30, start=3, drop_last=False)
    assert np.array_equal(last[0], whole[3][0])


def test_a_last_batch_of_one_is_refused() -> None:
    data = open_dataset(DataConfig(limit=91, workers=0), time_steps=1)
    assert data.steps_per_epoch(30) == 3
    with pytest.raises(
        SpecError, match=r"training.drop_last: expected true where the last of batches of 30 would be one sample, got"
    ):
        data.steps_per_epoch(30, drop_last=False)


def test_a_run_keeps_the_last_batch_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    sets = ("data.limit=60", "training.drop_last=false")
    whole = train(tmp_path, "name=whole", *sets)
    assert [line["samples"] for line in lines(whole.folder) if line["kind"] == "step"] == [24, 24, 12] * 2
    part = train(tmp_path, "name=part", *sets, "training.max_steps=3")
    loop.resume(part.folder, read_config(part.folder, ["training.max_steps=0"]), quiet())
    assert_equal_runs(whole.folder, part.folder)


def test_a_resumed_run_keeps_what_it_does_with_the_rest(tmp_path: Path) -> None:
    run = train(tmp_path, "data.limit=60", "training.epochs=1")
    with pytest.raises(SpecError, match=r"training.drop_last: a resumed run keeps True, got False"):
        loop.resume(run.folder, read_config(run.folder, ["training.drop_last=false"]), quiet())
