"""Two backends against one another: right ones agree, a fault on either side is found and blamed, an alias is no second."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import msgspec
import numpy as np
import pytest
from conformance_examples import header, side

import twinspike
from twinspike.operations import OPERATIONS
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.cases import CASES, materialize
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.commands import cross
from twinspike_conformance.commands.command import main as suite
from twinspike_conformance.judges import certificates
from twinspike_conformance.report import read, summary, terminal, verify
from twinspike_conformance.report.record import Record, Report
from twinspike_conformance.run.opening import load
from twinspike_conformance.run.profiles import PROFILES
from twinspike_conformance.strength.innocent import PRECISION, VARIANTS, InnocentBackend

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMOKE = PROFILES["smoke"]


def bench(backend: Any, precision: str = "f64") -> Bench:
    return Bench(backend, backend.session("cpu", precision))


def pair_of(first: Any, second: Any = "numpy") -> cross.Pair:
    sides = [load(side) if isinstance(side, str) else side for side in (first, second)]
    return cross.Pair(bench(sides[0]), bench(sides[1]))


def check_of(pair: cross.Pair, name: str) -> Any:
    return next(check for check in cross.checks(pair) if check.id == name)


@final
class Under:
    """NumPy's backend under another name; `spoil` changes what a program dumps."""

    name = "other"

    def __init__(self, spoil: Any = None) -> None:
        self.inner, self.spoil = load("numpy"), spoil

    def capabilities(self) -> Any:
        return self.inner.capabilities()

    def session(self, device: str = "cpu", precision: str = "f64", compiled: bool = False) -> Any:
        session = self.inner.session(device, precision, compiled)
        return session if self.spoil is None else _Spoiled(session, self.spoil)


@final
class _Spoiled:
    def __init__(self, inner: Any, spoil: Any) -> None:
        self.inner, self.spoil = inner, spoil

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def program(self, *words: Any) -> Any:
        return _Spoiled(self.inner.program(*words), self.spoil)

    def dump(self, state: Any) -> Any:
        return self.spoil(self.inner.dump(state))


alias = Under()
"""For the command line."""


# --- one comparison --------------------------------------------------------------------------------------


def finding(got: float, bound: float, want: float = 1.0) -> Finding:
    return compare("y", np.array([want, got]), np.array([want, want]), bound, rung="bound", clauses=())


def test_the_room_between_two_is_the_sum_of_their_bounds() -> None:
    pair = pair_of("numpy", alias)
    for by, agrees in ((0.75, True), (0.75 + 2.0**-40, False)):
        found = cross.apart(pair, finding(0.75, 0.5), finding(0.75 + by, 0.25))
        assert found.ok == agrees
    assert (found.got, found.want, found.bound, found.index) == (0.75, 1.5 + 2.0**-40, 0.75, (1,))
    assert "within 0.75" in found.sentence()
    assert found.sentence().endswith("reference 0x1.0000000000000p+0 (1); other breaks its own bound")
    assert "numpy 0x1.8000000000000p-1 (0.75), other 0x1.8" in found.sentence()


def test_where_inputs_differ_deviations_are_compared() -> None:
    pair = pair_of("numpy", alias)
    assert cross.apart(pair, finding(5.25, 0.25, want=5.0), finding(1.25, 0.25)).ok
    found = cross.apart(pair, finding(5.25, 0.25, want=5.0), finding(0.5, 0.25))
    assert not found.ok
    assert "from numpy's own values" in found.sentence()
    assert not cross.apart(pair, finding(np.nan, 0.25), finding(np.nan, 0.25)).ok


def test_a_quantity_that_one_side_alone_gets_wrong_is_not_lost() -> None:
    pair = pair_of("numpy", alias)
    wrong, right = finding(3.0, 0.5), finding(1.0, 0.5)
    for ones, others, name in (({("y", 0): wrong}, {}, "numpy"), ({}, {("y", 0): wrong}, "other")):
        (found,) = cross._paired(pair, ones, others)
        assert not found.ok
        assert found.sentence().startswith(f"{name} alone: y[1]")
    assert list(cross._paired(pair, {("y", 0): right}, {})) == []


# --- operations ------------------------------------------------------------------------------------------


