"""Training with the torch backend: a killed run goes on bit for bit, mid-epoch included, and a compiled one goes all the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import assert_equal_runs, quiet, train

import twinspike_torch as tt
from twinspike_training import checkpoint, loop, metrics
from twinspike_training.evaluation import evaluate
from twinspike_training.run import open_run, prepare, read_config

TORCH = ("backend=torch", "precision=f32-ieee", "optimizer.kind=adamw", "learning_rate=0.01", "training.checkpoint_every_steps=3")


class Stop(BaseException):
    """Ends a run where a kill would."""


def test_resumed_run_equals_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole", *TORCH)
    add = metrics.MetricsLog.add

    def stop(self: Any, pending: Any) -> None:
        if pending.step == 8:
            raise Stop
        add(self, pending)

    monkeypatch.setattr(metrics.MetricsLog, "add", stop)
    with pytest.raises(Stop):
        train(tmp_path / "killed", *TORCH)
    monkeypatch.undo()
    folder = open_run(tmp_path / "killed" / "digits_cnn-001")
    loop.resume(folder, None, quiet())
    assert_equal_runs(whole.folder, folder)


@pytest.mark.slow
@pytest.mark.skipif(not tt.backend.capabilities().compiled, reason="no C++ compiler here")
def test_a_compiled_run_is_trained_evaluated_and_resumed(tmp_path: Path) -> None:
    """As the paper's recipes ask for; an epoch's evaluation ended such a run."""
    folder = train(tmp_path, *TORCH, "compile=true", "training.epochs=1").folder
    resumed = loop.resume(folder, read_config(folder, ["training.epochs=2"]), quiet())
    assert resumed.finished
    assert resumed.last is not None
    kept = checkpoint.load(folder.checkpoint("last"))
    ready = prepare(read_config(folder), kept.header.network)
    assert ready.session.compiled
    assert evaluate(ready, ready.program.load(kept.state)).as_line().items() <= resumed.last.items()
