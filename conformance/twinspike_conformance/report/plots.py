"""Small drawings as inline SVG: histograms of error/bound, its place on a logarithmic line, bars of time and of statuses.

Colours are classes of the page's style sheet, so that drawings follow light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from twinspike_conformance.report.markup import Html, tag
from twinspike_conformance.report.record import RATIO_BINS
from twinspike_conformance.report.summary import LOOSE, number, ratio

_POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _edge(value: float) -> str:
    exponent = round(math.log10(value))
    return "1" if exponent == 0 else "10" + str(exponent).translate(_POWERS)


def bin_names() -> list[str]:
    """What each bin of RATIO_BINS holds, in words."""
    return [f"up to {_edge(edge)}" for edge in RATIO_BINS] + ["above 1"]


def histogram(bins: Sequence[int], name: str) -> Html:
    """Comparisons per decade of error/bound, one bar each, with its count; above 1 is wrong, below 1e-3 says little."""
    wide, high, base, left = 46, 84, 118, 6
    most = max(*bins, 1)
    told = ", ".join(f"{bin_}: {n}" for bin_, n in zip(bin_names(), bins, strict=True) if n)
    parts: list[Html] = []
    loose = sum(edge <= LOOSE * 1.0001 for edge in RATIO_BINS)
    parts.append(tag("rect", x=left, y=16, width=loose * wide, height=base - 16, class_="loose"))
    parts.append(tag("text", "little is shown here", x=left + 4, y=12, class_="note"))
    for i, n in enumerate(bins):
        x, height = left + i * wide, 0.0 if n == 0 else max(2.0, high * n / most)
        kind = "bar bad" if i == len(RATIO_BINS) else "bar faint" if i < loose else "bar"
        if n:
            parts.append(
                tag("rect", x=x + 3, y=f"{base - height:.1f}", width=wide - 6, height=f"{height:.1f}", rx=2, class_=kind)
            )
            parts.append(tag("text", number(n), x=x + wide / 2, y=f"{base - height - 4:.1f}", class_="count"))
    for i, edge in enumerate(RATIO_BINS, start=1):
        x = left + i * wide
        parts.append(tag("line", x1=x, x2=x, y1=base, y2=base + 4, class_="axis"))
        parts.append(tag("text", _edge(edge), x=x, y=base + 17, class_="tick"))
    limit = left + len(RATIO_BINS) * wide
    end = left + len(bins) * wide
    parts.append(tag("line", x1=left, x2=end, y1=base, y2=base, class_="axis"))
    parts.append(tag("line", x1=limit, x2=limit, y1=8, y2=base, class_="limit"))
    parts.append(tag("text", "the bound", x=limit - 4, y=12, class_="note end"))
    size = f"0 0 {end + left} {base + 22}"
    return tag("svg", tag("title", f"{name}: {told}"), *parts, viewBox=size, class_="histogram", role="img")


def spark(bins: Sequence[int]) -> Html:
    """A histogram as small as a word; heights are logarithmic, so that single comparisons show."""
    wide, high = 9, 22
    most = math.log1p(max(*bins, 1))
    told = ", ".join(f"{name}: {n}" for name, n in zip(bin_names(), bins, strict=True) if n)
    bars = [tag("line", x1=0, x2=len(bins) * wide, y1=high + 0.5, y2=high + 0.5, class_="axis")]
    for i, n in enumerate(bins):
        height = high * math.log1p(n) / most
        kind = "bar bad" if i == len(RATIO_BINS) else "bar"
        if n:
            bars.append(
                tag("rect", x=i * wide + 1, y=f"{high - height:.1f}", width=wide - 2, height=f"{height:.1f}", class_=kind)
            )
    return tag(
        "svg",
        tag("title", told),
        *bars,
        viewBox=f"0 0 {len(bins) * wide} {high + 1}",
        width=len(bins) * wide,
        height=high + 1,
        role="img",
    )


def position(value: float) -> Html:
    """Where the worst error/bound lies between 1e-6 and 10 on a logarithmic line; the mark is the bound."""
    wide, high = 120, 14
    low, top = -6.0, 1.0
    place = top if math.isinf(value) else low if value <= 0 else min(max(math.log10(value), low), top)
    x = 4 + (wide - 8) * (place - low) / (top - low)
    one = 4 + (wide - 8) * (0 - low) / (top - low)
    kind = "bad" if value > 1 else "faint" if value < LOOSE else ""
    return tag(
        "svg",
        tag("title", f"worst error/bound {ratio(value)}"),
        tag("line", x1=4, x2=wide - 4, y1=high / 2, y2=high / 2, class_="axis"),
        tag("line", x1=f"{one:.1f}", x2=f"{one:.1f}", y1=1, y2=high - 1, class_="limit"),
        tag("circle", cx=f"{x:.1f}", cy=high / 2, r=4, class_=f"dot {kind}".strip()),
        viewBox=f"0 0 {wide} {high}",
        width=wide,
        height=high,
        role="img",
    )


def time_bar(seconds: float, compiling: float, longest: float) -> Html:
    """Seconds as a bar; the darker part are first calls."""
    wide, high = 240, 12
    scale = wide / longest if longest > 0 else 0.0
    compiling = min(compiling, seconds)
    return tag(
        "svg",
        tag("title", f"{seconds:.3g} s, of these {compiling:.3g} s in first calls"),
        tag("rect", x=0, y=0, width=f"{max(seconds * scale, 1):.1f}", height=high, rx=2, class_="bar faint"),
        tag("rect", x=0, y=0, width=f"{compiling * scale:.1f}", height=high, rx=2, class_="bar"),
        viewBox=f"0 0 {wide} {high}",
        class_="time",
        preserveAspectRatio="none",
        role="img",
    )


def status_bar(counts: Mapping[str, int]) -> Html:
    """All tests as one bar, a part per status."""
    total, x, wide = max(sum(counts.values()), 1), 0.0, 1000
    parts = []
    for status, n in counts.items():
        part = wide * n / total
        parts.append(tag("rect", x=f"{x:.2f}", y=0, width=f"{part:.2f}", height=10, class_=f"fill-{status.replace(' ', '-')}"))
        x += part
    told = ", ".join(f"{n} {status}" for status, n in counts.items()) or "no tests"
    size = f"0 0 {wide} 10"
    return tag("svg", tag("title", told), *parts, viewBox=size, class_="statuses", preserveAspectRatio="none", role="img")
