"""Certified training: what it writes down, that it changes nothing, and how a run ends that a clause is broken in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from certified_runs import small
from training_runs import lines, quiet
from typer.testing import CliRunner

import twinspike as ts
from twinspike import judge as judges
from twinspike import setting
from twinspike.backend import Program
from twinspike.config import encode
from twinspike_training import certify, checkpoint, compare, loop
from twinspike_training.certify import EVIDENCE, UncertifiedError
from twinspike_training.commands import app
from twinspike_training.ranks import Group
from twinspike_training.run import Ready


def certificates(folder: Path) -> list[dict[str, Any]]:
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in found if line["kind"] == "certificate"]


def test_a_right_run_is_certified_and_is_the_run_that_it_was(tmp_path: Path) -> None:
    certified = loop.start(small(tmp_path), quiet()).folder
    found = certificates(certified.path)
    assert [line["step"] for line in found] == [2, 4, 6, 8, 10, 12]
    assert all(0 < line["worst"] < 0.5 and line["comparisons"] > 100 and line["open"] == 0 for line in found)
    assert all(line["at"] and line["seconds"] > 0 for line in found)
    plain = loop.start(small(tmp_path, "training.certify_every=0"), quiet()).folder
    assert [line for line in lines(certified) if line["kind"] != "certificate"] == lines(plain)
    rows = compare.compare(compare.read_runs([str(certified.path), str(plain.path)]))
    assert [row.certified for row in rows] == [max(line["worst"] for line in found), None]
    assert rows[1].first_difference is None
    one, other = (checkpoint.load(folder.checkpoint("last")).state for folder in (certified, plain))
    assert all(np.array_equal(one[name], other[name]) for name in other)


class Faulty:
    """A program whose steps go wrong from one on: `spoil` gets the state that a step made and gives another."""

    def __init__(self, program: Program, spoil: Callable[[Any], Any], first: int) -> None:
        self._program, self._spoil, self._left = program, spoil, first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._program, name)

    def train_step(self, *given: Any) -> Any:
        self._left -= 1
        state, metrics = self._program.train_step(*given)
        return (self._spoil(state) if self._left <= 0 else state), metrics


def spoiled(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Ready, Any], Any], first: int = 1) -> None:
    right = loop.prepare

    def prepare(*given: Any, **named: Any) -> Ready:
        ready = right(*given, **named)
        return msgspec.structs.replace(ready, program=Faulty(ready.program, lambda state: spoil(ready, state), first))

    monkeypatch.setattr(loop, "prepare", prepare)


def frozen(ready: Ready, state: Any) -> Any:
    values = dict(ready.program.dump(state))
    values["head.bias"] = values["head.bias"] * 1.001
    return ready.program.load(values)


def test_a_step_that_breaks_a_clause_ends_the_run_with_its_state_and_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled(monkeypatch, frozen, first=7)
    with pytest.raises(UncertifiedError) as error:
        loop.start(small(tmp_path), quiet())
    said = str(error.value)
    assert said.startswith("step 8 is not certified: head.bias[")
    for part in ("clauses OPT-1", "step 6 was right", EVIDENCE, "last.safetensors keeps step 6"):
        assert part in said
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert [line["step"] for line in certificates(folder)] == [2, 4, 6]
    kept = setting.read(folder / EVIDENCE)
    assert int(kept.state["optimizer/step"]) == 7
    assert kept.images[0].shape == (6, 1, 8, 8)


def test_the_command_ends_with_a_status_of_its_own_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoiled(monkeypatch, frozen)
    config = tmp_path / "run.json"
    config.write_text(json.dumps(encode(small(tmp_path))))
    done = CliRunner().invoke(app, ["train", str(config)], catch_exceptions=False)
    assert done.exit_code == 3
    (error,) = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert "step 2 is not certified" in error


def test_a_state_that_does_not_come_back_as_it_was_loaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = loop.prepare

    class Forgetful(Faulty):
        def load(self, values: Any) -> Any:
            return self._program.load({k: 0 * v if "momentum" in k else v for k, v in values.items()})

    def prepare(*given: Any, **named: Any) -> Ready:
        ready = right(*given, **named)
        return msgspec.structs.replace(ready, program=Forgetful(ready.program, lambda state: state, 1))

    outcome = loop.start(small(tmp_path, "training.max_steps=4"), quiet())
    monkeypatch.setattr(loop, "prepare", prepare)
    with pytest.raises(UncertifiedError, match=r"after loading: .* in optimizer/momentum.*PRE-4"):
        loop.resume(outcome.folder, None, quiet())


@pytest.mark.parametrize(
    ("entries", "text"), [([], "expected one entry point"), ([("a", "no_such_package:judge")], "can't be loaded")]
)
def test_without_a_judge_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: list[tuple[str, str]], text: str
) -> None:
    found = [EntryPoint(name, value, judges.GROUP) for name, value in entries]
    monkeypatch.setattr(judges, "entry_points", lambda group: found)
    with pytest.raises(ts.SpecError, match=text):
        loop.start(small(tmp_path), quiet())
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_the_suite_judges_with_what_training_has() -> None:
    code = "import sys; from twinspike.judge import load_judge; load_judge(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "twinspike_conformance.judges.steps" in loaded
    assert not {"hypothesis", "pytest", "torch", "jax"} & set(loaded)


def test_what_processes_have_apart_breaks_a_clause() -> None:
    """Traces are put together in the order of ranks; what must be the same in every process is compared to the bit."""
    alike = Group(world_size=2, replicas=2, ask=lambda values: np.stack([values, values]))
    other = Group(world_size=2, replicas=2, ask=lambda values: np.stack([values, values + values.dtype.type(1)]))
    trace = {"fc": {"ann": np.zeros((3, 2)), "snn": np.zeros((4, 3, 2)), "d_bias": np.zeros(2)}}
    found, wrong = certify._of_all(alike, trace)
    assert wrong is None
    assert {key: value.shape for key, value in found["fc"].items()} == {"ann": (6, 2), "snn": (4, 6, 2), "d_bias": (2,)}
    found, wrong = certify._of_all(other, trace)
    assert wrong == "gradient of fc.bias: expected the same on every rank, got others; clause DEV-2"
    assert np.array_equal(found["fc"]["ann"], np.repeat([[0.0] * 2, [1.0] * 2], 3, axis=0))
    state = {"fc.bias": np.zeros(2)}
    assert certify._differs(alike, state, "state") is None
    assert certify._differs(other, state, "state") == "state: expected the same on every rank, got others; clause DEV-5"
