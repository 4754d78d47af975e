"""What stands beside the suite: the template backend, the false-alarm study, and the golden vectors."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest

import twinspike
from twinspike.operations import OPERATIONS
from twinspike.precision import PRECISIONS
from twinspike_conformance.cases import CASES, materialize
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.checks.base import space_of
from twinspike_conformance.commands import command, golden
from twinspike_conformance.commands.command import main as suite
from twinspike_conformance.faults import diagnose
from twinspike_conformance.judges.operations import ask
from twinspike_conformance.report import read
from twinspike_conformance.run.diagnosis import suspects
from twinspike_conformance.run.profiles import PROFILES
from twinspike_conformance.run.runner import run_check
from twinspike_conformance.strength import false_alarms
from twinspike_conformance.strength.innocent import VARIANTS, InnocentBackend, InnocentSession
from twinspike_conformance.strength.rounding import InnocentNumpy, Rules, innocent

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GOLDEN = EXAMPLES / "golden"
TEMPLATE = EXAMPLES / "lif_only" / "lif_only.py"


# --- the template ------------------------------------------------------------------------------------


def template(text: str) -> ModuleType:
    """The template's module from its text, perhaps changed."""
    module = ModuleType("lif_only")
    exec(compile(text, str(TEMPLATE), "exec"), module.__dict__)
    return module


def test_the_template_conforms_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TEMPLATE.parent))
    assert suite(["lif_only:backend", "--profile", "ci", "--report", str(tmp_path)]) == 0
    report = read(tmp_path / "report.json")
    passed = {record.id for record in report.records if record.status == "pass"}
    assert {"operation[lif-exact]", "operation[lif-rounded]", "split[lif]", "refusals[lif]", "claims"} <= passed
    assert {record.status for record in report.records} == {"pass", "not supported"}
    for record in report.records:
        claimed = CHECKS[record.id].needs <= {"lif"}
        assert (record.status == "pass") == claimed, record.id


@pytest.mark.parametrize("precision", ["f32-ieee", "f64"])
def test_the_template_passes_in_each_of_its_formats(precision: str) -> None:
    backend = template(TEMPLATE.read_text(encoding="utf-8")).backend
    bench = Bench(backend, backend.session("cpu", precision))
    for lane in ("exact", "rounded"):
        assert run_check(CHECKS[f"operation[lif-{lane}]"], bench, PROFILES["ci"], 0).status == "pass"


@pytest.mark.parametrize(
    ("right", "wrong", "suspect"),
    [
        ("u[t] >= threshold", "u[t] > threshold", "lif-fire-strict"),
        ("g[t] if neuron.detach_reset else g[t] + e * reset", "g[t]", "lif-reset-detached"),
    ],
)
def test_a_fault_in_the_template_is_found_and_named(right: str, wrong: str, suspect: str) -> None:
    text = TEMPLATE.read_text(encoding="utf-8")
    assert text.count(right) == 1
    backend = template(text.replace(right, wrong)).backend
    record = run_check(CHECKS["operation[lif-exact]"], Bench(backend, backend.session()), PROFILES["ci"], 0, suspects)
    assert record.status == "fail"
    assert record.failure is not None
    assert any(line.startswith(f"{suspect}:") for line in record.failure.suspects), record.failure.suspects


@pytest.mark.parametrize(("precision", "wrong"), [("f64", "float32"), ("f32-ieee", "float64")])
@pytest.mark.parametrize("lane", ["exact", "rounded"])
def test_a_wrong_format_alone_has_no_suspects(precision: str, wrong: str, lane: str) -> None:
    space = CHECKS[f"operation[lif-{lane}]"].space
    example = space.at(1, 0, 0, 5)
    material = materialize(CASES["lif"], example, PRECISIONS[precision].activations)
    answer = ask(twinspike.load("numpy").session("cpu", "f64"), OPERATIONS["lif"], material)
    for named in (answer.outputs, answer.gradients):
        named |= {name: value.astype(wrong) for name, value in named.items()}
    assert diagnose.suspects(example, material, answer) == ()


# --- false alarms ------------------------------------------------------------------------------------


def test_right_implementations_raise_no_alarm() -> None:
    found = false_alarms.study(900, seed=1)
    assert found.alarms == ()
    assert found.examples >= 900
    assert all(tally.examples > 100 and tally.comparisons > 1000 for tally in found.tallies.values())
    assert list(found.lines())[-1].startswith(f"0 false alarms in {found.examples} examples, rate below")


