"""Tables for a person at a terminal; what they say is computed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import twinspike
from twinspike.backend import Capabilities
from twinspike.boundary import legible
from twinspike.config import Twin
from twinspike.cost import Cost
from twinspike.network import Network
from twinspike.registry import Availability
from twinspike_training.checkpoint import Header
from twinspike_training.compare import Row as ComparisonRow
from twinspike_training.config import RunConfig, embedded
from twinspike_training.evaluation import Counted, Result
from twinspike_training.predict import Predicted
from twinspike_training.recipes import book
from twinspike_training.terminal import say


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(highlight=False, box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=column != "versions", overflow="fold")
    return table


def show_backends(console: Console, found: Sequence[Availability]) -> None:
    """One row per registered backend, with the line that says why one can't be loaded."""
    table = _table("backend", "versions", "devices", "precisions", "compiled", "operations", "trains networks")
    for backend in found:
        able = backend.capabilities
        if able is None:
            table.add_row(backend.name, "not available", "-", "-", "-", "-", "-")
            continue
        versions = ", ".join(f"{name} {version}" for name, version in able.versions.items())
        precisions = ", ".join(sorted(able.precisions))
        yes_no = ["yes" if claim else "no" for claim in (able.compiled, able.networks)]
        devices = ", ".join(able.devices)
        table.add_row(backend.name, versions, devices, precisions, yes_no[0], str(len(able.operations)), yes_no[1])
    console.print(table, markup=False)
    for backend in found:
        for case, kernel in backend.capabilities.kernels.items() if backend.capabilities else ():
            say(console, f"{backend.name}, {case}: {kernel}")
        for line in _standing(backend.capabilities) if backend.capabilities else ():
            say(console, f"{backend.name}: {line}")
        if backend.problem is not None:
            say(console, backend.problem)


def _standing(able: Capabilities) -> list[str]:
    """What a backend carries of the suite's, and which specification it is for where that is another."""
    version = twinspike.__version__
    old = f"written for version {able.specification} of the specification, this is {version}: it can't know what lies between"
    lines = [old] if able.specification not in ("", version) else []
    return lines + [mark.sentence() for mark in able.conformance]


def show_network(console: Console, network: Network, cost: Cost) -> None:
    """Layers of a network with their cost, and the totals."""
    numbers = ("shared", "ann only", "snn only", "FLOP ann", "FLOP snn")
    say(console, f"{network.name}: input {_size(network.input_shape)}, {network.classes} classes, T = {cost.time_steps}")
    table = _table("layer", "kind", "output", *numbers, right=numbers)
    for layer in cost.layers:
        flop = 2 * layer.macs
        counts = (layer.shared, layer.ann, layer.snn, flop, flop * cost.time_steps)
        table.add_row(legible(layer.name), layer.kind, _size(layer.shape), *(f"{n:,}" if n else "" for n in counts))
    table.add_section()
    sums = [sum(getattr(layer, part) for layer in cost.layers) for part in ("shared", "ann", "snn")]
    table.add_row("total", "", "", *(f"{n:,}" for n in (*sums, cost.flop_ann, cost.flop_snn)))
    console.print(table, markup=False)
    lines = (
        f"parameters (trained): {cost.parameters:,}",
        f"forward, one sample: ann {_flop(cost.flop_ann)}, snn {_flop(cost.flop_snn)} (products alone, a multiply-add is 2 FLOP)",
        f"training, one sample: {_flop(cost.flop_training)} (both twins, 3 passes); "
        f"composing kernels, once per step: {_flop(2 * cost.compose_macs)}",
        f"exits: {', '.join(exit_.head for exit_ in network.exits)}",
    )
    for line in lines:
        say(console, line)


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _flop(count: int) -> str:
    return f"{count / 1e9:.3g} GFLOP" if count >= 1e9 else f"{count / 1e6:.3g} MFLOP"


