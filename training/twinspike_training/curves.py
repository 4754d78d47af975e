"""Learning curves of one run or of several beside each other, as figures that can be read without the code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context, style
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from twinspike.boundary import legible
from twinspike.errors import refuse
from twinspike_training.compare import Curves
from twinspike_training.files import write_atomic
from twinspike_training.metrics import Series, series

SNN, ANN = "#c2410c", "#1d4ed8"
"""Colours of the twins in every figure."""

TWIN_COLOURS = {"snn": SNN, "ann": ANN}
TWIN_NAMES = {"snn": "spiking twin (SNN)", "ann": "artificial twin (ANN)"}

PALETTE = ("#1d4ed8", "#c2410c", "#047857", "#7c3aed", "#b45309", "#be185d", "#0e7490", "#4d7c0f")
"""Colours of several runs; they repeat after the last."""


plain = style.context("default")
"""Decorates what draws: Matplotlib's own settings, not those of a `matplotlibrc` in the folder where the command is called,
which may have texts set by LaTeX, another program."""


def as_text(name: str) -> str:
    """Anyone's name as a text of a figure: without control characters, and with no formula between two `$`."""
    return legible(name).replace("$", r"\$")


def figure(rows: int, columns: int, size: tuple[float, float], title: str) -> tuple[Figure, Any]:
    """A figure with a grid of axes, (rows, columns), sized in inches."""
    made = Figure(figsize=size, layout="constrained", dpi=130)
    made.suptitle(as_text(title), fontsize=13, fontweight="bold")
    axes = made.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.grid(True, alpha=0.25, linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    return made, axes


PAPER_WIDTH = 7.0
"""Inches: the width of a page's text, over both columns where there are two."""

_SMALLEST = 5.0
"""Points, of a paper's letters."""


def write(made: Figure, path: Path) -> Path:
    """Save a figure, making its folder: as PNG, or where the path ends in .pdf for a paper, as PDF and beside it as SVG.

    A paper's figure is as wide as its text at most, letters and lines in proportion, and has no title, which a caption is for.
    Letters are embedded as such (PDF), or left to the reader's fonts (SVG), and no date is written: equal runs give equal files.
    """
    paper = path.suffix == ".pdf"
    if paper:
        _for_paper(made)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not paper:
            write_atomic(path, lambda part: made.savefig(part, format="png"))
            return path
        with rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "twinspike"}):
            write_atomic(path, lambda part: made.savefig(part, format="pdf", metadata={"CreationDate": None}))
            vector = path.with_suffix(".svg")
            write_atomic(vector, lambda part: made.savefig(part, format="svg", metadata={"Date": None}))
    except OSError as error:
        raise refuse("picture", expected="a path that can be written", got=f"{error.strerror}: {path}") from None
    return path


def _for_paper(made: Figure) -> None:
    """Scale a figure and all in it to a page, and take its title away."""
    made.suptitle("")
    width, height = made.get_size_inches()
    share = min(1.0, PAPER_WIDTH / width)
    made.set_size_inches(share * width, share**0.5 * height)  # letters have a smallest size, and legends need their room
    for text in made.findobj(Text):
        text.set_fontsize(max(_SMALLEST, share * text.get_fontsize()))
    for line in made.findobj(Line2D):
        line.set_linewidth(max(0.5, share * line.get_linewidth()))
        line.set_markersize(share * line.get_markersize())
    for marks in made.findobj(PathCollection):
        marks.set_sizes(share**2 * marks.get_sizes())


