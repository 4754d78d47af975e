"""What people and machines read of a run, all made from one `Report`: JSON, JUnit, badge, page and terminal summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from twinspike_conformance.raised import said
from twinspike_conformance.report import badge, html, junit, store, terminal
from twinspike_conformance.report.record import Record, Report
from twinspike_conformance.report.store import read, verify


def publish(report: Report, folder: Path) -> Report:
    """Write report.json, junit.xml, report.html, badge.svg and badge.json into a folder.

    The JSON comes first. A form that can't be made is a record of status `error` in it, and nothing of an earlier run is
    left in its place.

    Returns:
        The report as it was written.

    Raises:
        OSError: the folder can't be written into.
    """
    (folder / store.MARK).unlink(missing_ok=True)  # of an earlier run
    store.write(report, folder / "report.json")
    forms: dict[str, Callable[[Report], str]] = {
        "junit.xml": lambda found: junit.render([found]),
        "report.html": lambda found: html.render([found]),
        "badge.svg": badge.svg,
        "badge.json": badge.endpoint,
    }
    wrong = _write(report, folder, forms)
    if wrong:
        header = msgspec.structs.replace(report.header, official=False)
        report = msgspec.structs.replace(report, header=header, records=(*report.records, *wrong))
        store.write(report, folder / "report.json")
        _write(report, folder, forms)  # so that each form that can be made tells the same
    return report


def _write(report: Report, folder: Path, forms: Mapping[str, Callable[[Report], str]]) -> list[Record]:
    """Write the forms that can be made; a record of each other one."""
    wrong = []
    for name, render in forms.items():
        try:
            content = render(report).encode()
        except Exception as error:  # of the suite's own
            (folder / name).unlink(missing_ok=True)
            wrong.append(
                Record(
                    id=f"report[{name}]",
                    sentence="Every form of the report can be made.",
                    clauses=(),
                    rung="report",
                    status="error",
                    reason=f"the suite itself failed: {said(error)}",
                )
            )
            continue
        store.write_bytes(folder / name, content)
    return wrong


def page(reports: Sequence[Report], path: Path) -> Path:
    """Write one HTML page for one or several reports; return its path."""
    store.write_bytes(path, html.render(reports).encode())
    return path


__all__ = ["page", "publish", "read", "terminal", "verify"]