def test_right_implementations_that_round_in_other_ways_agree() -> None:
    plain, other = (InnocentBackend(name, VARIANTS[name]) for name in ("plain", "all"))
    pair = cross.Pair(bench(plain, PRECISION), bench(other, PRECISION))
    records = {check.id: cross.run(pair, check, SMOKE, 0) for check in cross.checks(pair)}
    assert {r.status for name, r in records.items() if "network" not in name} == {"pass"}
    assert {records["cross[network-steps]"].status, records["cross[network-free]"].status} == {"not supported"}
    assert {name.partition("[")[2].rpartition("-")[0] for name in records} >= set(OPERATIONS)
    assert cross.independence(pair).status == "pass"


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("lif-fire-strict", "cross[lif-exact]"),
        ("sur-window-closed", "cross[spike-exact]"),
        ("bn-eps-outside", "cross[batch_norm_train-rounded]"),
        ("opt-adam-eps-inside", "cross[optimizer_step-rounded]"),
        ("fac-ascending", "cross[factorize-rounded]"),
        ("bn-biased-running", "cross[network-steps]"),
        ("lay-kernel-gradient-last-step", "cross[network-steps]"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_fault_on_either_side_is_found_and_blamed(fault: str, check: str, first: bool) -> None:
    sides = (f"mutant:{fault}", "numpy")
    pair = pair_of(*(sides if first else sides[::-1]))
    record = cross.run(pair, check_of(pair, check), PROFILES["ci"], 0)
    assert record.status == "fail"
    assert record.failure is not None
    assert f"mutant:{fault} breaks its own bound" in record.failure.sentences[0]
    assert not any("numpy breaks" in line for line in record.failure.sentences)
    if "network" not in check:
        assert any(line.startswith(f"{fault}:") for line in record.failure.suspects)


def lif(seed: int = 0) -> Any:
    return CHECKS["operation[lif-rounded]"].space.at(0, 0, 0, seed)


def answered(example: Any, flip: tuple[int, ...] | None = None) -> cross.Found:
    """The reference's spikes and potentials, perhaps with one spike turned."""
    material = materialize(CASES["lif"], example, "float64")
    out = OPERATIONS["lif"].forward(material.config, material.inputs)
    s = np.array(out["s"])
    if flip is not None:
        s[flip] = 1.0 - s[flip]
    return {
        (name, 0): compare(name, value, value, 0.0, rung="certificate", clauses=()) for name, value in (("s", s), ("u", out["u"]))
    }


def test_a_spike_that_no_rounding_can_turn_must_be_equal() -> None:
    pair, example = pair_of("numpy", alias), lif()
    assert all(f.ok for f in cross._sequences(pair, example, answered(example), answered(example)))
    flipped = answered(example, (1, 0, 0, 0, 0))
    found = list(cross._sequences(pair, example, answered(example), flipped))
    assert [f.ok for f in found] == [False, True]
    assert "s of equal sequences[1, 0, 0" in found[0].sentence()


def test_a_spike_that_rounding_can_turn_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_everywhere(*words: Any) -> Tracked:
        found = followed(*words)
        return Tracked(found.value, np.full(found.shape, 1e3), roundoff=found.roundoff)

    followed = certificates.followed
    monkeypatch.setattr(certificates, "followed", open_everywhere)
    pair, example = pair_of("numpy", alias), lif()
    flipped = answered(example, (1, 0, 0, 0, 0))
    assert all(f.ok for f in cross._sequences(pair, example, answered(example), flipped))


def test_too_many_open_decisions_are_inconclusive() -> None:
    record = Record(id="cross[lif-rounded]", sentence="", clauses=(), rung="certificate", status="pass", comparisons=9)
    for share, of_sequences, status in (
        (cross.OPEN, True, "pass"),
        (2 * cross.OPEN, True, "inconclusive"),
        (2 * cross.OPEN, False, "pass"),
    ):
        weighed = cross._weighed(record, share, of_sequences)
        assert (weighed.status, weighed.ambiguous) == (status, share)
    assert cross._weighed(msgspec.structs.replace(record, status="fail"), 1.0, True).status == "fail"


# --- networks --------------------------------------------------------------------------------------------


def rounded(dump: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n: v if v.dtype.kind == "i" else v.astype(np.float32).astype(np.float64) for n, v in dump.items()}


def unslotted(dump: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n: v for n, v in dump.items() if not n.startswith("optimizer/momentum/stem")}


@pytest.mark.parametrize(("spoil", "words"), [(rounded, "in other: "), (unslotted, "names, shapes and formats of states")])
def test_a_state_that_does_not_survive_the_other_backend_is_found(spoil: Any, words: str) -> None:
    pair = pair_of("numpy", Under(spoil))
    record = cross.run(pair, check_of(pair, "cross[network-free]"), SMOKE, 0)
    assert record.status == "fail"
    assert record.failure is not None
    assert words in record.failure.sentences[0]


def test_steps_are_compared_from_common_states_in_the_order_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, asked = pair_of("numpy", alias), []

    def note(pair: Any, check: Any, numbers: Any) -> Any:
        asked.append((check.id[8:-1], {n: v.tobytes() for n, v in numbers.state.items()}, numbers.images[0].tobytes()))
        return {}, {}

    monkeypatch.setattr(cross, "_asked", note)
    check = check_of(pair, "cross[network-steps]")
    assert check.run(pair.a, next(check.space.cover())) == []
    assert [name for name, _, _ in asked] == list(cross.FLOW) * cross.STEPS
    states = [state for _, state, _ in asked[:: len(cross.FLOW)]]
    assert all(a != b for a, b in pairwise(states))
    assert len({images for _, _, images in asked}) == cross.STEPS


# --- what is no pair -------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ["numpy", "twinspike_numpy:backend"])
def test_a_backend_is_not_held_against_itself(second: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert suite(["cross", "numpy", second, "--precision", "f64"]) == 2
    assert capsys.readouterr().err == (
        "error: cross: expected two backends, got numpy twice, which agrees with itself; name another backend, device or mode\n"
    )


def test_an_alias_proves_nothing() -> None:
    pair = pair_of("numpy", alias)
    assert cross.independence(pair).status == "not run"
    chosen = [check for check in cross.checks(pair) if "network" not in check.id]
    records = [cross.run(pair, check, SMOKE, 0) for check in chosen]
    assert {record.status for record in records} == {"pass"}
    records.append(cross.independence(pair))
    assert records[-1].status == "inconclusive"
    result = Report(header=header(against=side()), records=tuple(records))
    assert result.verdict == "inconclusive"
    assert summary.sentence(result).startswith("Whether torch 2.13.0 and jax 0.10.2 agree on Twinspike")
    assert cross.independence(pair, "lif").status == "not run"


def test_one_backend_in_two_sessions_is_a_pair_but_not_two_implementations() -> None:
    backend = load("numpy")
    session = _Spoiled(backend.session("cpu", "f64"), lambda dump: dump)
    session.device = "accelerator"
    pair = cross.Pair(bench(backend), Bench(backend, session))
    assert pair.names == ("numpy on cpu", "numpy on accelerator")
    assert cross.run(pair, check_of(pair, "cross[linear-rounded]"), SMOKE, 0).status == "pass"
    assert cross.independence(pair).status == "not run"
    assert "two sessions" in cross.independence(pair).reason


def test_what_one_side_does_not_claim_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES / "lif_only"))
    suite(["cross", "lif_only:backend", "numpy", "--precision", "f64", "--profile", "smoke", "--report", str(tmp_path)])
    report = read(tmp_path / "report.json")
    done = {r.id for r in report.records if r.status == "pass"}
    assert {"cross[lif-exact]", "cross[lif-rounded]"} <= done <= {"cross[lif-exact]", "cross[lif-rounded]", cross.INDEPENDENCE}
    assert (report.header.given, report.header.against and report.header.against.given) == ("lif_only:backend", "numpy")


