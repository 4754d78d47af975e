"""Examples of whole networks: their configs, and the numbers that make an example of one."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.config import SGD, Adam, AdamW, Method, Optimizer, decode, encode
from twinspike.parameters import STEP, initial_state, layer_and_part
from twinspike.setting import Setting
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.options import config
from twinspike_conformance.cases.structures import BLOCK, build


def _paper(name: str) -> dict[str, Any]:
    return {"network": name, "method": encode(Method()), "optimizer": encode(SGD(momentum=0.9))}


_ALIVE = {"decay_input": False, "linear_init": "uniform", "gamma_init": "one", "eps": 1e-3}
"""With these, spikes get through more than two layers."""

CONFIGS: tuple[dict[str, Any], ...] = (
    _paper(BLOCK.name),
    # soft resets that a later step sees, and factors that are retracted, though not in every step
    config(
        0, network=BLOCK.name, **_ALIVE, time_steps=4, reset="soft", readout="sum",
        scope="no_stem", orthogonality="retract", every=2, by="polar",
        rule=SGD, inertia=0.5, decayed=0.01, excluded="no_norm_bias",
    ),
    *map(_paper, ("resnet18", "vgg16", "events", "digits_cnn", "resnet19")),
    config(
        1, network="digits_cnn", **_ALIVE, time_steps=3, time="folded", per_step=True, pairs="joint",
        scope="with_heads", orthogonality="penalty", rule=Adam, decayed=0.01, excluded="no_norm_bias",
    ),
    config(
        2, network="events", **_ALIVE, time_steps=3, reset="hard", readout="mean", isolate_ann=True, per_step=False,
        scope="backbone", orthogonality="retract", every=1, by="qr", rank=2,
        rule=AdamW, decayed=0.1, excluded="no_norm_bias",
    ),
    config(
        3, network=BLOCK.name, **_ALIVE, time_steps=3, time="folded", readout="mean", detach_teacher=False,
        supervised="snn_last", per_step=True,
        scope="none", decay_scope="channel", threshold_scope="layer",
        rule=SGD, inertia=0.75, nesterov=True, decayed=0.01, excluded="all",
    ),
)  # fmt: skip
"""Every network with the paper's method, and narrow ones with other options; `options.CELLS` has every option beside every other.

What smaller profiles take, the first, is shallow.
"""

BUCKETS: tuple[dict[str, int], ...] = ({"B": 3}, {"B": 5})
PINNED = tuple(int(row["network"] == "events") for row in CONFIGS)
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
        if example.family == "ties" and name.startswith(heads) and layer_and_part(name)[1] not in ("U", "V"):
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
    last = layer_and_part(name)[1]
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
