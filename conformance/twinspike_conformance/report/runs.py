"""What ran, how long, every test, and the packages around it."""

from __future__ import annotations

from datetime import datetime

from twinspike_conformance.report import summary
from twinspike_conformance.report.markup import Html, details, join, table, tag
from twinspike_conformance.report.parts import Runs, chip, clause_links, with_run
from twinspike_conformance.report.plots import status_bar, time_bar
from twinspike_conformance.report.record import Header, Record, Report, Side

SHOWN = 10
"""Rows of the table of times."""


def runs_section(runs: Runs) -> Html:
    """A card per run."""
    cards = (_card(label, report, i) for i, (label, report) in enumerate(runs))
    return tag("div", *cards, class_="cards one" if len(runs) == 1 else "cards")


def _card(label: str, report: Report, i: int) -> Html:
    h = report.header
    facts = {
        "backends" if h.against else "backend": summary.implementation(h),
        "precision": h.precision,
        "device": summary.place(h),
        "mode": summary.mode(h),
        "profile": h.profile,
        **({"a part": h.narrowed} if h.narrowed else {}),
        "seed": str(h.seed),
        "specification": h.spec_version,
        "suite": h.suite_version,
        **{f"{side.backend} written for": side.written_for for side in summary.sides(h) if side.written_for},
        **({"official": "yes"} if h.official else {}),
        "examples": summary.number(sum(record.examples for record in report.records)),
        "comparisons": summary.number(sum(record.comparisons for record in report.records)),
        "started": _clock(h.started),
        "took": summary.duration(h.seconds),
        "processes": str(h.jobs),
        "Python": h.python,
        "platform": h.platform,
    }
    told = {*(side.backend for side in summary.sides(h)), "python", "twinspike"}
    found = {name: value for side in summary.sides(h) for name, value in side.versions.items()}
    versions = {f"{name} version": value for name, value in found.items() if name not in told}
    shown = tag(
        "dl", *(tag("div", tag("dt", key), tag("dd", value)) for key, value in (facts | versions).items()), class_="facts"
    )
    flags = join(*(_flags(side) for side in summary.sides(h) if side.flags))
    head = tag("h3", chip(report.verdict), " ", label)
    return tag("article", head, status_bar(summary.counts(report)), shown, flags, class_="card", id=f"run-{i}")


def _flags(side: Header | Side) -> Html:
    rows = ((tag("code", key), tag("code", value)) for key, value in sorted(side.flags.items()))
    shown = table(("flag", "value"), rows, f"Flags of {side.backend}", class_="flags")
    return details(f"flags of {side.backend}, as read back from the framework", shown, open_=True)


def _clock(text: str) -> str:
    """A time of ISO 8601 for people; what is none stays as it is."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return text


def time(runs: Runs) -> Html | None:
    """The slowest tests, and the share of first calls."""
    found = [(label, record) for label, report in runs for record in report.records if record.seconds > 0]
    if not found:
        return None
    found.sort(key=lambda item: -item[1].seconds)
    total = sum(record.seconds for _, record in found)
    first = sum(record.compile_seconds for _, record in found)
    whole = sum(report.header.seconds for _, report in runs)
    lead = (
        f"{summary.duration(whole)} in all, {summary.duration(total)} of them in tests; about {first / total:.0%} of "
        "that compiling (the darker part of a bar): what first calls of a shape and config took longer than later ones."
    )
    longest = found[0][1].seconds
    rows = [
        (
            tag("code", record.id),
            *with_run(runs, label),
            tag("td", summary.duration(record.seconds), class_="number"),
            tag("td", time_bar(record.seconds, record.compile_seconds, longest), class_="wide"),
        )
        for label, record in found[:SHOWN]
    ]
    rest = sum(record.seconds for _, record in found[SHOWN:])
    heads = ("test", *(("run",) if len(runs) > 1 else ()), "took", "")
    note = tag("p", f"{len(found) - SHOWN} others took {summary.duration(rest)} together.", class_="muted") if rest else None
    return join(tag("p", lead, class_="lead"), table(heads, rows, "The slowest tests"), note)


def every_test(runs: Runs) -> Html:
    """All tests of all runs, folded per run."""
    parts = []
    heads = ("test", "status", "what it says", "rung", "clauses", "examples", "comparisons", "took")
    for label, report in runs:
        body = table(heads, (_test(record) for record in report.records), f"All tests, {label}", class_="every")
        head = f"{label}: {summary.count_text(report)}" if len(runs) > 1 else summary.count_text(report)
        parts.append(details(head, body))
    return join(*parts)


def _test(record: Record) -> tuple[str, ...]:
    said = join(record.sentence, tag("span", f" {record.reason}", class_="muted") if record.reason else None)
    return (
        tag("code", record.id),
        chip(record.status),
        tag("td", said, class_="text"),
        record.rung,
        clause_links(record.clauses),
        tag("td", summary.number(record.examples), class_="number"),
        tag("td", summary.number(record.comparisons), class_="number"),
        tag("td", summary.duration(record.seconds), class_="number"),
    )


def packages(runs: Runs) -> Html:
    """What pip lists, one list per distinct environment."""
    lists: dict[tuple[str, ...], list[str]] = {}
    for label, report in runs:
        lists.setdefault(report.header.packages, []).append(label)
    parts = []
    for names, labels in lists.items():
        head = f"{len(names)} packages" + (f" of {', '.join(labels)}" if len(lists) > 1 else "")
        parts.append(details(head, tag("pre", tag("code", "\n".join(names) or "none listed"), tabindex="0")))
    return join(*parts)
