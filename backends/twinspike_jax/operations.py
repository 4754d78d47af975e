"""The rows of the operations table in terms of this package's functions: config and arrays in, arrays out.

Functions compute in the format of what they are given, so under `bf16-mixed` a row on float32 arrays is a float32
one, but for convolutions, whose operands and result are bfloat16 (clause PRE-2). What layers hand on is cast by
the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from twinspike.parameters import slots
from twinspike_jax import factorization, layers, losses, neuron, norm, optimizer, surrogate
from twinspike_jax.precision import Policy

Inputs = Mapping[str, Array]
Row = Callable[[Any, Inputs, Policy], dict[str, Array]]


def _lif(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    options = {name: a.get(name) for name in ("v", "decay", "threshold")}
    s, u, v = neuron.lif_traced(a["x"], **options, neuron=config)
    return {"s": s, "u": u, "v": v}


def _spike(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    return {"s": surrogate.spike(a["u"], neuron=config)}


def _relu(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    return {"y": layers.relu(a["x"])}


def _factorize(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    u, sigma, v = factorization.factorize(a["kernel"], factorization=config)
    return {"U": u, "sigma": sigma, "V": v}


def _compose(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    kernel = factorization.compose(
        a["U"],
        a["sigma"],
        a["V"],
        factorization=config.factorization,
        kernel_shape=config.kernel_shape,
        precision=casts.product,
    )
    return {"kernel": kernel}


def _penalty(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    return {"loss": factorization.penalty(a["U"], a["V"])}


def _retract(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    u, v = factorization.retract(a["U"], a["V"], by=config.by)
    return {"U": u, "V": v}


def _conv2d(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    if casts.activations != casts.storage:
        return {"y": layers.conv2d_mixed(a["x"].astype(casts.activations), a["kernel"], config.stride, config.padding)}
    return {"y": layers.conv2d(a["x"], a["kernel"], stride=config.stride, padding=config.padding, precision=casts.product)}


def _avg_pool(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    return {"y": layers.avg_pool(a["x"], kernel=config.kernel, stride=config.stride)}


def _global_pool(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    return {"y": layers.global_pool(a["x"])}


def _linear(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    return {"y": layers.linear(a["x"], a["weight"], a["bias"], precision=casts.product)}


def _batch_norm_train(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    names = ("x", "gamma", "beta", "mean", "var")
    y, mean, var = norm.batch_norm_train(*(a[name] for name in names), config=config)
    return {"y": y, "mean": mean, "var": var}


def _batch_norm_eval(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    names = ("x", "gamma", "beta", "mean", "var")
    return {"y": norm.batch_norm_eval(*(a[name] for name in names), eps=config.eps, space=a["x"].ndim - 3)}


def _readout(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    return {"y": layers.readout(a["x"], reduction=config.reduction)}


def _cross_entropy(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    return {"loss": losses.cross_entropy(a["logits"], a["labels"])}


def _distillation(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    return {"loss": losses.distillation(a["student"], a["teacher"], config=config)}


def _feature_loss(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    return {"loss": losses.feature_loss(a["snn"], a["ann"], config=config)}


def _joint_loss(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    names = ("logits_ann", "logits_snn", "features_ann", "features_snn", "labels")
    return dict(losses.joint_loss(*(a[name] for name in names), config=config)._asdict())


def _optimizer_step(config: Any, a: Inputs, casts: Policy) -> dict[str, Array]:
    transform = optimizer.make_optimizer(config)
    kept = {name: a.get(name, jnp.zeros_like(a["p"])) for name in slots(config)}
    state = optimizer.write_slots(transform.init(a["p"]), kept, a["step"].astype(jnp.int32) - 1)
    updates, state = transform.update(a["g"], state, a["p"], learning_rate=a["lr"])
    p = jax.tree.map(jnp.add, a["p"], updates)
    return {"p": p, **optimizer.read_slots(config, state)}


ROWS: dict[str, Row] = {
    "lif": _lif,
    "spike": _spike,
    "relu": _relu,
    "factorize": _factorize,
    "compose": _compose,
    "penalty": _penalty,
    "retract": _retract,
    "conv2d": _conv2d,
    "avg_pool": _avg_pool,
    "global_pool": _global_pool,
    "linear": _linear,
    "batch_norm_train": _batch_norm_train,
    "batch_norm_eval": _batch_norm_eval,
    "readout": _readout,
    "cross_entropy": _cross_entropy,
    "distillation": _distillation,
    "feature_loss": _feature_loss,
    "joint_loss": _joint_loss,
    "optimizer_step": _optimizer_step,
}
"""Name of a row -> what computes it."""
