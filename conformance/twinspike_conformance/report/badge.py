"""A badge says what was shown: specification, backend, precision, device and verdict; never a percentage."""

from __future__ import annotations

from html import escape

import msgspec

from twinspike.boundary import legible
from twinspike_conformance.report.record import Report
from twinspike_conformance.report.summary import counts, of_tests, ran, session

COLOURS = {"pass": "#1a7f4b", "inconclusive": "#8a5a00", "incomplete": "#5d626b", "fail": "#b3263a"}
"""Each dark enough for white text (contrast of at least 4.5)."""

_NARROW, _WIDE = frozenset("fijlrtI.,:;'|()[]! "), frozenset("mwMW@%")


def label(report: Report) -> str:
    """The left half: whose rules."""
    return f"Twinspike {report.header.spec_version}"


def message(report: Report) -> str:
    """The right half: who, how, where, and what came of it."""
    header, found = report.header, counts(report)
    how = [*session(header), header.profile]
    shown = ("fail", "error", "inconclusive", "waived", "not supported", "not run")
    rest = [f"{found[status]} {status}" for status in shown if status in found and status != report.verdict]
    weak = sum(row.breaks_gate for row in report.kills)
    rest += [f"{weak} faults break the gate"] if weak else []
    part = [f"{ran(report)} of {of_tests(len(report.records))}"] if report.verdict == "incomplete" else []
    official = ["official"] if header.official else []
    return legible(f"{' · '.join(how)}: {', '.join([report.verdict, *official, *part, *rest])}")


def endpoint(report: Report) -> str:
    """JSON for a shields.io endpoint badge."""
    fields = {"schemaVersion": 1, "label": label(report), "message": message(report), "color": COLOURS[report.verdict]}
    return msgspec.json.encode(fields).decode()


def svg(report: Report) -> str:
    """The badge as an SVG of its own, 20 px high."""
    left, right = label(report), message(report)
    a, b = _width(left) + 14, _width(right) + 14
    title = escape(f"{left}: {right}")
    parts = [(left, a / 2, a - 14), (right, a + b / 2, b - 14)]
    text = "".join(
        f'<text x="{x:.0f}" y="14" textLength="{length}" lengthAdjust="spacingAndGlyphs">{escape(words)}</text>'
        for words, x, length in parts
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{a + b}" height="20" viewBox="0 0 {a + b} 20" role="img" '
        f'aria-label="{title}"><title>{title}</title>'
        f'<clipPath id="r"><rect width="{a + b}" height="20" rx="4"/></clipPath>'
        f'<g clip-path="url(#r)"><rect width="{a}" height="20" fill="#3b4252"/>'
        f'<rect x="{a}" width="{b}" height="20" fill="{COLOURS[report.verdict]}"/></g>'
        f'<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">{text}</g></svg>\n'
    )


def _width(text: str) -> int:
    """About how many pixels a text takes at 11 px; textLength makes it so."""
    return round(sum(4.2 if c in _NARROW else 10.0 if c in _WIDE else 6.9 for c in text))
