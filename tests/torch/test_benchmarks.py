"""What benchmarks compare is the same computation, and what they count is what autograd keeps."""

from __future__ import annotations

import argparse
import importlib
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import twinspike as ts
from twinspike.reference.neuron import lif, lif_adjoint

ROOT = Path(__file__).resolve().parents[2]
FLOAT32 = 4


def load(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(name)


@pytest.mark.parametrize("name", ["plain torch loop", "C loop"])
def test_hand_written_loops_are_the_papers_neuron(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """On dyadic data, where nothing is rounded, at a size beside the loop's block."""
    rng = np.random.default_rng(0)
    x, g = ((rng.integers(-8, 9, (3, 3, 171)) / 8).astype(np.float32) for _ in range(2))
    variant = load(monkeypatch, "neurons").variants(threads=2)[name]
    runner = variant.make(x, g)
    neuron, wide = ts.Neuron(), x.astype(np.float64)
    trace = lif(neuron, wide)
    assert np.array_equal(runner.spikes(), trace.s)
    want = lif_adjoint(neuron, wide, trace, g.astype(np.float64), np.zeros_like(wide[0])).x
    assert np.array_equal(runner.gradient(), want)


def test_saved_bytes_are_unique_storages(monkeypatch: pytest.MonkeyPatch) -> None:
    """exp keeps its result, a square its argument once though it needs it twice, a sum nothing."""
    x = torch.ones(1000, requires_grad=True)
    found = load(monkeypatch, "memory")._counted(lambda: (x.exp() ** 2).sum().backward(), "cpu")
    assert found["saved"] == 1000 * FLOAT32


def test_held_bytes_count_what_no_hook_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor kept outside of autograd until the backward pass is held, though it is not saved."""
    x, kept = torch.ones(1000, requires_grad=True), []

    def step() -> None:
        kept[:] = [torch.zeros(500)]
        (x.exp() ** 2).sum().backward()

    found = load(monkeypatch, "memory")._counted(step, "cpu")
    assert found["saved"] == 1000 * FLOAT32
    assert found["held"] >= 1500 * FLOAT32


def test_the_device_s_own_tests_are_selected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By gpu.py, for a GPU, which the collecting process has not: the neuron's kernels, with Triton's alone, first of all."""
    command = load(monkeypatch, "gpu")._tests(argparse.Namespace(device="cuda"), "torch", tmp_path / "torch.xml")
    run = subprocess.run([*command, "--collect-only"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    names = [line for line in run.stdout.splitlines() if "::" in line]
    own = {f"tests/torch/test_{name}.py" for name in ("ambient", "device", "projection")}
    assert {name.partition("::")[0] for name in names} == own | {
        f"tests/kernels/test_{name}.py" for name in ("lif", "norm_triton", "norm_activation")
    }
    kernels = [name for name in names if "kernels" in name]
    assert len(kernels) > 50
    assert all(("triton" in name or "norm_activation" in name) and "numba" not in name for name in kernels)
