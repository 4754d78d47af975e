"""The suite's reports: what is stored can be trusted, every form tells the same story, and expectations are strict."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree as ET

import msgspec
import pytest
from conformance_examples import FAILURE, KILLS, header, passing, report, side

from twinspike.clauses import CHAPTERS
from twinspike.errors import SpecError
from twinspike_conformance.report import badge, expectations, junit, store, summary, terminal
from twinspike_conformance.report.expectations import Expectation
from twinspike_conformance.report.record import RATIO_BINS, SCHEMA, Record, Report, Verdict

REPORTS = {"mixed": report(), "passing": passing(), "empty": Report(header=header(), records=())}


# --- the JSON ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_comes_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    store.write(REPORTS[name], path)
    assert store.read(path) == REPORTS[name]
    raw = msgspec.json.decode(path.read_bytes())
    assert (raw["schema"], raw["verdict"]) == (SCHEMA, REPORTS[name].verdict)


def test_infinite_ratios_survive(tmp_path: Path) -> None:
    store.write(report(), tmp_path / "r.json")
    assert math.isinf(max(record.worst_ratio for record in store.read(tmp_path / "r.json").records))


def test_nan_is_not_written(tmp_path: Path) -> None:
    wrong = Report(header=header(seconds=math.nan), records=passing().records)
    with pytest.raises(SpecError, match=r"report\.header\.seconds"):
        store.write(wrong, tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    store.write(passing(), path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        store.write(report(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]
    assert store.read(path) == passing()


def test_files_have_the_mode_that_the_umask_asks_for(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        store.write(passing(), tmp_path / "r.json")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "r.json").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["mixed", "passing"])
def test_a_true_report_is_verified(name: str, tmp_path: Path) -> None:
    store.write(REPORTS[name], tmp_path / "r.json")
    assert store.verify(tmp_path / "r.json") == REPORTS[name]


Edit = Callable[[dict[str, Any]], object]


def _of(raw: dict[str, Any], status: str) -> dict[str, Any]:
    return next(record for record in raw["records"] if record["status"] == status)


LIES: dict[str, tuple[Edit, str]] = {
    "schema": (lambda r: r.update(schema=SCHEMA + 1), f"schema: expected {SCHEMA}, got {SCHEMA + 1}"),
    "no schema": (lambda r: r.pop("schema"), "schema"),
    "status": (lambda r: _of(r, "pass").update(status="skipped"), "status of"),
    "no status": (lambda r: _of(r, "pass").pop("status"), "status of"),
    "type": (lambda r: _of(r, "pass").update(examples="many"), "report of schema"),
    "field": (lambda r: r["header"].pop("precision"), "precision"),
    "no tests": (lambda r: r.update(records=[]), "at least one test"),
    "verdict": (lambda r: r.update(verdict="pass"), "verdict: expected 'fail'"),
    "no verdict": (lambda r: r.pop("verdict"), "verdict"),
    "hidden failure": (lambda r: [_of(r, s).update(status="not run", reason="") for s in ("fail", "error")], "a reason"),
    "twice": (lambda r: r["records"].append(r["records"][0]), "each test once"),
    "clause": (lambda r: _of(r, "pass").update(clauses=[f"LIF-{99}"]), f"got LIF-{99}"),
    "fault's clause": (lambda r: r["kills"][0].update(clause="XXX-1"), "got XXX-1"),
    "killers": (lambda r: r["kills"][0].update(examples=[1]), "a rung and a count per killer"),
    "equivalent and killed": (lambda r: r["kills"][0].update(equivalent="so"), "killed or equivalent"),
    "no reason": (lambda r: _of(r, "not supported").update(reason=""), "a reason for 'not supported'"),
    "no failure": (lambda r: _of(r, "fail").update(failure=None), "what failed"),
    "no waiver": (lambda r: _of(r, "waived").update(waiver=None), "a waiver"),
    "stray waiver": (lambda r: _of(r, "waived").update(status="not run"), "a waiver"),
    "old waiver": (lambda r: _of(r, "waived")["waiver"].update(expires="2026-05-03"), "had not expired"),
    "no date": (lambda r: r["header"].update(started="yesterday"), "ISO 8601"),
    "ratio": (lambda r: _of(r, "pass").update(worst_ratio=1.5), "at most 1"),
    "infinite ratio": (lambda r: _of(r, "pass").update(worst_ratio="inf"), "at most 1"),
    "bins": (lambda r: _of(r, "pass").update(ratios=[1, 2]), f"{len(RATIO_BINS) + 1} bins"),
    "last bin": (lambda r: _of(r, "pass").update(ratios=[0] * len(RATIO_BINS) + [1]), "nothing above 1"),
    "negative": (lambda r: _of(r, "pass").update(examples=-1), "at least 0"),
    "share": (lambda r: _of(r, "pass").update(ambiguous=1.5), "from 0 to 1"),
    "vacuous": (lambda r: next(x for x in r["records"] if sum(x["ratios"]) > 0).update(vacuous=400), "at most 1 in 20"),
    "more vacuous than bounded": (lambda r: _of(r, "inconclusive").update(vacuous=1), "at most the 0 with a bound"),
    "sum": (lambda r: _of(r, "pass").update(comparisons=1, ratios=[2] + [0] * len(RATIO_BINS)), "at most the 1 comparisons"),
}


@pytest.mark.parametrize("lie", LIES)
def test_verify_refuses_in_one_line(lie: str, tmp_path: Path) -> None:
    edit, words = LIES[lie]
    raw = msgspec.json.decode(store.dumps(report()))
    edit(raw)
    path = tmp_path / "r.json"
    path.write_bytes(msgspec.json.encode(raw))
    with pytest.raises(SpecError) as refusal:
        store.verify(path)
    assert words in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"schema": 1}', b'{"schema": 1, "records": [3]}', b"null"])
def test_what_is_no_report_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(SpecError, match="expected"):
        store.read(path)


def test_a_missing_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        store.verify(tmp_path / "none.json")


# --- the words --------------------------------------------------------------------------------------


def test_every_verdict_has_its_sentence() -> None:
    assert summary.sentence(passing()) == (
        "torch 2.13.0 conforms to Twinspike 0.1.0 in f32-ieee on cpu (a CPU <of 2 cores>), profile ci."
    )
    assert "does not conform" in summary.sentence(report())
    assert "2 of 40 tests failed" in summary.sentence(report())
    assert "no test ran" in summary.sentence(REPORTS["empty"])
    undecided = Report(header=header(), records=tuple(r for r in report().records if r.status in ("pass", "inconclusive")))
    assert "is undecided: 1 test of 33 inconclusive" in summary.sentence(undecided)
    limited = Report(header=header(), records=tuple(r for r in report().records if r.status in ("pass", "waived", "not run")))
    assert summary.sentence(limited).endswith("but for 1 test waived and 1 test not run.")
    unsupported = Report(header=header(), records=tuple(r for r in report().records if r.status == "not supported"))
    assert unsupported.verdict == "fail"
    assert "no test passed" in summary.sentence(unsupported)


def test_a_fault_that_breaks_the_gate_is_no_pass() -> None:
    kept = [row for row in KILLS if not row.breaks_gate]
    assert [row.fault for row in KILLS if row.breaks_gate] == ["sur-closed", "opt-late"]
    killed_though_equivalent = msgspec.structs.replace(KILLS[0], equivalent="proof")
    for kills, verdict in ((kept, "pass"), (KILLS, "fail"), ((killed_though_equivalent,), "fail")):
        result = msgspec.structs.replace(passing(), kills=tuple(kills))
        assert result.verdict == verdict
        assert ("too weak" in summary.sentence(result)) == (verdict == "fail")
        assert ("gate" in badge.message(result)) == (verdict == "fail")
    weak = summary.sentence(msgspec.structs.replace(passing(), kills=KILLS))
    assert weak.startswith("The suite is too weak for Twinspike 0.1.0 in f32-ieee on cpu")
    assert weak.endswith("2 of 5 faults in torch break its gate.")


def test_a_replay_asks_for_what_the_user_gave() -> None:
    words = terminal.replay("operation[lif-exact]:eN", header(backend="my backend", given="my.module:made.backend"))
    assert "--backend my.module:made.backend --device cpu" in words
    assert "my backend" not in words


def test_several_runs_have_the_gravest_verdict() -> None:
    assert summary.overall([passing(), report()]) == "fail"
    assert summary.overall([passing(), passing()]) == "pass"
    assert summary.overall_sentence([passing(), report()]) == "1 of 2 runs conforms to Twinspike 0.1.0."


def test_labels_differ() -> None:
    assert summary.labels([passing(), passing(precision="f64"), passing()]) == [
        "torch f32-ieee cpu #1",
        "torch f64 cpu",
        "torch f32-ieee cpu #2",
    ]


def test_a_cross_run_names_both_sides_where_they_differ() -> None:
    held = passing(against=side())
    assert summary.labels([held]) == ["torch and jax f32-ieee cpu"]
    assert badge.message(held).startswith("torch and jax · f32-ieee · cpu · ci: pass")
    assert summary.sentence(held) == (
        "torch 2.13.0 and jax 0.10.2 agree on Twinspike 0.1.0 in f32-ieee on cpu (a CPU <of 2 cores>), profile ci."
    )
    assert "do not agree on" in summary.sentence(report(against=side()))
    far = passing(compiled=True, against=side(device="cuda", device_name="a GPU"))
    assert summary.labels([far]) == ["torch and jax f32-ieee cpu and cuda compiled and eager"]
    assert terminal.replay("cross[lif-exact]:eN", far.header).endswith("--compiled --against jax --device-b cuda")
    assert summary.overall_sentence([held, passing()]) == "2 of 2 runs of Twinspike 0.1.0 pass."
    (suite,) = ET.fromstring(junit.render([held])).findall("testsuite")
    told = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert (told["backend"], told["against"], told["against version jax"]) == ("torch", "jax", "0.10.2")
    assert next(suite.iter("testcase")).get("classname") == "twinspike.torch-jax.f32-ieee"


def test_every_chapter_and_status_has_its_words() -> None:
    assert set(summary.chapters()) == set(CHAPTERS)
    assert set(summary.GRAVITY) == set(store.STATUSES)
    assert set(summary.MEANINGS) == set(summary.GLYPHS) == {*store.STATUSES, *get_args(Verdict), "no test", "no demand"}
    assert len(set(summary.GLYPHS.values())) == len(summary.GLYPHS)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 ms"), (0.0854, "85 ms"), (0.9996, "1.0 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (192.4, "3 min 12 s"),
     (3599.7, "1 h 0 min"), (3900, "1 h 5 min")],
)  # fmt: skip
def test_durations(seconds: float, words: str) -> None:
    assert summary.duration(seconds) == words


def test_the_terminal_shows_what_matters_gravest_first() -> None:
    text = terminal.render(report())
    order = [
        "! error",
        "✗ fail",
        "? inconclusive",
        "~ waived",
        "○ not run",
        "- not supported",
        "First failure",
        "faults:",
        "\ntests:",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert text.rstrip().endswith(summary.sentence(report()))
    assert all(sentence in text for sentence in FAILURE.sentences)
    assert "repro 'operation[lif-exact]:" in text
    assert "fail          operation[lif-exact] [LIF-2, LIF-6]" in text  # the clauses of what was wrong, not of the whole test
    assert "  example: lif {} {'T': 1} dyadic seed 0" in text
    assert "\x1b" not in text
    assert "\x1b[31m" in terminal.render(report(), colour=True)
    assert "--compiled" in terminal.render(report(compiled=True))


def test_kills_are_counted_without_what_is_equivalent() -> None:
    told = terminal.summary_of_kills(report())
    assert told == "faults: 3 of 4 killed, 2 by two tests or more, 1 proved equivalent; survived: opt-late"


# --- JUnit ------------------------------------------------------------------------------------------


def test_junit_keeps_all_statuses_apart() -> None:
    root = ET.fromstring(junit.render([report(), passing(precision="f64")]))
    suites = root.findall("testsuite")
    assert [suite.get("name") for suite in suites] == ["twinspike 0.1.0 torch f32-ieee cpu", "twinspike 0.1.0 torch f64 cpu"]
    first = suites[0]
    assert [first.get(k) for k in ("tests", "failures", "errors", "skipped")] == ["40", "2", "1", "5"]
    assert [root.get(k) for k in ("tests", "failures", "errors", "skipped")] == ["78", "2", "1", "5"]
    assert [len(first.findall(f"testcase/{k}")) for k in ("failure", "error", "skipped")] == [2, 1, 5]
    assert sorted(str(f.get("type")) for f in first.iter("failure")) == ["fail", "inconclusive"]
    messages = [str(s.get("message")) for s in first.iter("skipped")]
    assert "not run: the run was limited to -k operation" in messages
    assert sum(m.startswith("not supported: ") for m in messages) == 3
    assert (
        "waived: the accelerator's library uses TF32 in spite of the flag (https://example.org/issues/12, until 2026-06-01)"
        in messages
    )
    text = next(str(f.text) for f in first.iter("failure") if f.get("type") == "fail")
    assert FAILURE.sentences[0] in text
    assert "lif-strict" in text


def test_junit_survives_characters_that_xml_lacks() -> None:
    record = Record(id="a\x00b", sentence="\x1b[0m", clauses=(), rung="exact", status="error", reason="\ud800 <&\x08")
    root = ET.fromstring(junit.render([Report(header=header(), records=(record,))]))
    assert next(root.iter("error")).get("message") == "\ufffd <&\ufffd"


# --- badge ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPORTS)
def test_a_badge_says_what_was_shown(name: str) -> None:
    result = REPORTS[name]
    drawn = ET.fromstring(badge.svg(result))
    shields = msgspec.json.decode(badge.endpoint(result))
    told = f"{shields['label']}: {shields['message']}"
    assert drawn.get("aria-label") == told
    for words in ("0.1.0", "torch", "f32-ieee", "cpu", "ci", f": {result.verdict}"):
        assert words in told
    assert "%" not in told
    assert shields["schemaVersion"] == 1


def test_a_badge_holds_no_control_characters() -> None:
    result = report()
    hostile = msgspec.structs.replace(result, header=msgspec.structs.replace(result.header, backend="a\x1b[31m\x00"))
    drawn = badge.svg(hostile)
    assert "a\\x1b[31m\\x00" in drawn
    ET.fromstring(drawn)


def test_a_badge_hides_no_waiver() -> None:
    assert badge.message(report()).endswith(
        ": fail, 1 error, 1 inconclusive, 1 waived, 3 not supported, 1 not run, 2 faults break the gate"
    )
    waived = Report(header=header(compiled=True), records=tuple(r for r in report().records if r.status in ("pass", "waived")))
    assert badge.message(waived) == "torch · f32-ieee · cpu · compiled · ci: pass, 1 waived"


# --- expectations -----------------------------------------------------------------------------------

DAY = date(2026, 5, 4)


def _expect(**changes: Any) -> Expectation:
    fields = {"id": "operation[lif-exact]", "status": "fail", "reason": "known", "url": "https://example.org/1"}
    return Expectation(**{**fields, "expires": date(2026, 6, 1), **changes})


def _plain() -> Report:
    """A failure, an error, and the rest passed or not run."""
    records = tuple(r for r in report().records if r.status in ("pass", "fail", "error", "not run", "not supported"))
    return Report(header=header(), records=records)


def _stale(result: Report) -> list[str]:
    return [record.reason for record in result.records if record.rung == "expectation"]


def test_the_example_of_the_module_can_be_loaded(tmp_path: Path) -> None:
    example = str(expectations.__doc__).partition("\n\n    ")[2]
    path = tmp_path / "expect.toml"
    path.write_text(re.sub("^    ", "", "    " + example, flags=re.MULTILINE), encoding="utf-8")
    (entry,) = expectations.load(path)
    assert entry.expires == date(2027, 1, 1)
    assert entry.matches(msgspec.structs.replace(passing().records[0], id="operation[conv2d-exact]"))
    assert not entry.matches(msgspec.structs.replace(passing().records[0], id="operationc"))


def test_an_expected_failure_is_waived_and_remains_visible() -> None:
    result = expectations.apply([_expect(), _expect(id="operation[opt*-rounded]", status="error")], _plain(), DAY)
    waived = {record.id: record for record in result.records if record.status == "waived"}
    assert set(waived) == {"operation[lif-exact]", "operation[optimizer_step-rounded]"}
    assert waived["operation[lif-exact]"].failure == FAILURE
    assert waived["operation[lif-exact]"].waiver is not None
    assert waived["operation[optimizer_step-rounded]"].reason == "known"
    was = waived["operation[optimizer_step-rounded]"].waiver
    assert was is not None
    assert "scalar type" in was.was
    assert (result.verdict, _stale(result)) == ("pass", [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": "operation[none]"}, "matches no test"),
        ({"id": "operation[relu-exact]"}, "got pass from operation[relu-exact];"),
        ({"id": "operation[*-exact]"}, "and 17 more; remove it or narrow"),
        ({"status": "inconclusive"}, "expected inconclusive, got fail"),
        ({"expires": date(2026, 5, 3)}, "expired on 2026-05-03"),
        ({"id": "operation[retract-exact]"}, "got not supported"),
    ],
)
def test_a_stale_expectation_is_a_failure(changes: dict[str, Any], words: str) -> None:
    result = expectations.apply([_expect(backend="jax"), _expect(**changes)], _plain(), DAY)
    (line,) = _stale(result)
    assert words in line
    assert line.startswith("expectation 2 (")
    assert "\n" not in line
    assert result.verdict == "fail"
    assert result.records[-1].id == "expectation[2]"


def test_the_last_day_still_counts() -> None:
    result = expectations.apply([_expect(expires=DAY)], _plain(), DAY)
    assert _stale(result) == []
    assert [record.id for record in result.records if record.status == "waived"] == ["operation[lif-exact]"]


@pytest.mark.parametrize("where", [{"backend": "jax"}, {"device": "cuda*"}, {"precision": "f64"}])
def test_expectations_of_other_runs_are_left_alone(where: dict[str, str]) -> None:
    assert expectations.apply([_expect(**where)], _plain(), DAY) == _plain()


def test_a_test_that_was_not_run_says_nothing_about_an_expectation() -> None:
    assert expectations.apply([_expect(id="device[[]cuda]")], _plain(), DAY).verdict == "fail"
    assert _stale(expectations.apply([_expect(id="device[cuda]")], _plain(), DAY)) == []


def test_a_verified_report_may_hold_what_expectations_made(tmp_path: Path) -> None:
    store.write(expectations.apply([_expect(), _expect(id="none")], _plain(), DAY), tmp_path / "r.json")
    assert store.verify(tmp_path / "r.json").verdict == "fail"


ENTRY = '[[expect]]\nid = "a"\nstatus = "fail"\nreason = "b"\nurl = "https://c"\nexpires = 2027-01-01\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ENTRY.replace("[[expect]]", "[[expect"), "expected TOML"),
        (ENTRY + "because = 1\n", "because"),
        (ENTRY + "[other]\n", "other"),
        (ENTRY.replace('reason = "b"\n', ""), "reason"),
        (ENTRY.replace('"b"', '" "'), "a reason"),
        (ENTRY.replace("https://c", "c"), "http or https"),
        (ENTRY.replace("2027-01-01", '"soon"'), "expires"),
        (ENTRY.replace('"fail"', '"pass"'), "pass"),
    ],
)
def test_a_file_of_expectations_is_read_strictly(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_text(ENTRY, encoding="utf-8")
    assert len(expectations.load(path)) == 1
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as refusal:
        expectations.load(path)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_of_expectations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        expectations.load(tmp_path / "none.toml")


def test_a_report_replaces_no_pipe(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    os.mkfifo(path)
    with pytest.raises(SpecError, match=r"report\.json: expected a file, or a name that is free, got no plain file"):
        store.write_bytes(path, b"{}")
    assert path.is_fifo()
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
