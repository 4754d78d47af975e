"""Networks of the examples: narrow versions of the zoo's structures, a block of every kind of layer, and cells for options."""

from __future__ import annotations

from typing import Any

import msgspec

from twinspike.network import Activation, Add, AvgPool, Branch, Conv, GlobalPool, Linear, Network, Norm
from twinspike.zoo import network

NETWORKS: dict[str, dict[str, Any]] = {
    "digits_cnn": {"name": "digits_cnn", "width": 3, "input_shape": (2, 8, 8), "classes": 5},
    "events": {"name": "digits_cnn", "width": 2, "input_shape": (2, 9, 7), "classes": 3, "event": True},
    "resnet18": {"name": "resnet18", "width": 2, "input_shape": (3, 8, 8), "classes": 4},
    "resnet19": {"name": "resnet19", "width": 2, "input_shape": (3, 8, 8), "classes": 4},
    "vgg16": {"name": "vgg16", "width": 1, "input_shape": (3, 16, 16), "classes": 4},
}
"""Name -> arguments of `zoo.network`."""

BLOCK = Network(
    name="block",
    input_shape=(2, 4, 6),
    layers=(
        Conv(name="stem", input="input", out_channels=3, kernel=3, padding=1, part="stem"),
        Norm(name="stem.norm", input="stem"),
        Activation(name="stem.act", input="stem.norm"),
        Conv(name="body", input="stem.act", out_channels=3, kernel=3, padding=1),
        Norm(name="body.norm", input="body"),
        Add(name="add", input="body.norm", other="stem.act"),
        Activation(name="add.act", input="add"),
        AvgPool(name="pool", input="add.act", kernel=2, stride=2),
        GlobalPool(name="side.feature", input="pool"),
        Linear(name="side.head", input="side.feature", out_features=3),
        Conv(name="last", input="pool", out_channels=3, kernel=1),
        Norm(name="last.norm", input="last"),
        Activation(name="last.act", input="last.norm"),
        GlobalPool(name="feature", input="last.act"),
        Linear(name="head", input="feature", out_features=3),
    ),
    exits=(Branch(feature="side.feature", head="side.head"), Branch(feature="feature", head="head")),
)
"""One residual block, a pool and two exits: every kind of layer, shallow enough for bounds over the whole of it."""

NARROW = ("digits_cnn", "events", "block")
"""Networks that are shallow enough for that."""

CELL = Network(
    name="cell",
    input_shape=(3, 3, 4),
    layers=(
        Conv(name="stem", input="input", out_channels=4, kernel=3, padding=1, part="stem"),
        Norm(name="stem.norm", input="stem"),
        Activation(name="stem.act", input="stem.norm"),
        Conv(name="side", input="stem.act", out_channels=4, kernel=1, part="branch"),
        Norm(name="side.norm", input="side"),
        Add(name="side.add", input="side.norm", other="stem.act"),
        Activation(name="side.act", input="side.add"),
        GlobalPool(name="side.feature", input="side.act"),
        Linear(name="side.head", input="side.feature", out_features=3),
        GlobalPool(name="feature", input="stem.act"),
        Linear(name="head", input="feature", out_features=3),
    ),
    exits=(Branch(feature="side.feature", head="side.head"), Branch(feature="feature", head="head")),
)
"""The least network in which each option has something to say: a stem, a branch with a shortcut, two exits."""

_OWN = {net.name: net for net in (BLOCK, CELL, msgspec.structs.replace(CELL, name="event_cell", event=True))}


def build(source: str | dict[str, Any]) -> Network:
    """A network by its name here, or by arguments of `zoo.network`, lists for tuples."""
    if isinstance(source, str) and source in _OWN:
        return _OWN[source]
    given = NETWORKS[source] if isinstance(source, str) else source
    arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return network(**arguments)
