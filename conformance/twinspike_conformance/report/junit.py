"""JUnit XML, for machines that know nothing else; its three outcomes can't hold all statuses, so types and messages do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from twinspike_conformance.report import summary
from twinspike_conformance.report.record import Record, Report

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML can't hold, not even escaped."""


def render(reports: Sequence[Report]) -> str:
    """One test suite per report.

    fail and inconclusive are failures of their own types, error is an error; waived, not supported and not run are
    skipped, each with its reason.
    """
    root = ET.Element("testsuites", name="twinspike conformance")
    suites = [_suite(report, name) for report, name in zip(reports, summary.labels(reports), strict=True)]
    root.extend(suites)
    for total in ("tests", "failures", "errors", "skipped"):
        root.set(total, str(sum(int(suite.get(total, "0")) for suite in suites)))
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in suites):.6f}")
    ET.indent(root, " ")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(report: Report, name: str) -> ET.Element:
    header = report.header
    found = summary.counts(report)
    suite = ET.Element("testsuite", name=_legal(f"twinspike {header.spec_version} {name}"), tests=str(len(report.records)))
    suite.set("failures", str(found.get("fail", 0) + found.get("inconclusive", 0)))
    suite.set("errors", str(found.get("error", 0)))
    suite.set("skipped", str(sum(found.get(status, 0) for status in ("waived", "not supported", "not run"))))
    suite.set("time", f"{header.seconds:.6f}")
    suite.set("timestamp", _legal(header.started.removesuffix("Z").removesuffix("+00:00")))
    properties = ET.SubElement(suite, "properties")
    facts = {
        "verdict": report.verdict, "suite": header.suite_version, "spec": header.spec_version, "backend": header.backend,
        "device": header.device, "device name": header.device_name, "precision": header.precision,
        "compiled": str(header.compiled).lower(), "profile": header.profile, "narrowed": header.narrowed,
        "seed": str(header.seed),
        "python": header.python, "platform": header.platform,
        **{f"version {key}": value for key, value in header.versions.items()},
        **{f"flag {key}": value for key, value in header.flags.items()},
    }  # fmt: skip
    if header.against is not None:
        other = header.against
        facts |= {"against": other.backend, "against device": other.device, "against compiled": str(other.compiled).lower()}
        facts |= {f"against version {key}": value for key, value in other.versions.items()}
        facts |= {f"against flag {key}": value for key, value in other.flags.items()}
    for key, value in facts.items():
        ET.SubElement(properties, "property", name=_legal(key), value=_legal(value))
    for record in report.records:
        names = "-".join(side.backend for side in summary.sides(header))
        suite.append(_case(record, f"twinspike.{names}.{header.precision}"))
    return suite


def _case(record: Record, classname: str) -> ET.Element:
    case = ET.Element("testcase", classname=_legal(classname), name=_legal(record.id), time=f"{record.seconds:.6f}")
    if record.status == "pass":
        return case
    first = record.failure.sentences[0] if record.failure and record.failure.sentences else ""
    reason = _legal(record.reason or first)
    if record.status in ("waived", "not supported", "not run"):
        if record.waiver is not None:
            reason = f"{reason} ({_legal(record.waiver.url)}, until {_legal(record.waiver.expires)})"
        ET.SubElement(case, "skipped", message=f"{record.status}: {reason}")
        return case
    tag = "error" if record.status == "error" else "failure"
    ET.SubElement(case, tag, type=record.status, message=reason).text = _legal(_story(record))
    return case


def _story(record: Record) -> str:
    lines = [record.sentence, f"clauses: {', '.join(record.clauses)}"]
    if record.reason:
        lines.append(record.reason)
    if record.failure is not None:
        lines += record.failure.sentences
        lines += [f"example: {record.failure.example}"] if record.failure.example else []
        lines += [f"suspect: {suspect}" for suspect in record.failure.suspects]
        lines += [f"digest: {record.failure.digest}"] if record.failure.digest else []
        lines += ["", record.failure.reproduction]
    return "\n".join(lines)


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
