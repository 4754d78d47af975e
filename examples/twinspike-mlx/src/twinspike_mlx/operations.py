"""The operations table's rows in terms of this package's functions: config and arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from twinspike.parameters import slots
from twinspike_mlx import factorization, layers, losses, norm
from twinspike_mlx.neuron import lif
from twinspike_mlx.optimizer import optimizer_step
from twinspike_mlx.surrogate import spike

Arrays = dict[str, mx.array]
Row = Callable[[Any, Mapping[str, mx.array]], Arrays]


def _lif(config: Any, a: Mapping[str, mx.array]) -> Arrays:
    s, u, v = lif(a["x"], {name: a[name] for name in ("v", "decay", "threshold") if name in a}, neuron=config)
    return {"s": s, "u": u, "v": v}


def _factorize(config: Any, a: Mapping[str, mx.array]) -> Arrays:
    return dict(zip(("U", "sigma", "V"), factorization.factorize(a["kernel"], factorization=config), strict=True))


def _compose(config: Any, a: Mapping[str, mx.array]) -> Arrays:
    given = {"factorization": config.factorization, "kernel_shape": config.kernel_shape}
    return {"kernel": factorization.compose(a["U"], a["sigma"], a["V"], **given)}


def _retract(config: Any, a: Mapping[str, mx.array]) -> Arrays:
    return dict(zip(("U", "V"), factorization.retract(a["U"], a["V"], by=config.by), strict=True))


_NORM = ("x", "gamma", "beta", "mean", "var")


def _batch_norm_train(config: Any, a: Mapping[str, mx.array]) -> Arrays:
    return dict(zip(("y", "mean", "var"), norm.batch_norm_train(*(a[name] for name in _NORM), config=config), strict=True))


def _joint_loss(config: Any, a: Mapping[str, mx.array]) -> Arrays:
    names = ("logits_ann", "logits_snn", "features_ann", "features_snn", "labels")
    return losses.joint_loss(*(a[name] for name in names), config=config)._asdict()


def _optimizer_step(config: Any, a: Mapping[str, mx.array]) -> Arrays:
    kept = {name: a.get(name, mx.zeros_like(a["p"])) for name in slots(config)}
    p, after = optimizer_step(a["p"], a["g"], kept, config=config, rate=a["lr"], step=int(np.array(a["step"])), decays=True)
    return {"p": p, **after}


ROWS: dict[str, Row] = {
    "lif": _lif,
    "spike": lambda config, a: {"s": spike(config)(a["u"])},
    "relu": lambda config, a: {"y": layers.relu(a["x"])},
    "factorize": _factorize,
    "compose": _compose,
    "penalty": lambda config, a: {"loss": factorization.penalty(a["U"], a["V"])},
    "retract": _retract,
    "conv2d": lambda config, a: {"y": layers.conv2d(a["x"], a["kernel"], stride=config.stride, padding=config.padding)},
    "avg_pool": lambda config, a: {"y": layers.avg_pool(a["x"], kernel=config.kernel, stride=config.stride)},
    "global_pool": lambda config, a: {"y": layers.global_pool(a["x"])},
    "linear": lambda config, a: {"y": layers.linear(a["x"], a["weight"], a["bias"])},
    "batch_norm_train": _batch_norm_train,
    "batch_norm_eval": lambda config, a: {"y": norm.batch_norm_eval(*(a[name] for name in _NORM), config=config)},
    "readout": lambda config, a: {"y": layers.readout(a["x"], reduction=config.reduction)},
    "cross_entropy": lambda config, a: {"loss": losses.cross_entropy(a["logits"], a["labels"])},
    "distillation": lambda config, a: {"loss": losses.distillation(a["student"], a["teacher"], config=config)},
    "feature_loss": lambda config, a: {"loss": losses.feature_loss(a["snn"], a["ann"], config=config)},
    "joint_loss": _joint_loss,
    "optimizer_step": _optimizer_step,
}
"""Name of a row -> what computes it."""
