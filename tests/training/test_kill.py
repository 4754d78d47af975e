"""A run killed without warning, again and again, ends as the one that was left alone."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

from training_runs import TINY, assert_equal_runs, train

from twinspike_training.run import open_run

LONG = ("training.epochs=10", "training.checkpoint_every_steps=1")
"""40 steps, with a checkpoint after each: kills hit writing as often as computing."""

KILLS = 3


def command(folder: Path) -> list[str]:
    start = [sys.executable, "-m", "twinspike_training.cli", "train"]
    if (folder / "config.json").exists():
        return [*start, "--resume", str(folder)]
    changes = [*TINY, *LONG, f"out={json.dumps(str(folder.parent))}", f"name={folder.name}"]
    return [*start, *(part for change in changes for part in ("--set", change))]


def killed(folder: Path, delay: float) -> bool:
    """Run until `delay` seconds after the first sign of life of this session, then kill; False if it had ended."""
    path = folder / "metrics.jsonl"
    before = path.stat().st_mtime_ns if path.exists() else None
    process = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL)
    while process.poll() is None and (path.stat().st_mtime_ns if path.exists() else None) == before:
        time.sleep(0.002)
    time.sleep(delay)
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


def test_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", *LONG)
    folder = tmp_path / "killed" / "run"
    moments = random.Random(0)
    alive = [killed(folder, moments.uniform(0.0, 0.25)) for _ in range(KILLS)]
    assert any(alive)
    subprocess.run(command(folder), check=True, stdout=subprocess.DEVNULL)
    assert_equal_runs(whole.folder, open_run(folder))
    assert not list(folder.glob(".*.part"))
