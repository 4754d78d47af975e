"""The kill matrix: which test found which fault of the corpus, and after how many examples."""

from __future__ import annotations

from twinspike_conformance.report.markup import Html, details, join, table, tag
from twinspike_conformance.report.parts import Runs, clause_links
from twinspike_conformance.report.record import KillRow
from twinspike_conformance.report.summary import ratio
from twinspike_conformance.report.terminal import summary_of_kills

_ORDER = ("exact", "accept_set", "bound", "certificate", "property")


def faults(runs: Runs) -> Html | None:
    """A matrix per run that tried the corpus: faults by rungs, with the examples that the first killer needed."""
    parts = []
    for label, report in runs:
        if not report.kills:
            continue
        if len(runs) > 1:
            parts.append(tag("h3", label))
        parts.append(tag("p", summary_of_kills(report).removeprefix("faults: ").capitalize(), ".", class_="lead"))
        seen = {rung for row in report.kills for rung in row.rungs}
        rungs = [*(r for r in _ORDER if r in seen), *sorted(seen - set(_ORDER))]
        ordered = sorted(report.kills, key=lambda row: (bool(row.killers) + 2 * bool(row.equivalent), len(row.killers) > 1))
        heads = ("fault", "clause", "in", *rungs, "killed by")
        parts.append(table(heads, (_row(row, rungs) for row in ordered), f"Faults and their killers, {label}", class_="kills"))
    if not parts:
        return None
    note = (
        "A number is how many examples the quickest test of that rung needed to see the fault; faults that nothing saw come "
        "first, then those that a single test saw."
    )
    return join(*parts, tag("p", note, class_="muted"))


def _row(row: KillRow, rungs: list[str]) -> tuple[str, ...]:
    origin = tag("span", f"from {row.origin}", class_="muted") if row.origin else None
    named = join(tag("code", row.fault), " ", tag("span", row.description, class_="text"), " ", origin)
    cells = [_cell(row, rung) for rung in rungs]
    return (named, clause_links((row.clause,)), row.base, *cells, _killers(row))


def _cell(row: KillRow, rung: str) -> Html:
    needed = [n for r, n in zip(row.rungs, row.examples, strict=True) if r == rung]
    if not needed:
        return tag("td", tag("span", "·", class_="muted"), class_="kill none")
    depth = 1 if min(needed) <= 1 else 2 if min(needed) <= 10 else 3
    return tag("td", ratio(min(needed)), class_=f"kill depth{depth}")


def _killers(row: KillRow) -> Html:
    if row.equivalent:
        return details(tag("span", "equivalent, proved", class_="muted"), tag("p", row.equivalent, class_="text"))
    if not row.killers:
        return tag("td", tag("span", "✗ survived", class_="chip fail"))
    n = len(row.killers)
    head = f"{n} tests" if n > 1 else tag("span", "? one test only", class_="chip inconclusive")
    pairs = zip(row.killers, row.examples, strict=True)
    items = (tag("li", tag("code", name), f" after {count} example{'' if count == 1 else 's'}") for name, count in pairs)
    return details(head, tag("ul", *items, class_="tests"))
