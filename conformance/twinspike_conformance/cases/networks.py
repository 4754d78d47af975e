"""Examples of whole networks: narrow versions of the zoo's structures, every option of the method paired with every other."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.config import (
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    Factorization,
    Free,
    Loss,
    Method,
    Neuron,
    Optimizer,
    Penalty,
    Rectangle,
    Retract,
    Sigmoid,
    Triangle,
    decode,
    encode,
)
from twinspike.network import Activation, Add, AvgPool, Branch, Conv, GlobalPool, Linear, Network, Norm
from twinspike.parameters import STEP, initial_state
from twinspike.setting import Setting
from twinspike.zoo import network
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.pairwise import pairwise

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


def build(source: str | dict[str, Any]) -> Network:
    """A network by its name here, or by arguments of `zoo.network`, lists for tuples."""
    if source == BLOCK.name:
        return BLOCK
    given = NETWORKS[source] if isinstance(source, str) else source
    arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return network(**arguments)


_METHODS = pairwise(
    {
        "time_steps": (3, 1, 4),
        "time": ("per_step", "folded"),
        "momentum": (0.3, 0.1),
        "gamma_init": ("one", "threshold"),
        "readout": ("sum", "mean"),
        "reset": ("hard", "soft"),
        "detach_reset": (False, True),
        "surrogate": (Rectangle(width=1.0), Triangle(width=2.0), Sigmoid(slope=3.0)),
        "scopes": (("constant", "constant"), ("layer", "channel"), ("channel", "layer")),
        "scope": ("all_convs", "no_stem", "backbone", "with_heads", "none"),
        "matricize": ("per_position", "out_by_rest"),
        "rank": ("full", 2, 0.8),
        "orthogonality": (Free(), Penalty(weight=0.125), Retract(every=2, by="polar"), Retract(every=1, by="qr")),
        "loss": (
            Loss(alpha=0.25, beta=0.01, temperature=2.0),
            Loss(alpha=0.5, beta=0.1, form="kl", pairs="snn_from_ann", feature_reduction="mean", isolate_ann=True),
            Loss(alpha=0.25, beta=0.1, per_step=True, detach_teacher=False, supervised="snn_last"),
            Loss(
                alpha=0.5,
                beta=0.01,
                pairs=("snn1<-ann1", "ann1<-ann2", "snn2<-snn1"),
                feature_reduction="batch_mean",
                per_step=True,
            ),
        ),
        "optimizer": (
            SGD(momentum=0.5, weight_decay=0.01),
            SGD(momentum=0.75, nesterov=True, weight_decay=0.01, decay_scope="no_norm_bias"),
            SGD(weight_decay=0.01),
            Adam(beta1=0.8, beta2=0.95, weight_decay=0.01, decay_scope="no_norm_bias"),
            AdamW(beta1=0.7, beta2=0.9, weight_decay=0.1, decay_scope="no_norm_bias"),
        ),
        "network": NARROW,
    }
)


def _method(row: dict[str, Any]) -> Method:
    decay_scope, threshold_scope = row["scopes"]
    return Method(
        time_steps=row["time_steps"],
        neuron=Neuron(
            reset=row["reset"],
            detach_reset=row["detach_reset"],
            surrogate=row["surrogate"],
            decay=0.3,
            decay_scope=decay_scope,
            threshold_scope=threshold_scope,
        ),
        factorization=Factorization(
            scope=row["scope"], matricize=row["matricize"], rank=row["rank"], orthogonality=row["orthogonality"]
        ),
        batch_norm=BatchNorm(time=row["time"], momentum=row["momentum"], eps=1e-3, gamma_init=row["gamma_init"]),
        readout=row["readout"],
        loss=row["loss"],
    )


def _paper(name: str) -> dict[str, Any]:
    return {"network": name, "method": encode(Method()), "optimizer": encode(SGD(momentum=0.9))}


_ROWS = tuple({"network": r["network"], "method": encode(_method(r)), "optimizer": encode(r["optimizer"])} for r in _METHODS)


def _wanted(row: dict[str, Any]) -> bool:
    """Whether a soft reset is seen by a later step, and factors are retracted, though not in every step."""
    method = row["method"]
    seen = method["time_steps"] > 1 and method["neuron"]["reset"] == "soft"
    return bool(seen and method["factorization"]["orthogonality"].get("every") == 2)


_NEXT = next(row for row in _ROWS[3:] if _wanted(row))

CONFIGS: tuple[dict[str, Any], ...] = (
    _paper(BLOCK.name),
    *sorted(_ROWS[:3], key=lambda row: bool(row["network"] != BLOCK.name)),
    *map(_paper, ("resnet18", "vgg16", "events", "digits_cnn", "resnet19")),
    _NEXT,
    *(row for row in _ROWS[3:] if row is not _NEXT),
)
"""Every network with the paper's method, and every option with every other.

