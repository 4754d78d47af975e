"""Optimizer steps over lists of tensors, in place, a few kernels for all of them (clauses OPT-*)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from twinspike.config import SGD, Adam, AdamW, Optimizer

PIECE = 1 << 18
"""Entries, of as many parameters as it takes, that are moved together on the CPU: 1 MiB of float32."""


@torch.no_grad()
def update_(
    optimizer: Optimizer,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    slots: Mapping[str, Sequence[Tensor]],
    *,
    decays: bool,
    learning_rate: float,
    step: int,
) -> None:
    """Move parameters and slots by one step.

    Args:
        optimizer: its form and constants.
        parameters: moved in place.
        gradients: of the loss at `parameters`; left as they are.
        slots: `momentum`, or `m` and `v`, moved in place.
        decays: whether weight decay applies to these parameters (clause OPT-4).
        learning_rate: of this step.
        step: n, counted from 1.
    """
    for part in _parts(parameters):
        _update(
            optimizer,
            list(parameters[part]),
            list(gradients[part]),
            {name: values[part] for name, values in slots.items()},
            weight_decay=optimizer.weight_decay if decays else 0.0,
            learning_rate=learning_rate,
            step=step,
        )


@torch.no_grad()
def project_(parameter: Tensor, domain: tuple[float, float]) -> None:
    """Put what an update has taken out of a closed interval back onto its ends, in place (clause OPT-8)."""
    parameter.clamp_(*domain)


def _parts(parameters: Sequence[Tensor]) -> list[slice]:
    """All at once on a device; on the CPU pieces, so that what lies between two operations stays in cache."""
    if not parameters or parameters[0].device.type != "cpu":
        return [slice(0, len(parameters))] if parameters else []
    cuts, entries = [0], 0
    for i, p in enumerate(parameters):
        entries += p.numel()
        if entries >= PIECE or i == len(parameters) - 1:
            cuts.append(i + 1)
            entries = 0
    return [slice(*pair) for pair in pairwise(cuts)]


def _update(
    optimizer: Optimizer,
    p: list[Tensor],
    g: list[Tensor],
    slots: Mapping[str, Sequence[Tensor]],
    *,
    weight_decay: float,
    learning_rate: float,
    step: int,
) -> None:
    if weight_decay and not isinstance(optimizer, AdamW):
        g = list(torch._foreach_add(g, p, alpha=weight_decay))
    if isinstance(optimizer, SGD):
        direction = _momentum(optimizer, g, slots)
    else:
        direction = _adaptive(optimizer, g, slots, step)
        if weight_decay and isinstance(optimizer, AdamW):
            torch._foreach_add_(direction, p, alpha=weight_decay)
    torch._foreach_add_(p, direction, alpha=-learning_rate)


def _momentum(optimizer: SGD, g: list[Tensor], slots: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
    if optimizer.momentum == 0:
        return g
    m = list(slots["momentum"])
    torch._foreach_mul_(m, optimizer.momentum)
    torch._foreach_add_(m, g)
    return list(torch._foreach_add(g, m, alpha=optimizer.momentum)) if optimizer.nesterov else m


def _adaptive(optimizer: Adam | AdamW, g: list[Tensor], slots: Mapping[str, Sequence[Tensor]], step: int) -> list[Tensor]:
    m, v = list(slots["m"]), list(slots["v"])
    torch._foreach_mul_(m, optimizer.beta1)
    torch._foreach_add_(m, g, alpha=1.0 - optimizer.beta1)
    torch._foreach_mul_(v, optimizer.beta2)
    torch._foreach_addcmul_(v, g, g, value=1.0 - optimizer.beta2)
    root = list(torch._foreach_div(v, 1.0 - optimizer.beta2**step))
    torch._foreach_sqrt_(root)
    torch._foreach_add_(root, optimizer.eps)
    direction = list(torch._foreach_div(m, 1.0 - optimizer.beta1**step))
    torch._foreach_div_(direction, root)
    return direction
