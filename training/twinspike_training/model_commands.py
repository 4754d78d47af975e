"""The commands that take a trained run's twins elsewhere: to images, to other programs, and from other programs' files."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from twinspike.boundary import legible
from twinspike.config import TWINS, encode
from twinspike.errors import require
from twinspike_training import checkpoint, tables
from twinspike_training.app import BackendName, Compiled, ConfigName, Device, PrecisionOption, RunPath, Set, overrides
from twinspike_training.config import load_config
from twinspike_training.export import FORMATS, spiking_twin
from twinspike_training.export import export as export_twin
from twinspike_training.files import expand
from twinspike_training.imports import MismatchError, import_run
from twinspike_training.predict import predict as predict_images
from twinspike_training.run import open_run, opened
from twinspike_training.terminal import console, say

Which = Annotated[str, typer.Option("--checkpoint", help="best or last.")]


def predict(
    run: RunPath,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="PNG or JPEG files.")],
    which: Which = "best",
    twin: Annotated[str, typer.Option(help="snn, ann or both.")] = "both",
    resize: Annotated[bool, typer.Option("--resize", help="Resize images of another size; else they are refused.")] = False,
    backend: BackendName = None,
    device: Device = None,
    precision: PrecisionOption = None,
    compiled: Compiled = None,
    set_: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the probability of every class.")] = False,
) -> None:
    """Classify images: the label that each twin gives, and its probability."""
    require(twin in (*TWINS, "both"), "--twin", expected="snn, ann or both", got=twin)
    ready, found = opened(run, which, overrides(set_, backend=backend, device=device, precision=precision, compile=compiled))
    wanted = [known for known in TWINS if twin in (known, "both")]
    answers = predict_images(ready, ready.program.load(found.state), images, twins=wanted, resize=resize)
    if as_json:
        typer.echo(json.dumps({"classes": ready.dataset.classes, "images": [encode(answer) for answer in answers]}, indent=2))
    else:
        tables.show_predictions(console(), answers)


def export(
    run: RunPath,
    to: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")],
    out: Annotated[str, typer.Option(help="The file; torch and jax write its arrays beside it, FILE.safetensors.")],
    which: Which = "best",
    fold: Annotated[
        bool, typer.Option("--fold", help="onnx: norms become part of convolutions, which rounds otherwise.")
    ] = False,
) -> None:
    """Write the spiking twin alone, for other programs: factors composed, no artificial twin, no branches."""
    folder = open_run(run)
    found = checkpoint.load(folder.checkpoint(which))
    for path in export_twin(spiking_twin(found), to, expand(out), folded=fold):
        say(console(), str(path))


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="safetensors, with torchvision's names of a ResNet or ours.")],
    config: ConfigName = None,
    skip: Annotated[list[str] | None, typer.Option(metavar="LAYER", help="Leave a layer, or all below a name, as drawn.")] = None,
    backend: BackendName = None,
    device: Device = None,
    precision: PrecisionOption = None,
    seed: Annotated[int | None, typer.Option(help="Of what the file has not, order and augmentation.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for the folders of runs.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of this run's folder.")] = None,
    set_: Set = None,
) -> int:
    """Start a run from a pretrained artificial network: both twins get its kernels, norms and biases."""
    given = {"backend": backend, "device": device, "precision": precision, "seed": seed, "out": out, "name": name}
    try:
        made = import_run(load_config(config, overrides(set_, **given)), file, skip or [])
    except MismatchError as error:
        for line in error.lines:
            typer.echo(legible(line), err=True)
        raise
    say(
        console(),
        f"{made.taken} arrays of {file} in {made.folder}, at step 0; train with: twinspike train --resume {made.folder}",
    )
    if made.drawn:
        say(console(), f"as drawn by the seed: {', '.join(made.drawn)}")
    if made.energy:
        layer, share = min(made.energy.items(), key=lambda item: item[1])
        say(console(), f"ranks cut off some of {len(made.energy)} kernels: at least {share:.2%} of the squares is kept ({layer})")
    return 0
