"""`twinspike check`: the suite judges a run's own first steps; it passes for equals, and it can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training_runs import TINY, tiny

from twinspike import initial_state
from twinspike.errors import SpecError
from twinspike_training import agreement
from twinspike_training.run import prepare


def check(*words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the suite's answer is another process's."""
    sets = [word for change in TINY for word in ("--set", change)]
    command = [sys.executable, "-m", "twinspike_training.cli", "check", *words, "digits", *sets]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_first_steps_are_the_run_s(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    setting, ready = agreement.first_steps(config, 2), prepare(config)
    batches = list(ready.dataset.train_batches(config.seed, 0, 24))[:2]
    assert len(setting.images) == len(setting.labels) == 2
    for (images, labels), mine, its in zip(batches, setting.images, setting.labels, strict=True):
        assert np.array_equal(images, mine)
        assert np.array_equal(labels, its)
    state = initial_state(ready.network, config.method, config.optimizer, seed=config.seed)
    assert all(np.array_equal(setting.state[name], value) for name, value in state.items())
    assert (setting.network, setting.method, setting.optimizer) == (ready.network, config.method, config.optimizer)


@pytest.mark.parametrize("steps", [0, 5])
def test_steps_beyond_an_epoch_are_refused(tmp_path: Path, steps: int) -> None:
    with pytest.raises(SpecError, match=r"^steps: expected "):
        agreement.first_steps(tiny(tmp_path), steps)


def test_right_backends_agree_and_a_faulty_one_does_not() -> None:
    right = check("numpy", "mutant:fac-sign-by-first", "--steps", "2")
    assert right.returncode == 0, right.stdout + right.stderr
    assert "comparisons of 2 steps of digits_cnn in f64; nearest to its bound" in right.stdout
    wrong = check("numpy", "mutant:opt-sigma-frozen")
    assert wrong.returncode == 1, wrong.stderr
    assert "sigma_snn" in wrong.stdout
    assert "OPT-2" in wrong.stdout


def test_a_backend_against_itself_proves_nothing() -> None:
    same = check("numpy", "numpy")
    assert same.returncode == 2
    assert same.stderr.startswith("error: cross: expected two backends")


def test_without_the_suite_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_NEEDS", "a_package_that_is_not_there")
    with pytest.raises(SpecError, match=r"pip install a_package_that_is_not_there$"):
        agreement.agreement("numpy", "torch", tiny(tmp_path))
