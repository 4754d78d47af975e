"""A comparison that an answer of zeros would pass says nothing: such are counted, told, and leave a check inconclusive."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from conformance_examples import passing

import twinspike as ts
from twinspike_conformance.bounds.finding import Finding, compare, holds
from twinspike_conformance.cases import Example
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.report import html, store, summary, terminal
from twinspike_conformance.report.record import VACUOUS, Record, says_little
from twinspike_conformance.run.profiles import PROFILES
from twinspike_conformance.run.runner import Tally, run_check

NUMPY = ts.load("numpy")
BENCH = Bench(NUMPY, NUMPY.session("cpu", "f64"))
SHARP = compare("sharp", [1.0, 2.0], [1.0, 2.0], 0.5, rung="bound", clauses=())
BLIND = compare("blind", [1.0, 2.0], [1.0, 2.0], 2.0, rung="bound", clauses=())


@pytest.mark.parametrize(
    ("want", "bound", "vacuous"),
    [
        ([1.0, -2.0], 2.0, True),
        ([1.0, -2.0], np.nextafter(2.0, 0), False),
        ([1.0, -2.0], [1.0, 1.0], False),
        ([0.0, -2.0], [0.0, 2.0], True),
        ([0.0, 0.0], 1.0, False),  # zeros are right
        ([1.0], 0.0, False),
        ([1.0], np.inf, True),
        ([], 1.0, False),
    ],
)
def test_what_zeros_would_pass_is_vacuous(want: list[float], bound: float, vacuous: bool) -> None:
    finding = compare("y", want, want, bound, rung="bound", clauses=())
    assert finding.vacuous == vacuous
    zeros = compare("y", np.zeros(len(want)), want, bound, rung="bound", clauses=())
    assert zeros.ok == (vacuous or not np.any(want))


def test_a_property_and_a_wrong_shape_are_not_vacuous() -> None:
    assert not holds("y", True, got="1", want="1", clauses=()).vacuous
    assert not compare("y", np.zeros(2), np.ones(3), 9.0, rung="bound", clauses=()).vacuous


def test_vacuous_comparisons_are_counted_among_those_with_a_bound() -> None:
    nothing = compare("y", [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], rung="certificate", clauses=())
    assert nothing.bound == 0, "its worst element has no room"
    tally = Tally()
    tally.add(
        Example("relu", {}, {"B": 1}, "normal", False, 0),
        [SHARP, BLIND, nothing, holds("z", True, got="", want="", clauses=())],
        1.0,
    )
    assert (tally.comparisons, sum(tally.ratios), tally.vacuous) == (4, 3, 2)


def of_blind(blind: int, sharp: int) -> Record:
    """The record of a check whose one example gives so many comparisons."""

    def run(bench: Bench, example: Example) -> list[Finding]:
        return [BLIND] * blind + [SHARP] * sharp

    check = msgspec.structs.replace(CHECKS["operation[relu-rounded]"], run=run, weight=0.0)
    return run_check(check, BENCH, PROFILES["smoke"], 0)


@pytest.mark.parametrize(
    ("blind", "sharp", "status"),
    [
        (0, 1, "pass"),
        (1, 0, "inconclusive"),
        (1, 1, "pass"),
        (2, 0, "inconclusive"),
        (1, 19, "pass"),
        (2, 18, "inconclusive"),
        (2, 19, "pass"),
        (3, 37, "inconclusive"),
    ],
)
def test_more_than_a_few_leave_a_check_inconclusive(blind: int, sharp: int, status: str) -> None:
    record = of_blind(blind, sharp)
    assert (record.status, record.vacuous, sum(record.ratios)) == (status, blind, blind + sharp)
    assert says_little(record) == (status == "inconclusive")
    if status == "inconclusive":
        few = f"more than 1 in {VACUOUS}" if sharp else "all"
        assert record.reason == f"an answer of zeros would pass {blind} of {blind + sharp} comparisons with a bound, {few}"


def test_a_failure_stays_one() -> None:
    wrong = compare("y", [9.0], [1.0], 0.5, rung="bound", clauses=())
    check = msgspec.structs.replace(CHECKS["operation[relu-rounded]"], run=lambda *_: [BLIND] * 9 + [wrong], weight=0.0)
    assert run_check(check, BENCH, PROFILES["smoke"], 0).status == "fail"


def test_the_count_is_kept_and_told(tmp_path: Path) -> None:
    good = passing()
    place = next(i for i, record in enumerate(good.records) if sum(record.ratios) > 100)
    records = list(good.records)
    records[place] = msgspec.structs.replace(records[place], vacuous=3)
    report = msgspec.structs.replace(good, records=tuple(records))
    store.write(report, tmp_path / "report.json")
    assert store.verify(tmp_path / "report.json") == report
    bounded = sum(sum(record.ratios) for record in records)
    told = f"an answer of zeros would pass 3 of {bounded} comparisons with a bound (3 in {records[place].id})"
    assert summary.vacuous(records) == told
    assert told in terminal.render(report)
    assert told in html.render([report])
    assert f"an answer of zeros would pass 0 of {bounded} comparisons with a bound" in terminal.render(good)


def test_a_report_from_before_the_count_is_read(tmp_path: Path) -> None:
    raw = msgspec.json.decode(store.dumps(passing()))
    for record in raw["records"]:
        del record["vacuous"]
    (tmp_path / "report.json").write_bytes(msgspec.json.encode(raw))
    assert store.verify(tmp_path / "report.json") == passing()
