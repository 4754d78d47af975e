"""A run over two processes of this machine: its numbers, another N, and a process that is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from training_runs import quiet

from twinspike_training import loop
from twinspike_training.checkpoint import load_header
from twinspike_training.config import load_config
from twinspike_training.run import open_run, read_config

SET = {"data.limit": 256, "data.test_limit": 51, "method.time_steps": 2, "training.log_every": 1}


def settings(**more: int) -> list[str]:
    """Options of a run, those of training by their names."""
    every = SET | {f"training.{key}": value for key, value in more.items()}
    return [word for key, value in every.items() for word in ("--set", f"{key}={value}")]


RUN = ["train", "digits", "--name", "run"]


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A command, in a folder of its own."""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "-m", "twinspike_training.cli", *words], cwd=folder, env=environ, **pipes)


def on_one_device(folder: Path, *changes: str) -> None:
    """Go on with the run in this process."""
    run = open_run(folder / "runs/run")
    loop.resume(run, read_config(run, changes), quiet())


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Of a run's record."""
    text = (folder / "runs/run/metrics.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == kind]


def test_a_run_over_two_devices_and_then_on_one(tmp_path: Path) -> None:
    process = command(tmp_path, *RUN, "--devices", "2", *settings(epochs=2, max_steps=4, certify_every=4))
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert said.count("finished runs/run after 4 steps") == 1
    assert lines(tmp_path, "session")[0]["devices"] == 2
    assert [line["samples"] for line in lines(tmp_path, "step")] == [64] * 4
    assert lines(tmp_path, "epoch")[-1]["samples"] == 51
    assert [line["step"] for line in lines(tmp_path, "certificate")] == [4]
    assert all(0 < line["worst"] < 1 and line["comparisons"] > 100 for line in lines(tmp_path, "certificate"))
    on_one_device(tmp_path, "devices=1", "training.max_steps=6")
    assert [line["devices"] for line in lines(tmp_path, "session")] == [2, 1]
    assert load_header(tmp_path / "runs/run/last.safetensors").steps == 6
    alone = tmp_path / "alone"
    changes = [word for word in settings(epochs=2, max_steps=6) if word != "--set"]
    loop.start(load_config("digits", [*changes, "name=run", f"out={alone / 'runs'}"]), quiet())
    first, other = (lines(folder, "step")[0] for folder in (tmp_path, alone))
    assert [first[key] for key in ("step", "samples", "accuracy_ann", "accuracy_snn")] == [
        other[key] for key in ("step", "samples", "accuracy_ann", "accuracy_snn")
    ]
    assert len(lines(tmp_path, "step")) == len(lines(alone, "step")) == 6


def _rank(launcher: int, rank: int) -> int | None:
    """The process of a rank among a launcher's children."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"\0RANK={rank}\0" in Path(f"/proc/{child}/environ").read_text():
            return int(child)
    return None


def test_a_lost_process_ends_all_and_the_run_goes_on(tmp_path: Path) -> None:
    process = command(tmp_path, *RUN, "--devices", "2", *settings(epochs=500, checkpoint_every_steps=2))
    record, began = tmp_path / "runs/run/metrics.jsonl", time.monotonic()
    while not (record.exists() and record.read_text().count('"step"') > 4):
        assert process.poll() is None
        assert time.monotonic() - began < 240
        time.sleep(0.1)
    lost = _rank(process.pid, 1)
    assert lost is not None
    os.kill(lost, signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert "error: process 0 of 2: expected an answer of every other one" in said or "SIGKILL" in said or "-9" in said
    kept = load_header(tmp_path / "runs/run/last.safetensors").steps
    taken = max(line["step"] for line in lines(tmp_path, "step"))
    assert kept >= 2
    assert taken - kept <= 2
    on_one_device(tmp_path, "devices=1", f"training.max_steps={kept + 2}")
    assert load_header(tmp_path / "runs/run/last.safetensors").steps == kept + 2
