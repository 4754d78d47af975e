"""The page of a report: it tells everything, asks for nothing, lets no text become markup, and can be read by all."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from conformance_examples import FAILURE, KILLS, header, passing, report, side

from twinspike.clauses import CLAUSES
from twinspike.errors import SpecError
from twinspike_conformance.report import badge, html, junit, page, publish, store, summary
from twinspike_conformance.report.record import RATIO_BINS, KillRow, Report

EMPTY = Report(header=header(), records=())


class Page(HTMLParser):
    """What a browser would see: elements with attributes, text; tags must nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def values(self, attribute: str) -> list[str]:
        return [str(found[attribute]) for _, found in self.elements if attribute in found]


MANY = [report(), passing(backend="jax", precision="f64"), passing(precision="bf16-mixed", compiled=True)]
PAGES = {"mixed": [report()], "passing": [passing()], "many": MANY, "empty": [EMPTY]}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_asks_for_nothing(name: str) -> None:
    text = html.render(PAGES[name])
    seen = Page(text)
    ids = seen.values("id")
    assert len(ids) == len(set(ids))
    assert {href[1:] for href in seen.values("href") if href.startswith("#")} <= set(ids)
    outside = [
        (tag, found) for tag, found in seen.elements if "src" in found or tag in ("script", "iframe", "img", "object", "base")
    ]
    assert outside == []
    assert [found["href"] for tag, found in seen.elements if tag == "link"] == ["data:,"]
    assert "url(" not in text
    assert "@import" not in text


@pytest.mark.parametrize(("name", "verdict"), [("mixed", "fail"), ("passing", "pass"), ("many", "fail"), ("empty", "fail")])
def test_the_verdict_can_be_read_by_machines(name: str, verdict: str) -> None:
    (found,) = [attributes for _, attributes in Page(html.render(PAGES[name])).elements if attributes.get("id") == "verdict"]
    assert found["data-verdict"] == verdict


def test_the_page_tells_everything() -> None:
    seen = Page(html.render([report()]))
    told = " ".join(seen.text.split())
    for clause in CLAUSES:
        assert " ".join(clause.text.split()) in told
        assert clause.id in seen.values("id")
    for record in report().records:
        assert record.id in told
        assert record.reason in told
    for words in (*FAILURE.sentences, FAILURE.suspects[0], " ".join(FAILURE.reproduction.split()), summary.sentence(report())):
        assert words in told
    for row in KILLS:
        assert all(words in told for words in (row.fault, row.description, row.origin, row.equivalent, *row.killers))
    for words in ("highest", "torch==2.13.0", "2026-05-04 10:20 UTC", "28 days after this run", "survived", "one test only"):
        assert words in told
    assert "1 test stayed below 0.001 of the bound everywhere" in told


def test_a_cross_run_shows_both_sides() -> None:
    other = side(device="cuda", device_name="a GPU <of one>", compiled=True)
    told = " ".join(Page(html.render([passing(against=other)])).text.split())
    assert "torch 2.13.0 and jax 0.10.2 agree on" in told
    assert "cpu (a CPU <of 2 cores>) and cuda (a GPU <of one>)" in told
    assert "eager and compiled" in told
    assert "flags of torch, as read back" in told
    assert "flags of jax, as read back" in told
    assert "jax_enable_x64" in told


def test_no_error_is_not_a_loose_bound() -> None:
    first = next(record for record in passing().records if sum(record.ratios))
    equal = msgspec.structs.replace(first, worst_ratio=0.0, ratios=(sum(first.ratios), *(0 for _ in RATIO_BINS)))
    told = Page(html.render([Report(header=header(), records=(equal,))])).text
    assert "No test stayed below" in told
    assert "1 test had no error at all" in told


def test_several_runs_are_columns_of_the_clauses() -> None:
    seen = Page(html.render(MANY))
    for label in summary.labels(MANY):
        assert seen.text.count(label) >= len(summary.chapters())
    tiles = [found for tag, found in seen.elements if tag == "a" and "tile" in str(found.get("class"))]
    assert len(tiles) == len(MANY) * len(CLAUSES)


