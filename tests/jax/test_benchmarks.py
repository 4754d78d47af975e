"""The tests of the JAX backend that `benchmarks/gpu.py` runs on a device are those that compute there."""

from __future__ import annotations

import argparse
import importlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_device_s_own_tests_are_selected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    command = importlib.import_module("gpu")._tests(argparse.Namespace(device="cuda"), "jax", tmp_path / "jax.xml")
    run = subprocess.run([*command, "--collect-only"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    files = {line.partition("::")[0] for line in run.stdout.splitlines() if "::" in line}
    assert files == {f"tests/jax/test_{name}.py" for name in ("ambient", "backend", "network", "neuron", "operations")}
