"""One optimizer step of one parameter (clauses OPT-*); the host says the rate and the number of the step."""

from __future__ import annotations

from collections.abc import Mapping

import mlx.core as mx

from twinspike.config import SGD, AdamW, Optimizer


def optimizer_step(
    p: mx.array, g: mx.array, kept: Mapping[str, mx.array], *, config: Optimizer, rate: float | mx.array, step: int, decays: bool
) -> tuple[mx.array, dict[str, mx.array]]:
    """The parameter and its slots after the step.

    Args:
        p: any shape.
        g: its gradient.
        kept: its slots by name, as `twinspike.parameters.slots` names them.
        config: the optimizer.
        rate: learning rate.
        step: number of this step, from 1.
        decays: whether weight decay applies to it.
    """
    shrink = config.weight_decay if decays else 0.0
    if isinstance(config, SGD):
        g = g + shrink * p if shrink else g
        if "momentum" not in kept:
            return p - rate * g, {}
        m = config.momentum * kept["momentum"] + g
        return p - rate * (g + config.momentum * m if config.nesterov else m), {"momentum": m}
    if shrink and not isinstance(config, AdamW):
        g = g + shrink * p
    m = config.beta1 * kept["m"] + (1.0 - config.beta1) * g
    v = config.beta2 * kept["v"] + (1.0 - config.beta2) * mx.square(g)
    direction = (m / (1.0 - config.beta1**step)) / (mx.sqrt(v / (1.0 - config.beta2**step)) + config.eps)
    if shrink and isinstance(config, AdamW):
        direction = direction + shrink * p
    return p - rate * direction, {"m": m, "v": v}
