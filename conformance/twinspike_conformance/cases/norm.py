"""Examples of batch normalization, training and evaluation."""

from __future__ import annotations

from twinspike.config import BatchNorm
from twinspike_conformance.cases.base import Arrays, Cases, Sizes
from twinspike_conformance.families import Source


def _fill(source: Source, config: BatchNorm, n: Sizes) -> tuple[Arrays, Arrays]:
    shape = (n["T"], n["B"], n["C"], *((n["H"], n["W"]) if "H" in n else ()))
    inputs: Arrays = {
        "x": source.main(*shape),
        "gamma": source.plain(n["C"]),
        "beta": source.plain(n["C"]),
        "mean": source.plain(n["C"]),
        "var": source.positive(n["C"]),
    }
    return inputs, {"y": source.coarse(*shape)}


_CONFIGS = tuple(
    BatchNorm(time=time, momentum=momentum, eps=eps)
    for time, momentum, eps in (("per_step", 0.3, 1e-3), ("folded", 0.3, 1e-3), ("per_step", 0.1, 1e-5), ("folded", 0.9, 1e-2))
)

_BUCKETS = (
    {"T": 3, "B": 2, "C": 5, "H": 4, "W": 6},
    {"T": 2, "B": 7, "C": 3},
    {"T": 1, "B": 3, "C": 2, "H": 2, "W": 5},
    {"T": 4, "B": 2, "C": 1, "H": 1, "W": 1},
)

_FAMILIES = ("normal", "heavy", "constant", "near_constant", "large_mean", "sparse")

CASES = (
    Cases(operation="batch_norm_train", configs=_CONFIGS, buckets=_BUCKETS, fill=_fill, families=_FAMILIES),
    Cases(operation="batch_norm_eval", configs=_CONFIGS, buckets=_BUCKETS, fill=_fill, families=_FAMILIES),
)
