"""The commands of `twinspike`. Each reads its arguments, calls one function of this package and prints what it gave.

Every refusal is one line `error: ...` on standard error with exit code 2 (`twinspike.boundary`); what a signal stopped exits
with 130.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Annotated

import typer

from twinspike import ZOO, boundary, load, network, survey
from twinspike.config import Method, encode
from twinspike.cost import cost
from twinspike.errors import refuse, require
from twinspike.network import Network
from twinspike.replicas import Rendezvous
from twinspike_training import agreement, model_commands, tables
from twinspike_training import compare as comparison
from twinspike_training.app import (
    STOPPED,
    BackendName,
    Compiled,
    ConfigName,
    Device,
    PrecisionOption,
    RunPath,
    Set,
    app,
    command,
    overrides,
)
from twinspike_training.certify import UncertifiedError
from twinspike_training.config import RunConfig, load_config, read_network
from twinspike_training.evaluation import count
from twinspike_training.evaluation import evaluate as evaluate_run
from twinspike_training.files import expand
from twinspike_training.legs import NEVER, run_leg
from twinspike_training.loop import resume as resume_run
from twinspike_training.loop import start
from twinspike_training.progress import Progress
from twinspike_training.ranks import launched, rendezvous
from twinspike_training.report import as_markdown
from twinspike_training.report import report as report_of
from twinspike_training.run import open_run, opened, read_config
from twinspike_training.terminal import console, say

__all__ = ["app"]

UNCERTIFIED = 3
"""Exit code of a run that a step ended which broke a clause."""

LEFT = 75
"""Exit code of a leg whose time was over before its runs were finished: the same command goes on."""


@command
def train(
    config: ConfigName = None,
    backend: BackendName = None,
    device: Device = None,
    devices: Annotated[int | None, typer.Option(help="Devices of this machine that train together.")] = None,
    precision: PrecisionOption = None,
    compiled: Compiled = None,
    seed: Annotated[int | None, typer.Option(help="Of initial values, order and augmentation.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for the folders of runs.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of this run's folder.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run from a checkpoint.")] = None,
    from_: Annotated[str, typer.Option("--from", help="With --resume: last, or best, which then takes its place.")] = "last",
    set_: Set = None,
) -> int:
    """Train both twins, or go on with a run."""
    given = {"backend": backend, "device": device, "devices": devices, "precision": precision}
    changes = overrides(set_, **given, compile=compiled, seed=seed, out=out, name=name)
    at = rendezvous(os.environ)
    progress = Progress(console(quiet=at is not None and at.rank > 0))
    try:
        require(resume is not None or from_ == "last", "--from", expected="--resume with it", got=from_)
        if resume is not None:
            require(config is None, "CONFIG", expected="none with --resume, which keeps the run's own", got=config)
            folder = open_run(resume)
            made = read_config(folder, changes)
            _launch(made, at)
            outcome = resume_run(folder, made, progress, from_)
        else:
            made = load_config(config, changes)
            _launch(made, at)
            outcome = start(made, progress)
    except UncertifiedError as error:
        progress.end()
        typer.echo(f"error: {boundary.legible(str(error))}", err=True)
        return UNCERTIFIED
    finally:
        progress.end()
    if not outcome.finished:
        progress.note(f"stopped after step {outcome.steps}; go on with: twinspike train --resume {outcome.folder.path}")
        return STOPPED
    if outcome.best is not None:
        best, held = outcome.best, outcome.last is not None and "validation" in outcome.last
        part, why = ("validation", "") if held else ("test", ", chosen on the test set, as the authors do")
        progress.note(
            f"finished {outcome.folder.path} after {outcome.steps} steps; best {part} accuracy snn {best.accuracy_snn:.2%} "
            f"(ann {best.accuracy_ann:.2%}) after epoch {best.epoch}{why}"
        )
    return 0


def _launch(config: RunConfig, at: Rendezvous | None) -> None:
    """Become the framework's own launcher, where the run's devices want a process each."""
    if config.devices > 1 and (words := launched(load(config.backend), config.devices, at, sys.argv[1:])):
        os.execv(words[0], words)


@command
def recipe(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Recipes, or files; none: list the words.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each, with seeds that count up from the recipe's own.")] = 1,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many, with a checkpoint and exit code 75.")] = None,
    backend: BackendName = None,
    device: Device = None,
    precision: PrecisionOption = None,
    compiled: Compiled = None,
    out: Annotated[str | None, typer.Option(help="Folder for the folders of runs, NAME-seedN.")] = None,
    set_: Set = None,
) -> int:
    """Train recipes in legs: each call goes on where the last one stopped; finished runs are left alone."""
    if not names:
        tables.show_recipes(console())
        return 0
    changes = overrides(set_, backend=backend, device=device, precision=precision, compile=compiled, out=out)
    leg = run_leg(names, seeds, changes, NEVER if minutes is None else 60 * minutes, lambda: Progress(console()))
    for path in leg.folders:
        say(console(), f"{path}: {'not finished' if path in leg.left else 'finished'}")
    if not leg.left:
        say(console(), f"the table: twinspike report {' '.join(map(str, leg.folders))}")
        return 0
    say(console(), f"{len(leg.left)} of {len(leg.folders)} runs are left; the same command goes on with them")
    return STOPPED if leg.signalled else LEFT


@command
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put runs into a table, in Markdown: a row for each recipe, means and standard errors over its seeds."""
    found = report_of(runs)
    if as_json:
        typer.echo(json.dumps(encode(found), indent=2))
        return
    for line in as_markdown(found):
        say(console(), line)