def show_evaluation(console: Console, result: Result, header: Header, config: RunConfig) -> None:
    """Accuracy of every exit of both twins, and the spike rates."""
    say(
        console,
        f"{header.network.name} after {header.epoch} epochs ({header.steps:,} steps, written by {header.backend}), "
        f"tested by {config.backend} on {result.samples:,} samples",
    )
    table = _table("exit", "snn accuracy", "ann accuracy", right=("snn accuracy", "ann accuracy"))
    for exit_, snn, ann in zip(header.network.exits, result.accuracy_exits_snn, result.accuracy_exits_ann, strict=True):
        table.add_row(legible(exit_.head), f"{snn:.2%}", f"{ann:.2%}")
    console.print(table, markup=False)
    say(
        console,
        f"cross entropy of the main exit: snn {result.cross_entropy_snn:.4f}, ann {result.cross_entropy_ann:.4f} nats; "
        f"spikes per neuron and time step: {result.spike_rate:.4f}",
    )


def show_counts(console: Console, counts: Mapping[Twin, Counted]) -> None:
    """What inference costs each twin (clauses ENE-*), operations of one sample on average."""
    table = _table("up to the main exit", *counts, right=tuple(counts))
    sizes = [counted.static for counted in counts.values()]
    table.add_row("footprint, bytes", *(f"{size.footprint:,}" for size in sizes))
    table.add_row("connections", *(f"{size.connections:,}" for size in sizes))
    table.add_row("connection sparsity", *(f"{size.connection_sparsity:.4f}" for size in sizes))
    work = [counted.workload for counted in counts.values() if counted.workload is not None]
    if work:
        table.add_row("activation sparsity", *(f"{one.activation_sparsity:.4f}" for one in work))
        for title, name in (
            ("dense operations", "dense"),
            ("effective MACs", "macs"),
            ("effective ACs", "acs"),
            ("membrane updates", "updates"),
        ):
            table.add_row(f"{title}, a sample", *(f"{getattr(one, name) / one.samples:,.1f}" for one in work))
    console.print(table, markup=False)
    if work:
        say(console, f"counted on {work[0].samples:,} samples")


def show_predictions(console: Console, answers: Sequence[Predicted]) -> None:
    """A row for each image: each twin's label and its probability."""
    twins = list(answers[0].twins)
    table = _table("image", *(column for twin in twins for column in (twin, f"{twin} probability")))
    for answer in answers:
        cells = [cell for p in answer.twins.values() for cell in (legible(p.label), f"{p.probabilities[p.number]:.2%}")]
        table.add_row(legible(answer.image), *cells)
    console.print(table, markup=False)


def show_comparison(console: Console, rows: Sequence[ComparisonRow]) -> None:
    """Runs against the first of them."""
    columns = (
        "steps",
        "last loss",
        "snn last",
        "snn best",
        "ann last",
        "images/s",
        "error/bound",
        "first difference",
        "max rel. loss diff.",
    )
    table = _table("run", *columns, right=columns)
    for row in rows:
        shares = [f"{value:.2%}" if value is not None else "-" for value in (row.accuracy_snn, row.best_snn, row.accuracy_ann)]
        first = f"step {row.first_difference:,}" if row.first_difference is not None else "none"
        speed = f"{row.images_per_second:,.0f}" if row.images_per_second is not None else "-"
        loss = f"{row.loss:.4f}" if row.loss is not None else "-"
        worst = f"{row.certified:.2g}" if row.certified is not None else "-"
        table.add_row(legible(row.label), f"{row.steps:,}", loss, *shares, speed, worst, first, f"{row.relative:.2g}")
    console.print(table, markup=False)


def show_recipes(console: Console) -> None:
    """The words of recipes, and the embedded configs that have names of their own."""
    words = book()
    say(
        console, "a recipe is DATA, then if wanted NETWORK, t and a number of time steps, VARIANT, SIZE: cifar10-resnet34-t6-best"
    )
    table = _table("data", "networks, the first where none is named", "time steps of the table", "what it is")
    for name, data in words.data.items():
        steps = ", ".join(f"t{number}" for number in data.time_steps)
        table.add_row(name, ", ".join(data.networks), steps, data.says)
    console.print(table, markup=False)
    for title, kind in (("variant", words.variant), ("size", words.size)):
        table = _table(title, "what it is")
        for name, word in kind.items():
            table.add_row(name, word.says)
        console.print(table, markup=False)
    say(console, f"embedded configs are recipes too: {', '.join(embedded())}")