def test_the_study_covers_every_operation_and_repeats_itself() -> None:
    examined = {need for check in false_alarms.checks() for need in check.needs}
    assert examined == set(OPERATIONS)
    one, two = (false_alarms.study(90, seed=3) for _ in range(2))
    assert {k: t.ratios for k, t in one.tallies.items()} == {k: t.ratios for k, t in two.tallies.items()}


def test_an_alarm_is_told_with_its_digest(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = InnocentSession._run

    def guilty(self: InnocentSession, function: str, *rest: object) -> dict[str, np.ndarray]:
        return {k: v + (function == "readout") for k, v in right(self, function, *rest).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(InnocentSession, "_run", guilty)
    assert command.main(["false-alarms", "--examples", "50", "--variant", "permuted"]) == 1
    out = capsys.readouterr().out
    assert "alarm: permuted, order" in out
    assert "operation[readout-exact]:" in out


def test_a_variant_that_is_unknown_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["false-alarms", "--variant", "guilty"]) == 2
    assert capsys.readouterr().err.startswith("error: --variant: expected one of plain, ")


def test_variants_round_otherwise_than_the_reference() -> None:
    """A variant that equals the plain one would prove nothing: each must differ somewhere in most operations."""
    rng = np.random.Generator(np.random.Philox(0))
    differ: dict[str, set[str]] = {"permuted": set(), "fused": set(), "all": set()}
    for name, row in OPERATIONS.items():
        space = space_of(name, False)
        assert space is not None
        for _ in range(6):
            material = materialize(CASES[name], space.sample(rng), "float32")
            found = {}
            for variant in ("plain", *differ):
                session = InnocentBackend(variant, VARIANTS[variant]).session()
                inputs, g = ({k: session.from_numpy(v) for k, v in d.items()} for d in (material.inputs, material.cotangents))
                outputs = session.forward(name, material.config, inputs)
                gradients = session.vjp(name, material.config, inputs, g)[1] if row.adjoint else {}
                found[variant] = [*outputs.values(), *gradients.values()]
                assert all(type(v) is np.ndarray and v.dtype == np.float32 for v in found[variant])
            for variant, seen in differ.items():
                if any(not np.array_equal(a, b) for a, b in zip(found[variant], found["plain"], strict=True)):
                    seen.add(name)
    sums = {"lif", "compose", "penalty", "conv2d", "linear", "batch_norm_train", "joint_loss", "factorize", "retract"}
    assert sums <= differ["permuted"]
    assert {"lif", "batch_norm_eval", "optimizer_step", "conv2d"} <= differ["fused"]
    assert differ["permuted"] | differ["fused"] <= differ["all"] | {"spike", "readout", "global_pool", "feature_loss"}


def f32(*values: float, rules: Rules) -> np.ndarray:
    return innocent(np.array(values, np.float32), rules)


def test_a_fused_product_is_rounded_once() -> None:
    a, c = 1.0 + 2.0**-12, 1.0 + 2.0**-11  # a^2 = c + 2^-24, half a unit above c, so that rounding it first loses that
    for fused, want in ((True, 2.0**-24), (False, 0.0)):
        x = f32(a, rules=Rules(fused=fused))
        assert np.asarray(x * x - np.float32(c)).tolist() == [want]
    rules = Rules(fused=True)
    dot = f32(c, a, rules=rules)[None] @ f32(-1.0, a, rules=rules)[:, None]
    assert np.asarray(dot).tolist() == [[2.0**-24]]


def test_sums_take_another_order_with_every_seed() -> None:
    values = np.random.Generator(np.random.Philox(5)).standard_normal(101) * 1e3
    sums = {float(f32(*values, rules=Rules(order=seed)).sum()) for seed in range(12)}
    assert len(sums) > 4
    exact = values.astype(np.float32).astype(np.float64).sum()
    bound = 100 * 2.0**-24 * np.abs(values).sum()
    assert all(abs(total - exact) <= bound for total in sums)


def test_subnormals_are_flushed_on_the_way_in_and_out() -> None:
    flushed, kept = (f32(2.0**-126, 2.0**-130, rules=Rules(flushed=f)) for f in (True, False))
    assert np.asarray(flushed).tolist() == [2.0**-126, 0.0]
    assert np.asarray(flushed * 0.5).tolist() == [0.0, 0.0]
    assert np.asarray(kept * 0.5).tolist() == [2.0**-127, 2.0**-131]


def test_innocence_is_kept_through_conversions_and_writing() -> None:
    x, xp = f32(1.0, 2.0, rules=Rules(fused=True)), InnocentNumpy()
    for y in (xp.asarray(x), xp.array(x), xp.zeros_like(x), np.where(x > 1, x, 0.0), np.stack([x, x]), x.reshape(2, 1), x + 1):
        assert getattr(y, "rules", None) == x.rules
    into = xp.zeros_like(x)
    into += x * x
    into[0] = 7.0
    assert np.asarray(into).tolist() == [7.0, 4.0]


# --- golden vectors ----------------------------------------------------------------------------------


def test_the_golden_vectors_are_what_the_reference_computes() -> None:
    assert list(golden.check(GOLDEN)) == [], (
        "if the reference was meant to change: python -m twinspike_conformance golden examples/golden"
    )
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 200_000


def test_golden_vectors_are_the_same_when_written_again(tmp_path: Path) -> None:
    index = golden.write(tmp_path)
    assert list(golden.check(tmp_path)) == []
    again = {vector.entry.id: vector.entry for vector in golden.read(tmp_path)}
    assert again == {entry.id: entry for entry in index.examples}
    assert {entry.operation for entry in index.examples} == set(OPERATIONS)
    assert {entry.comparison for entry in index.examples} == {"exact", "bound", "properties"}


def answered(folder: Path, spoil: str = "") -> Path:
    """Answers of the reference in float32 to the golden vectors, those to one example spoiled."""
    session = InnocentBackend("plain", None).session()
    files: dict[str, dict[str, np.ndarray]] = {}
    for vector in golden.read(GOLDEN):
        row, _, material = golden._stored(vector)
        inputs, g = ({k: session.from_numpy(v) for k, v in d.items()} for d in (material.inputs, material.cotangents))
        found = {"outputs": session.forward(row.name, material.config, inputs)}
        if row.adjoint is not None:
            found["gradients"] = session.vjp(row.name, material.config, inputs, g)[1]
        parts = [np.ravel(found[group][name]) for group, name, _ in vector.entry.arrays if group in found]
        flat = np.concatenate(parts)
        if vector.entry.id == spoil:
            flat[-1] += np.float32(1)
        files.setdefault(vector.entry.file, {})[vector.entry.id] = flat
    for file, held in files.items():
        np.savez(folder / file, allow_pickle=False, **held)
    return folder


@pytest.mark.parametrize("spoil", ["", "lif-rounded-1", "factorize-rounded-0", "conv2d-exact-2", "optimizer_step-rounded-2"])
def test_answers_are_judged_without_python_of_ones_own(tmp_path: Path, spoil: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = command.main(["golden", str(GOLDEN), "--answers", str(answered(tmp_path, spoil))])
    out = capsys.readouterr().out
    assert code == bool(spoil), out
    assert f"{spoil}: " in out if spoil else out.endswith("all right\n")


def test_answers_to_a_part_are_judged_in_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answered(tmp_path)
    for path in tmp_path.glob("[!l]*.npz"):
        path.unlink()
    assert command.main(["golden", str(GOLDEN), "--answers", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("not answered: spike, relu, ")
    assert command.main(["golden", str(GOLDEN), "--answers", str(tmp_path / "none")]) == 2


def changed(folder: Path, name: str, at: int, by: float) -> None:
    """Add to one number of one example."""
    held = golden.arrays(folder / f"{name.partition('-')[0]}.npz")
    held[name][at] += by
    np.savez(folder / f"{name.partition('-')[0]}.npz", allow_pickle=False, **held)


@pytest.mark.parametrize(
    ("name", "at", "by"), [("relu-exact-0", -1, 0.5), ("linear-rounded-1", -1, 1e-3), ("factorize-rounded-1", -1, 1e-9)]
)
def test_a_changed_number_is_found(tmp_path: Path, name: str, at: int, by: float) -> None:
    golden.write(tmp_path)
    changed(tmp_path, name, at, by)
    wrong = list(golden.check(tmp_path))
    assert wrong
    assert all(line.startswith(f"{name}: ") for line in wrong)


def test_damaged_vectors_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden.write(tmp_path)
    index = msgspec.json.decode((tmp_path / golden.INDEX).read_bytes())
    for spoilt in (b"{}", msgspec.json.encode(index | {"schema": 99})):
        (tmp_path / golden.INDEX).write_bytes(spoilt)
        assert command.main(["golden", str(tmp_path), "--check"]) == 2
    golden.write(tmp_path)
    (tmp_path / "lif.npz").write_bytes(b"PK")
    assert command.main(["golden", str(tmp_path), "--check"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("error: ") for line in errors)


def test_bounds_are_never_rounded_down() -> None:
    values = np.array([0.0, 1.0, 1.0 + 2.0**-40, 2.0**-30 / 3])
    assert (golden._up(values) >= values).all()
    assert golden._up(values)[:2].tolist() == [0.0, 1.0]
    assert PRECISIONS["f32-ieee"] is golden.PRECISION
