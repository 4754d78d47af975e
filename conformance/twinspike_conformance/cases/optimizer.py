"""Examples of the optimizer step."""

from __future__ import annotations

from typing import Any

import numpy as np

from twinspike.config import SGD, Adam, AdamW, Optimizer
from twinspike.parameters import slots
from twinspike_conformance.cases.base import TILES, Arrays, Cases, Sizes
from twinspike_conformance.cases.families import Source, rounded


def _rate(source: Source) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A learning rate from 1e-6 to 3, of a full significand whatever the format of activations, or now and then 0."""
    rate = 10.0 ** source.rng.uniform(-6.0, 0.5) if source.rng.random() > 0.125 else 0.0
    return rounded(np.asarray(rate), "float64" if source.form == "float64" else "float32")


def _fill(source: Source, config: Optimizer, n: Sizes) -> tuple[Arrays, Arrays]:
    shape = (n["m"], n["n"])
    scale = np.ldexp(1.0, source.rng.choice((-30, -14, 0, 0, 0, 11)))  # of gradients, and so of moments
    inputs: Arrays = {"p": source.main(*shape), "g": source.plain(*shape) * scale, "lr": _rate(source)}
    inputs["step"] = np.asarray(n["step"], dtype=np.int64)
    for slot in slots(config):
        inputs[slot] = source.positive(*shape) * scale**2 if slot == "v" else source.plain(*shape) * scale
    return inputs, {}


_STEPS = (43, 101, 128, 256, 300, 1001, 4099, 10_000, 1, 2, 65, 127, 257, 1025, 31)
"""Beyond the counters that a byte holds, and beyond those where a moment's correction is 1."""

CASES = (
    Cases(
        operation="optimizer_step",
        configs=(
            SGD(momentum=0.9, nesterov=True, weight_decay=5e-4),
            SGD(weight_decay=0.0),
            SGD(weight_decay=0.3),
            SGD(momentum=0.37, weight_decay=0.1),
            Adam(beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.25),
            AdamW(beta1=0.7, beta2=0.9, eps=1e-4, weight_decay=0.25),
            Adam(),
            Adam(beta1=0.0, beta2=0.99, eps=1e-9, weight_decay=0.01),
            AdamW(beta1=0.9, beta2=0.0, eps=1e-7, weight_decay=0.1),
        ),
        buckets=({"m": 3, "n": 5, "step": 1}, {"m": 2, "n": 7, "step": 42}, {"m": 1, "n": 1, "step": 2017}),
        large=tuple({"m": 1, "n": size["C"], "step": step} for size, step in zip(TILES, _STEPS, strict=True)),
        fill=_fill,
        families=("normal", "heavy", "sparse", "large_mean", "boundary"),
    ),
)