def smooth(values: Series, window: int) -> Series:
    """Mean over the last `window` values, fewer at the beginning."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return np.asarray((total[ends] - total[starts]) / (ends - starts))


def epochs_of(lines: list[dict[str, Any]]) -> float:
    """Optimizer steps per epoch, from the lines of a run; 1 where none can be told."""
    steps = [line for line in lines if line["kind"] == "step"]
    tests = [line for line in lines if line["kind"] == "epoch" and line["epoch"] > 0]
    if tests:
        return float(tests[-1]["step"] / tests[-1]["epoch"])
    return float(max((line["step"] for line in steps), default=1))


def plot_learning(lines: list[dict[str, Any]], title: str, path: Path) -> Path:
    """Loss parts, cross entropy and accuracy of both twins over epochs.

    Args:
        lines: of `metrics.jsonl`.
        title: of the figure.
        path: of the PNG.
    """
    made, axes = figure(2, 2, (12, 8), title)
    length = epochs_of(lines)
    window = max(1, round(length / 4))

    def trained(ax: Axes, name: str, colour: str, label: str) -> None:
        steps, values = series(lines, "step", name)
        ax.plot(steps / length, values, color=colour, alpha=0.18, linewidth=0.7)
        ax.plot(steps / length, smooth(values, window), color=colour, linewidth=1.6, label=label)

    loss, parts, entropy, accuracy = axes.flat
    trained(loss, "loss", "#111827", f"total loss (mean of {window} steps; faint: each step)")
    _label(loss, "Training loss", "loss")
    for name, colour, label in (
        ("distillation", "#7c3aed", "distillation, tau² times the sum over pairs"),
        ("feature", "#047857", "feature distance, squared"),
        ("penalty", "#b45309", "orthogonality penalty"),
    ):
        if np.any(series(lines, "step", name)[1] > 0):
            trained(parts, name, colour, label)
    parts.set_yscale("log")
    _label(parts, "Parts of the loss, before their weights alpha and beta", "value (log scale)")
    exits = next((len(line["accuracy_exits_snn"]) for line in lines if line["kind"] == "epoch"), 1)
    for twin in ("snn", "ann"):
        trained(entropy, f"cross_entropy_{twin}", TWIN_COLOURS[twin], f"{TWIN_NAMES[twin]}, training")
    _label(entropy, f"Cross entropy of training batches, summed over the {exits} exits", "cross entropy (nats)")
    for twin in ("snn", "ann"):
        colour = TWIN_COLOURS[twin]
        steps, values = series(lines, "step", f"accuracy_{twin}")
        accuracy.plot(
            steps / length, 100 * smooth(values, round(length)), color=colour, linewidth=1.0, linestyle=":",
            label=f"{TWIN_NAMES[twin]}, training (mean of one epoch)",
        )  # fmt: skip
        steps, values = series(lines, "epoch", f"accuracy_{twin}")
        last = f", last {values[-1]:.2%}" if len(values) else ""
        accuracy.plot(
            steps / length,
            100 * values,
            color=colour,
            linewidth=1.8,
            marker="o",
            markersize=3.5,
            label=f"{TWIN_NAMES[twin]}, test{last}",
        )
    _label(accuracy, "Accuracy of the main exit", "accuracy (%)")
    return write(made, path)


def _label(ax: Axes, title: str, y: str) -> None:
    ax.set_title(title, fontsize=11)
    ax.set_xlabel("epoch")
    ax.set_ylabel(y)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, framealpha=0.85)


@plain
def plot_comparison(runs: Sequence[Curves], path: Path) -> Path:
    """Loss, difference from the first run, and test accuracy of several runs in one figure."""
    made, axes = figure(1, 3, (16, 5), "Runs beside each other")
    loss, difference, accuracy = axes.flat
    base_steps, base = series(runs[0].lines, "step", "loss")
    reference = dict(zip(base_steps, base, strict=True))
    for number, run in enumerate(runs):
        name, colour = as_text(run.label), PALETTE[number % len(PALETTE)]
        steps, values = series(run.lines, "step", "loss")
        window = max(1, round(epochs_of(run.lines) / 4))
        style = ("-", "--", "-.", ":")[number % 4]  # runs that agree lie on one another
        loss.plot(steps, smooth(values, window), color=colour, linestyle=style, linewidth=1.6, label=name)
        common = [(s, abs(v - reference[s]) / abs(reference[s])) for s, v in zip(steps, values, strict=True) if reference.get(s)]
        if number > 0 and common:
            at, relative = np.array(common).T
            found = np.where(relative > 0, relative, np.nan)
            label = name if np.isfinite(found).any() else f"{name}: equal bit for bit"
            difference.plot(at, found, color=colour, linewidth=1.2, marker=".", markersize=3, label=label)
        steps, values = series(run.lines, "epoch", "accuracy_snn")
        accuracy.plot(steps, 100 * values, color=colour, linestyle=style, marker="o", markersize=3.5, label=f"{name}, SNN")
        steps, values = series(run.lines, "epoch", "accuracy_ann")
        accuracy.plot(steps, 100 * values, color=colour, linestyle=style, alpha=0.35, linewidth=1.0, label=f"{name}, ANN")
    _label(loss, "Training loss (running mean of a quarter epoch)", "loss")
    difference.set_yscale("log")
    _label(difference, f"Relative difference of the loss from {as_text(runs[0].label)}", "|loss - first| / |first| (log scale)")
    _label(accuracy, "Test accuracy of the main exit", "accuracy (%)")
    for ax in axes.flat:
        ax.set_xlabel("optimizer step")
    return write(made, path)
