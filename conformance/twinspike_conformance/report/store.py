"""The JSON form of a report: written whole or not at all, and read with suspicion.

A report is a claim that others rely on, so `verify` refuses one that contradicts itself. Infinity, which
JSON lacks, is the text "inf".
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter
from collections.abc import Collection
from datetime import date, datetime
from pathlib import Path
from typing import Any, get_args

import msgspec

import twinspike
from twinspike import plain
from twinspike.clauses import BY_ID
from twinspike.errors import SpecError, refuse, require
from twinspike_conformance.report.record import RATIO_BINS, SCHEMA, VACUOUS, Record, Report, Status, says_little
from twinspike_conformance.report.summary import of_tests, ran

FORMS = ("report.json", "junit.xml", "report.html", "badge.svg", "badge.json")
"""Files of a report."""
MARK = "mark.json"
"""What an official run leaves beside them."""

STATUSES: tuple[str, ...] = get_args(Status)


def dumps(report: Report) -> bytes:
    """The report as JSON, with its verdict, in lines.

    Raises:
        SpecError: if a number of it is NaN.
    """
    raw = {"schema": report.schema, "verdict": report.verdict} | msgspec.to_builtins(report)
    return msgspec.json.format(msgspec.json.encode(_without_infinities(raw, "report")), indent=1) + b"\n"


def write(report: Report, path: Path) -> None:
    """Write the JSON of a report atomically."""
    write_bytes(path, dumps(report))


def writable(folder: Path) -> None:
    """Make a folder and see that a report can be written into it.

    Raises:
        SpecError: it can't.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        text = getattr(error, "strerror", None) or str(error)
        raise refuse(f"--report {folder}", expected="a folder that can be written into", got=text) from None
    for name in FORMS:
        if (folder / name).is_dir():
            raise refuse(f"--report {folder}", expected="a folder for the report's files", got=f"a folder {name} in it")


def write_bytes(path: Path, content: bytes) -> None:
    """Put a file in place whole or not at all; folders are made. SpecError: a folder, a pipe or a device lies there."""
    free = path.is_file() or path.is_symlink() or not path.exists()
    require(free, str(path), expected="a file, or a name that is free", got="no plain file", do="give another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner may read, and a report is to be read by all
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: Path) -> Report:
    """Read a report of this schema; what it says is not judged.

    Raises:
        SpecError: no such file, no JSON, another schema, an unknown status or fields that don't fit.
    """
    return _parse(path)[0]


def verify(path: Path, suite: Collection[str] | None = None) -> Report:
    """Read a report and refuse one that can't be true or, where the suite is given, that is of a part of it.

    Args:
        path: of the JSON.
        suite: ids of the tests that a whole run of one backend by this version has; None: a part is as good, whose verdict
            is `incomplete`.

    Raises:
        SpecError: as `read`; no tests; a verdict that is not that of its tests; a part, or a test of the suite that is
            missing; a test named twice; a clause that the specification does not have; a status without the reason, waiver
            or failure that it needs; a test that passed with an error above its bound; counts that contradict one another.
    """
    report, stated = _parse(path)
    if not report.records:
        raise refuse(f"{path}: records", expected="at least one test", got="none", do="an empty run shows nothing")
    repeated = [name for name, n in Counter(record.id for record in report.records).items() if n > 1]
    if repeated:
        raise refuse(f"{path}: records", expected="each test once", got=f"{repeated[0]!r} again")
    started = _day(path, report.header.started)
    for record in report.records:
        _judge(f"{path}: {record.id}", record, started)
    for row in report.kills:
        _known(f"{path}: fault {row.fault}", row.clause)
        if len({len(row.killers), len(row.rungs), len(row.examples)}) != 1:
            raise refuse(f"{path}: fault {row.fault}", expected="a rung and a count per killer", got=row)
        if row.killers and row.equivalent:
            raise refuse(f"{path}: fault {row.fault}", expected="killed or equivalent", got="both")
    if stated != report.verdict:
        raise refuse(f"{path}: verdict", expected=f"{report.verdict!r}, as its tests say", got=repr(stated))
    if suite is not None:
        _whole(path, report, suite)
    return report


def _whole(path: Path, report: Report, suite: Collection[str]) -> None:
    """Refuse a part of the suite."""
    h = report.header
    missing = set(suite) - {record.id for record in report.records}
    if missing and h.against is None and h.suite_version == twinspike.__version__:
        raise refuse(f"{path}: records", expected=f"the suite's {len(suite)} tests", got=f"{len(missing)} of them missing")
    if report.verdict == "incomplete":
        got = f"{ran(report)} of {of_tests(len(report.records))} run" + (f" ({h.narrowed})" if h.narrowed else "")
        raise refuse(f"{path}", expected="a run of the whole suite", got=got, do="a part does not stand for the whole")


