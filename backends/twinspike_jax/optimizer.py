"""The specification's optimizers out of optax pieces (clauses OPT-*).

The learning rate is an argument of `update`, since the specification computes it on the host for every step
(clause SCH-3) and keeps it outside of all buffers. Adam's moments are scaled here: optax's own subtracts
beta^n, rounded to float32, from 1, which at first steps loses four of seven digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]  # it ships no types
from jax import Array

from twinspike.config import SGD, AdamW, Method, Optimizer
from twinspike.network import Network
from twinspike.parameters import decays, domain, layout, slots

Tree = Any
"""A pytree of arrays, here a flat dict by name."""
Mask = Any
"""As optax takes it: a pytree of bools, or a function from parameters to one."""


class AdamState(NamedTuple):
    """Steps taken, int32, and the moments by parameter."""

    steps: Array
    m: Tree
    v: Tree


def scale_by_adam(beta1: float, beta2: float, eps: float) -> optax.GradientTransformation:
    """Gradients become (m/(1 - beta1^n))/(sqrt(v/(1 - beta2^n)) + eps) at step n from 1 (clause OPT-5)."""

    def rest(beta: float, n: Array) -> Array:
        """1 - beta^n, without cancellation."""
        return -jnp.expm1(n * math.log(beta)) if beta > 0 else jnp.ones_like(n)

    def init(params: Tree) -> AdamState:
        return AdamState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))

    def update(updates: Tree, state: AdamState, params: Tree = None) -> tuple[Tree, AdamState]:
        steps = state.steps + 1
        m = jax.tree.map(lambda m, g: beta1 * m + (1.0 - beta1) * g, state.m, updates)
        v = jax.tree.map(lambda v, g: beta2 * v + (1.0 - beta2) * (g * g), state.v, updates)

        def direction(m: Array, v: Array) -> Array:
            n = steps.astype(m.dtype)
            return (m / rest(beta1, n)) / (jnp.sqrt(v / rest(beta2, n)) + eps)

        return jax.tree.map(direction, m, v), AdamState(steps, m, v)

    return optax.GradientTransformation(init, update)


def scale_by_given_rate() -> optax.GradientTransformationExtraArgs:
    """Multiply updates by minus the `learning_rate` that `update` is given."""

    def update(updates: Tree, state: Any, params: Tree = None, *, learning_rate: Any, **_: Any) -> tuple[Tree, Any]:
        return jax.tree.map(lambda g: g * -jnp.asarray(learning_rate, g.dtype), updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


def decay_mask(network: Network, method: Method, optimizer: Optimizer) -> dict[str, bool]:
    """Whether weight decay applies to each parameter of a network (clause OPT-4)."""
    return {entry.name: decays(entry, optimizer) for entry in layout(network, method) if entry.trained}


def domains(network: Network, method: Method) -> dict[str, tuple[float, float]]:
    """The closed interval of each parameter that has one (clause OPT-8)."""
    return {entry.name: within for entry in layout(network, method) if (within := domain(entry, method)) is not None}


def project(params: Mapping[str, Array], within: Mapping[str, tuple[float, float]]) -> dict[str, Array]:
    """Parameters after an update, those with a domain put back into it (clause OPT-8)."""
    return {name: jnp.clip(p, *within[name]) if name in within else p for name, p in params.items()}


def make_optimizer(optimizer: Optimizer, mask: Mask = None) -> optax.GradientTransformationExtraArgs:
    """An optax transformation that moves parameters as the specification says.

    Args:
        optimizer: the config; what its `decay_scope` means is in the mask.
        mask: parameters that weight decay applies to, as `decay_mask` makes it; None is all.

    Returns:
        A transformation to be called as `update(gradients, state, params, learning_rate=lr)`; its updates are
        for `optax.apply_updates`.
    """
    shrink = [optax.add_decayed_weights(optimizer.weight_decay, mask)] if optimizer.weight_decay > 0 else []
    if isinstance(optimizer, SGD):
        trace = [optax.trace(decay=optimizer.momentum, nesterov=optimizer.nesterov)] if optimizer.momentum > 0 else []
        pieces = [*shrink, *trace]
    else:
        adam = scale_by_adam(optimizer.beta1, optimizer.beta2, optimizer.eps)
        pieces = [adam, *shrink] if isinstance(optimizer, AdamW) else [*shrink, adam]
    return optax.chain(*pieces, scale_by_given_rate())


def _map_slots(state: Any, change: Callable[[Any], Any]) -> Any:
    """Apply `change` to the one part of a chain's state that holds slots, if any."""
    return tuple(change(part) if isinstance(part, optax.TraceState | AdamState) else part for part in state)


def read_slots(optimizer: Optimizer, state: Any) -> dict[str, Tree]:
    """Slot name (`momentum`, or `m` and `v`) -> its tree."""
    found: dict[str, Tree] = {}

    def read(part: Any) -> Any:
        found.update({"momentum": part.trace} if isinstance(part, optax.TraceState) else {"m": part.m, "v": part.v})
        return part

    _map_slots(state, read)
    return {name: found[name] for name in slots(optimizer)}


def write_slots(state: Any, values: Mapping[str, Tree], steps: Array) -> Any:
    """The state with other slots, after as many steps.

    Args:
        state: as `init` made it; abstract leaves do.
        values: what `read_slots` gives.
        steps: number of steps taken, int32, shape ().
    """

    def write(part: Any) -> Any:
        if isinstance(part, optax.TraceState):
            return optax.TraceState(trace=values["momentum"])
        return AdamState(steps, values["m"], values["v"])

    return _map_slots(state, write)
