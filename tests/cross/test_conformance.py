"""Torch and jax against one another: they agree, and a small fault in either is found, shown from both sides and blamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinspike_conformance.checks import Bench
from twinspike_conformance.commands import cross
from twinspike_conformance.commands.command import main as suite
from twinspike_conformance.report import verify
from twinspike_conformance.report.record import Failure, Report
from twinspike_conformance.run.opening import load
from twinspike_conformance.run.profiles import PROFILES


def held(folder: Path, first: str, second: str, only: str, *words: str, profile: str = "smoke") -> tuple[int, Report]:
    """Exit status and report of a cross run."""
    options = ["--only", only, "--profile", profile, "--report", str(folder), *words]
    status = suite(["cross", first, second, *options])
    return status, verify(folder / "report.json")


def failure_of(report: Report, name: str) -> Failure:
    (record,) = (record for record in report.records if record.id == name)
    assert record.status == "fail"
    assert record.failure is not None
    return record.failure


@pytest.mark.parametrize("precision", ["f64", "f32-ieee"])
@pytest.mark.parametrize("operation", ["lif", "batch_norm_train", "optimizer_step"])
def test_torch_and_jax_agree(operation: str, precision: str, tmp_path: Path) -> None:
    status, report = held(tmp_path, "torch", "jax", f"cross[{operation}", "--precision", precision)
    assert status == 0
    assert {r.status for r in report.records if operation in r.id} == {"pass"}
    assert report.header.against is not None
    assert (report.header.backend, report.header.against.backend) == ("torch", "jax")


@pytest.mark.parametrize("order", [("mutant:bn-eps-outside@torch", "jax"), ("jax", "mutant:bn-eps-outside@torch")])
def test_an_epsilon_in_the_wrong_place_is_found(
    order: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = held(tmp_path, *order, "cross[batch_norm_train-rounded]", profile="ci")
    assert status == 1
    failure = failure_of(report, "cross[batch_norm_train-rounded]")
    assert "mutant:bn-eps-outside@torch breaks its own bound" in failure.sentences[0]
    assert all(word in failure.sentences[0] for word in ("jax 0x", "mutant:bn-eps-outside@torch ", "reference "))
    assert any(line.startswith("bn-eps-outside:") and line.endswith("@torch)") for line in failure.suspects)
    assert failure.sentences[0] in capsys.readouterr().out


@pytest.mark.slow
def test_a_fault_of_training_is_found_where_the_data_meet_it_first(tmp_path: Path) -> None:
    status, report = held(tmp_path, "mutant:bn-biased-running@torch", "jax", "cross[network-steps]", "--precision", "f64")
    assert status == 1
    failure = failure_of(report, "cross[network-steps]")
    assert failure.sentences[0].startswith("step 1, statistics: stem.norm.var_ann[0]: ")
    assert all("mutant:bn-biased-running@torch breaks its own bound" in line for line in failure.sentences)


@pytest.mark.slow
def test_states_travel_between_torch_and_jax(tmp_path: Path) -> None:
    status, report = held(tmp_path, "torch", "jax", "cross[network-free]")
    assert status == 0
    (record,) = (record for record in report.records if record.id == "cross[network-free]")
    assert (record.status, record.worst_ratio) == ("pass", 0.0)
    assert record.comparisons >= 7


def test_the_two_are_two() -> None:
    a, b = (Bench(load(name), load(name).session("cpu", "f32-ieee"), name) for name in ("torch", "jax"))
    pair = cross.Pair(a, b)
    for check in cross.checks(pair):
        if check.id in ("cross[conv2d-rounded]", "cross[lif-rounded]"):
            assert cross.run(pair, check, PROFILES["smoke"], 0).status == "pass"
    assert cross.independence(pair).status == "pass"
