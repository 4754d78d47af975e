"""What all sections of the page are built from."""

from __future__ import annotations

from collections.abc import Sequence

from twinspike.clauses import BY_ID
from twinspike_conformance.report.markup import Html, join, tag
from twinspike_conformance.report.record import Report
from twinspike_conformance.report.summary import GLYPHS

Runs = Sequence[tuple[str, Report]]
"""Each run with its label."""


def css(status: str) -> str:
    """A status as a class."""
    return status.replace(" ", "-")


def glyph(status: str) -> Html:
    """The sign of a status, for the eye alone."""
    return tag("span", GLYPHS[status], class_=f"glyph {css(status)}", aria_hidden="true")


def chip(status: str) -> Html:
    """A status in its colour, with sign and word."""
    return tag("span", glyph(status), f" {status}", class_=f"chip {css(status)}")


def clause_links(ids: Sequence[str]) -> Html:
    """Clauses as links to their rows; their text shows on hover."""
    links = (tag("a", name, href=f"#{name}", title=BY_ID[name].text if name in BY_ID else None, class_="clause") for name in ids)
    return join(*(join(link, " ") for link in links))


def link(url: str) -> Html:
    """A link where the address is one of the web, else its text."""
    short = url.removeprefix("https://").removeprefix("http://")
    return tag("a", short, href=url, rel="noreferrer") if url.startswith(("https://", "http://")) else tag("span", url)


def with_run(runs: Runs, label: str) -> tuple[str, ...]:
    """The run's name as a cell, where there are several."""
    return (label,) if len(runs) > 1 else ()
