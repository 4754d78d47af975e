"""Every option of the method and of the optimizer beside every other: configs of cells, the least networks that show them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Literal

from twinspike.config import (
    SGD,
    Adam,
    AdamW,
    Arctan,
    BatchNorm,
    Factorization,
    FastSigmoid,
    Free,
    Loss,
    Method,
    Neuron,
    Optimizer,
    Penalty,
    Rectangle,
    Retract,
    Sigmoid,
    Tanh,
    Triangle,
    encode,
)
from twinspike_conformance.cases.pairwise import met, pairwise

OPTIONS: dict[str, tuple[Any, ...]] = {
    "surrogate": (
        Rectangle(width=0.75),
        Triangle(width=2.0),
        Sigmoid(slope=3.0),
        Arctan(slope=1.5),
        FastSigmoid(slope=3.0),
        Tanh(slope=1.25),
    ),
    "scope": ("all_convs", "no_stem", "backbone", "with_heads", "none"),
    "pairs": ("joint", "ann_only", "snn_from_ann", "none", ("snn1<-ann1*0.5", "ann1<-ann2", "snn2<-snn1*1.5")),
    "supervised": ("all", "last", "snn_last", ("ann1*0.5", "snn2*2")),
    "orthogonality": ("free", "penalty", "retract"),
    "rule": (SGD, Adam, AdamW),
    "decay_scope": ("constant", "layer", "channel"),
    "threshold_scope": ("constant", "layer", "channel"),
    "rank": ("full", 2, 0.8),
    "feature_reduction": ("sum", "batch_mean", "mean"),
    "inertia": (0.5, 0.0),
    "decayed": (0.01, 0.0),
    "time_steps": (2, 1),
    "reset": ("hard", "soft"),
    "network": ("cell", "event_cell"),
    "decay": (0.3, 0.55),
    "threshold": (0.3, 0.5),
    "v_reset": (-0.2, 0.0),
    "detach_reset": (False, True),
    "decay_input": (False, True),
    "matricize": ("per_position", "out_by_rest"),
    "every": (1, 2),
    "by": ("polar", "qr"),
    "time": ("per_step", "folded"),
    "momentum": (0.3, 0.1),
    "eps": (1e-3, 1e-5),
    "gamma_init": ("one", "threshold"),
    "readout": ("sum", "mean"),
    "linear_init": ("uniform", "fan_out"),
    "alpha": (0.3, 0.6),
    "beta": (0.01, 0.1),
    "temperature": (2.0, 0.7),
    "form": ("ce", "kl"),
    "detach_teacher": (True, False),
    "isolate_ann": (False, True),
    "per_step": (False, True),
    "nesterov": (False, True),
    "excluded": ("no_norm_bias", "all"),
    "label_smoothing": (0.0, 0.1),
    "mse_weight": (0.0, 0.25),
}
"""Option -> values, those with most values first: the cover is smaller so.

