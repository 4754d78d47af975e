"""The page's bad news: failures with their reproduction, what was not shown, and waivers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from twinspike.clauses import BY_ID
from twinspike_conformance.report import summary
from twinspike_conformance.report.markup import Html, details, join, table, tag
from twinspike_conformance.report.parts import Runs, chip, clause_links, link, with_run
from twinspike_conformance.report.record import Header, Record
from twinspike_conformance.report.terminal import replay

FEW = 3
"""More clauses than these are folded."""


def failures(runs: Runs) -> Html | None:
    """The first failure of each run in full, the others folded."""
    parts = []
    for label, report in runs:
        wrong = summary.wrong(report)
        if not wrong:
            continue
        parts.append(tag("h3", label) if len(runs) > 1 else None)
        parts.append(tag("article", _failure(wrong[0], report.header, first=True), class_="failure"))
        for record in wrong[1:]:
            head = join(chip(record.status), " ", tag("code", record.id), " ", tag("span", record.sentence, class_="muted"))
            parts.append(details(head, _failure(record, report.header, first=False), class_="failure"))
    return join(*parts) if parts else None


def _failure(record: Record, header: Header, *, first: bool) -> Html:
    parts: list[Html | None] = []
    if first:
        parts.append(tag("p", chip(record.status), " ", tag("code", record.id), " came first"))
        parts.append(tag("p", record.sentence, class_="lead"))
    if record.reason:
        parts.append(tag("p", record.reason, class_="said"))
    failure = record.failure
    if failure is not None:
        if failure.sentences:
            parts.append(tag("ul", (tag("li", line) for line in failure.sentences), class_="said"))
        if failure.example:
            parts.append(tag("p", "The example: ", tag("code", failure.example)))
        if failure.suspects:
            parts.append(tag("p", "This output is exactly what these faults of the corpus give:"))
            parts.append(tag("ul", (tag("li", line) for line in failure.suspects), class_="suspects"))
        if failure.digest:
            command = tag("code", replay(failure.digest, header))
            parts += [tag("p", "Run it again:"), tag("pre", command, tabindex="0", class_="command")]
        if failure.reproduction:
            code = tag("pre", tag("code", failure.reproduction.strip("\n")), tabindex="0")
            parts += [tag("p", "Or with NumPy and the backend alone:"), code]
        if failure.clauses:
            return join(*parts, tag("p", "What was wrong is the matter of:"), _rules(failure.clauses))
    if len(record.clauses) > FEW:
        return join(*parts, details(f"The {len(record.clauses)} clauses that it tests", _rules(record.clauses)))
    return join(*parts, tag("p", "It tests:") if record.clauses else None, _rules(record.clauses))


def _rules(ids: Sequence[str]) -> Html:
    """Clauses with their text."""
    known = (BY_ID[name] for name in ids if name in BY_ID)
    return tag("dl", (join(tag("dt", clause_links((c.id,))), tag("dd", c.text)) for c in known), class_="rules")


def undecided(runs: Runs) -> Html | None:
    """Inconclusive tests, and what is not claimed or was not run, by reason."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for status in ("inconclusive", "not supported", "not run"):
        for label, report in runs:
            for record in report.records:
                if record.status == status:
                    groups.setdefault((status, record.reason, label), []).append(record)
    if not groups:
        return None
    rows = [
        (
            chip(status),
            *with_run(runs, label),
            tag("td", reason, class_="reason"),
            str(len(records)),
            join(*(join(tag("code", record.id), " ") for record in records)),
        )
        for (status, reason, label), records in groups.items()
    ]
    open_ = [r for _, report in runs for r in report.records if r.ambiguous > 0]
    note = None
    if open_:
        worst = max(open_, key=lambda r: r.ambiguous)
        note = tag(
            "p", f"Rounding left decisions open in {summary.of_tests(len(open_))}, at most {worst.ambiguous:.3g} of them in ",
            tag("code", worst.id), ".", class_="muted",
        )  # fmt: skip
    run = ("run",) if len(runs) > 1 else ()
    shown = table(("status", *run, "reason", "tests", "which"), rows, "Tests without a verdict, by reason")
    return join(shown, note)


def waivers(runs: Runs) -> Html | None:
    """Accepted deviations, the first to expire first."""
    found = [
        (record.waiver.expires, label, record, report.header)
        for label, report in runs
        for record in report.records
        if record.waiver is not None
    ]
    if not found:
        return None
    rows = []
    for expires, label, record, header in sorted(found, key=lambda item: (item[0], item[1], item[2].id)):
        assert record.waiver is not None
        rows.append(
            (
                tag("code", record.id),
                *with_run(runs, label),
                join("would be ", chip(record.waiver.status)),
                tag("td", record.reason, class_="reason"),
                link(record.waiver.url),
                join(tag("span", expires, class_="number"), " ", tag("span", _left(header.started, expires), class_="muted")),
                clause_links(record.clauses),
            )
        )
    run = ("run",) if len(runs) > 1 else ()
    heads = ("test", *run, "status", "reason", "discussed at", "until", "clauses")
    return table(heads, rows, "Deviations that are accepted until a day")


def _left(started: str, expires: str) -> str:
    """How long a waiver had to run on the day of the run."""
    try:
        days = (datetime.fromisoformat(expires).date() - datetime.fromisoformat(started).date()).days
    except ValueError:
        return ""
    return f"{days} day{'' if days == 1 else 's'} after this run"
