"""Runs of both frameworks killed inside writes and at other moments, resumed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))
kills = importlib.import_module("kills")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_kills_change_nothing(backend: str) -> None:
    tally = kills.kill(backend, 4)
    assert (tally.moments + tally.inside, tally.runs >= 1) == (4, True)
