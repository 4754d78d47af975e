"""What the suite doesn't ask: whom this package knows, what its users' settings are afterwards, its mark, and that it learns."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import twinspike_mlx

import twinspike as ts

HERE = Path(__file__).parents[1]
SOURCES = sorted(Path(twinspike_mlx.__file__).parent.glob("*.py"))
PUBLISHED = {f"twinspike.{name}" for name in ("backend", "checks", "config", "errors", "network", "operations", "parameters")}


@pytest.mark.parametrize("path", SOURCES, ids=[path.name for path in SOURCES])
def test_published_interfaces_alone(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
        found |= {str(node.module)} if isinstance(node, ast.ImportFrom) else set()
    of_twinspike = {name for name in found if name.split(".")[0].startswith("twinspike")}
    assert {name for name in of_twinspike if not name.startswith("twinspike_mlx")} <= PUBLISHED | {"twinspike"}


def test_found_by_its_name() -> None:
    assert ts.load("mlx") is twinspike_mlx.backend
    assert "mlx" in ts.names()


@pytest.mark.parametrize("asked", [{"precision": "f64"}, {"precision": "bf16-mixed"}, {"device": "gpu"}, {"compiled": True}])
def test_what_is_not_claimed_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(ts.SpecError, match="of backend 'mlx': expected "):
        twinspike_mlx.backend.session(**asked)


def test_mark_is_that_of_the_report() -> None:
    report = HERE / "conformance" / "report.json"
    marks = sorted((Path(twinspike_mlx.__file__).parent / "marks").glob("*.json"))
    command = [sys.executable, "-m", "twinspike_conformance", "verify", str(report), "--official", "--mark", str(marks[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [mark.precision for mark in twinspike_mlx.backend.capabilities().conformance] == ["f32-ieee"]


def test_a_step_learns_and_leaves_the_default_device() -> None:
    before = mx.default_device()
    network, method, optimizer = ts.network("digits_cnn", width=4), ts.Method(time_steps=2), ts.SGD(momentum=0.9)
    program = ts.load("mlx").session().program(network, method, optimizer)
    state = program.load(ts.initial_state(network, method, optimizer))
    draw = np.random.default_rng(0)
    images, labels = draw.random((16, *network.input_shape)), draw.integers(0, 10, 16)
    losses = []
    for _ in range(8):
        state, metrics = program.train_step(state, images, labels, 0.01)
        losses.append(float(metrics.loss))
    assert losses[-1] < losses[0]
    assert mx.default_device() == before
