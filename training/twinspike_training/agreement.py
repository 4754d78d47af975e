"""A run's first steps, handed to the suite: its command `cross --on` holds two backends against each other on them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np

from twinspike import initial_state
from twinspike.config import encode
from twinspike.errors import require
from twinspike.setting import Setting, write
from twinspike_training.config import RunConfig, build
from twinspike_training.run import prepare

SUITE = "twinspike_conformance"
_NEEDS = "hypothesis"
"""What the suite needs beside what training needs."""


def first_steps(config: RunConfig, steps: int) -> Setting:
    """What a run starts from: its network, method, optimizer and initial state, and its first batches.

    Args:
        config: of the run.
        steps: how many batches, >= 1 and within one epoch.

    Raises:
        SpecError: the data are not to be had, or there are not so many batches.
    """
    require(steps >= 1, "steps", expected="a whole number >= 1", got=steps)
    anywhere = {"backend": "numpy", "precision": "f64", "device": "cpu", "compile": False}
    ready = prepare(build({**encode(config), **anywhere}, "config"))
    require(steps <= ready.steps_per_epoch, "steps", expected=f"at most the {ready.steps_per_epoch} of one epoch", got=steps)
    training = config.training
    every = ready.dataset.train_batches(config.seed, 0, training.batch_size, drop_last=training.drop_last)
    batches = list(islice(every, steps))
    state = initial_state(ready.network, config.method, config.optimizer, seed=config.seed)
    images, labels = zip(*batches, strict=True)
    return Setting(ready.network, config.method, config.optimizer, state, images, tuple(map(np.asarray, labels)))


def agreement(first: str, second: str, config: RunConfig, steps: int = 1, precision: str = "f64") -> int:
    """Have the suite hold two backends against each other on a run's first steps; it prints what it finds.

    Args:
        first: backend.
        second: backend.
        config: of the run; backend, device and precision are replaced.
        steps: optimizer steps, each from the state that the first backend came to, >= 1 and within one epoch.
        precision: of both.

    Returns:
        0 if they agree, 1 if not, and what else the suite's command may end with.

    Raises:
        SpecError: the data are not to be had, or the suite is not installed.
    """
    there = find_spec(SUITE) is not None and find_spec(_NEEDS) is not None
    require(there, "check", expected="the conformance suite", got=f"no {_NEEDS}, which it needs", do=f"pip install {_NEEDS}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "steps.npz"
        write(file, first_steps(config, steps))
        words = ["cross", first, second, "--precision", precision, "--on", str(file)]
        return subprocess.run([sys.executable, "-m", SUITE, *words], check=False).returncode
