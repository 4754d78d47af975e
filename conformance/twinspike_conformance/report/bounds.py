"""How near errors came to their bounds: a suite whose bounds are too wide would pass anything."""

from __future__ import annotations

from twinspike_conformance.report import summary
from twinspike_conformance.report.markup import Html, details, join, table, tag
from twinspike_conformance.report.parts import Runs, chip, glyph, with_run
from twinspike_conformance.report.plots import histogram, position, spark
from twinspike_conformance.report.record import RATIO_BINS, Record

SHOWN = 10
"""Rows of the table that are not folded."""


def bounds(runs: Runs) -> Html | None:
    """A histogram per run and rung, then the tests, the worst first."""
    found = [(label, record) for label, report in runs for record in report.records if sum(record.ratios)]
    if not found:
        return None
    figures = []
    for label, report in runs:
        for rung, bins in _by_rung([record for record in report.records if sum(record.ratios)]).items():
            name = f"{label}, {rung}" if len(runs) > 1 else rung
            told = f"{summary.number(sum(bins))} comparisons"
            figures.append(tag("figure", tag("figcaption", tag("b", name), f" {told}"), histogram(bins, name)))
    found.sort(key=lambda item: -item[1].worst_ratio)
    run = ("run",) if len(runs) > 1 else ()
    heads = ("test", *run, "rung", "distribution", "comparisons", "vacuous", "worst error/bound", "")
    rows = [(*_row(runs, label, record),) for label, record in found]
    flat = sum(summary.loose(record) for _, record in found)
    note = (
        f"{summary.of_tests(flat)} stayed below {summary.LOOSE:g} of the bound everywhere: "
        "of how sharp their bounds are, this run says nothing."
        if flat
        else f"No test stayed below {summary.LOOSE:g} of its bound everywhere: where there were errors, the bound says something."
    )
    equal = sum(record.worst_ratio == 0 for _, record in found)
    same = f" {summary.of_tests(equal)} had no error at all, which shows nothing about a bound." if equal else None
    rest = rows[SHOWN:]
    folded = (
        details(f"{len(rest)} more, further from their bounds", table(heads, rest, "Other tests with bounds")) if rest else None
    )
    return join(
        tag("p", "An error is divided by the largest that correct rounding could cause. ", note, same, class_="lead"),
        tag("p", f"Vacuous comparisons: {summary.vacuous([record for _, record in found])}."),
        *(tag("p", f"{label}, {told}.") for label, report in runs if (told := summary.reached(report.records))),
        tag("div", *figures, class_="figures"),
        table(heads, rows[:SHOWN], "Tests whose errors came nearest to their bounds"),
        folded,
    )


def _by_rung(records: list[Record]) -> dict[str, list[int]]:
    bins: dict[str, list[int]] = {}
    for record in records:
        total = bins.setdefault(record.rung, [0] * (len(RATIO_BINS) + 1))
        for i, n in enumerate(record.ratios):
            total[i] += n
    return bins


def _row(runs: Runs, label: str, record: Record) -> tuple[str, ...]:
    note: Html | None = None
    if record.worst_ratio == 0:
        note = tag("span", "no error", class_="muted")
    elif summary.loose(record):
        note = tag("span", "says nothing", class_="muted")
    elif record.status != "pass":
        note = chip(record.status)
    worst = tag("span", summary.ratio(record.worst_ratio), class_="number")
    return (
        join(glyph(record.status), " ", tag("code", record.id)),
        *with_run(runs, label),
        record.rung,
        spark(record.ratios),
        tag("td", summary.number(sum(record.ratios)), class_="number"),
        tag("td", summary.number(record.vacuous), class_="number"),
        tag("td", position(record.worst_ratio), " ", worst, class_="worst"),
        join(note),
    )
