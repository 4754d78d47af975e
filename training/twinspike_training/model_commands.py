"""The commands that take a trained run's twins elsewhere: to images, to other programs, and from other programs' files."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from twinspike.config import TWINS, encode
from twinspike.errors import require
from twinspike_training import checkpoint, tables
from twinspike_training.app import BackendName, Compiled, Device, PrecisionOption, RunPath, Set, overrides
from twinspike_training.export import FORMATS, spiking_twin
from twinspike_training.export import export as export_twin
from twinspike_training.files import expand
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