def _parse(path: Path) -> tuple[Report, Any]:
    """The report and the verdict that is stated in it."""
    try:
        raw = plain.from_json(path.read_bytes(), str(path))
    except OSError as error:
        raise refuse(str(path), expected="a report", got=error.strerror or str(error)) from None
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        got = raw.get("schema", "none") if isinstance(raw, dict) else type(raw).__name__
        raise refuse(f"{path}: schema", expected=SCHEMA, got=got, do="read it with the suite that wrote it")
    records = raw.get("records")
    for record in records if isinstance(records, list) else []:
        if isinstance(record, dict):
            if record.get("status") not in STATUSES:
                name = record.get("id", "a record")
                raise refuse(f"{path}: status of {name}", expected=f"one of {', '.join(STATUSES)}", got=record.get("status"))
            if record.get("worst_ratio") == "inf":
                record["worst_ratio"] = math.inf
    try:
        return msgspec.convert(raw, Report), raw.get("verdict")
    except msgspec.ValidationError as error:
        raise refuse(str(path), expected=f"a report of schema {SCHEMA}", got=str(error)) from None


def _judge(name: str, record: Record, started: date) -> None:
    """Refuse a record that contradicts itself."""
    for clause in record.clauses:
        _known(name, clause)
    needs_reason = record.status in ("error", "not supported", "waived", "inconclusive", "not run")
    if needs_reason and not record.reason:
        raise refuse(name, expected=f"a reason for {record.status!r}", got="none")
    if record.status == "fail" and not record.reason and record.failure is None:
        raise refuse(name, expected="what failed", got="neither a reason nor a failure")
    if (record.status == "waived") != (record.waiver is not None):
        raise refuse(name, expected="a waiver where the status is 'waived', and only there", got=record.status)
    if record.waiver is not None and _day(name, record.waiver.expires) < started:
        raise refuse(name, expected="a waiver that had not expired", got=record.waiver.expires)
    if record.status == "pass" and record.worst_ratio > 1:
        raise refuse(name, expected="error/bound of at most 1 where a test passed", got=record.worst_ratio)
    if record.ratios and len(record.ratios) != len(RATIO_BINS) + 1:
        raise refuse(f"{name}: ratios", expected=f"{len(RATIO_BINS) + 1} bins", got=len(record.ratios))
    if record.status == "pass" and record.ratios and record.ratios[-1]:
        raise refuse(f"{name}: ratios", expected="nothing above 1 where a test passed", got=record.ratios[-1])
    counts = (record.examples, record.comparisons, record.vacuous, *record.ratios)
    for what, (some, every) in (("configs", record.configs), ("pairs", record.pairs)):
        if not 0 <= some <= every:
            raise refuse(f"{name}: {what}", expected=f"0 to {every}", got=some)
    whole = (*counts, record.seconds, record.compile_seconds, record.worst_ratio)
    if min(whole) < 0 or not 0 <= record.ambiguous <= 1:
        raise refuse(name, expected="counts and times of at least 0, shares from 0 to 1", got="another")
    if record.status == "pass" and says_little(record):
        got = f"{record.vacuous} of {sum(record.ratios)}"
        raise refuse(f"{name}: vacuous", expected=f"at most 1 in {VACUOUS} where a test passed", got=got)
    if record.vacuous > sum(record.ratios):
        raise refuse(f"{name}: vacuous", expected=f"at most the {sum(record.ratios)} with a bound", got=record.vacuous)
    if sum(record.ratios) > record.comparisons:
        raise refuse(f"{name}: ratios", expected=f"at most the {record.comparisons} comparisons", got=sum(record.ratios))


def _known(name: str, clause: str) -> None:
    if clause not in BY_ID:
        raise refuse(f"{name}: clause", expected="one of this version of the specification", got=clause)


def _day(name: object, text: str) -> date:
    try:
        return datetime.fromisoformat(text).date()
    except ValueError:
        raise refuse(f"{name}: date", expected="ISO 8601", got=text) from None


def _without_infinities(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinities(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item, name) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        if value == math.inf:
            return "inf"
        raise refuse(name, expected="a number or infinity", got=value)
    return value


__all__ = ["SpecError", "dumps", "read", "verify", "writable", "write", "write_bytes"]
