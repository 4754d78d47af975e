"""The end of a run in the terminal: plain text, readable in a log, gravest first."""

from __future__ import annotations

import shlex
from textwrap import shorten

from twinspike_conformance.report import summary
from twinspike_conformance.report.record import WANTED, Header, Record, Report

_COLOURS = {
    "pass": "32",
    "fail": "31",
    "error": "35",
    "inconclusive": "33",
    "incomplete": "2",
    "waived": "34",
    "not supported": "2",
    "not run": "2",
}


def render(report: Report, *, width: int = 100, colour: bool = False) -> str:
    """A summary of one run.

    Args:
        report: of the run.
        width: of the terminal in characters, at least 60.
        colour: whether the terminal understands ANSI colours.
    """
    header = report.header
    lines = [
        "",
        f"Twinspike {header.spec_version} conformance: {summary.implementation(header)}, {header.precision}, "
        f"{summary.place(header)}, {summary.mode(header)}",
        f"profile {header.profile}, seed {header.seed}, {summary.duration(header.seconds)}"
        + (f"; a part: {header.narrowed}" if header.narrowed else ""),
        "",
    ]
    for status in summary.GRAVITY[:4]:
        lines += [line for record in report.records if record.status == status for line in _entry(record, width, colour)]
    lines += _absent(report, width, colour)
    failed = summary.wrong(report)
    if failed:
        lines += _first(failed[0], header)
        others = {
            side.backend: summary.other_specification(side.written_for, header.spec_version) for side in summary.sides(header)
        }
        lines += [f"{backend} was {other}" for backend, other in others.items() if other]
    close = sorted((record for record in report.records if sum(record.ratios)), key=lambda record: -record.worst_ratio)
    if close:
        parts = [f"{summary.ratio(record.worst_ratio)} {record.id}" for record in close[:3]]
        lines.append(f"nearest to their bounds: {', '.join(parts)}")
    flat = sum(summary.loose(record) for record in close)
    if flat:
        far = f"{summary.of_tests(flat)} stayed below {summary.LOOSE:g} of the bound everywhere"
        lines.append(f"{far}: this run says nothing about those bounds")
    lines += [summary.vacuous(report.records)] if close else []
    lines += filter(None, [summary.reached(report.records)])
    if report.kills:
        lines.append(summary_of_kills(report))
    lines += _times(report)
    lines += [f"tests: {summary.count_text(report)}", _paint(summary.sentence(report), report.verdict, colour)]
    return "\n".join(lines) + "\n"


def _times(report: Report) -> list[str]:
    """Where the time went: the slowest tests, and the share of compiling."""
    slow = sorted(report.records, key=lambda record: -record.seconds)[:3]
    total = sum(record.seconds for record in report.records)
    if total == 0:
        return []
    compiling = sum(record.compile_seconds for record in report.records)
    parts = [f"{record.id} {summary.duration(record.seconds)}" for record in slow if record.seconds > 0]
    jobs = f" on {report.header.jobs} processes" if report.header.jobs > 1 else ""
    return [
        f"tests took {summary.duration(total)}{jobs}, about {compiling / total:.0%} of it compiling; slowest: {', '.join(parts)}"
    ]


def summary_of_kills(report: Report) -> str:
    """How many faults were found, in one line."""
    killed = sum(bool(row.killers) and not row.equivalent for row in report.kills)
    twice = sum(len(row.killers) >= WANTED and not row.equivalent for row in report.kills)
    equal = sum(bool(row.equivalent) for row in report.kills)
    alive = [row.fault for row in report.kills if not row.killers and not row.equivalent]
    line = f"faults: {killed} of {len(report.kills) - equal} killed, {twice} by two tests or more, {equal} proved equivalent"
    return f"{line}; survived: {', '.join(alive)}" if alive else line


def _entry(record: Record, width: int, colour: bool) -> list[str]:
    head = f"{summary.GLYPHS[record.status]} {record.status:<13} {record.id}"
    words = record.reason or (record.failure.sentences[0] if record.failure and record.failure.sentences else record.sentence)
    if record.waiver is not None:
        words = f"{words} (until {record.waiver.expires})"
    wrong = (record.failure.clauses if record.failure else ()) or record.clauses
    clauses = f" [{', '.join(wrong)}]" if wrong else ""
    return [_paint(head + clauses, record.status, colour), f"    {shorten(words, max(width, 60) - 4, placeholder=' ...')}"]


def _absent(report: Report, width: int, colour: bool) -> list[str]:
    """What is not claimed or not run, one line per reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for status in ("not run", "not supported"):
        for record in (record for record in report.records if record.status == status):
            groups.setdefault((record.status, record.reason), []).append(record.id)
    lines = []
    for (status, reason), ids in groups.items():
        head = _paint(f"{summary.GLYPHS[status]} {status:<13} {summary.of_tests(len(ids))}: {reason}", status, colour)
        lines += [head, f"    {shorten(', '.join(ids), max(width, 60) - 4, placeholder=' ...')}"]
    return lines


def _first(record: Record, header: Header) -> list[str]:
    """The first failure with all that helps to find its cause."""
    lines = ["", f"First failure: {record.id}", f"  {record.sentence}"]
    if record.reason:
        lines.append(f"  {record.reason}")
    if record.failure is not None:
        lines += [f"  {line}" for line in record.failure.sentences]
        lines += [f"  example: {record.failure.example}"] if record.failure.example else []
        lines += [f"  the same output as of fault {suspect}" for suspect in record.failure.suspects]
        if record.failure.digest:
            lines.append(f"  replay: {replay(record.failure.digest, header)}")
    return [*lines, ""]


def replay(digest: str, header: Header) -> str:
    """The command that runs an example again, for a POSIX shell: digests and backends may hold brackets and spaces."""
    words = ["python", "-m", "twinspike_conformance", "repro", digest]
    words += ["--backend", header.given, "--device", header.device, "--precision", header.precision]
    words += ["--compiled"] if header.compiled else []
    other = header.against
    if other is not None:
        words += ["--against", other.given, "--device-b", other.device, *(["--compiled-b"] if other.compiled else [])]
    return shlex.join(words)


def _paint(text: str, status: str, colour: bool) -> str:
    return f"\x1b[{_COLOURS[status]}m{text}\x1b[0m" if colour else text
