"""Runs as a table: for each recipe what its seeds came to, with error bars, what it cost, and what others published.

Runs of one config that differ in their seed alone are one row. A row's name says in what its runs differ from their recipe.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from twinspike.config import encode
from twinspike.cost import cost
from twinspike.errors import SpecError, refuse, require
from twinspike_training import checkpoint, metrics, recipes
from twinspike_training.compare import best_of
from twinspike_training.config import RunConfig, load_config
from twinspike_training.run import flat, open_run, stored_config
from twinspike_training.synops import synaptic_operations

_ELSEWHERE = (
    "seed", "name", "out", "recipe", "device", "compile", "recompute", "graphs", "data.path", "data.workers", "data.worker",
    "training.log_every", "training.evaluate_every", "training.checkpoint_every_steps", "training.checkpoint_every_seconds",
    "training.tensorboard",
)  # fmt: skip
"""Keys in which the runs of a row may differ: they decide where a run computes and what it writes down."""

_QUIET = ("backend", "precision")
"""Keys that make another row, and stand in a column of their own."""

_OTHER = ("network", "width", "method.time_steps", "data.name", "data.size", "data.limit", "data.test_limit")
"""Keys by which a changed recipe is no longer what a published value was measured on."""


class Mean(msgspec.Struct, frozen=True):
    """A mean over runs, and its standard error, which one run has none of."""

    mean: float
    error: float | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Finished runs that differ in their seed alone."""

    recipe: str
    """Its name, and the keys that were changed."""
    backend: str
    """With its precision."""
    n: int
    epochs: int
    """Trained for by each run."""
    last_snn: Mean
    """Test accuracy, a share, after the last epoch."""
    last_ann: Mean
    best_snn: Mean
    """Test accuracy after the epoch that was the best by the held-out samples, or by the test set itself (`chosen_on`)."""
    best_ann: Mean
    """Of the same epoch."""
    chosen_on: str
    """validation or test."""
    parameters: int
    """Trained values of both twins."""
    spike_rate: Mean
    """Spikes per neuron and time step after the last epoch, all exits."""
    synaptic_operations: Mean
    """Per sample, `synops.SynOps.spikes`."""
    dense_operations: float
    """Per sample, `synops.SynOps.dense`."""
    hours: Mean
    """Of optimizer steps, the time between two of them included, evaluations and what was taken back left out."""
    hardware: tuple[str, ...]
    published: tuple[recipes.Published, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A table, and the runs that are not in it."""

    rows: tuple[Row, ...]
    unfinished: tuple[str, ...]
    """A line for each run that has epochs left."""


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    config: RunConfig
    values: dict[str, float]
    chosen_on: str
    parameters: int
    hardware: str


def report(paths: Iterable[str | Path]) -> Report:
    """Read runs and put them together.

    Args:
        paths: folders of runs.

    Raises:
        SpecError: one is no run or can't be read; two are the same run, or runs of one config have the same seed.
    """
    runs: list[_Run] = []
    unfinished = []
    for path in paths:
        found = _read(path)
        if isinstance(found, str):
            unfinished.append(found)
        else:
            runs.append(found)
    groups: dict[str, list[_Run]] = {}
    for run in runs:
        groups.setdefault(str(sorted(_deciding(run.config).items())), []).append(run)
    return Report(rows=tuple(map(_row, groups.values())), unfinished=tuple(unfinished))


def _read(path: str | Path) -> _Run | str:
    """A run's numbers, or the line that says that it has none yet."""
    folder = open_run(path)
    config = stored_config(folder)
    lines = metrics.read_whole(folder.metrics)
    header = checkpoint.load_header(folder.checkpoint("last"))
    training = config.training
    tests = [line for line in lines if line["kind"] == "epoch"]
    ended = training.ended(header.epoch, header.steps)
    if not ended or header.due or not tests:
        return f"{path}: {header.epoch} of {training.epochs} epochs"
    last, best = tests[-1], best_of(tests)
    try:
        operations = synaptic_operations(header.network, config.method, last["spike_rates"])
    except KeyError as error:
        raise refuse(str(folder.metrics), expected="the spike rate of every layer", got=f"none of {error.args[0]}") from None
    steps = [line for line in lines if line["kind"] == "step"]
    seconds = sum(line["samples"] / line["images_per_second"] for line in steps if line["images_per_second"] > 0)
    machines = [str(line["hardware"]) for line in lines if line["kind"] == "session" and "hardware" in line]
    return _Run(
        path=str(path),
        config=config,
        values={
            "last_snn": last["accuracy_snn"],
            "last_ann": last["accuracy_ann"],
            "best_snn": best["accuracy_snn"],
            "best_ann": best["accuracy_ann"],
            "spike_rate": last["spike_rate"],
            "synaptic_operations": operations.spikes,
            "dense": operations.dense,
            "hours": seconds / 3600,
        },
        chosen_on="validation" if "validation" in last else "test",
        parameters=cost(header.network, config.method).parameters,
        hardware=", then ".join(dict.fromkeys(machines)) or "not recorded",
    )


def _deciding(config: RunConfig) -> dict[str, Any]:
    return {key: value for key, value in flat(encode(config)).items() if key not in _ELSEWHERE}


def _row(runs: Sequence[_Run]) -> Row:
    first = runs[0].config
    seeds = [run.config.seed for run in runs]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    same = [run.path for run in runs if run.config.seed in twice]
    require(not twice, "report", expected="each seed of a recipe once", got=", ".join(same))
    changed = _changed(first)
    known = changed is not None and not set(changed) & set(_OTHER)
    return Row(
        recipe=_name(first, changed, runs[0].path),
        backend=f"{first.backend} {first.precision}",
        n=len(runs),
        epochs=first.training.epochs,
        chosen_on=runs[0].chosen_on,
        parameters=runs[0].parameters,
        dense_operations=runs[0].values["dense"],
        hardware=tuple(dict.fromkeys(run.hardware for run in runs)),
        published=recipes.values_for(first.recipe, first.method.time_steps) if known else (),
        **{name: _mean([run.values[name] for run in runs]) for name in runs[0].values if name != "dense"},
    )


def _changed(config: RunConfig) -> dict[str, Any] | None:
    """The keys in which a run differs from its recipe, with its values; None where the recipe is not known here."""
    if not config.recipe:
        return None
    try:
        base = _deciding(load_config(config.recipe))
    except SpecError:
        return None
    mine = _deciding(config)
    return {key: mine.get(key) for key in sorted(mine.keys() | base.keys()) if mine.get(key) != base.get(key)}


def _name(config: RunConfig, changed: dict[str, Any] | None, path: str) -> str:
    if changed is None:
        return f"{Path(path).name} (no recipe of this version)"
    told = ", ".join(f"{key}={value}" for key, value in changed.items() if key not in _QUIET)
    return f"{config.recipe} ({told})" if told else config.recipe


def _mean(values: Sequence[float]) -> Mean:
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(float(np.mean(values)), spread)


COLUMNS = (
    "recipe", "backend", "n", "epochs", "SNN last", "SNN best", "ANN last", "ANN best", "parameters", "spike rate",
    "synaptic operations", "hours", "hardware", "published",
)  # fmt: skip


def as_markdown(found: Report) -> list[str]:
    """The table as lines of Markdown, what its numbers are, and the runs left out."""
    rule = ["---" if name in ("recipe", "backend", "hardware", "published") else "---:" for name in COLUMNS]
    lines = [_cells(COLUMNS), _cells(rule), *(_cells(_texts(row)) for row in found.rows), ""]
    lines.append("Mean ± standard error over n seeds; accuracies in per cent of the test samples, of each twin's main exit.")
    chosen = {row.chosen_on for row in found.rows}
    if "test" in chosen:
        lines.append("The best epoch was chosen on the test set itself, as the authors do, and is so too good.")
    if "validation" in chosen:
        lines.append("The best epoch was chosen on samples held out of training.")
    lines.append(
        "Synaptic operations: additions for spikes of one sample up to the main exit, then multiply-adds of what reads no spikes."
    )
    lines += [f"{value.by}, {value.accuracy:.2f}: {value.source}." for value in _sources(found)]
    lines += [f"left out, unfinished: {line}" for line in found.unfinished]
    return lines


def _sources(found: Report) -> list[recipes.Published]:
    return list(dict.fromkeys(value for row in found.rows for value in row.published))


def _texts(row: Row) -> list[str]:
    published = "; ".join(f"{v.accuracy:.2f} {v.by}{f' ({v.note})' if v.note else ''}" for v in row.published)
    shares = [_share(value) for value in (row.last_snn, row.best_snn, row.last_ann, row.best_ann)]
    operations = f"{_count(row.synaptic_operations.mean)} + {_count(row.dense_operations)}"
    rate = f"{row.spike_rate.mean:.3f}"
    hours = f"{row.hours.mean:.3g}"
    hardware = "; ".join(row.hardware)
    head = [row.recipe, row.backend, str(row.n), str(row.epochs)]
    return [*head, *shares, f"{row.parameters:,}", rate, operations, hours, hardware, published or "-"]


def _cells(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _share(value: Mean) -> str:
    error = f" ± {100 * value.error:.2f}" if value.error is not None else ""
    return f"{100 * value.mean:.2f}{error}"


def _count(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"
