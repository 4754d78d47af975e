"""Measurements are taken in turns and told as they are: what is not run, missed or stale says so."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("measure")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """docs/performance.py, with an empty folder of results."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    module = importlib.import_module("performance")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "PLOT", tmp_path / "scaling.svg")
    return module


def test_variants_take_turns_and_each_begins_a_turn(measure: ModuleType) -> None:
    calls: list[str] = []
    variants = {name: lambda name=name: calls.append(name) for name in "abc"}
    found = measure.take_turns(variants, rounds=3, slice_seconds=0.0, seconds=0.0)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(values) for name, values in found.items()} == {"a": 3, "b": 3, "c": 3}


def test_rounds_end_when_the_time_is_spent_but_not_before_the_third(measure: ModuleType) -> None:
    found = measure.take_turns({"a": lambda: None}, rounds=1000, slice_seconds=0.0, seconds=-1.0)
    assert len(found["a"]) == 3


def test_a_ratio_is_taken_within_a_turn(measure: ModuleType) -> None:
    """A machine that is ten times slower in one turn moves no ratio."""
    assert measure.ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == {"n": 3, "median": 2.0, "q1": 2.0, "q3": 2.0, "least": 2.0}


def test_a_spread_has_the_median_the_quartiles_and_the_least(measure: ModuleType) -> None:
    assert measure.spread([5.0, 1.0, 2.0, 4.0, 3.0], 10.0) == {"n": 5, "median": 30.0, "q1": 20.0, "q3": 40.0, "least": 10.0}
    assert measure.spread([7.0])["q3"] == 7.0


XLA_TEXT = """HloModule step

%body (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %inner = f32[8]{0} add(%p, %p)
}

%called (q: bf16[4,2]) -> bf16[4,2] {
  %q = bf16[4,2]{1,0} parameter(0)
  ROOT %c = bf16[4,2]{1,0} copy(%q)
}

ENTRY %main (a: f32[8], b: bf16[4,2]) -> (f32[8], bf16[4,2]) {
  %a = f32[8]{0} parameter(0), metadata={op_name="a"}
  %b = bf16[4,2]{1,0} parameter(1)
  %f = f32[8]{0} fusion(%a), kind=kLoop, calls=%body, metadata={op_name="jit(f)/transpose(jvp())/x/mul" source_line=3}
  %conv = (bf16[4,2]{1,0}, u8[0]{0}) custom-call(%b, %b), custom_call_target="__cudnn$convForward"
  %y = bf16[4,2]{1,0} get-tuple-element(%conv), index=0
  %g = bf16[4,2]{1,0} call(%y), to_apply=%called
  ROOT %t = (f32[8]{0}, bf16[4,2]{1,0}) tuple(%f, %g)
}
"""


def test_traffic_counts_each_launch_with_its_operands_and_results(measure: ModuleType) -> None:
    """Fusions once, calls by what they call; what moves nothing is no launch."""
    traffic = importlib.import_module("traffic")
    assert list(traffic.kernels(XLA_TEXT)) == [
        ("fusion kLoop", "B x/mul", 64),
        ("custom-call __cudnn$convForward bf16", "F ?", 48),
        ("copy", "F ?", 32),
    ]
    rows = traffic.grouped(list(traffic.kernels(XLA_TEXT)), "source")
    assert {row["source"]: row["launches"] for row in rows} == {"B x/mul": 1, "F ?": 2}


def result(**more: Any) -> dict[str, Any]:
    machine = {"processor": "P", "cores": 2, "gpu": "none"}
    versions = {"python": "3"}
    return {"machine": machine, "versions": versions, "date": "2026-01-01T00:00", "load": 0.1, "clock": "wall"} | more


def rows_of(page: ModuleType, what: str) -> str:
    (line,) = [line for line in page.performance().splitlines() if line.startswith(f"| {what} ")]
    return str(line)


def test_nothing_is_claimed_without_results(page: ModuleType) -> None:
    from targets import TARGETS  # type: ignore[import-not-found]  # noqa: PLC0415 - beside the page

    text = page.performance()
    assert text.count("| not run |  | open |") == len(TARGETS)
    assert "Missed" not in text


@pytest.mark.parametrize(("images", "said"), [(2000.0, "met"), (500.0, "missed")])
def test_a_target_is_met_or_missed_and_open(page: ModuleType, tmp_path: Path, images: float, said: str) -> None:
    speed = {"n": 3, "median": images, "q1": images, "q3": images, "least": images}
    row = {"augmentation": "with autoaugment", "workers": 0, "images_per_second": speed, "images_per_core_second": speed}
    (tmp_path / "data_pipeline.json").write_text(json.dumps(result(rows=[row], under_load=True)), encoding="utf-8")
    line = rows_of(page, "Augmented images")
    assert line.endswith(f"| {said}, under load |")
    assert ("Missed, and open" in page.performance()) is (said == "missed")


def test_a_plot_of_other_results_is_refused(page: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "scaling.json").write_text(json.dumps(result(rows=[], under_load=False)), encoding="utf-8")
    digest = hashlib.sha256((tmp_path / "scaling.json").read_bytes()).hexdigest()
    page.PLOT.write_text(f"scaling.json {digest}", encoding="utf-8")
    assert "images/scaling.svg" in page.performance()
    (tmp_path / "scaling.json").write_text(json.dumps(result(rows=[], under_load=True)), encoding="utf-8")
    with pytest.raises(ValueError, match="out of date"):
        page.performance()


def test_every_file_of_results_says_where_it_comes_from() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        assert {"schema", "command", "date", "machine", "versions", "load", "under_load", "clock"} <= set(found), path.name
        assert found["under_load"] is (found["load"] > 0.5), path.name
