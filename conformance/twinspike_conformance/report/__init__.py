"""What people and machines read of a run, all made from one `Report`: JSON, JUnit, badge, page and terminal summary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twinspike_conformance.record import Report
from twinspike_conformance.report import badge, html, junit, store, terminal
from twinspike_conformance.report.store import read, verify


def publish(report: Report, folder: Path) -> Path:
    """Write report.json, junit.xml, report.html, badge.svg and badge.json into a folder; return the page's path."""
    store.write(report, folder / "report.json")
    store.write_bytes(folder / "junit.xml", junit.render([report]).encode())
    store.write_bytes(folder / "badge.svg", badge.svg(report).encode())
    store.write_bytes(folder / "badge.json", badge.endpoint(report).encode())
    return page([report], folder / "report.html")


def page(reports: Sequence[Report], path: Path) -> Path:
    """Write one HTML page for one or several reports; return its path."""
    store.write_bytes(path, html.render(reports).encode())
    return path


__all__ = ["page", "publish", "read", "terminal", "verify"]
