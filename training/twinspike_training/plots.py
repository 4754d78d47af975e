"""Pictures of a run: learning curves, spikes of one image, singular values of both twins, loss of orthogonality."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from twinspike.backend import Values
from twinspike.config import TWINS
from twinspike.errors import require
from twinspike.network import Network, inputs_of
from twinspike.parameters import State
from twinspike_training import checkpoint, metrics
from twinspike_training.config import Change
from twinspike_training.curves import TWIN_COLOURS, TWIN_NAMES, as_text, epochs_of, figure, plain, plot_learning, write
from twinspike_training.metrics import Series
from twinspike_training.run import Ready, RunFolder, prepare, read_config, same_config

LAYERS_SHOWN = 4
"""Activation layers in the picture of spikes."""

NEURONS_SHOWN = 48
"""Neurons in each raster, spread evenly over the layer."""

TRACES_SHOWN = 3
"""Potentials drawn per layer."""


@plain
def plot_run(
    folder: RunFolder, out: Path, index: int = 0, changes: Sequence[Change] = (), style: Literal["screen", "paper"] = "screen"
) -> list[Path]:
    """Draw everything about a run.

    Args:
        folder: of the run.
        out: folder for the files.
        index: number of the test image whose spikes are drawn, from 0.
        changes: of the run's config, `key.sub=value`.
        style: screen for PNG, paper for PDF, with an SVG of the same name beside each.

    Returns:
        The PNG or PDF files written.
    """
    config = read_config(folder, changes)
    lines, end = metrics.read_whole(folder.metrics), ".pdf" if style == "paper" else ".png"
    title = f"{folder.path.name}: {config.network} on {config.data.name}, T = {config.method.time_steps}, {config.backend}"
    done = []
    if any(line["kind"] == "step" for line in lines):
        done.append(plot_learning(lines, f"Learning curves, {title}", out / f"learning_curves{end}"))
    tests = [line for line in lines if line["kind"] == "epoch"]
    if tests:
        length = epochs_of(lines)
        rates = _by_layer(tests, "spike_rates")
        epochs = np.array([line["step"] for line in tests]) / length
        done.append(_plot_rates(epochs, rates, f"Spike rates on the test set, {title}", out / f"spike_rates{end}"))
        deviations = _by_layer(tests, "deviation")
        if deviations:
            name = f"Loss of orthogonality, {title}"
            done.append(_plot_deviation(epochs, deviations, name, out / f"orthogonality{end}"))
    path = folder.checkpoint("last")
    if os.path.lexists(path):
        found = checkpoint.load(path)
        same_config(found.header, config, str(path))
        factored = [layer.name for layer in found.header.network.layers if f"{layer.name}.sigma_snn" in found.state]
        if factored:
            done.append(_plot_spectra(factored, found.state, f"Singular values, {title}", out / f"singular_values{end}"))
        ready = prepare(config, found.header.network)
        done.append(_plot_spikes(ready, found.state, index, f"Spikes of test image {index}, {title}", out / f"spikes{end}"))
    require(bool(done), "plot", expected="a run with metrics or a checkpoint", got=str(folder.path))
    return done


def _by_layer(tests: list[dict[str, Any]], key: str) -> dict[str, Series]:
    """Layer -> its value at each evaluation."""
    return {name: np.array([line[key].get(name, math.nan) for line in tests]) for name in tests[-1][key]}


def _heatmap(ax: Axes, epochs: Series, rows: dict[str, Series], label: str, **options: Any) -> None:
    """Layers from top to bottom in the network's order, evaluations from left to right, the last value in numbers."""
    values = np.array(list(rows.values()))
    image = ax.imshow(values, aspect="auto", interpolation="nearest", **options)
    ax.grid(False)
    ax.set_yticks(range(len(rows)), [as_text(name) for name in rows], fontsize=7)
    shown = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), 10)).round().astype(int))
    ax.set_xticks(shown, [f"{epochs[i]:g}" for i in shown])
    ax.set_xlabel("epoch")
    ax.figure.colorbar(image, ax=ax, label=label, pad=0.08)
    for row, value in enumerate(values[:, -1]):
        ax.annotate(f"{value:.3g}", (1.01, row), xycoords=("axes fraction", "data"), fontsize=7, va="center")


def _plot_rates(epochs: Series, rates: dict[str, Series], title: str, path: Path) -> Path:
    made, axes = figure(1, 1, (10, 2.5 + 0.22 * len(rates)), title)
    _heatmap(axes[0, 0], epochs, rates, "spikes per neuron and time step", cmap="viridis", vmin=0.0)
    axes[0, 0].set_title("Each row is a layer of neurons; the number is its rate after the last evaluation", fontsize=10)
    return write(made, path)