@command
def evaluate(
    run: RunPath,
    which: Annotated[str, typer.Option("--checkpoint", help="best or last.")] = "best",
    backend: BackendName = None,
    device: Device = None,
    precision: PrecisionOption = None,
    compiled: Compiled = None,
    energy: Annotated[int, typer.Option(metavar="N", help="Count operations on the first N test samples.")] = 0,
    set_: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Test both twins of a checkpoint, with the run's backend or another, where its data are now, with another T."""
    require(energy >= 0, "--energy", expected="a number of samples >= 0", got=energy)
    ready, found = opened(run, which, overrides(set_, backend=backend, device=device, precision=precision, compile=compiled))
    for note in ready.dataset.notes:
        typer.echo(boundary.legible(note), err=True)
    result = evaluate_run(ready, ready.program.load(found.state))
    counts = count(ready, found.state, energy)
    if as_json:
        line = result.as_line() | {"energy": {twin: counted.as_line() for twin, counted in counts.items()}}
        typer.echo(json.dumps(line, indent=2))
    else:
        tables.show_evaluation(console(), result, found.header, ready.config)
        tables.show_counts(console(), counts)


@command
def backends() -> None:
    """List the backends: what each can do here, or why it can't be loaded."""
    tables.show_backends(console(), survey())


@command
def describe(
    source: Annotated[str, typer.Argument(metavar="NETWORK", help=f"A .json description, or one of: {', '.join(ZOO)}.")],
    width: Annotated[int | None, typer.Option(help="Channels of the first stage.")] = None,
    classes: Annotated[int | None, typer.Option(help="K.")] = None,
    shape: Annotated[str | None, typer.Option("--input", metavar="C,H,W", help="Shape of one image or frame.")] = None,
    time_steps: Annotated[int, typer.Option(help="T.")] = 4,
    event: Annotated[bool, typer.Option("--event", help="Samples are sequences of frames.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the network description as JSON.")] = False,
) -> None:
    """Show a network's layers, shapes, parameters and floating-point operations."""
    if source in ZOO:
        found = network(source, classes=classes, input_shape=_shape(shape), width=width, event=event)
    else:
        given = [name for name, value in (("--width", width), ("--classes", classes), ("--input", shape)) if value is not None]
        require(
            not given and not event,
            "describe",
            expected="no sizes with a description, which has its own",
            got=given or ["--event"],
        )
        found = read_network(source)
    if as_json:
        typer.echo(_network_json(found))
    else:
        tables.show_network(console(), found, cost(found, Method(time_steps=time_steps)))


def _network_json(found: Network) -> str:
    return json.dumps(encode(found), indent=1)


def _shape(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise refuse("--input", expected="three whole numbers C,H,W such as 3,32,32", got=text)
    c, h, w = (int(part) for part in parts)
    return c, h, w


@command
def plot(
    run: RunPath,
    out: Annotated[str | None, typer.Option(help="Folder for the pictures; default: plots in the run's folder.")] = None,
    index: Annotated[int, typer.Option(help="Number of the test image whose spikes are drawn.")] = 0,
    style: Annotated[
        str, typer.Option(help="screen for PNG; paper for PDF and SVG of a page's width, without titles.")
    ] = "screen",
    backend: BackendName = None,
    device: Device = None,
    precision: PrecisionOption = None,
    compiled: Compiled = None,
    set_: Set = None,
) -> None:
    """Draw learning curves, spikes, singular values and orthogonality of a run, with its backend or another."""
    if style not in ("screen", "paper"):
        raise refuse("--style", expected="screen or paper", got=style)
    _require_matplotlib()
    from twinspike_training.plots import plot_run  # noqa: PLC0415 - matplotlib takes half a second to import

    folder = open_run(run)
    changes = overrides(set_, backend=backend, device=device, precision=precision, compile=compiled)
    for path in plot_run(
        folder, expand(out) if out else folder.path / "plots", index, changes, "paper" if style == "paper" else "screen"
    ):
        say(console(), str(path))


def _require_matplotlib() -> None:
    """Say in one line that Matplotlib can't be loaded with what the environment tells it."""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError:  # its boundary's
        raise
    except Exception as error:
        got = next(iter(str(error).splitlines()), "") or type(error).__name__
        do = "look at MPLBACKEND, MPLCONFIGDIR, MATPLOTLIBRC and a file called matplotlibrc here"
        raise refuse("Matplotlib", expected="settings that it knows", got=got, do=do) from None


@command
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs; the first is the one compared with.")],
    out: Annotated[str, typer.Option(help="The picture.")] = "compare.png",
) -> None:
    """Lay runs beside each other: curves as PNG (or, named so, PDF and SVG), and the first step at which they differ."""
    _require_matplotlib()
    from twinspike_training.curves import plot_comparison  # noqa: PLC0415 - as above

    found = comparison.read_runs(runs)
    tables.show_comparison(console(), comparison.compare(found))
    plot_comparison(found, expand(out))
    say(console(), out)


@command
def check(
    first: Annotated[str, typer.Argument(metavar="BACKEND_A")],
    second: Annotated[str, typer.Argument(metavar="BACKEND_B")],
    config: ConfigName = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps to compare, each from a common state.")] = 1,
    precision: Annotated[str, typer.Option(help="f64, f32-ieee, tf32 or bf16-mixed, which both must have.")] = "f64",
    set_: Set = None,
) -> int:
    """Prove that two backends take the same first steps, by the suite's bounds: layers, loss, gradients, statistics, state."""
    return agreement.agreement(first, second, load_config(config, set_ or []), steps, precision)


for _one in (model_commands.predict, model_commands.export, model_commands.import_):
    command(_one)
