"""One optimizer step of one parameter (clauses OPT-*)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from twinspike.config import SGD, Adam, Optimizer
from twinspike.reference import Array


def optimizer_step(
    optimizer: Optimizer, p: Array, g: Array, lr: Array | float, step: int, slots: Mapping[str, Array], *, decays: bool = True
) -> tuple[Array, dict[str, Array]]:
    """The parameter and its slots after a step.

    Args:
        optimizer: its form and constants.
        p: parameter before the step, any shape.
        g: gradient of the loss at `p`.
        lr: learning rate, >= 0.
        step: n of clause OPT-5, counted from 1: the counter's value after this step.
        slots: `momentum`, or `m` and `v`, before the step; 0 where missing. Unused ones are ignored.
        decays: whether `weight_decay` applies to this parameter (clause OPT-4).

    Returns:
        p after the step, and the slots that `parameters.slots` names.
    """
    weight_decay = optimizer.weight_decay if decays else 0.0
    zero = np.zeros_like(p)
    if isinstance(optimizer, SGD):
        g = g + weight_decay * p
        if optimizer.momentum == 0:
            return p - lr * g, {}
        m = optimizer.momentum * slots.get("momentum", zero) + g
        direction = g + optimizer.momentum * m if optimizer.nesterov else m
        return p - lr * direction, {"momentum": m}
    if isinstance(optimizer, Adam):
        g = g + weight_decay * p
    m = optimizer.beta1 * slots.get("m", zero) + (1.0 - optimizer.beta1) * g
    v = optimizer.beta2 * slots.get("v", zero) + (1.0 - optimizer.beta2) * g**2
    m_hat = m / (1.0 - optimizer.beta1**step)
    v_hat = v / (1.0 - optimizer.beta2**step)
    shrink = 0.0 if isinstance(optimizer, Adam) else lr * weight_decay * p
    return p - lr * m_hat / (np.sqrt(v_hat) + optimizer.eps) - shrink, {"m": m, "v": v}


def projected(p: Array, domain: tuple[float, float] | None) -> Array:
    """The parameter after its update, put back into its domain (clause OPT-8).

    Args:
        p: any shape.
        domain: least and largest number, as `parameters.domain` says; None is every number.
    """
    return p if domain is None else np.asarray(np.clip(p, *domain))