What smaller profiles take, the first, is shallow; with the next few every structure has occurred: residual, plain, event input.
"""

BUCKETS: tuple[dict[str, int], ...] = ({"B": 3}, {"B": 5})
PINNED = tuple(int(config["network"] == "events") for config in CONFIGS)
"""Bucket that the cover gives to each config: one per network, since a compiler translates every layer for every batch size."""
FAMILIES = ("normal", "sparse", "ties")
"""Of the images; with `ties` heads are 0, so that all logits are equal."""


class _Wrapped(msgspec.Struct):
    optimizer: Optimizer


def setting(example: Example, form: str, batches: int = 1) -> Setting:
    """The numbers of an example: no parameter at its default, slots filled, floats exact in the storage format."""
    net = build(example.config["network"])
    method = decode(Method, example.config["method"], "method")
    optimizer = decode(_Wrapped, {"optimizer": example.config["optimizer"]}, "optimizer").optimizer
    rng = np.random.Generator(np.random.Philox(example.seed))
    state = initial_state(net, method, optimizer, seed=example.seed % 1000)
    heads = tuple(f"{exit_.head}." for exit_ in net.exits)
    for name, value in state.items():
        state[name] = _moved(name, value, rng, form, heads)
        if example.family == "ties" and name.startswith(heads) and name.rpartition(".")[2] not in ("U", "V"):
            state[name] = np.zeros_like(value)
    state[STEP] = np.asarray(example.seed % 4, dtype=np.int64)
    size = (example.sizes["B"], *net.input_shape)
    shape = (method.time_steps, *size) if net.event else size
    images = tuple(_images(rng, shape, example.family, form) for _ in range(batches))
    labels = tuple(rng.integers(0, net.classes, size[0]) for _ in range(batches))
    return Setting(net, method, optimizer, state, images, labels)


def _images(rng: np.random.Generator, shape: tuple[int, ...], family: str, form: str) -> NDArray[Any]:
    values = rng.standard_normal(shape)
    if family != "normal":
        values = np.where(rng.random(shape) < 0.7, 0.0, np.round(values * 4) / 4)
    return values.astype(form)


def _moved(name: str, value: NDArray[Any], rng: np.random.Generator, form: str, heads: tuple[str, ...]) -> NDArray[Any]:
    """A value as training might have left it: near where it started, positive where it must be, slots not 0, heads decided."""
    if value.dtype.kind == "i":
        return value
    noise = rng.standard_normal(value.shape)
    last = name.rpartition(".")[2]
    if name.startswith("optimizer/v/"):
        moved = 1e-4 * (1.0 + np.abs(noise))
    elif name.startswith("optimizer/"):
        # a step takes some learned quantities of the neuron below their domain and some above (OPT-8)
        far = {"momentum": 16.0, "m": 0.2}[name.split("/")[1]]
        moved = (far if last in ("decay", "threshold") else 1e-2) * noise
    elif last.startswith("var"):
        moved = value * np.exp(0.3 * noise)
    elif last in ("decay", "threshold"):
        moved = value * np.exp(0.1 * np.clip(noise, -2, 2))
    else:
        moved = value + (0.5 if name.startswith(heads) else 0.05) * noise
    return np.asarray(moved, form).astype(np.float64)
