"""Runs beside each other: where they first differ, how far, and where they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from twinspike.errors import require
from twinspike_training import checkpoint, metrics
from twinspike_training.metrics import LOSS_PARTS
from twinspike_training.run import RunFolder, open_run, stored_config

TIMES = ("images_per_second", "seconds")
"""What lines of equal runs differ in."""


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """A run's metrics."""

    label: str
    """Name of its folder, and backend."""
    lines: list[dict[str, Any]]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Its lines of one kind."""
        return [line for line in self.lines if line["kind"] == kind]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One run against the first."""

    label: str
    steps: int
    loss: float | None
    """Of the last step."""
    accuracy_snn: float | None
    """Of the last evaluation, a share of test samples."""
    accuracy_ann: float | None
    best_snn: float | None
    images_per_second: float | None
    """Median over steps."""
    certified: float | None
    """Largest error/bound of its judged steps; None where none was judged."""
    first_difference: int | None
    """First step at which a loss part differs from the first run's, bit for bit; None: none of the common steps."""
    relative: float
    """Largest relative difference of the loss over common steps."""


def read_runs(paths: list[str]) -> list[Curves]:
    """Read the metrics of runs; SpecError if one is no run or has no steps yet."""
    require(len(paths) >= 1, "compare", expected="at least one run", got="none")
    found = []
    for path in paths:
        folder = open_run(path)
        curves = Curves(label=f"{Path(path).name} ({stored_config(folder).backend})", lines=metrics.read_whole(folder.metrics))
        require(bool(curves.of_kind("step")), "run", expected="at least one logged step", got=path)
        found.append(curves)
    return found


def compare(runs: list[Curves]) -> list[Row]:
    """Hold every run against the first."""
    return [_row(run, runs[0]) for run in runs]


def best_of(tests: list[dict[str, Any]]) -> dict[str, Any]:
    """The best of some evaluations; the first of equals."""
    return max(tests, key=_chosen_by)


def _chosen_by(line: dict[str, Any]) -> float:
    """What makes an evaluation the best: the accuracy on the samples held out, or without such on the test's."""
    return float(line.get("validation", line)["accuracy_snn"])


def _row(run: Curves, base: Curves) -> Row:
    steps, tests = run.of_kind("step"), run.of_kind("epoch")
    theirs = {line["step"]: line for line in base.of_kind("step")}
    common = [(line, theirs[line["step"]]) for line in steps if line["step"] in theirs]
    different = [one["step"] for one, other in common if any(one[part] != other[part] for part in LOSS_PARTS)]
    rates = sorted(line["images_per_second"] for line in steps)
    return Row(
        label=run.label,
        steps=steps[-1]["step"],
        loss=steps[-1]["loss"],
        accuracy_snn=tests[-1]["accuracy_snn"] if tests else None,
        accuracy_ann=tests[-1]["accuracy_ann"] if tests else None,
        best_snn=best_of(tests)["accuracy_snn"] if tests else None,
        images_per_second=rates[len(rates) // 2],
        certified=max((line["worst"] for line in run.of_kind("certificate")), default=None),
        first_difference=min(different, default=None),
        relative=max((abs(a["loss"] - b["loss"]) / max(abs(a["loss"]), abs(b["loss"]), 1e-300) for a, b in common), default=0.0),
    )


def told(folder: RunFolder) -> list[dict[str, Any]]:
    """What a record tells of a run, exact: its lines without those of sessions, and without times."""
    lines = metrics.read(folder.metrics)
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines if line["kind"] != "session"]


def difference(one: RunFolder, other: RunFolder) -> str | None:
    """The first thing in which two runs' records and checkpoints differ, bit for bit; None: they are equal."""
    ours, theirs = told(one), told(other)
    for mine, its in zip(ours, theirs, strict=False):
        if mine != its:
            names = [name for name in mine if mine.get(name) != its.get(name)] or sorted(its.keys() - mine.keys())
            return f"the {mine['kind']} line of step {mine['step']}: {', '.join(names)}"
    if len(ours) != len(theirs):
        return f"the record: {len(ours)} lines and {len(theirs)}"
    for which in ("last", "best"):
        headers = [checkpoint.load(folder.checkpoint(which)).header for folder in (one, other)]
        for name in ("epoch", "step", "steps", "best", "due", "network", "fingerprint", "arrays"):
            mine, its = (getattr(header, name) for header in headers)
            if mine != its:
                return f"{which}.safetensors: {name}"
    return None
