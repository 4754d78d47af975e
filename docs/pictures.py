"""Draw what the pages show of neurons and factors, with the code that they speak of: `python docs/pictures.py [RUN]`.

Surrogates and a neuron's trace come from the reference. Spectra are those of a trained run, whose folder is given; without one
that picture stays as it is. Each is drawn for light pages and for dark ones, as SVG in the reader's own letters.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import twinspike as ts
from twinspike.reference.neuron import lif
from twinspike.reference.surrogate import derivative
from twinspike_training.checkpoint import load
from twinspike_training.run import open_run

IMAGES = Path(__file__).resolve().parent / "images"
INKS = {"light": "#1f2937", "dark": "#e5e7eb"}
SNN, ANN, GREEN = (
    {"light": "#c2410c", "dark": "#fb923c"},
    {"light": "#1d4ed8", "dark": "#60a5fa"},
    {"light": "#047857", "dark": "#34d399"},
)

Draw = Callable[[Figure, str], None]
"""Fills a figure for light or dark pages."""


def draw(name: str, size: tuple[float, float], fill: Draw) -> None:
    """Write `NAME-light.svg` and `NAME-dark.svg`."""
    for scheme, ink in INKS.items():
        settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "font.family": "sans-serif"}
        settings |= dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), ink)
        with rc_context(settings):
            made = Figure(figsize=size, layout="constrained")
            fill(made, scheme)
            for ax in made.axes:
                ax.set_facecolor("none")
                ax.spines[["top", "right"]].set_visible(False)
            made.savefig(IMAGES / f"{name}-{scheme}.svg", transparent=True, metadata={"Date": None})


def surrogates(made: Figure, scheme: str) -> None:
    """h over u - threshold, all with their default width or slope."""
    kinds: tuple[ts.Surrogate, ...] = (ts.Rectangle(), ts.Triangle(), ts.Sigmoid(), ts.Arctan(), ts.FastSigmoid(), ts.Tanh())
    z = np.linspace(-2, 2, 161)
    axes = made.subplots(2, 3, sharex=True, sharey=True)
    for ax, kind in zip(axes.flat, kinds, strict=True):
        h = derivative(kind, z)
        ax.plot(z, h, color=SNN[scheme], linewidth=1.8)
        ax.fill_between(z, h, color=SNN[scheme], alpha=0.15, linewidth=0)
        ax.axvline(0, color=INKS[scheme], linewidth=0.6, alpha=0.5)
        ax.set_title(str(type(kind).__struct_config__.tag), fontsize=10)
    made.supxlabel("u - threshold", fontsize=10)
    made.supylabel("h", fontsize=10)


def neuron(made: Figure, scheme: str) -> None:
    """A constant current, and the potential that it charges, with hard and with soft reset."""
    steps = 16
    x = np.full((steps, 1, 1), 0.5)
    x[9:12] = 0.05
    axes = made.subplots(2, 1, sharex=True)
    neurons = ts.Neuron(decay=0.8, threshold=0.75), ts.Neuron(decay=0.8, threshold=0.75, reset="soft")
    for ax, kind in zip(axes, neurons, strict=True):
        trace = lif(kind, x)
        _trace(ax, np.arange(1, steps + 1), trace.u.ravel(), trace.v.ravel(), trace.s.ravel() > 0, scheme)
        ax.set_title(f"{kind.reset} reset", fontsize=10, loc="left")
    axes[1].set_xlabel("time step")
    axes[0].legend(fontsize=8, ncols=4, loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, labelcolor=INKS[scheme])


def _trace(ax: Axes, t: np.ndarray, u: np.ndarray, v: np.ndarray, fired: np.ndarray, scheme: str) -> None:
    ax.step(t, np.full(len(t), 0.75), color=INKS[scheme], linestyle="--", linewidth=0.9, label="threshold")
    ax.plot(t, u, color=ANN[scheme], marker="o", markersize=4, linewidth=1.4, label="u, before reset")
    ax.plot(t, v, color=GREEN[scheme], marker=".", linewidth=1.0, linestyle=":", label="v, after")
    ax.scatter(t[fired], u[fired], marker="^", s=60, color=SNN[scheme], zorder=3, label="spike")
    ax.set_ylabel("potential")


def spectra(run: str) -> Draw:
    """Singular values of both twins, of four layers of a run's last checkpoint."""
    state = load(open_run(run).checkpoint("last")).state
    layers = [name.removesuffix(".sigma_snn") for name in state if name.endswith(".sigma_snn") and "/" not in name][:4]

    def fill(made: Figure, scheme: str) -> None:
        axes = made.subplots(1, len(layers))
        for ax, layer in zip(axes, layers, strict=True):
            for twin, colour, name in (("ann", ANN, "artificial twin"), ("snn", SNN, "spiking twin")):
                sigma = np.sort(np.asarray(state[f"{layer}.sigma_{twin}"], np.float64).ravel())[::-1]
                ax.plot(100 * (np.arange(len(sigma)) + 0.5) / len(sigma), sigma, color=colour[scheme], linewidth=1.6, label=name)
            ax.axhline(0, color=INKS[scheme], linewidth=0.6, alpha=0.5)
            ax.set_title(layer, fontsize=10)
        axes[0].set_ylabel("sigma")
        axes[0].legend(fontsize=8, frameon=False, labelcolor=INKS[scheme])
        made.supxlabel("values of all kernel positions, largest first (%)", fontsize=10)

    return fill


def main() -> None:
    """Draw all that can be drawn."""
    draw("surrogates", (7.5, 3.6), surrogates)
    draw("neuron", (7.5, 4.2), neuron)
    if len(sys.argv) > 1:
        draw("spectra", (8.5, 2.8), spectra(sys.argv[1]))


if __name__ == "__main__":
    main()
