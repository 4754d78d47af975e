"""Tiny certified runs: the least network with a stem, a branch, two layers of neurons and two exits, on a few digits."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from twinspike.network import Linear
from twinspike_conformance.cases.structures import CELL
from twinspike_training.config import RunConfig, load_config

SMALL = (
    "backend=numpy", "precision=f64", "method.time_steps=2", "data.limit=36", "data.test_limit=10", "data.workers=0",
    "training.batch_size=6", "training.epochs=2", "training.log_every=3", "training.certify_every=2", "optimizer.momentum=0.5",
)  # fmt: skip
"""6 steps an epoch, 12 in all, every second of them judged."""


def small(folder: Path, *changes: str) -> RunConfig:
    """A run in `folder`, which gets the network's description."""
    layers = [msgspec.structs.replace(x, out_features=10) if isinstance(x, Linear) else x for x in CELL.layers]
    network = msgspec.structs.replace(CELL, input_shape=(1, 8, 8), layers=tuple(layers))
    path = folder / "cell.json"
    path.write_bytes(msgspec.json.encode(network))
    places = (f"out={json.dumps(str(folder))}", f"network={json.dumps(str(path))}")
    return load_config("digits", [*SMALL, *places, *changes])
