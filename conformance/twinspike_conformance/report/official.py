"""Official runs: what one must be to stand for a backend, and the mark that is made of its report.

A run that is narrowed by anything (some checks alone, few examples, accepted deviations) proves what it ran; it can't be quoted
for a backend. Both the command line, before it begins, and `verify`, of any report that says it is official, ask here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import msgspec

from twinspike.errors import refuse, require
from twinspike.mark import Mark, read_mark
from twinspike_conformance.report import store
from twinspike_conformance.report.record import NO_EXAMPLE, Report

PROFILES = ("ci", "deep")
"""Profiles that run every covering example."""


def demand(*, backend: str, profile: str, only: str, expectations: str | None, report: str | None) -> None:
    """Refuse an official run, before its first check, for what it was asked.

    Raises:
        SpecError: naming the option.
    """
    require(profile in PROFILES, "--official --profile", expected=f"one of {', '.join(PROFILES)}", got=profile)
    require(not only, "--official --only", expected="the whole suite", got=only)
    require(expectations is None, "--official --expectations", expected="none, since a deviation is one", got=expectations)
    mutant = backend.startswith("mutant:")
    require(not mutant, "--official backend", expected="a backend", got=backend, do="a fault put into one is none")
    require(report is not None, "--official --report", expected="a folder for the report that the mark speaks of", got="nothing")


def obstacle(report: Report, suite: Collection[str]) -> str:
    """Why a report is not that of an official run, empty if it may be one.

    Args:
        report: of the run.
        suite: ids of all checks.
    """
    header = report.header
    if header.against is not None:
        return "it is about two backends"
    if header.profile not in PROFILES:
        return f"its profile is {header.profile}"
    if header.narrowed:
        return f"it is of a part: {header.narrowed}"
    if report.verdict != "pass":
        return f"its verdict is {report.verdict}"
    other = [
        r for r in report.records if r.status not in ("pass", "not supported") and (r.status, r.reason) != ("not run", NO_EXAMPLE)
    ]
    if other:
        return f"{other[0].id} is {other[0].status}"
    if {record.id for record in report.records} != set(suite):
        return "its tests are not those of the suite"
    return ""


def settled(report: Report, suite: Collection[str]) -> Report:
    """A report of a run that was asked for as official, which says so if it is one."""
    header = msgspec.structs.replace(report.header, official=not obstacle(report, suite))
    return msgspec.structs.replace(report, header=header)


def mark_of(path: Path, suite: Collection[str]) -> Mark:
    """The mark that a report earns.

    Args:
        path: of its `report.json`.
        suite: ids of all checks.

    Raises:
        SpecError: it is not true to itself, or not of an official run.
    """
    report = store.verify(path, suite)
    header = report.header
    why = obstacle(report, suite) if header.official else "it was not asked for as one (--official), or was none"
    if why:
        raise refuse(str(path), expected="the report of an official run", got=why)
    statuses = [record.status for record in report.records]
    return Mark(
        backend=header.backend,
        specification=header.spec_version,
        profile=header.profile,
        precision=header.precision,
        device=header.device,
        compiled=header.compiled,
        date=datetime.fromisoformat(header.started).date().isoformat(),
        passed=statuses.count("pass"),
        unsupported=statuses.count("not supported"),
        report=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def write_mark(folder: Path, suite: Collection[str]) -> Mark:
    """Put the mark beside the report in a folder; SpecError as `mark_of`."""
    mark = mark_of(folder / store.FORMS[0], suite)
    store.write_bytes(folder / store.MARK, msgspec.json.format(msgspec.json.encode(mark), indent=1) + b"\n")
    return mark


def check_mark(path: Path, report: Path, suite: Collection[str]) -> Mark:
    """Hold a mark against the report that it speaks of.

    Raises:
        SpecError: either can't be read, or the mark is not what the report earns.
    """
    given, earned = read_mark(path), mark_of(report, suite)
    for name in Mark.__struct_fields__:
        got, want = getattr(given, name), getattr(earned, name)
        require(got == want, f"{path}: {name}", expected=f"{want}, as {report} says", got=got)
    return given