# --- the report ------------------------------------------------------------------------------------------


def test_a_failing_pair_is_told_replayed_and_reproduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fault = "lif-fire-strict"
    words = ["cross", f"mutant:{fault}", "numpy", "--precision", "f64", "--only", "cross[lif-exact]", "--report", str(tmp_path)]
    assert suite(words) == 1
    report = verify(tmp_path / "report.json")
    assert report.header.against is not None
    assert (report.header.backend, report.header.against.backend) == (f"mutant:{fault}", "numpy")
    failure = next(r.failure for r in report.records if r.failure is not None)
    told = capsys.readouterr().out
    assert f"mutant:{fault} and numpy" in told
    assert "do not agree on" in told
    assert f"{failure.sentences[0]}\n" in told
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "breaks its own bound" in page
    command = terminal.replay(failure.digest, report.header)
    assert command in told
    replay = shlex.split(command)[3:]
    assert suite([*replay, "--code"]) == 1
    assert failure.sentences[0] in capsys.readouterr().out
    assert suite([word.replace(f"mutant:{fault}", f"{__name__}:alias") for word in replay]) == 0
    capsys.readouterr()
    assert suite([word for word in replay if word not in ("--against", "numpy")]) == 2
    assert "--against: expected the second backend" in capsys.readouterr().err
    exec(compile(failure.reproduction, "reproduction", "exec"), {})
    printed = capsys.readouterr().out
    assert all(f"{who} s " in printed for who in ("reference", f"mutant:{fault}", "numpy"))


def test_both_sides_are_in_every_form_of_the_report(tmp_path: Path) -> None:
    pair = pair_of("numpy", alias)
    assert pair.name == "numpy and other"
    suite(["cross", "numpy", f"{__name__}:alias", "--precision", "f64", "--only", "relu", "--report", str(tmp_path)])
    report = read(tmp_path / "report.json")
    assert report.verdict == "incomplete"
    for name in ("report.json", "report.html", "junit.xml", "badge.svg"):
        assert "other" in (tmp_path / name).read_text(encoding="utf-8"), name
    assert "numpy 2" in terminal.render(report)
    assert "nothing was wrong with numpy" in terminal.render(report)
    whole = msgspec.structs.replace(report, header=msgspec.structs.replace(report.header, narrowed=""))
    whole = msgspec.structs.replace(whole, records=tuple(r for r in report.records if r.status == "pass"))
    assert "and other agree on Twinspike" in terminal.render(whole)


def test_sides_of_one_name_are_told_apart() -> None:
    one, two = Under(), Under()
    pair = cross.Pair(bench(one), bench(two))
    assert pair.names == ("other on cpu (first)", "other on cpu (second)")
    assert twinspike.load("numpy") is load("numpy")
