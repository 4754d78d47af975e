"""Surrogate derivatives of the spike, z = u - threshold (clauses SUR-*), and the spike that is differentiated by them."""

from __future__ import annotations

import math
from functools import partial
from typing import assert_never

import jax
import jax.numpy as jnp
from jax import Array

from twinspike.config import Arctan, FastSigmoid, Neuron, Rectangle, Sigmoid, Surrogate, Tanh, Triangle


def derivative(surrogate: Surrogate, z: Array) -> Array:
    """h(z), which stands in for ds/du.

    Args:
        surrogate: its form, and its width or slope.
        z: potential minus threshold, any shape, finite.

    Returns:
        h >= 0, shape and dtype of `z`.
    """
    match surrogate:
        case Rectangle(width=w):
            return jnp.where(jnp.abs(z) < w / 2, 1.0 / w, 0.0).astype(z.dtype)
        case Triangle(width=w):
            return jnp.maximum(0.0, 1.0 - jnp.abs(z) / w) / w
        case Sigmoid(slope=k):
            q = jnp.exp(-k * jnp.abs(z))
            return k * q / (1.0 + q) ** 2
        case Arctan(slope=k):
            return (k / 2) / (1.0 + (math.pi * k / 2 * z) ** 2)
        case FastSigmoid(slope=k):
            return (k / 2) / (1.0 + k * jnp.abs(z)) ** 2
        case Tanh(slope=k):  # 1 - tanh(y)^2 is 4 q/(1 + q)^2 at q = exp(-2|y|): no difference of near-equals
            q = jnp.exp(-2.0 * k * jnp.abs(z))
            return 2.0 * k * q / (1.0 + q) ** 2
        case _:
            assert_never(surrogate)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _spike(neuron: Neuron, u: Array) -> Array:
    return (u >= neuron.threshold).astype(u.dtype)


def _spike_forward(neuron: Neuron, u: Array) -> tuple[Array, Array]:
    return _spike(neuron, u), u


def _spike_backward(neuron: Neuron, u: Array, g: Array) -> tuple[Array]:
    return (g * derivative(neuron.surrogate, u - neuron.threshold),)


_spike.defvjp(_spike_forward, _spike_backward)


def spike(u: Array, *, neuron: Neuron) -> Array:
    """s = [u >= threshold], with gradient h(u - threshold) (clause LIF-2).

    Args:
        u: potential, any shape, floating.
        neuron: gives the threshold and the surrogate.

    Returns:
        Exactly 0 or 1, shape and dtype of `u`.
    """
    return _spike(neuron, u)
