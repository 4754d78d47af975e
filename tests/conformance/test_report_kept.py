"""A report is seen to be writable before the first test, is written first, and survives what fails beside it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import msgspec
import pytest
from conformance_examples import passing, report

from twinspike_conformance import report as forms
from twinspike_conformance.checks import CHECKS
from twinspike_conformance.commands.command import main as suite
from twinspike_conformance.report import badge, html, publish, store, summary, terminal, verify
from twinspike_conformance.run import opening as session

RUN = ["numpy", "--precision", "f64", "--profile", "smoke", "--only", "operation[relu-exact]", "--jobs", "1"]
COMMANDS = {
    "run": RUN,
    "cross": ["cross", "numpy", "mutant:harness-alias", "--precision", "f64", "--only", "relu"],
    "certify": ["certify", "digits_cnn", "--width", "2", "--precision", "f64", "--backend", "numpy"],
    "mutants": ["mutants", "--only", "fac-energy"],
}


# --- before the first test -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["file", "file/below", "taken", "a\0b", "file\nname/file"])
def test_a_folder_that_cannot_be_written_into_ends_a_run_before_its_first_test(command, place, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "report.json").mkdir(parents=True)
    (tmp_path / "file\nname").touch()
    assert suite([*COMMANDS[command], "--report", str(tmp_path / place)]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "--report" in told.err
    assert told.out == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[expect", "expected TOML"),
        ("[[expect]]\nid = 3\n", "[[expect]] tables"),
        (None, "expected a file that can be read"),
    ],
)
def test_expectations_are_read_before_the_first_test(text, words, tmp_path, capsys):
    path = tmp_path / "e.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert suite([*RUN, "--expectations", str(path)]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert words in told.err
    assert told.out == ""


def test_a_folder_may_have_a_report_of_an_earlier_run(tmp_path, capsys):
    for _ in range(2):
        assert suite([*RUN, "--report", str(tmp_path / "new" / "folder")]) == 0
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == sorted(store.FORMS)


# --- after the last one ----------------------------------------------------------------------------------


def _fail(*_: object, **__: object) -> str:
    raise RuntimeError("of the\nsuite")


@pytest.mark.parametrize(
    ("module", "name", "form"),
    [(html, "render", "report.html"), (badge, "svg", "badge.svg"), (forms.junit, "render", "junit.xml")],
)
def test_a_form_that_cannot_be_made_is_an_error_in_the_others(module, name, form, tmp_path, monkeypatch):
    publish(passing(), tmp_path)
    monkeypatch.setattr(module, name, _fail)
    lines: list[str] = []
    assert session.close(passing(), str(tmp_path), lines.append) == 3
    found = verify(tmp_path / "report.json")
    record = found.records[-1]
    assert (record.id, record.status) == (f"report[{form}]", "error")
    assert record.reason == "the suite itself failed: RuntimeError: of the suite"
    assert found.records[:-1] == passing().records
    assert found.verdict == "fail"
    assert not (tmp_path / form).exists()  # that of the earlier run would tell another story
    assert {file.name for file in tmp_path.iterdir()} == set(store.FORMS) - {form}
    shields = msgspec.json.decode((tmp_path / "badge.json").read_bytes())
    assert "1 error" in shields["message"]
    assert record.id in "".join(lines)


def test_the_json_is_written_before_all_else(tmp_path, monkeypatch):
    def stop(found: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(forms.junit, "render", stop)
    with pytest.raises(KeyboardInterrupt):
        publish(passing(), tmp_path)
    assert verify(tmp_path / "report.json") == passing()


def test_a_summary_that_cannot_be_shown_leaves_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr(terminal, "render", _fail)
    lines: list[str] = []
    assert session.close(passing(), str(tmp_path), lines.append) == 3
    assert verify(tmp_path / "report.json") == passing()
    assert lines == ["error: the summary can't be shown: RuntimeError: of the suite"]


def test_a_report_that_cannot_be_written_is_shown(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    lines: list[str] = []
    assert session.close(passing(), str(tmp_path), lines.append) == 3
    assert "conforms to" in lines[0]
    assert lines[-1] == f"error: {tmp_path}: the report can't be written: No space left on device"


def test_exit_statuses_tell_what_came_of_a_run():
    whole = passing()
    lines: list[str] = []
    first, *rest = whole.records
    wrong = msgspec.structs.replace(first, status="fail", reason="wrong")
    broken = msgspec.structs.replace(first, status="error", reason="hung")
    part = msgspec.structs.replace(whole, header=msgspec.structs.replace(whole.header, narrowed="--only lif"))
    reports = [whole, part, *(msgspec.structs.replace(whole, records=(one, *rest)) for one in (wrong, broken))]
    assert [session.close(found, None, lines.append) for found in reports] == [0, 0, 1, 3]


def _command(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twinspike_conformance", *RUN, *words]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, **options)  # type: ignore[call-overload]


def test_nobody_who_reads_costs_no_report(tmp_path):
    read, write = os.pipe()
    os.close(read)
    run = _command("--report", str(tmp_path), stdout=write)
    os.close(write)
    assert (run.returncode, run.stderr) == (0, "")
    assert store.read(tmp_path / "report.json").records


def test_a_terminal_that_lacks_signs_is_written_to(tmp_path):
    run = _command(env=os.environ | {"PYTHONIOENCODING": "ascii"}, stdout=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (0, "")
    assert "nothing was wrong with numpy" in run.stdout


# --- a part is not the whole -----------------------------------------------------------------------------


def _part(narrowed: str, left: int) -> store.Report:
    """A report of which the last tests were left out."""
    whole = passing()
    out = (msgspec.structs.replace(r, status="not run", reason="left out", failure=None) for r in whole.records[-left:])
    header = msgspec.structs.replace(whole.header, narrowed=narrowed)
    return msgspec.structs.replace(whole, header=header, records=(*whole.records[:-left], *out))


@pytest.mark.parametrize(("narrowed", "left"), [("--only lif", 1), ("--only lif", 30), ("", 30)])
def test_a_part_is_incomplete_and_grey_and_not_accepted_as_the_whole(narrowed, left, tmp_path):
    found = _part(narrowed, left)
    n = len(found.records)
    assert found.verdict == "incomplete"
    assert msgspec.json.decode(badge.endpoint(found))["color"] == badge.COLOURS["incomplete"]
    assert badge.COLOURS["incomplete"] in badge.svg(found)
    assert badge.message(found).startswith(f"torch · f32-ieee · cpu · ci: incomplete, {summary.ran(found)} of {n} tests, ")
    assert f"{left} not run" in badge.message(found)
    text = summary.sentence(found)
    assert "conform" not in text
    for words in ("profile ci", narrowed, f"{summary.ran(found)} of {n} tests"):
        assert words in text
    assert 'data-verdict="incomplete"' in html.render([found])
    store.write(found, tmp_path / "r.json")
    assert verify(tmp_path / "r.json") == found  # it is true to itself
    with pytest.raises(store.SpecError, match="expected a run of the whole suite, got"):
        verify(tmp_path / "r.json", ())


def test_a_failure_is_graver_than_a_part():
    found = _part("--only lif", 3)
    wrong = msgspec.structs.replace(found.records[0], status="fail", reason="wrong")
    assert msgspec.structs.replace(found, records=(wrong, *found.records[1:])).verdict == "fail"
    assert summary.overall([passing(), found]) == "incomplete"
    assert summary.overall([report(), found]) == "fail"
    assert "1 of 2 runs conforms" in summary.overall_sentence([passing(), found])


def test_a_few_tests_that_a_profile_leaves_out_narrow_nothing():
    found = _part("", 3)
    assert found.verdict == "pass"
    assert summary.sentence(found).endswith("profile ci, but for 3 tests not run.")


def test_a_report_that_says_to_be_whole_and_lacks_tests_is_refused(tmp_path):
    store.write(passing(), tmp_path / "r.json")
    ids = {record.id for record in passing().records}
    assert verify(tmp_path / "r.json", ids) == passing()
    with pytest.raises(store.SpecError, match="got 2 of them missing"):
        verify(tmp_path / "r.json", {*ids, "one[more]", "two[more]"})


def test_only_makes_a_part(tmp_path, capsys):
    assert suite([*RUN, "--report", str(tmp_path)]) == 0
    found = store.read(tmp_path / "report.json")
    assert (found.verdict, found.header.narrowed) == ("incomplete", "--only operation[relu-exact]")
    assert {record.id for record in found.records} == set(CHECKS)
    assert "conforms to" not in capsys.readouterr().out
    assert suite(["verify", str(tmp_path / "report.json")]) == 2
    assert f"1 of {len(CHECKS)} tests run (--only operation[relu-exact])" in capsys.readouterr().err


def test_a_whole_run_is_verified_with_its_profile(tmp_path, capsys):
    assert suite(["numpy", "--precision", "f64", "--profile", "smoke", "--report", str(tmp_path)]) == 0
    capsys.readouterr()
    assert suite(["verify", str(tmp_path / "report.json")]) == 0
    assert "report.json: pass, profile smoke, " in capsys.readouterr().out
