"""What a report says in few words; every form of it (page, terminal, JUnit, badge) asks here, so none tells another story."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import get_args

import twinspike
from twinspike.clauses import CLAUSES, Clause
from twinspike_conformance.report.record import Header, Record, Report, Side, Status, Verdict

GRAVITY: tuple[Status, ...] = ("error", "fail", "inconclusive", "waived", "pass", "not run", "not supported")
"""Of several tests of one clause the first of these that occurs is the clause's status."""

GLYPHS: dict[str, str] = {
    "pass": "✓", "fail": "✗", "error": "!", "inconclusive": "?", "waived": "~", "not supported": "-", "not run": "○",
    "incomplete": "◐", "no test": "·", "no demand": "◦",
}  # fmt: skip
"""So that no status is told by colour alone."""

MEANINGS: dict[str, str] = {
    "pass": "ran, and everything it compared was as the clauses demand",
    "fail": "ran, and something was not",
    "error": "could not be judged: its process ended or came to the limit of its time, or the suite itself failed",
    "inconclusive": "ran, but rounding left too much open to decide, or an answer of zeros would pass too much of it",
    "waived": "fails in a way that a dated expectation accepts",
    "not supported": "the backend does not claim it",
    "not run": "was left out of this run",
    "incomplete": "of a run: nothing that ran was wrong, and it was a part of the suite",
    "no test": "no test of this run names the clause",
    "no demand": "the clause permits something, leaves it undefined or is withdrawn, so nothing can violate it",
}

LOOSE = 1e-3
"""Where no error comes this near to its bound, a run says nothing about how sharp the bound is: faults must show it."""


def counts(report: Report) -> dict[str, int]:
    """Tests per status, gravest first, without zeros."""
    found = Counter(record.status for record in report.records)
    return {status: found[status] for status in GRAVITY if found[status]}


def count_text(report: Report) -> str:
    """Such as `2 fail, 1 waived, 40 pass`."""
    return ", ".join(f"{n} {status}" for status, n in counts(report).items()) or "no tests"


def ran(report: Report) -> int:
    """Tests that were run."""
    return sum(record.status not in ("not run", "not supported") for record in report.records)


def of_tests(n: int) -> str:
    """`1 test`, `2 tests`."""
    return f"{n} test{'' if n == 1 else 's'}"


def implementation(header: Header) -> str:
    """The backend, or the two, with their frameworks' versions where the header knows them."""
    return " and ".join(f"{side.backend} {side.versions.get(side.backend, '')}".strip() for side in sides(header))


def sides(header: Header) -> list[Header | Side]:
    """The backend that was run, and the one that it was held against, if any."""
    return [header] if header.against is None else [header, header.against]


def other_specification(written_for: str, judged_by: str = twinspike.__version__) -> str:
    """Why a backend may know less or more than it is asked for; empty where it was written for the version that judges it."""
    if written_for in ("", judged_by):
        return ""
    return f"written for version {written_for} of the specification and is judged by {judged_by}: it can't know what lies between"


def place(header: Header) -> str:
    """Where it ran: the device and what that is called; of a cross run both, if they differ."""
    return _joined(
        side.device if side.device_name in ("", side.device) else f"{side.device} ({side.device_name})" for side in sides(header)
    )


def mode(header: Header) -> str:
    """`compiled` or `eager`; of a cross run both, if they differ."""
    return _joined("compiled" if side.compiled else "eager" for side in sides(header))


def _joined(words: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(words))


def session(header: Header) -> list[str]:
    """What was run: backend, precision, device, and `compiled` where it was; of a cross run both sides' where they differ."""
    found = sides(header)
    modes = [] if not any(side.compiled for side in found) else [mode(header)]
    return [" and ".join(side.backend for side in found), header.precision, _joined(side.device for side in found), *modes]


def labels(reports: Sequence[Report]) -> list[str]:
    """A short name per run, all different."""
    found = [" ".join(session(report.header)) for report in reports]
    repeated = {name for name, n in Counter(found).items() if n > 1}
    seen: Counter[str] = Counter()
    for i, name in enumerate(found):
        if name in repeated:
            seen[name] += 1
            found[i] = f"{name} #{seen[name]}"
    return found


