"""`twinspike import` into a run in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from typer.testing import CliRunner

from twinspike_training.commands import app


def test_a_singular_value_that_overflows_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    file, sets = tmp_path / "ann.safetensors", ("network=resnet18", "width=2", "backend=torch")
    save_file({"conv1.weight": np.full((2, 1, 3, 3), 3e38, np.float32)}, file)
    words = [word for change in sets for word in ("--set", change)]
    result = CliRunner().invoke(app, ["import", str(file), *words, "--out", str(tmp_path / "runs")])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert result.stderr.startswith("error: import stem.conv.sigma_ann: expected values that float32 holds, got an overflow")
    assert not (tmp_path / "runs").exists()
