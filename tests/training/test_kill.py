"""Runs killed without warning, half of them inside a write, end as the one left alone; `benchmarks/kills.py` kills hundreds."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
kills = importlib.import_module("kills")

KILLS = 6


def test_kills_at_any_moment_and_inside_writes_change_nothing() -> None:
    tally = kills.kill("numpy", KILLS)
    assert tally.moments + tally.inside == KILLS
    assert tally.inside >= 2
    assert tally.runs >= 1


def test_a_difference_is_found(tmp_path: Path) -> None:
    one, other = (kills._made("numpy", tmp_path / name) for name in ("a", "b"))
    for folder in (one, other):
        kills.loop.resume(folder, None, kills.Progress(kills.Console(file=kills.io.StringIO())))
    kills.assert_equal(one, other)
    *before, last = other.metrics.read_text().splitlines()
    line = json.loads(last)
    other.metrics.write_text("\n".join([*before, json.dumps(line | {"spike_rate": line["spike_rate"] * 2})]) + "\n")
    with pytest.raises(AssertionError, match=r"^the epoch line of step 24: spike_rate"):
        kills.assert_equal(one, other)
