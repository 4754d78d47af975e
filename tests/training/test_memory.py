"""What a run needs is held against what the machine has before it is allocated, and never too high."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from training_runs import tiny
from typer.testing import CliRunner

import twinspike as ts
from twinspike.errors import SpecError
from twinspike_training import memory, run
from twinspike_training.commands import app
from twinspike_training.config import RunConfig
from twinspike_training.memory import machine_memory, require_memory, size, training_parts


def parts_of(config: RunConfig) -> dict[str, int]:
    ready = run.prepare(config)
    return training_parts(ready.network, config.method, config.training.batch_size, 8, on_host=True)


@pytest.mark.parametrize("change", ["method.time_steps=100000000", "width=100000000", "method.time_steps=9000000000000000000"])
def test_a_run_that_no_machine_holds_is_one_line(tmp_path: Path, change: str) -> None:
    sets = ["--set", "backend=numpy", "--set", "precision=f64", "--set", change]
    done = CliRunner().invoke(app, ["train", *sets, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: training: needs at least ")
    assert f"this machine has {size(machine_memory())}; lower method.time_steps, training.batch_size" in line
    assert not (tmp_path / "out").exists()


def test_the_estimate_is_from_below(tmp_path: Path) -> None:
    config = tiny(tmp_path, "width=16", "method.time_steps=6", "training.batch_size=64")
    ready = run.prepare(config)
    state = ready.program.load(ts.initial_state(ready.network, config.method, config.optimizer))
    images, labels = next(iter(ready.dataset.train_batches(0, 0, 64)))
    tracemalloc.start()
    ready.program.train_step(state, images, labels, 0.1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    need = sum(parts_of(config).values())
    assert peak / 100 < need < peak


def test_what_fits_exactly_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 3 * 1024)
    require_memory("it", {"a": 1024, "b": 2048}, "do less")
    with pytest.raises(SpecError) as caught:
        require_memory("it", {"a": 1024, "b": 2049}, "do less")
    assert str(caught.value) == "it: needs at least 3 KiB of memory (2 KiB for b), this machine has 3 KiB; do less"


def test_an_accelerator_holds_its_own(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    ready = run.prepare(config)
    assert list(training_parts(ready.network, config.method, 24, 8, on_host=False)) == ["a batch"]


def test_a_container_has_less_than_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_LIMIT", tmp_path / "none")
    physical = machine_memory()
    for text, expected in (("max", physical), ("4096", 4096), (str(2 * physical), physical)):
        monkeypatch.setattr(memory, "_LIMIT", tmp_path / "memory.max")
        (tmp_path / "memory.max").write_text(text)
        assert machine_memory() == expected


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (3 << 29, "1.5 GiB"), (1 << 75, "3.28e+04 EiB")]
)
def test_sizes_in_words(count: int, text: str) -> None:
    assert size(count) == text


def test_frames_of_one_recording_must_fit() -> None:
    from twinspike_training.data import DataConfig, open_dataset  # noqa: PLC0415

    with pytest.raises(SpecError, match=r"time_steps = 100000000: needs at least 861 GiB of memory \(861 GiB for the frames"):
        open_dataset(DataConfig(name="events", path="anywhere"), time_steps=10**8)


def test_a_written_config_is_refused_alike(tmp_path: Path) -> None:
    config = {"backend": "numpy", "precision": "f64", "method": {"time_steps": 10**8}}
    (tmp_path / "c.json").write_text(json.dumps(config))
    done = CliRunner().invoke(app, ["train", str(tmp_path / "c.json"), "--out", str(tmp_path / "out")])
    assert (done.exit_code, np.size(done.stderr.splitlines())) == (2, 1)
