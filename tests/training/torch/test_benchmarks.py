"""What a GPU is measured by, with real batches of the training room."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]


def test_parts_that_measure_note_what_they_find(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tiny, on the CPU: a step, its epoch and its profile by one program, and the device's ceilings."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    parts = importlib.import_module("gpu_parts")
    given = {"device": "cpu", "backend": "torch", "compiled": False, "precision": "f32-ieee", "batch_size": 8, "tiny": True}
    options = argparse.Namespace(**given, graphs=False, data=None, lock=tmp_path / "lock", result=tmp_path / "result.json")
    monkeypatch.setattr(parts, "BLOCKS", 3)
    for part, wanted in (
        ("joint", {"step_seconds", "epoch_seconds", "epoch_seconds_without_data", "profile_us_per_step"}),
        ("ceilings", {"copy_gb_per_second", "product bfloat16", "product tf32", "product float32"}),
        ("convolutions", {"64 to 64, 32 x 32, stride 1", "64 to 64, 32 x 32, stride 1, searched"}),
        ("lif", {"kernels", "float32", "bfloat16"}),
    ):
        notes = parts.Notes(options.result)
        parts.PARTS[part](options, notes)
        assert wanted <= set(notes.facts)
        assert not (tmp_path / "result.waiting").exists()


class Annotated:
    """A step of one operation, under a name."""

    def start(self) -> torch.Tensor:
        with torch.profiler.record_function("annotation"):
            return torch.ones(8).exp()

    @property
    def session(self) -> Any:
        return argparse.Namespace(to_numpy=lambda array: array.numpy())


def test_a_profile_counts_operations_and_not_the_names_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    options = argparse.Namespace(device="cpu", backend="torch")
    found = importlib.import_module("gpu_parts").profiled(options, Annotated())
    assert "aten::exp" in found
    assert "annotation" not in found
