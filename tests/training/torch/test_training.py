"""Training with the torch backend: a killed run goes on bit for bit, mid-epoch included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import assert_equal_runs, quiet, train

from twinspike_training import loop, metrics
from twinspike_training.run import open_run

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