Of the optimizer, `inertia` is the momentum, `decayed` the weight decay, and `excluded` its scope.
"""

_INERT: dict[tuple[str, Any], tuple[str, ...]] = {
    ("scope", "none"): ("matricize", "rank", "orthogonality", "every", "by"),
    ("orthogonality", "free"): ("every", "by"),
    ("orthogonality", "penalty"): ("every", "by"),
    ("time_steps", 1): ("reset", "v_reset", "detach_reset", "time", "readout", "per_step"),
    ("reset", "soft"): ("v_reset",),
    ("pairs", "none"): ("form", "temperature"),
    ("rule", Adam): ("inertia", "nesterov"),
    ("rule", AdamW): ("inertia", "nesterov"),
    ("inertia", 0.0): ("nesterov",),
    ("decayed", 0.0): ("excluded",),
}
"""Option and value -> options that change nothing beside it."""


_REPLICAS: dict[str, Literal["synchronized", "local"]] = {"per_step": "synchronized", "folded": "local"}
"""What norms do over many devices, by `time`: on one device the option changes nothing, and needs no pairs of its own."""


_TEACHERS: dict[str, Literal["step", "mean"]] = {"ce": "step", "kl": "mean"}
"""What spiking exits teach with, by `form`: it means something beside a few rows alone, whose pairs have such a teacher."""

_TARGETS = {"sum": 1.0, "mean": 0.5}
"""What logits are drawn to, by `readout`, as large as which they are."""


def _inert(option: str, value: Any) -> Collection[str]:
    return _INERT.get((option, value), ())


def _orthogonality(row: dict[str, Any]) -> Free | Penalty | Retract:
    match row["orthogonality"]:
        case "penalty":
            return Penalty(weight=0.125)
        case "retract":
            return Retract(every=row["every"], by=row["by"])
        case _:
            return Free()


def _method(row: dict[str, Any]) -> Method:
    def named(*options: str) -> dict[str, Any]:
        return {option: row[option] for option in options}

    neuron = named("decay", "threshold", "surrogate", "reset", "detach_reset", "decay_input", "decay_scope", "threshold_scope")
    return Method(
        **named("time_steps", "readout", "linear_init"),
        neuron=Neuron(**neuron, v_reset=row["v_reset"] if row["reset"] == "hard" else 0.0),
        factorization=Factorization(**named("scope", "matricize", "rank"), orthogonality=_orthogonality(row)),
        batch_norm=BatchNorm(**named("time", "momentum", "eps", "gamma_init"), replicas=_REPLICAS[row["time"]]),
        loss=Loss(
            **named("alpha", "beta", "temperature", "form", "pairs", "feature_reduction"),
            **named("detach_teacher", "isolate_ann", "per_step", "supervised", "label_smoothing", "mse_weight"),
            teacher_time=_TEACHERS[row["form"]],
            mse_target=_TARGETS[row["readout"]],
        ),
    )


def _optimizer(row: dict[str, Any]) -> Optimizer:
    decay = {"weight_decay": row["decayed"], "decay_scope": row["excluded"]}
    if row["rule"] is SGD:
        return SGD(momentum=row["inertia"], nesterov=row["nesterov"] and row["inertia"] > 0, **decay)
    if row["rule"] is Adam:
        return Adam(beta1=0.8, beta2=0.95, eps=1e-4, **decay)
    return AdamW(beta1=0.7, beta2=0.9, eps=1e-3, **decay)


_LATER = ("label_smoothing", "mse_weight")
"""Options of the loss that joined when there was a cover: they change no neuron's firing, so that its rows could stay."""


def _join(rows: list[dict[str, Any]], option: str) -> list[dict[str, Any]]:
    """The rows with a value of one more option in each: that which meets most values of other options for the first time."""
    seen: set[tuple[str, str, Any]] = set()
    joined = []
    for row in rows:
        idle = {name for other in row.items() for name in _inert(*other)}
        means = [(name, repr(other)) for name, other in row.items() if name not in idle]
        beside = {value: {(*other, value) for other in means} for value in OPTIONS[option]}
        value = max(OPTIONS[option], key=lambda value: len(beside[value] - seen))
        seen |= beside[value]
        joined.append(row | {option: value})
    return joined


_ROWS = pairwise({name: values for name, values in OPTIONS.items() if name not in _LATER}, seed=7, inert=_inert)
for _option in _LATER:
    _ROWS = _join(_ROWS, _option)


def config(number: int, **changes: Any) -> dict[str, Any]:
    """A row of the cover as a config of networks, with other values of some options."""
    row = _ROWS[number] | changes
    return {"network": row["network"], "method": encode(_method(row)), "optimizer": encode(_optimizer(row))}


CELLS: tuple[dict[str, Any], ...] = tuple(config(number) for number in range(len(_ROWS)))
"""Configs in which every option's every value meets every other's where both mean something."""

_NUMBER = {repr(cell): number for number, cell in enumerate(CELLS)}


def pairs_met(configs: Iterable[Any]) -> tuple[int, int]:
    """Of the pairs of option values, how many these configs of cells hold, and how many there are."""
    reached = {_NUMBER[repr(cell)] for cell in configs}
    return met(OPTIONS, [_ROWS[number] for number in reached], _inert)
