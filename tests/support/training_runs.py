"""Tiny runs for the tests of training: a second of work, with every part of a real one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from twinspike_training import compare, loop
from twinspike_training.config import RunConfig, load_config
from twinspike_training.loop import Outcome
from twinspike_training.progress import Progress
from twinspike_training.run import RunFolder

TINY = (
    "backend=numpy", "precision=f64", "width=2", "method.time_steps=2", "data.limit=96", "data.workers=0",
    "training.batch_size=24", "training.epochs=2", "training.log_every=3",
)  # fmt: skip
"""4 steps an epoch, 8 in all. Test batches are whole, so that compiling backends see one shape."""


def tiny(out: Path, *changes: str) -> RunConfig:
    """A run in `out`."""
    return load_config("digits", [*TINY, f"out={json.dumps(str(out))}", *changes])


def quiet() -> Progress:
    """Progress that nobody sees."""
    return Progress(Console(file=io.StringIO()))


def train(out: Path, *changes: str) -> Outcome:
    """A tiny run from beginning to end."""
    return loop.start(tiny(out, *changes), quiet())


def lines(folder: RunFolder) -> list[dict[str, Any]]:
    """Metrics without sessions and times, exact otherwise."""
    return compare.told(folder)


def assert_equal_runs(one: RunFolder, other: RunFolder) -> None:
    """The same losses, evaluations and checkpoints, bit for bit."""
    assert compare.difference(one, other) is None
