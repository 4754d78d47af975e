"""One network of a user's size, certified layer by layer."""

from __future__ import annotations

import pytest

from twinspike_conformance.commands.certify import PARTS
from twinspike_conformance.commands.command import main as suite
from twinspike_conformance.report import read

SMALL = ["digits_cnn", "--width", "2", "--precision", "f64"]


def test_the_reference_is_certified_and_the_report_says_of_what(tmp_path, capsys):
    assert suite(["certify", *SMALL, "--backend", "numpy", "--report", str(tmp_path)]) == 0
    report = read(tmp_path / "report.json")
    assert {r.id for r in report.records if r.status == "pass"} == {f"network[{part}]" for part in PARTS}
    assert all(r.examples == 1 for r in report.records if r.status == "pass")
    assert report.header.profile == "certify digits_cnn, B = 2, T = 4, input (1, 8, 8)"
    assert "network[gradients]: pass" in capsys.readouterr().out


@pytest.mark.parametrize(("fault", "check"), [("bn-eps-outside", "network[layers]"), ("fac-half-gradient", "network[gradients]")])
def test_a_fault_is_found_in_the_layer_that_has_it(fault, check, tmp_path):
    assert suite(["certify", *SMALL, "--backend", f"mutant:{fault}", "--report", str(tmp_path)]) == 1
    assert check in {r.id for r in read(tmp_path / "report.json").records if r.status == "fail"}


def test_the_method_comes_from_a_config(tmp_path, capsys):
    path = tmp_path / "method.toml"
    path.write_text("[method]\ntime_steps = 2\n[method.neuron]\nreset = 'soft'\n", encoding="utf-8")
    assert suite(["certify", *SMALL, "--backend", "numpy", "--config", str(path)]) == 0
    assert "T = 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["no_such_network", "--backend", "numpy", "--precision", "f64"], "no_such_network"),
        ([*SMALL, "--backend", "numpy", "--batch", "1"], "--batch"),
        ([*SMALL, "--backend", "numpy", "--config", "nowhere.toml"], "nowhere.toml"),
        ([*SMALL, "--backend", "nothing"], "nothing"),
    ],
)
def test_what_cannot_be_certified_is_an_error_of_one_line(words, text, capsys):
    assert suite(["certify", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert text in error


def test_several_networks_leave_a_report_each_and_a_fault_in_one_is_a_failure(tmp_path, capsys):
    words = ["certify", "digits_cnn", "resnet20", "--width", "2", "--precision", "f64", "--report", str(tmp_path)]
    assert suite([*words, "--backend", "mutant:lay-add-shortcut-cut"]) == 1
    found = {path.parent.name: read(path) for path in tmp_path.glob("*/report.json")}
    failed = {name: any(record.status == "fail" for record in report.records) for name, report in found.items()}
    assert failed == {"digits_cnn": False, "resnet20": True}
    assert suite(["certify", "digits_cnn", "no_such_network", "--backend", "numpy", "--precision", "f64"]) == 2
    assert "no_such_network" in capsys.readouterr().err
