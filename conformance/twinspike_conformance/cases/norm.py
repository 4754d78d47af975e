"""Examples of batch normalization, training and evaluation."""

from __future__ import annotations

from twinspike.config import BatchNorm
from twinspike_conformance.cases.base import Arrays, Cases, Sizes
from twinspike_conformance.cases.families import Source

_SMALL = 2.0**-30
"""Scale of running variances beside tiny inputs, so that eps decides; a power of two, which rounds nothing."""


def _fill(source: Source, config: BatchNorm, n: Sizes) -> tuple[Arrays, Arrays]:
    shape = (n["T"], n["B"], n["C"], *((n["H"], n["W"]) if "H" in n else ()))
    inputs: Arrays = {
        "x": source.main(*shape),
        "gamma": source.plain(n["C"]),
        "beta": source.plain(n["C"]),
        "mean": source.plain(n["C"]),
        "var": source.positive(n["C"]) * (_SMALL if source.family == "tiny" else 1.0),
    }
    return inputs, {"y": source.coarse(*shape)}


_CONFIGS = (
    BatchNorm(time="per_step", momentum=1.0, eps=1e-8),
    BatchNorm(time="folded", momentum=0.3, eps=1e-3),
    BatchNorm(time="per_step", momentum=0.1, eps=1e-5),
    BatchNorm(time="folded", momentum=0.9, eps=1e-2),
    BatchNorm(time="per_step", momentum=0.3, eps=1e-3),
    BatchNorm(time="folded", momentum=0.37, eps=0.7),
)

_BUCKETS = (
    {"T": 3, "B": 2, "C": 5, "H": 4, "W": 6},
    {"T": 2, "B": 7, "C": 3},
    {"T": 1, "B": 3, "C": 2, "H": 2, "W": 5},
    {"T": 4, "B": 2, "C": 1, "H": 1, "W": 1},
)

_LARGE = (
    {"T": 2, "B": 33, "C": 3, "H": 3, "W": 5},
    {"T": 3, "B": 2, "C": 131, "H": 2, "W": 1},
    {"T": 17, "B": 2, "C": 2},
    {"T": 2, "B": 16, "C": 64},
)

_FAMILIES = ("normal", "heavy", "constant", "near_constant", "large_mean", "sparse", "tiny", "wide")

CASES = (
    Cases(operation="batch_norm_train", configs=_CONFIGS, buckets=_BUCKETS, large=_LARGE, fill=_fill, families=_FAMILIES),
    Cases(operation="batch_norm_eval", configs=_CONFIGS, buckets=_BUCKETS, large=_LARGE, fill=_fill, families=_FAMILIES),
)
