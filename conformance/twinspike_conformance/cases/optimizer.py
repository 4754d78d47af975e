"""Examples of the optimizer step."""

from __future__ import annotations

import numpy as np

from twinspike.config import SGD, Adam, AdamW, Optimizer
from twinspike.parameters import slots
from twinspike_conformance.cases.base import TILES, Arrays, Cases, Sizes
from twinspike_conformance.cases.families import Source


def _fill(source: Source, config: Optimizer, n: Sizes) -> tuple[Arrays, Arrays]:
    shape = (n["m"], n["n"])
    inputs: Arrays = {"p": source.main(*shape), "g": source.plain(*shape), "lr": source._round(np.asarray(0.1))}
    inputs["step"] = np.asarray(n["step"], dtype=np.int64)
    for slot in slots(config):
        inputs[slot] = source.positive(*shape) if slot == "v" else source.plain(*shape)
    return inputs, {}


_STEPS = (43, 101, 128, 256, 300, 1001, 4099, 10_000, 1, 2, 65, 127, 257, 1025, 31)
"""Beyond the counters that a byte holds, and beyond those where a moment's correction is 1."""

CASES = (
    Cases(
        operation="optimizer_step",
        configs=(
            SGD(weight_decay=0.0),
            SGD(weight_decay=0.25),
            SGD(momentum=0.5, weight_decay=0.25),
            SGD(momentum=0.75, nesterov=True, weight_decay=0.125),
            Adam(beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.25),
            AdamW(beta1=0.7, beta2=0.9, eps=1e-4, weight_decay=0.25),
            Adam(),
        ),
        buckets=({"m": 3, "n": 5, "step": 1}, {"m": 2, "n": 7, "step": 42}, {"m": 1, "n": 1, "step": 3}),
        large=tuple({"m": 1, "n": size["C"], "step": step} for size, step in zip(TILES, _STEPS, strict=True)),
        fill=_fill,
        families=("normal", "heavy", "sparse", "large_mean", "boundary"),
    ),
)
