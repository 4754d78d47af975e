"""Short runs, and the part that the best epoch is chosen on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_runs import lines, quiet, tiny, train
from typer.testing import CliRunner

from twinspike_training import checkpoint, loop
from twinspike_training.commands import app
from twinspike_training.run import read_config

SETS = "training.batch_size=24 data.limit=96 data.test_limit=40 method.time_steps=2 width=2 data.workers=0 training.epochs=2"


@pytest.mark.parametrize("most", [1, 4, 6])
def test_a_run_cut_by_max_steps_is_tested_saved_and_goes_on_bit_for_bit(tmp_path: Path, most: int) -> None:
    whole = train(tmp_path, "name=whole")
    cut = train(tmp_path, "name=cut", f"training.max_steps={most}")
    assert (cut.finished, cut.steps) == (True, most)
    assert cut.last is not None
    assert (cut.last["step"], cut.last["epoch"]) == (most, most // 4)
    header = checkpoint.load(cut.folder.checkpoint("last")).header
    assert (header.epoch, header.step, header.steps) == (most // 4, most % 4, most)
    again = loop.resume(cut.folder, read_config(cut.folder), quiet())
    assert (again.finished, again.steps, again.last) == (True, most, None)
    loop.resume(cut.folder, read_config(cut.folder, ["training.max_steps=0"]), quiet())
    of_both = [[line for line in lines(run.folder) if line["kind"] == "step"] for run in (whole, cut)]
    assert of_both[0] == of_both[1]
    states = [checkpoint.load(run.folder.checkpoint("last")).state for run in (whole, cut)]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_max_steps_beyond_the_epochs_ends_nothing(tmp_path: Path) -> None:
    assert train(tmp_path, "training.max_steps=100").steps == 8


def test_best_is_chosen_on_the_samples_held_out(tmp_path: Path) -> None:
    outcome = train(tmp_path, "data.validation=40", "training.epochs=4", "data.test_limit=40")
    tests = [line for line in lines(outcome.folder) if line["kind"] == "epoch"]
    assert all(line["validation"]["samples"] == line["samples"] == 40 for line in tests)
    best = max(tests, key=lambda line: float(line["validation"]["accuracy_snn"]))
    assert outcome.best is not None
    assert (outcome.best.epoch, outcome.best.accuracy_snn) == (best["epoch"], best["validation"]["accuracy_snn"])
    assert any(line["validation"]["accuracy_snn"] != line["accuracy_snn"] for line in tests)


@pytest.mark.parametrize(
    ("held", "told"),
    [("0", "best test accuracy snn {0:.2%} (ann {1:.2%}) after epoch {2}, chosen on the test set, as the authors do\n"),
     ("40", "best validation accuracy snn {0:.2%} (ann {1:.2%}) after epoch {2}\n")],
)  # fmt: skip
def test_the_command_says_what_the_best_was_chosen_on(tmp_path: Path, held: str, told: str) -> None:
    sets = [part for text in (*SETS.split(), f"data.validation={held}") for part in ("--set", text)]
    arguments = ["train", "--backend", "numpy", "--precision", "f64", "--out", str(tmp_path), "--name", "run", *sets]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    best = checkpoint.load(tmp_path / "run" / "last.safetensors").header.best
    assert best is not None
    assert done.stdout.endswith(told.format(best.accuracy_snn, best.accuracy_ann, best.epoch))
    assert ("validation accuracy snn" in done.stdout) == (held == "40")
    assert f"96 training, {held} validation and 40 test samples" in done.stdout


def test_the_command_says_where_a_short_run_ends(tmp_path: Path) -> None:
    said = quiet()
    loop.start(tiny(tmp_path, "training.max_steps=3"), said)
    assert "2 epochs of 4 steps, of which 3 steps are taken" in said._console.file.getvalue()  # type: ignore[attr-defined]
