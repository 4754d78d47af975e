"""The field's judge, without any of the libraries: it clears who is right, and accuses each fault at its clause alone."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import twinspike
from twinspike.clauses import BY_ID
from twinspike.errors import SpecError
from twinspike_conformance.run.opening import load
from twinspike_field import known, report
from twinspike_field.clauses import ASKED
from twinspike_field.command import main, troubles
from twinspike_field.judge import judge
from twinspike_field.known import deviations, digest, misplaced, output_of
from twinspike_field.libraries import LIBRARIES, library
from twinspike_field.page import page
from twinspike_field.report import Cell, Deviation, Field, Judged, Place

ROOT = Path(__file__).parents[2]


def outcomes(name: str) -> dict[str, str]:
    return {cell.clause: cell.outcome for cell in judge(load(name), "f64")}


def test_reference_agrees_at_every_clause() -> None:
    assert outcomes("numpy") == dict.fromkeys(ASKED, "agrees")
    assert set(ASKED) <= set(BY_ID)


@pytest.mark.parametrize(
    ("fault", "clauses"),
    [
        ("lif-fire-strict", {"LIF-2"}),
        ("lif-soft-by-one", {"LIF-4", "LIF-9"}),
        ("sur-triangle-derivative", {"SUR-3"}),
    ],
)
def test_fault_is_seen_at_its_clause_and_where_its_state_is_summed(fault: str, clauses: set[str]) -> None:
    assert {clause for clause, outcome in outcomes(f"mutant:{fault}").items() if outcome == "differs"} == clauses


DEVIATION = Deviation(
    id="x-y",
    kind="fault",
    title="One is not two",
    clauses=("LIF-2",),
    expected="2",
    documented="x.py:1",
    got="1",
    where=(Place("x.py", 1, digest("x = 1")),),
    code="print(1)",
    prints="1",
)


def cell(outcome: report.Outcome, clause: str = "LIF-2") -> Cell:
    return Cell(
        clause=clause, precision="f64", outcome=outcome, asked=1, refused=0, compared=1, wrong=1, worst=2.0,
        first="s: expected 1, got 0",
    )  # fmt: skip


def judged(*cells: Cell, known: tuple[Deviation, ...] = ()) -> Judged:
    return Judged(
        name="x", title="X", version="1", versions={}, python="3.11", machine="m", cells=cells, deviations=known
    )  # fmt: skip


class Somewhere:
    """A library whose source is a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder(self) -> Path:
        return self._folder


def test_what_nobody_explained_and_what_is_not_seen_are_troubles(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("  x = 1\n")
    one: Callable[[Judged], list[str]] = lambda found: troubles(found, Somewhere(tmp_path))  # type: ignore[arg-type]  # noqa: E731
    assert not one(judged(cell("differs"), known=(DEVIATION,)))
    assert "does not say why" in one(judged(cell("differs")))[0]
    assert "LIF-2 does not differ" in one(judged(cell("agrees"), known=(DEVIATION,)))[0]
    other = msgspec.structs.replace(DEVIATION, prints="2")
    assert "expected it to print '2', got '1'" in one(judged(cell("differs"), known=(other,)))[0]
    (tmp_path / "x.py").write_text("x = 2\n")
    assert "digest" in one(judged(cell("differs"), known=(DEVIATION,)))[0]


def test_output_is_what_is_printed_and_the_last_line_of_what_is_raised() -> None:
    raising = msgspec.structs.replace(DEVIATION, code="print(1)\nraise ValueError('no')")
    assert output_of(raising) == "1\nValueError: no"


def test_place_beyond_a_file_is_told(tmp_path: Path) -> None:
    assert "no such line" in misplaced(Place("none.py", 1, ""), tmp_path)


@pytest.mark.parametrize("name", LIBRARIES)
def test_known_deviations_can_be_read(name: str) -> None:
    assert deviations(name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('id = "x"', "id that begins"),
        ('clauses = ["LIF-one"]', "clauses of the specification"),
        ('code = "a\\nb\\nc\\nd\\ne\\nf"', "1 to 5 lines"),
        ("where = []", "a line of the library's source"),
        ('documented = ""', "documents what is expected"),
        ('other = ""', "unknown field"),
    ],
)
def test_deviation_that_says_too_little_is_refused(tmp_path: Path, text: str, said: str) -> None:
    whole = {
        "id": '"snntorch-a"', "kind": '"fault"', "title": '""', "expected": '""', "got": '""', "documented": '"a"',
        "where": '[{ file = "a", line = 1, digest = "0" }]', "code": '"a"', "prints": '""',
    }  # fmt: skip
    key, _, value = text.partition(" = ")
    lines = "\n".join(f"{k} = {v}" for k, v in {**whole, key: value}.items())
    (tmp_path / "snntorch.toml").write_text(f"[[deviation]]\n{lines}\n")
    with pytest.raises(SpecError, match=said):
        deviations("snntorch", tmp_path)


