"""Examples of the layers: convolution, pooling, linear, ReLU, readout."""

from __future__ import annotations

from typing import Any

import numpy as np

from twinspike.operations import Convolution, Nothing, Pooling, Readout
from twinspike_conformance.bounds.budget import Budget
from twinspike_conformance.cases.base import TILES, Arrays, Cases, Sizes
from twinspike_conformance.cases.families import Source


def _map(n: int, kernel: int, stride: int, padding: int = 0) -> int:
    return (n + 2 * padding - kernel) // stride + 1


def _conv_fill(source: Source, config: Convolution, n: Sizes) -> tuple[Arrays, Arrays]:
    k = n["k"]
    out = (n["B"], n["O"], *(_map(n[d], k, config.stride, min(config.padding, k - 1)) for d in "HW"))
    if config.padding >= k:
        raise AssertionError("buckets keep padding < kernel")
    inputs: Arrays = {"x": source.main(n["B"], n["I"], n["H"], n["W"]), "kernel": source.plain(n["O"], n["I"], k, k)}
    return inputs, {"y": source.coarse(*out)}


def _conv_budget(b: Budget, config: Convolution, inputs: Arrays, cotangents: Arrays) -> None:
    x, w, g = b.of(inputs["x"]), b.of(inputs["kernel"]), b.of(cotangents["y"])
    out, taps = inputs["kernel"].shape[0], int(np.prod(inputs["kernel"].shape[1:]))
    (x * w).sum(taps)
    (g * w).sum(out * inputs["kernel"].shape[2] ** 2)
    (g * x).sum(int(np.prod(cotangents["y"].shape)) // out)


def _pool_fill(source: Source, config: Pooling, n: Sizes) -> tuple[Arrays, Arrays]:
    out = (_map(n["H"], config.kernel, config.stride), _map(n["W"], config.kernel, config.stride))
    return {"x": source.main(n["B"], n["C"], n["H"], n["W"])}, {"y": source.coarse(n["B"], n["C"], *out)}


def _pool_budget(b: Budget, config: Pooling, inputs: Arrays, cotangents: Arrays) -> None:
    area = config.kernel**2
    b.of(inputs["x"]).sum(area) * (1.0 / area)  # noted
    (b.of(cotangents["y"]) * (1.0 / area)).sum(area)


def _global_fill(source: Source, config: Nothing, n: Sizes) -> tuple[Arrays, Arrays]:
    return {"x": source.main(n["B"], n["C"], n["H"], n["W"])}, {"y": source.coarse(n["B"], n["C"])}


def _global_budget(b: Budget, config: Nothing, inputs: Arrays, cotangents: Arrays) -> None:
    area = int(np.prod(inputs["x"].shape[2:]))
    b.of(inputs["x"]).sum(area) * (1.0 / area)  # noted
    b.of(cotangents["y"]) * (1.0 / area)  # noted


def _linear_fill(source: Source, config: Nothing, n: Sizes) -> tuple[Arrays, Arrays]:
    inputs: Arrays = {"x": source.main(n["B"], n["I"]), "weight": source.plain(n["O"], n["I"]), "bias": source.plain(n["O"])}
    return inputs, {"y": source.coarse(n["B"], n["O"])}


def _linear_budget(b: Budget, config: Nothing, inputs: Arrays, cotangents: Arrays) -> None:
    x, w, g = b.of(inputs["x"]), b.of(inputs["weight"]), b.of(cotangents["y"])
    (x * w).sum(inputs["x"].shape[1]) + b.of(inputs["bias"])  # noted
    (g * w).sum(inputs["weight"].shape[0])
    (g * x).sum(inputs["x"].shape[0])
    g.sum(inputs["x"].shape[0])


def _relu_fill(source: Source, config: Nothing, n: Sizes) -> tuple[Arrays, Arrays]:
    return {"x": source.main(n["B"], n["C"])}, {"y": source.coarse(n["B"], n["C"])}


def _relu_budget(b: Budget, config: Nothing, inputs: Arrays, cotangents: Arrays) -> None:
    b.of(inputs["x"])
    b.of(cotangents["y"])


def _readout_fill(source: Source, config: Readout, n: Sizes) -> tuple[Arrays, Arrays]:
    return {"x": source.main(n["T"], n["B"], n["F"])}, {"y": source.coarse(n["B"], n["F"])}


def _readout_budget(b: Budget, config: Readout, inputs: Arrays, cotangents: Arrays) -> None:
    t = len(inputs["x"])
    share: Any = 1.0 / t if config.reduction == "mean" else 1.0
    b.of(inputs["x"]).sum(t) * share  # noted
    b.of(cotangents["y"]) * share  # noted


CASES = (
    Cases(
        operation="conv2d",
        configs=(Convolution(stride=1, padding=1), Convolution(stride=2, padding=1), Convolution(stride=2), Convolution()),
        buckets=(
            {"B": 2, "I": 3, "O": 5, "H": 6, "W": 9, "k": 3},
            {"B": 3, "I": 5, "O": 2, "H": 7, "W": 4, "k": 2},
            {"B": 1, "I": 33, "O": 4, "H": 4, "W": 5, "k": 3},
        ),
        large=(
            {"B": 33, "I": 3, "O": 67, "H": 3, "W": 5, "k": 3},
            {"B": 2, "I": 131, "O": 3, "H": 4, "W": 3, "k": 3},
            {"B": 1, "I": 2, "O": 3, "H": 3, "W": 67, "k": 3},
            {"B": 2, "I": 32, "O": 16, "H": 8, "W": 16, "k": 2},
        ),
        fill=_conv_fill,
        budget=_conv_budget,
    ),
    Cases(
        operation="avg_pool",
        configs=(Pooling(kernel=2, stride=2), Pooling(kernel=4, stride=1), Pooling(kernel=3, stride=2)),
        buckets=({"B": 2, "C": 3, "H": 6, "W": 9}, {"B": 1, "C": 5, "H": 4, "W": 7}),
        large=({"B": 2, "C": 3, "H": 5, "W": 67}, {"B": 33, "C": 65, "H": 4, "W": 4}),
        fill=_pool_fill,
        exact=lambda config: config.kernel in (2, 4),
        budget=_pool_budget,
    ),
    Cases(
        operation="global_pool",
        configs=(Nothing(),),
        buckets=({"B": 2, "C": 3, "H": 4, "W": 8}, {"B": 5, "C": 1, "H": 2, "W": 1}, {"B": 3, "C": 2, "H": 4, "W": 4}),
        large=({"B": 2, "C": 3, "H": 16, "W": 32}, {"B": 33, "C": 65, "H": 2, "W": 2}, {"B": 1, "C": 2, "H": 17, "W": 31}),
        fill=_global_fill,
        budget=_global_budget,
    ),
    Cases(
        operation="linear",
        configs=(Nothing(),),
        buckets=({"B": 3, "I": 7, "O": 5}, {"B": 1, "I": 2, "O": 9}, {"B": 17, "I": 65, "O": 33}),
        large=({"B": 2, "I": 1031, "O": 3}, {"B": 67, "I": 3, "O": 131}, {"B": 16, "I": 128, "O": 64}),
        fill=_linear_fill,
        budget=_linear_budget,
    ),
    Cases(
        operation="relu",
        configs=(Nothing(),),
        buckets=({"B": 3, "C": 5}, {"B": 1, "C": 1}, {"B": 33, "C": 129}),
        large=TILES,
        fill=_relu_fill,
        budget=_relu_budget,
    ),
    Cases(
        operation="readout",
        configs=(Readout(reduction="sum"), Readout(reduction="mean")),
        buckets=({"T": 4, "B": 3, "F": 5}, {"T": 2, "B": 5, "F": 7}, {"T": 1, "B": 2, "F": 3}),
        large=({"T": 131, "B": 2, "F": 3}, {"T": 128, "B": 33, "F": 3}),
        fill=_readout_fill,
        budget=_readout_budget,
    ),
)
