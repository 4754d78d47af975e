"""Checkpoints to export: of numbers with few bits, on which no format may round at all, and what a traced ONNX model gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import twinspike as ts
from twinspike.network import Activation, Add, AvgPool, Branch, Conv, GlobalPool, Linear, Network, Norm
from twinspike.parameters import layout
from twinspike.precision import PRECISIONS
from twinspike.random import Stream
from twinspike_conformance.judges.networks import Taps
from twinspike_training.checkpoint import Checkpoint, Header
from twinspike_training.config import RunConfig
from twinspike_training.export import SpikingTwin

Array = NDArray[Any]

CASES: dict[str, tuple[dict[str, Any], bool]] = {
    "as published": ({}, False),
    "events, learned by channel, mean": (
        {"time_steps": 4, "readout": "mean", "neuron": {"decay_scope": "channel", "threshold_scope": "channel"}}, True,
    ),
    "v_reset, decayed input": ({"neuron": {"v_reset": -0.25, "decay_input": True, "decay": 0.5, "threshold": 0.25}}, False),
    "soft reset, no factors": ({"time_steps": 4, "neuron": {"reset": "soft"}, "factorization": {"scope": "none"}}, False),
    "one step": ({"time_steps": 1, "factorization": {"scope": "with_heads", "matricize": "out_by_rest"}}, False),
}  # fmt: skip
"""Case -> the method's options, and whether samples are events."""


def _network(event: bool) -> Network:
    """Every kind of layer: residual blocks with and without a shortcut of their own, pools, a hidden layer, a branch."""
    return Network(
        name="every kind",
        input_shape=(2, 8, 8),
        event=event,
        layers=(
            Conv(name="stem.conv", input="input", out_channels=4, kernel=3, padding=1, part="stem"),
            Norm(name="stem.norm", input="stem.conv"),
            Activation(name="stem.act", input="stem.norm"),
            Conv(name="a.conv", input="stem.act", out_channels=4, kernel=3, padding=1),
            Norm(name="a.norm", input="a.conv"),
            Add(name="a.add", input="a.norm", other="stem.norm"),
            Activation(name="a.act", input="a.add"),
            AvgPool(name="pool", input="a.act", kernel=2, stride=2),
            Conv(name="b 1", input="pool", out_channels=8, kernel=2, stride=2),
            Norm(name="class", input="b 1"),
            Conv(name="b.shortcut", input="pool", out_channels=8, kernel=1, stride=2),
            Norm(name="b.shortcut.norm", input="b.shortcut"),
            Add(name="b.add", input="class", other="b.shortcut.norm"),
            Activation(name="b.act", input="b.add"),
            Conv(name="branch.conv", input="a.act", out_channels=8, kernel=3, part="branch"),
            GlobalPool(name="branch.feature", input="branch.conv"),
            Linear(name="branch.head", input="branch.feature", out_features=5),
            GlobalPool(name="main.feature", input="b.act"),
            Linear(name="main.hidden", input="main.feature", out_features=16),
            Activation(name="main.hidden.act", input="main.hidden"),
            Linear(name="main.head", input="main.hidden.act", out_features=5),
        ),
        exits=(Branch(feature="branch.feature", head="branch.head"), Branch(feature="main.feature", head="main.head")),
    )


def few_bits(case: str) -> tuple[Checkpoint, Array]:
    """A checkpoint and images whose every product and sum float32 holds without rounding, in any order.

    All are multiples of 2^-4 below 1, roots of variances are 1/2, decays 1/4 or 1/2: of what is summed anywhere, fewer than
    2^9 terms below 2^3 in steps of 2^-12, every part fits 24 bits.
    """
    options, event = CASES[case]
    neuron = options.get("neuron", {})
    method = ts.Method(
        **{"time_steps": 2, **{k: v for k, v in options.items() if k not in ("neuron", "factorization")}},
        neuron=ts.Neuron(**neuron),
        factorization=ts.Factorization(**options.get("factorization", {})),
        batch_norm=ts.BatchNorm(eps=0.0625),
    )
    network, optimizer, state = _network(event), ts.SGD(), {}
    for index, entry in enumerate(layout(network, method, optimizer)):
        draw = (
            Stream(7, "init", index=index).uniform(*entry.shape) if entry.shape else Stream(7, "init", index=index).uniform(1)[0]
        )
        grid = np.floor(np.asarray(draw) * 5) - 2  # -2 to 2
        if entry.kind == "counter":
            state[entry.name] = np.zeros((), np.int64)
        elif entry.kind == "factor":
            state[entry.name] = np.sign(grid)
        elif entry.part.startswith("var"):
            state[entry.name] = np.full(entry.shape, 0.1875)
        elif entry.part == "decay":
            state[entry.name] = 0.25 + 0.25 * (grid > 0)
        elif entry.part == "threshold":
            state[entry.name] = 0.5 + 0.25 * (grid > 0)
        elif entry.part.startswith("gamma"):
            state[entry.name] = 0.5 + 0.5 * (grid > 0)
        elif entry.part.startswith("beta"):
            state[entry.name] = np.abs(grid) / 8  # so that neurons fire at every depth
        elif entry.layer.startswith("main."):
            state[entry.name] = grid / 2
        else:
            state[entry.name] = grid / 8
    config = RunConfig(backend="numpy", precision="f64", method=method, optimizer=optimizer)
    header = Header(
        backend="numpy", epoch=0, step=0, steps=0, best=None, fingerprint="", metrics_bytes=0, config=config, network=network
    )
    shape = ((method.time_steps, 6) if event else (6,)) + network.input_shape
    return Checkpoint(header, state), np.floor(Stream(8, "init").uniform(*shape) * 33 - 16) / 8


def logits(found: Checkpoint, images: Array) -> Array:
    """(B, K), the checkpoint's own, by the reference in float64."""
    header, config = found.header, found.header.config
    program = ts.load("numpy").session(precision="f64").program(header.network, config.method, config.optimizer)
    state = {name: value.astype(np.float64) if value.dtype.kind == "f" else value for name, value in found.state.items()}
    return np.asarray(program.evaluate(program.load(state), images.astype(np.float64)).logits_snn)[-1]


def taps(twin: SpikingTwin, images: Array, outputs: Mapping[str, Array]) -> Taps:
    """What a traced model computed in float32, to be judged layer by layer as a backend's trace is.

    Args:
        twin: what was exported.
        images: that it ran on.
        outputs: by layer, and by `LAYER:u`; time in the batch, or one value for all steps.
    """
    batch = images.shape[1 if twin.network.event else 0]

    def by_step(value: Array) -> Array:
        parts = value.reshape(-1, batch, *value.shape[1:])
        return np.broadcast_to(parts, (twin.time_steps, *parts.shape[1:]))

    trace = {layer.name: {"snn": by_step(outputs[layer.name])} for layer in twin.network.layers}
    for name in twin.network.activations:
        trace[name]["u"] = by_step(outputs[f"{name}:u"])
    state = {}
    for name, value in twin.arrays.items():
        own = name.rpartition(".")[2] in ("bias", "decay", "threshold")
        state[name if own else f"{name}_snn"] = value.astype(np.float32)
    composed = msgspec.structs.replace(twin.method, factorization=ts.Factorization(scope="none"))
    return Taps(twin.network, composed, PRECISIONS["f32-ieee"], 2.0**-24, state, images, False, trace)