def test_extras_pin_the_versions_that_are_judged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: needs[0] for name, needs in project["optional-dependencies"].items() if name.startswith("field-")}
    assert extras == {f"field-{one.name}": f"{one.distribution}=={one.version}" for one in LIBRARIES.values()}
    assert {path.stem for path in known.HERE.glob("*.toml")} == set(LIBRARIES)


def test_results_are_those_of_the_table_and_say_why_each_cell_differs(tmp_path: Path) -> None:
    found = report.read(ROOT / "field" / "field.json")
    assert [(one.name, one.version) for one in found.libraries] == [(one.name, one.version) for one in LIBRARIES.values()]
    for one in found.libraries:
        assert one.deviations == deviations(one.name), "judge it again: what is known has changed"
        assert all(cell.outcome != "differs" or one.kind(cell) for cell in one.cells)
    report.write(found, tmp_path / "again.json")
    assert report.read(tmp_path / "again.json") == found


def test_results_of_another_schema_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "field.json"
    report.write(Field(schema=0, specification="", libraries=()), path)
    with pytest.raises(SpecError, match="schema: expected 1, got 0"):
        report.read(path)
    path.write_text("{")
    with pytest.raises(SpecError, match="expected the results of the field"):
        report.read(path)


def test_page_shows_each_outcome_and_leads_to_each_deviation() -> None:
    choice = msgspec.structs.replace(DEVIATION, id="x-z", kind="choice", clauses=("LIF-1",))
    cells = cell("differs"), cell("agrees", "LIF-3"), cell("cannot", "LIF-4"), cell("differs", "LIF-1")
    text = page(Field(specification=twinspike.__version__, libraries=(judged(*cells, known=(DEVIATION, choice)),)))
    rows = dict(re.findall(r"\| \[(LIF-\d)\]\(.*?\).*? \| (.*?) \|", text))
    assert rows["LIF-2"] == "[**fault**](#x-y)"
    assert rows["LIF-1"] == "[choice](#x-z)"
    assert (rows["LIF-3"], rows["LIF-4"]) == ("✓", "n/a")
    assert text.count("{#x-y}") == text.count("{#x-z}") == 1


def test_command_refuses_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", "nothing", "--out", str(tmp_path / "x.json")]) == 2
    assert capsys.readouterr().err.startswith("library: expected one of ")
    one = msgspec.structs.replace(library("snntorch"), distribution="no-such-distribution")
    with pytest.raises(SpecError, match=r"got nothing; pip install 'twinspike\[field-snntorch\]'"):
        one.backend()


def test_several_libraries_are_judged_each_in_a_process_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", "snntorch", "slax", "--out", str(tmp_path / "x.json")]) == 2
    said = capfd.readouterr().err
    assert [line.split(":")[0] for line in said.splitlines()] == ["library snntorch", "library slax"]
    assert not (tmp_path / "x.json").exists()
    assert main(["judge", "snntorch", "nothing", "--out", str(tmp_path / "x.json")]) == 2
    assert capfd.readouterr().err.startswith("library: expected one of ")