def _plot_deviation(epochs: Series, deviations: dict[str, Series], title: str, path: Path) -> Path:
    made, axes = figure(1, 2, (14, 2.5 + 0.22 * len(deviations)), title)
    curves, final = axes[0]
    values = np.array(list(deviations.values()))
    for name, row in deviations.items():
        curves.plot(epochs, row, color="#9ca3af", linewidth=0.8, label="each layer" if name == next(iter(deviations)) else None)
    curves.plot(epochs, np.median(values, axis=0), color="#047857", linewidth=2, marker="o", markersize=3, label="median layer")
    curves.plot(epochs, values.max(axis=0), color="#be185d", linewidth=2, marker="o", markersize=3, label="worst layer")
    curves.set(xlabel="epoch", ylabel="largest entry of |U'U - I| and |VV' - I|")
    if values.max() > 0:
        curves.set_yscale("log")
    curves.set_title("0 where U and V are orthonormal, as at the start", fontsize=10)
    curves.legend(fontsize=8)
    places = np.arange(len(deviations))
    final.barh(places, values[:, -1], color="#6b7280")
    final.set_yticks(places, [as_text(name) for name in deviations], fontsize=7)
    final.invert_yaxis()
    final.set_xlabel("largest entry of |U'U - I| and |VV' - I|")
    final.set_title("By layer, after the last evaluation", fontsize=10)
    return write(made, path)


def _plot_spectra(layers: list[str], state: State, title: str, path: Path) -> Path:
    columns = min(5, math.ceil(math.sqrt(len(layers))))
    rows = math.ceil(len(layers) / columns)
    made, axes = figure(rows, columns, (3.1 * columns, 2.5 * rows + 0.8), title)
    for ax, layer in zip(axes.flat, layers, strict=False):
        negative = []
        for twin in TWINS:
            sigma = np.sort(np.asarray(state[f"{layer}.sigma_{twin}"], np.float64).reshape(-1))[::-1]
            share = 100 * (np.arange(len(sigma)) + 0.5) / len(sigma)
            ax.plot(share, sigma, color=TWIN_COLOURS[twin], linewidth=1.5, label=TWIN_NAMES[twin])
            negative.append(f"{twin} {int((sigma < 0).sum())}")
        ax.axhline(0, color="black", linewidth=0.6)
        ax.set_title(f"{as_text(layer)}\n{len(sigma):,} values, negative: {', '.join(negative)}", fontsize=8)
        ax.tick_params(labelsize=7)
    for ax in axes.flat[len(layers) :]:
        ax.set_visible(False)
    made.supxlabel("values of all kernel positions, largest first (%)", fontsize=9)
    made.supylabel("sigma", fontsize=9)
    axes.flat[0].legend(fontsize=7)
    return write(made, path)


def _test_image(ready: Ready, index: int) -> tuple[Values, int]:
    size = ready.dataset.test_size
    require(0 <= index < size, "index", expected=f"a test image, 0 to {size - 1}", got=index)
    axis = 1 if ready.network.event else 0
    for images, labels in ready.dataset.test_batches(64):
        if index < len(labels):
            return np.take(images, [index], axis=axis), int(labels[index])
        index -= len(labels)
    raise AssertionError("test batches hold fewer samples than test_size says")


def _main_path(network: Network) -> list[str]:
    """Activation layers that the main exit depends on, in order: without the branches."""
    needed = {network.exits[-1].head}
    for layer in reversed(network.layers):
        if layer.name in needed:
            needed.update(inputs_of(layer))
    return [name for name in network.activations if name in needed]


def _plot_spikes(ready: Ready, values: State, index: int, title: str, path: Path) -> Path:
    """The image, and for some layers a raster of spikes and the potentials of the busiest kinds of neurons."""
    images, label = _test_image(ready, index)
    state = ready.program.load(values)
    trace = ready.program.trace(state, images)
    logits = np.asarray(trace[ready.network.exits[-1].head]["snn"], np.float64).sum(axis=0)[0]
    names = _main_path(ready.network)
    chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, min(LAYERS_SHOWN, len(names))).round().astype(int))]
    made, axes = figure(2, len(chosen) + 1, (3.6 * (len(chosen) + 1), 7.5), title)
    classes = tuple(map(as_text, ready.dataset.classes))
    _show_image(axes[0, 0], images, f"true class: {classes[label]}\nSNN says: {classes[int(logits.argmax())]}")
    _show_scores(axes[1, 0], logits, label, classes)
    for column, name in enumerate(chosen, start=1):
        # A convolutional layer's threshold may be learned, per layer or per channel.
        u = np.asarray(trace[name]["u"], np.float64)[:, 0]
        spikes = np.asarray(trace[name]["snn"], np.float64)[:, 0]
        learned = values.get(f"{name}.threshold")
        threshold = np.asarray(ready.config.method.neuron.threshold if learned is None else learned, np.float64)
        if threshold.ndim:
            threshold = threshold.reshape(-1, *[1] * (u.ndim - 2))
        limits = np.broadcast_to(threshold, u.shape[1:]).reshape(-1)
        _show_raster(axes[0, column], name, spikes.reshape(len(spikes), -1))
        _show_potentials(axes[1, column], u.reshape(len(u), -1), spikes.reshape(len(spikes), -1), limits)
    return write(made, path)