def test_a_clause_that_demands_nothing_does_not_fail() -> None:
    seen = Page(html.render([report()]))
    labels = {label for label in seen.values("aria-label") if label.startswith("LIF-")}
    assert {"LIF-2: fail", "LIF-11: no demand", "LIF-12: no demand"} <= labels


def test_no_report_is_refused() -> None:
    with pytest.raises(SpecError, match="at least one"):
        html.render([])


POISON = "\"'><script>alert(1)</script><img src=x>&lt;"


def test_no_text_of_a_report_becomes_markup() -> None:
    """Every text that a report may hold is markup here, and none of it takes effect."""

    def poisoned(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: poisoned(v, k) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [poisoned(v, key) for v in value]
        return POISON if isinstance(value, str) and key != "status" else value

    wrong = msgspec.convert(poisoned(msgspec.to_builtins(report())), Report)
    seen = Page(html.render([wrong, wrong]))
    assert not {"script", "img"} & {tag for tag, _ in seen.elements}
    assert POISON in seen.text
    ET.fromstring(badge.svg(wrong))
    ET.fromstring(junit.render([wrong]))


def test_only_addresses_of_the_web_are_links() -> None:
    (waived,) = [record for record in report().records if record.waiver is not None]
    assert waived.waiver is not None
    waiver = msgspec.structs.replace(waived.waiver, url="javascript:alert(1)")
    changed = Report(header=header(), records=(msgspec.structs.replace(waived, waiver=waiver),))
    assert not [href for href in Page(html.render([changed])).values("href") if "javascript" in href]


def test_a_fault_without_killers_comes_first() -> None:
    matrix = Page(html.render([report()])).text.partition("killed by")[2]
    places = [matrix.index(row.fault) for row in sorted(KILLS, key=_weight)]
    assert places == sorted(places)


def _weight(row: KillRow) -> tuple[int, bool]:
    return bool(row.killers) + 2 * bool(row.equivalent), len(row.killers) > 1


def test_everything_is_published(tmp_path: Path) -> None:
    store.writable(tmp_path / "out")
    assert publish(report(), tmp_path / "out") == report()
    assert {file.name for file in (tmp_path / "out").iterdir()} == set(store.FORMS)
    many = page([store.read(tmp_path / "out" / "report.json"), passing()], tmp_path / "many.html")
    assert "1 of 2 runs conforms" in many.read_text(encoding="utf-8")


# --- colours ----------------------------------------------------------------------------------------


def _channels(colour: str) -> tuple[float, float, float]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))  # type: ignore[return-value]


def _luminance(colour: tuple[float, float, float]) -> float:
    """Relative luminance of WCAG 2.2."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _contrast(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _schemes() -> dict[str, dict[str, str]]:
    style = files("twinspike_conformance.report").joinpath("style.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    values = {name: dict(re.findall(r"--([\w-]+): (#\w{6}|\d+%)", text)) for name, text in (("light", light), ("dark", dark))}
    assert set(values["light"]) == set(values["dark"])
    return values


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_people_need(scheme: str) -> None:
    """WCAG 2.2 asks for 4.5 to 1, on plain ground and on the tint of a status."""
    values = _schemes()[scheme]
    tint = int(values["tint"].removesuffix("%")) / 100
    for ground in ("paper", "card"):
        under = _channels(values[ground])
        for ink in ("ink", "muted", "accent"):
            assert _contrast(_channels(values[ink]), under) >= 4.5, (ground, ink)
        for status in store.STATUSES:
            colour = _channels(values[status.replace(" ", "-")])
            mixed = tuple(tint * c + (1 - tint) * u for c, u in zip(colour, under, strict=True))
            assert _contrast(colour, mixed) >= 4.5, (ground, status)  # type: ignore[arg-type]


@pytest.mark.parametrize("colour", badge.COLOURS.values())
def test_badges_have_contrast(colour: str) -> None:
    assert _contrast(_channels(colour), (1.0, 1.0, 1.0)) >= 4.5