def sentence(report: Report) -> str:
    """The verdict in one sentence."""
    h, found = report.header, counts(report)
    what = f"Twinspike {h.spec_version} in {h.precision} on {place(h)}, profile {h.profile}"
    does, does_not = ("agree on", "do not agree on") if h.against else ("conforms to", "does not conform to")
    wrong = found.get("fail", 0) + found.get("error", 0)
    total, weak = len(report.records), sum(row.breaks_gate for row in report.kills)
    if wrong:
        return f"{implementation(h)} {does_not} {what}: {wrong} of {of_tests(total)} failed."
    if not {"pass", "waived"} & set(found):
        return f"Nothing was shown about {implementation(h)} and {what}: {'no test passed' if total else 'no test ran'}."
    if weak:
        return f"The suite is too weak for {what}: {weak} of {len(report.kills)} faults in {h.backend} break its gate."
    if report.verdict == "inconclusive":
        open_ = of_tests(found["inconclusive"])
        return f"Whether {implementation(h)} {does} {what} is undecided: {open_} of {total} inconclusive."
    words = {"waived": "waived", "not supported": "not claimed", "not run": "not run"}
    limits = " and ".join(f"{of_tests(found[status])} {word}" for status, word in words.items() if status in found)
    if report.verdict == "incomplete":
        part = f"A part of {what}, was run{f' ({h.narrowed})' if h.narrowed else ''}"
        return f"{part}: nothing was wrong with {implementation(h)} in {ran(report)} of {of_tests(total)}; {limits}."
    return f"{implementation(h)} {does} {what}{f', but for {limits}' if limits else ''}."


def overall(reports: Sequence[Report]) -> Verdict:
    """The gravest verdict of several runs."""
    found = {report.verdict for report in reports}
    return next((verdict for verdict in get_args(Verdict) if verdict in found), "fail")


def overall_sentence(reports: Sequence[Report]) -> str:
    """One sentence for all runs."""
    if len(reports) == 1:
        return sentence(reports[0])
    good = sum(report.verdict == "pass" for report in reports)
    versions = " and ".join(sorted({report.header.spec_version for report in reports}))
    if any(report.header.against for report in reports):
        return f"{good} of {len(reports)} runs of Twinspike {versions} pass."
    if good == len(reports):
        return f"All {good} runs conform to Twinspike {versions}."
    return f"{good} of {len(reports)} runs conform{'s' if good == 1 else ''} to Twinspike {versions}."


def wrong(report: Report) -> list[Record]:
    """Tests that failed or erred, in the order of the run."""
    return [record for record in report.records if record.status in ("fail", "error")]


def subject(record_id: str) -> str:
    """The operation that a test is about: `operation[lif-exact]` is about lif."""
    inside = re.search(r"\[([^\]-]+)", record_id)
    return inside.group(1) if inside else record_id


def of_clause(report: Report, clause: str) -> tuple[Status | None, list[Record]]:
    """A clause's status and its tests; None if the run has no test of it."""
    tests = [record for record in report.records if clause in record.clauses]
    found = {record.status for record in tests}
    return next((status for status in GRAVITY if status in found), None), tests


def chapters() -> dict[str, list[Clause]]:
    """The clauses by prefix, in order."""
    found: dict[str, list[Clause]] = {}
    for clause in CLAUSES:
        found.setdefault(clause.id.rpartition("-")[0], []).append(clause)
    return found


def loose(record: Record) -> bool:
    """Whether a test's errors, if it had any, all stayed so far below their bounds that these say nothing."""
    return sum(record.ratios) > 0 and 0 < record.worst_ratio < LOOSE


def vacuous(records: Sequence[Record]) -> str:
    """How many comparisons say nothing, in one sentence, with the tests that have most of them."""
    found = sorted((record for record in records if record.vacuous), key=lambda record: -record.vacuous)
    bounded = sum(sum(record.ratios) for record in records)
    most = f" ({', '.join(f'{record.vacuous} in {record.id}' for record in found[:3])})" if found else ""
    return f"an answer of zeros would pass {sum(r.vacuous for r in found)} of {bounded} comparisons with a bound{most}"


def reached(records: Sequence[Record]) -> str:
    """How much of what options can be was tried on whole networks, in one sentence; nothing where no test is about that."""
    parts = [
        f"{record.pairs[0]} of {record.pairs[1]} pairs of option values in {record.configs[0]} of {record.configs[1]} networks"
        for record in records
        if record.pairs[1] and record.examples
    ]
    return f"options: {', '.join(parts)}" if parts else ""


def duration(seconds: float) -> str:
    """Such as `85 ms`, `1.4 s`, `3 min 12 s`, `1 h 5 min`."""
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def number(n: int) -> str:
    """Thousands kept apart by thin spaces."""
    return f"{n:,}".replace(",", "\u2009")


def ratio(value: float) -> str:
    """error/bound in three digits."""
    return "∞" if math.isinf(value) else "0" if value == 0 else f"{value:.3g}"
