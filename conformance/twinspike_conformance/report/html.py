"""One self-contained HTML page for one or several runs: no script, no request, readable from the verdict downwards."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from twinspike.errors import require
from twinspike_conformance.report import summary
from twinspike_conformance.report.bounds import bounds
from twinspike_conformance.report.clauses import clauses
from twinspike_conformance.report.faults import faults
from twinspike_conformance.report.markup import Html, join, tag
from twinspike_conformance.report.parts import Runs, chip, glyph
from twinspike_conformance.report.plots import status_bar
from twinspike_conformance.report.record import Report
from twinspike_conformance.report.runs import every_test, packages, runs_section, time
from twinspike_conformance.report.trouble import failures, undecided, waivers

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(reports: Sequence[Report]) -> str:
    """The page.

    Args:
        reports: at least one; columns of the clause table where there are several.

    Returns:
        HTML. The element `verdict` carries the overall verdict in `data-verdict`.

    Raises:
        SpecError: if there is no report.
    """
    require(bool(reports), "reports", expected="at least one", got="none")
    runs = list(zip(summary.labels(reports), reports, strict=True))
    sections = [
        ("failures", "Failures", "What failed", failures(runs)),
        ("runs", "Runs", "What ran", runs_section(runs)),
        ("clauses", "Clauses", "Clause by clause", clauses(runs)),
        ("bounds", "Bounds", "How near to the bounds", bounds(runs)),
        ("undecided", "Not shown", "What was not shown", undecided(runs)),
        ("waivers", "Waivers", "Waivers", waivers(runs)),
        ("faults", "Faults", "Would a fault be found?", faults(runs)),
        ("time", "Time", "Where the time went", time(runs)),
        ("tests", "Tests", "Every test", every_test(runs)),
        ("environment", "Environment", "Environment", packages(runs)),
    ]
    shown = [part for part in sections if part[-1]]
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    title = f"{summary.overall(reports)}: Twinspike conformance, {', '.join(name for name, _ in runs)}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(style)),
    )
    nav = tag("nav", (tag("a", short, href=f"#{name}") for name, short, _, _ in shown), aria_label="Parts of this page")
    parts = (tag("section", tag("h2", title), body, id=name) for name, _, title, body in shown)
    body = tag("body", _hero(runs), nav, tag("main", *parts), _legend())
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _hero(runs: Runs) -> Html:
    reports = [report for _, report in runs]
    verdict = summary.overall(reports)
    lines: Html | None
    if len(runs) == 1:
        lines = None
    else:
        lines = tag(
            "ul",
            (tag("li", chip(report.verdict), " ", tag("a", summary.sentence(report), href=f"#run-{i}"))
             for i, (_, report) in enumerate(runs)),
            class_="verdicts",
        )  # fmt: skip
    total: dict[str, int] = {}
    for report in reports:
        for status, n in summary.counts(report).items():
            total[status] = total.get(status, 0) + n
    total = {status: total[status] for status in (*summary.GRAVITY,) if status in total}
    counted = tag(
        "p", (tag("span", glyph(status), f" {n} {status}", class_="count") for status, n in total.items()), class_="counts"
    )
    return tag(
        "header",
        tag("p", "Twinspike conformance", class_="kicker"),
        tag(
            "div",
            tag("span", summary.GLYPHS[verdict], class_="seal", aria_hidden="true"),
            tag("h1", summary.overall_sentence(reports), id="verdict", data_verdict=verdict),
            class_="headline",
        ),
        lines,
        status_bar(total),
        counted,
        class_=f"hero {verdict}",
    )


def _legend() -> Html:
    rows = (join(tag("dt", chip(status)), tag("dd", meaning)) for status, meaning in summary.MEANINGS.items())
    note = (
        "A clause with several tests has the gravest status of them. error/bound compares an error with the largest one that "
        "correct rounding could cause: above 1 is wrong, and where it stays below 0.001 the bound is too wide to tell."
    )
    return tag("footer", tag("h2", "How to read this"), tag("dl", rows, class_="legend"), tag("p", note))
