"""The page's centre: which clause was tested by what, and what came of it."""

from __future__ import annotations

from twinspike.clauses import CHAPTERS, CLAUSES, Clause
from twinspike_conformance.report import summary
from twinspike_conformance.report.markup import Html, details, join, table, tag
from twinspike_conformance.report.parts import Runs, chip, css, glyph
from twinspike_conformance.report.record import Record
from twinspike_conformance.report.summary import of_clause

_GRAVE = frozenset({"error", "fail", "inconclusive"})


def clauses(runs: Runs) -> Html:
    """A wall of tiles per run, then each chapter with the clauses' texts and tests."""
    must = [clause for clause in CLAUSES if clause.level == "MUST"]
    covered = sum(any(_ran(record) for _, report in runs for record in of_clause(report, c.id)[1]) for c in must)
    free = len(CLAUSES) - len(must)
    lead = (
        f"{covered} of the specification's {len(must)} MUST clauses have a test that ran; {free} more clauses permit something, "
        "leave it undefined or are withdrawn. Each tile is a clause: hover for its text, follow it to its tests."
    )
    walls = tag("div", (_wall(runs, i) for i in range(len(runs))), class_="walls")
    return join(
        tag("p", lead, class_="lead"), walls, *(_chapter(runs, name, found) for name, found in summary.chapters().items())
    )


def _ran(record: Record) -> bool:
    return record.status not in ("not run", "not supported")


def _status(runs: Runs, i: int, clause: Clause) -> str:
    return "no demand" if clause.level != "MUST" else of_clause(runs[i][1], clause.id)[0] or "no test"


def _wall(runs: Runs, i: int) -> Html:
    rows = []
    for name, found in summary.chapters().items():
        tiles = (_tile(clause, _status(runs, i, clause)) for clause in found)
        rows.append(join(tag("dt", CHAPTERS[name]), tag("dd", *tiles)))
    head = tag("figcaption", runs[i][0]) if len(runs) > 1 else None
    return tag("figure", head, tag("dl", *rows, class_="wall"))


def _tile(clause: Clause, status: str) -> Html:
    told = f"{clause.id}, {status}: {clause.text}"
    free = "" if clause.level == "MUST" else " free"
    number = clause.id.rpartition("-")[2]
    return tag(
        "a", tag("span", number), glyph(status), href=f"#{clause.id}", title=told, aria_label=f"{clause.id}: {status}",
        class_=f"tile {css(status)}{free}",
    )  # fmt: skip


def _chapter(runs: Runs, name: str, found: list[Clause]) -> Html:
    tally: dict[str, int] = {}
    for i in range(len(runs)):
        for clause in found:
            status = _status(runs, i, clause)
            tally[status] = tally.get(status, 0) + 1
    ordered = [status for status in (*summary.GRAVITY, "no test", "no demand") if status in tally]
    told = (tag("span", glyph(status), f" {tally[status]} {status}", class_="count") for status in ordered)
    head = join(
        tag("span", CHAPTERS[name], class_="chapter"), " ", tag("code", name),
        " ", tag("span", *told, class_="counts"),
    )  # fmt: skip
    columns = [label for label, _ in runs] if len(runs) > 1 else ["result"]
    rows = ((_rule(runs, clause), *(_cell(runs, i, clause) for i in range(len(runs)))) for clause in found)
    style = "rules many" if len(runs) > 1 else "rules"
    body = table(("clause", *columns), rows, f"Clauses of {CHAPTERS[name]}", class_=style)
    return details(head, body, open_=bool(_GRAVE & set(tally)), class_="chapter")


def _rule(runs: Runs, clause: Clause) -> Html:
    """The clause's text and, on demand, its tests."""
    tests: dict[str, tuple[Record, list[str]]] = {}
    for _, report in runs:
        for record in of_clause(report, clause.id)[1]:
            tests.setdefault(record.id, (record, []))[1].append(record.status)
    listed = tag("ul", (tag("li", _test(record, statuses)) for record, statuses in tests.values()), class_="tests")
    level = tag("span", clause.level, class_=f"level {clause.level.lower()}")
    return join(
        tag("span", tag("code", clause.id), " ", level, class_="rule"),
        tag("span", clause.text, class_="text", id=clause.id),
        details(tag("span", summary.of_tests(len(tests)), class_="muted"), listed) if tests else None,
    )


def _test(record: Record, statuses: list[str]) -> Html:
    """A test with its status in each run that has it."""
    marks = join(*(glyph(status) for status in statuses))
    said = ", ".join(dict.fromkeys(statuses))
    return join(marks, " ", tag("code", record.id), " ", tag("span", f"{said}; {record.rung}: {record.sentence}", class_="muted"))


def _cell(runs: Runs, i: int, clause: Clause) -> Html:
    """The status, and how many tests agree on it."""
    status, tests = _status(runs, i, clause), of_clause(runs[i][1], clause.id)[1]
    if not tests or status == "no demand":
        return tag("span", glyph(status), f" {status}", class_="muted")
    same = sum(record.status == status for record in tests)
    counted = f"all {same}" if same == len(tests) > 1 else f"{same} of {len(tests)}"
    return join(chip(status), " ", tag("span", counted, class_="muted number"))