def _show_image(ax: Axes, images: Values, text: str) -> None:
    image = np.asarray(images, np.float64)
    image = image[:, 0].sum(axis=0) if image.ndim == 5 else image[0]
    low, high = image.min(), image.max()
    image = (image - low) / (high - low) if high > low else image * 0
    shown = image.transpose(1, 2, 0) if len(image) == 3 else image.mean(axis=0)
    ax.imshow(shown, cmap="gray", interpolation="nearest")
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    ax.set_title(text, fontsize=10)


def _show_scores(ax: Axes, logits: Series, label: int, classes: tuple[str, ...]) -> None:
    top = np.argsort(-logits, kind="stable")[:10]
    colours = [TWIN_COLOURS["snn"] if k == label else "#9ca3af" for k in top]
    ax.barh(np.arange(len(top)), logits[top], color=colours)
    ax.set_yticks(np.arange(len(top)), [classes[k] for k in top], fontsize=8)
    ax.invert_yaxis()
    ax.axvline(0, color="black", linewidth=0.6)
    ax.set_xlabel("logit, summed over time steps")
    ax.set_title("Main exit of the SNN (colour: true class)", fontsize=9)


def _show_raster(ax: Axes, name: str, spikes: Series) -> None:
    steps, neurons = spikes.shape
    rows = np.unique(np.linspace(0, neurons - 1, min(NEURONS_SHOWN, neurons)).round().astype(int))
    fired = ListedColormap(["#f3f4f6", TWIN_COLOURS["snn"]])
    columns, places = np.arange(steps + 1) + 0.5, np.arange(len(rows) + 1) - 0.5
    # Drawn as cells with gaps, which stay apart at 4 time steps and at 100.
    ax.pcolormesh(columns, places, spikes[:, rows].T, cmap=fired, vmin=0, vmax=1, edgecolors="white", linewidth=0.6)
    ax.invert_yaxis()
    ax.grid(False)
    ax.set(xlabel="time step", ylabel=f"{len(rows)} of {neurons:,} neurons")
    ax.set_xticks(_ticks(steps))
    ax.set_title(f"{as_text(name)}: spikes (coloured)\n{spikes.mean():.3f} per neuron and step", fontsize=9)


def _show_potentials(ax: Axes, u: Series, spikes: Series, limits: Series) -> None:
    """One neuron each that fires seldom, sometimes and often, among those that fire at all."""
    counts = spikes.sum(axis=0)
    firing = np.flatnonzero(counts)
    order = firing[np.argsort(counts[firing], kind="stable")] if len(firing) else np.arange(u.shape[1])
    picked = np.unique(order[np.linspace(0, len(order) - 1, min(TRACES_SHOWN, len(order))).round().astype(int)])
    times = np.arange(1, len(u) + 1)
    for neuron, colour in zip(picked, ("#1d4ed8", "#047857", "#7c3aed"), strict=False):
        ax.plot(times, u[:, neuron], color=colour, marker=".", linewidth=1.3, label=f"neuron {neuron}")
        fired = spikes[:, neuron] > 0
        ax.scatter(times[fired], u[fired, neuron], marker="^", s=60, color=colour, edgecolors="black", linewidths=0.6, zorder=3)
    low, high = limits[picked].min(), limits[picked].max()
    text = f"threshold {low:g}" if low == high else f"threshold {low:.3g} to {high:.3g}"
    ax.axhline(low, color="black", linestyle="--", linewidth=1, label=text)
    if high > low:
        ax.axhline(high, color="black", linestyle="--", linewidth=1)
    ax.set(xlabel="time step", ylabel="potential before reset")
    ax.set_xticks(_ticks(len(u)))
    ax.set_title("potentials (triangle: spike)", fontsize=9)
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.3 * (top - bottom))  # room for the legend above the curves
    ax.legend(fontsize=7, ncols=2, loc="upper center")


def _ticks(steps: int) -> list[int]:
    every = max(1, math.ceil(steps / 10))
    return list(range(1, steps + 1, every))
