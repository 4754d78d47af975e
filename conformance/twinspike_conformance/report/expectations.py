"""Known deviations: a TOML file that accepts a failure for a reason and until a day, and is strict with itself.

An entry that matches no test, that matches one which passes, or whose day has gone is a failure of its own:
a list of excuses that nobody cleans hides the next defect.

    [[expect]]
    id = "operation[conv2d-*]"       # fnmatch on the test's id
    backend = "torch"                # these three may be patterns too, and may be left out
    device = "cuda*"
    precision = "f32-ieee"
    status = "fail"                  # or error, inconclusive
    reason = "cuDNN uses TF32 in spite of the flag"
    url = "https://example.org/issues/1"
    expires = 2027-01-01
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import msgspec

from twinspike import plain
from twinspike.errors import refuse, require
from twinspike_conformance.report.record import Header, Record, Report, Waiver


class Expectation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One accepted deviation."""

    id: str
    status: Literal["fail", "error", "inconclusive"]
    reason: str
    url: str
    """Where it is discussed; http or https."""
    expires: date
    """Last day on which it counts."""
    backend: str = "*"
    device: str = "*"
    precision: str = "*"

    def concerns(self, header: Header) -> bool:
        """Whether it speaks of such a run at all."""
        pairs = ((header.backend, self.backend), (header.device, self.device), (header.precision, self.precision))
        return all(fnmatchcase(value, pattern) for value, pattern in pairs)

    def matches(self, record: Record) -> bool:
        """Whether it speaks of this test; brackets in the pattern mean themselves, since ids have them."""
        return fnmatchcase(record.id, self.id.replace("[", "[[]"))


class _File(msgspec.Struct, forbid_unknown_fields=True):
    expect: list[Expectation] = []


def load(path: Path) -> tuple[Expectation, ...]:
    """Read a file of expectations.

    Raises:
        SpecError: no such file, no TOML, unknown or missing fields, an empty reason or a URL that is none.
    """
    try:
        entries = msgspec.convert(plain.read_table(path), _File).expect
    except msgspec.ValidationError as error:
        raise refuse(str(path), expected="[[expect]] tables", got=str(error)) from None
    for number, entry in enumerate(entries, start=1):
        name = f"{path}: expectation {number}"
        require(bool(entry.reason.strip()), f"{name}: reason", expected="a reason", got="none")
        require(entry.url.startswith(("https://", "http://")), f"{name}: url", expected="http or https", got=entry.url)
    return tuple(entries)


def apply(expectations: Sequence[Expectation], report: Report, today: date) -> Report:
    """Waive what was expected, and add a failing record for each entry that no longer tells the truth.

    Args:
        expectations: of all runs; those of other backends, devices and precisions are left alone.
        report: of one run.
        today: decides what has expired.

    Returns:
        The report with matching records `waived` and one record `expectation[N]` per stale entry.
    """
    concerned = [(n, entry) for n, entry in enumerate(expectations, start=1) if entry.concerns(report.header)]
    valid = [entry for _, entry in concerned if today <= entry.expires]
    records = [_waive(record, valid) for record in report.records]
    for number, entry in concerned:
        line = _stale(entry, report.records, today)
        if line:
            records.append(
                Record(
                    id=f"expectation[{number}]",
                    sentence="Every expectation matches a test, is met by it and has not expired.",
                    clauses=(),
                    rung="expectation",
                    status="fail",
                    reason=f"expectation {number} ({entry.id}): {line}",
                )
            )
    return msgspec.structs.replace(report, records=tuple(records))


def _waive(record: Record, valid: Sequence[Expectation]) -> Record:
    for entry in valid:
        if entry.matches(record) and entry.status == record.status:
            waiver = Waiver(status=record.status, url=entry.url, expires=entry.expires.isoformat(), was=record.reason)
            return msgspec.structs.replace(record, status="waived", reason=entry.reason, waiver=waiver)
    return record


def _stale(entry: Expectation, records: Sequence[Record], today: date) -> str:
    """What is wrong with an entry, or nothing."""
    if entry.expires < today:
        return f"expired on {entry.expires.isoformat()}; mend the deviation or decide anew"
    found = [record for record in records if entry.matches(record)]
    if not found:
        return "matches no test of this run; remove it or mend its pattern"
    # a test that was left out says nothing about the entry
    other = [record for record in found if record.status not in (entry.status, "not run")]
    if not other:
        return ""
    first = other[0]
    more = f" and {len(other) - 1} more" if len(other) > 1 else ""
    return f"expected {entry.status}, got {first.status} from {first.id}{more}; remove it or narrow its pattern"
