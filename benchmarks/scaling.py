"""How the joint step's time grows with time steps, batch, width and network, beside the cost model's line.

    python benchmarks/scaling.py [--backend torch] [--threads 1]     measures, writes results/scaling.json
    python benchmarks/scaling.py --plot                              draws docs/images/scaling.svg from results

Around one small base (ResNet-18 of width 16, T = 4, B = 8) one quantity varies at a time; the networks are
taken at their usual widths with B = 2. The points of a sweep take turns. The model (`twinspike.cost`) counts
multiply-adds of convolutions and linear layers, and those of composing kernels; its line goes through the
sweep's point of most arithmetic, so what lies above it elsewhere is what arithmetic does not explain.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import RESULTS, ROOT, header, restrict, spread, take_turns, write

if TYPE_CHECKING:
    from workload import Workload

BASE = {"network": "resnet18", "width": 16, "time_steps": 4, "batch_size": 8}
SWEEPS: dict[str, tuple[Any, ...]] = {
    "time_steps": (1, 2, 4, 8, 16),
    "batch_size": (1, 2, 4, 8, 16, 32),
    "width": (4, 8, 16, 32, 64),
    "network": ("resnet20", "resnet18", "resnet34", "vgg16", "resnet19"),
}
LABELS = {"time_steps": "time steps T", "batch_size": "batch size B", "width": "width of ResNet-18", "network": "network"}
PLOT = ROOT / "docs" / "images" / "scaling.svg"
SOURCES = ("scaling", "lif_neurons_1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=40.0, help="for the turns of one sweep")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--plot", action="store_true", help="measure nothing: draw what is there")
    options = parser.parse_args()
    if options.plot:
        print(draw())
        return
    result = header("scaling", options.clock)
    restrict(options.threads)
    result |= {"backend": options.backend, "compiled": options.compiled, "threads": options.threads, "precision": "f32-ieee"}
    result |= {"unit": "seconds per step", "base": BASE, "rows": []}
    for row in rows(options):
        result["rows"].append(row)
        print(f"{row['sweep']:<11} {row['at']!s:<9} {row['gflop']:9.1f} GFLOP {row['seconds']['median']:8.3f} s", flush=True)
    print(write("scaling", result))


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row per point, sweep by sweep."""
    from workload import JointStep, Workload

    for sweep, values in SWEEPS.items():
        works = {}
        for value in values:
            sizes: dict[str, Any] = BASE | ({"width": None, "batch_size": 2} if sweep == "network" else {}) | {sweep: value}
            works[value] = Workload(backend=options.backend, compiled=options.compiled, **sizes)
        calls = {str(value): JointStep(work) for value, work in works.items()}
        taken = take_turns(calls, rounds=options.rounds, slice_seconds=0.0, seconds=options.seconds, clock=options.clock)
        for value, work in works.items():
            yield {"sweep": sweep, "at": value, "gflop": gflop(work), "seconds": spread(taken[str(value)])}


def gflop(work: Workload) -> float:
    """What the cost model counts for one step: the batch, and composing each kernel forward and backward."""
    import twinspike as ts
    from twinspike.cost import FLOP_PER_MAC, PASSES, cost

    found = cost(ts.network(work.network, width=work.width), ts.Method(time_steps=work.time_steps))
    return round((work.batch_size * found.flop_training + PASSES * FLOP_PER_MAC * found.compose_macs) / 1e9, 4)


def digests() -> str:
    """The results that the plot shows, by name and SHA-256: written into it, so that a stale plot is found."""
    return ", ".join(f"{name}.json {hashlib.sha256((RESULTS / f'{name}.json').read_bytes()).hexdigest()}" for name in SOURCES)


def draw() -> Path:
    """Measured points, quartiles, and the model's line, one panel per sweep; the neuron alone last."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    scaling, neurons = (json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in SOURCES)
    style: Any = {"svg.hashsalt": "twinspike", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style | {"axes.grid": True, "grid.color": "#e6e6e6", "svg.fonttype": "none"}):
        figure, grid = plt.subplots(2, 3, figsize=(9, 5.4), layout="constrained")
        *panels, last, legend = grid.flat
        for axis, sweep in zip(panels, SWEEPS, strict=True):
            _panel(axis, sweep, [row for row in scaling["rows"] if row["sweep"] == sweep])
            axis.set_ylabel("seconds per step")
        _neurons(last, neurons["rows"])
        for axis in (*panels, last):
            axis.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_locator(mpl.ticker.NullLocator())
        legend.axis("off")
        title = f"joint step, {scaling['backend']}, {scaling['threads']} thread(s)"
        legend.legend(*panels[0].get_legend_handles_labels(), title=title, frameon=False, loc="upper left")
        PLOT.parent.mkdir(exist_ok=True)
        figure.savefig(PLOT, metadata={"Date": None, "Description": digests()})
    return PLOT


def _panel(axis: Any, sweep: str, points: list[dict[str, Any]]) -> None:
    points = sorted(points, key=lambda row: float(row["gflop"]))
    places = range(len(points)) if sweep == "network" else [row["at"] for row in points]
    most = points[-1]
    model = [most["seconds"]["median"] * row["gflop"] / most["gflop"] for row in points]
    axis.plot(places, model, "--", color="#999999", label="cost model")
    _measured(axis, places, [row["seconds"] for row in points])
    axis.set_yscale("log")
    axis.set_xlabel(LABELS[sweep])
    if sweep == "network":
        axis.set_xticks(list(places), [str(row["at"]) for row in points], rotation=30)
    else:
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(places), [str(place) for place in places])
        axis.minorticks_off()


def _neurons(axis: Any, found: list[dict[str, Any]]) -> None:
    for name in dict.fromkeys(row["variant"] for row in found):
        rows = [row for row in found if row["variant"] == name]
        _measured(axis, [row["neurons"] for row in rows], [row["ns"] for row in rows], label=name, color=None)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlabel("neurons of a LIF layer, T = 4")
    axis.set_ylabel("ns per neuron and step")
    axis.legend(frameon=False)


def _measured(
    axis: Any, places: Any, spreads: list[dict[str, float]], label: str = "measured", color: str | None = "#1f77b4"
) -> None:
    medians = [s["median"] for s in spreads]
    bars = [
        [m - s["q1"] for m, s in zip(medians, spreads, strict=True)],
        [s["q3"] - m for m, s in zip(medians, spreads, strict=True)],
    ]
    axis.errorbar(list(places), medians, bars, fmt="o-", ms=3.5, lw=1.2, color=color, label=label)


if __name__ == "__main__":
    main()
