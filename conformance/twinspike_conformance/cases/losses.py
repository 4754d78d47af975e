"""Examples of the losses: cross entropy, distillation, features and their joint sum."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from twinspike.config import Loss
from twinspike.operations import Nothing
from twinspike_conformance.bounds.budget import Budget
from twinspike_conformance.cases.base import Arrays, Cases, Sizes
from twinspike_conformance.cases.families import Source
from twinspike_conformance.cases.pairwise import pairwise


def _labels(source: Source, n: Sizes) -> np.ndarray[Any, np.dtype[np.int64]]:
    return source.rng.integers(0, n["K"], n["B"]).astype(np.int64)


def _entropy_fill(source: Source, config: Nothing, n: Sizes) -> tuple[Arrays, Arrays]:
    return {"logits": source.main(n["B"], n["K"]), "labels": _labels(source, n)}, {"loss": np.asarray(source.positive())}


def _distillation_fill(source: Source, config: Loss, n: Sizes) -> tuple[Arrays, Arrays]:
    inputs: Arrays = {"student": source.main(n["B"], n["K"]), "teacher": source.plain(n["B"], n["K"]) * 2.0}
    return inputs, {"loss": np.asarray(source.positive())}


def _feature_fill(source: Source, config: Loss, n: Sizes) -> tuple[Arrays, Arrays]:
    inputs: Arrays = {"snn": source.main(n["B"], n["F"]), "ann": source.plain(n["B"], n["F"])}
    return inputs, {"loss": np.asarray(source.positive())}


def _feature_budget(b: Budget, config: Loss, inputs: Arrays, cotangents: Arrays) -> None:
    batch, width = inputs["snn"].shape
    share = {"sum": 1.0, "batch_mean": 1.0 / batch, "mean": 1.0 / (batch * width)}[config.feature_reduction]
    difference = b.of(inputs["snn"]) + b.of(inputs["ann"])
    (difference * difference).sum(batch * width) * share  # noted
    difference * 2.0 * share * b.of(cotangents["loss"])  # noted


def _joint_fill(source: Source, config: Loss, n: Sizes) -> tuple[Arrays, Arrays]:
    slices = n["S"] if config.per_step else 1
    inputs: Arrays = {
        "logits_ann": source.plain(n["N"], n["B"], n["K"]),
        "logits_snn": source.main(slices, n["N"], n["B"], n["K"]),
        "features_ann": source.plain(n["N"], n["B"], n["F"]),
        "features_snn": source.plain(n["N"], n["B"], n["F"]),
        "labels": _labels(source, n),
    }
    return inputs, {"loss": np.asarray(source.positive())}


_JOINT = tuple(
    Loss(**row)
    for row in pairwise(
        {
            "alpha": (0.3, 1.0, 0.0),
            "beta": (0.7, 1e-3, 0.0),
            "temperature": (3.1, 0.7, 17.3),
            "form": ("ce", "kl"),
            "pairs": ("joint", "ann_only", "snn_from_ann", "none", ("snn1<-snn2", "ann2<-snn1", "snn1<-ann2")),
            "supervised": ("all", "last", ("snn1",)),
            "feature_reduction": ("sum", "batch_mean", "mean"),
            "detach_teacher": (True, False),
            "per_step": (False, True),
            "label_smoothing": (0.0, 0.1),
        }
    )
)


def _later(number: int, row: Loss) -> Loss:
    """A row of the cover with options that joined when there was one; those of golden vectors stay as they were."""
    if number % 7 == 0:
        return row
    pairs, supervised = row.pairs, row.supervised
    if isinstance(pairs, tuple):
        pairs = ("snn2<-snn1", "ann2<-snn1*0.75", "snn1<-ann2*2.5")
    if isinstance(supervised, tuple):
        supervised = ("snn1*0.25", "ann2*3")
    mse_weight, mse_target = (0.0, 0.3)[number % 2], (-1.3, 1.0)[number // 2 % 2]
    return msgspec.structs.replace(row, pairs=pairs, supervised=supervised, mse_weight=mse_weight, mse_target=mse_target)


_TOGETHER = tuple(
    Loss(alpha=0.3, beta=0.7, temperature=3.1, per_step=True, **row)
    for row in (
        {"teacher_time": "mean", "pairs": ("snn1<-snn1", "snn2<-ann2*2.5"), "form": "kl"},
        {"teacher_time": "sum", "pairs": ("snn1<-snn2*0.75", "ann2<-snn1"), "detach_teacher": False, "mse_weight": 0.3},
    )
)
"""Steps that teach together, which needs exits of the spiking twin as teachers."""


_LOGITS = ("normal", "heavy", "constant", "cancelling", "sparse")
_PLAIN = ({"B": 3, "K": 5}, {"B": 2, "K": 10}, {"B": 1, "K": 2})
_MANY = ({"B": 3, "K": 1001}, {"B": 33, "K": 7}, {"B": 2, "K": 256})

CASES = (
    Cases(operation="cross_entropy", configs=(Nothing(),), buckets=_PLAIN, large=_MANY, fill=_entropy_fill, families=_LOGITS),
    Cases(
        operation="distillation",
        configs=(
            *(Loss(temperature=t, form=f, detach_teacher=d) for t in (3.1, 0.7) for f in ("ce", "kl") for d in (True, False)),
            Loss(temperature=20.3, detach_teacher=False),
            Loss(temperature=0.11, form="kl"),
        ),
        buckets=_PLAIN,
        large=_MANY,
        large_configs=(Loss(temperature=3.0), Loss(temperature=0.11, form="kl", detach_teacher=False)),
        fill=_distillation_fill,
        families=("normal", "constant", "sparse", "boundary"),
    ),
    Cases(
        operation="feature_loss",
        configs=tuple(Loss(feature_reduction=r, detach_teacher=d) for r in ("sum", "batch_mean", "mean") for d in (True, False)),
        buckets=({"B": 4, "F": 8}, {"B": 2, "F": 1}, {"B": 1, "F": 16}),
        large=({"B": 67, "F": 16}, {"B": 3, "F": 1031}),
        fill=_feature_fill,
        budget=_feature_budget,
    ),
    Cases(
        operation="joint_loss",
        configs=(*(_later(number, row) for number, row in enumerate(_JOINT)), *_TOGETHER),
        buckets=({"N": 3, "B": 4, "K": 5, "F": 7, "S": 2}, {"N": 2, "B": 1, "K": 3, "F": 2, "S": 4}),
        large=({"N": 5, "B": 3, "K": 11, "F": 3, "S": 7}, {"N": 2, "B": 2, "K": 1003, "F": 515, "S": 2}),
        large_configs=(
            Loss(alpha=0.3, beta=0.1, temperature=3.1, per_step=True),
            Loss(alpha=0.0, beta=0.0, temperature=17.3),
            Loss(
                alpha=0.7,
                beta=1e-3,
                temperature=0.7,
                form="kl",
                pairs="snn_from_ann",
                supervised="last",
                label_smoothing=0.2,
                feature_reduction="mean",
                detach_teacher=False,
            ),
            _TOGETHER[1],
        ),
        fill=_joint_fill,
        families=("normal", "constant", "sparse", "boundary"),
    ),
)
