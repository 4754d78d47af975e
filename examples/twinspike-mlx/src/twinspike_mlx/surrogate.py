"""Surrogate derivatives (clauses SUR-*), z = u - threshold, and the spike that is differentiated by them (LIF-2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx

from twinspike.config import Arctan, FastSigmoid, Neuron, Rectangle, Sigmoid, Surrogate, Tanh, Triangle
from twinspike.errors import refuse


def derivative(surrogate: Surrogate, z: mx.array) -> mx.array:
    """h(z), shape and format of z; from |z|, so that it is even to the bit and no exponential overflows."""
    a = mx.abs(z)
    match surrogate:
        case Rectangle(width=w):
            return mx.where(a < w / 2, mx.array(1 / w, z.dtype), mx.array(0.0, z.dtype))
        case Triangle(width=w):
            return mx.maximum(1.0 - a / w, 0.0) / w
        case Sigmoid(slope=k):
            q = mx.exp(-k * a)
            return k * q / mx.square(1.0 + q)
        case Tanh(slope=k):  # 1 - tanh(y)^2 is 4 q/(1 + q)^2 at q = exp(-2|y|): no difference of near-equals
            q = mx.exp(-2.0 * k * a)
            return 2.0 * k * q / mx.square(1.0 + q)
        case Arctan(slope=k):
            return (k / 2) / (1.0 + mx.square(math.pi * k / 2 * a))
        case FastSigmoid(slope=k):
            return (k / 2) / mx.square(1.0 + k * a)
        case _:  # of a later specification than the backend was written for
            raise refuse("neuron.surrogate", expected="one of SUR-2 to SUR-7", got=type(surrogate).__name__)


@cache
def spike(neuron: Neuron) -> Callable[..., Any]:
    """The function u -> s = [u >= threshold], any shape, whose gradient is h(u - threshold)."""

    @mx.custom_function
    def fire(u: mx.array) -> mx.array:
        return (u >= neuron.threshold).astype(u.dtype)

    @fire.vjp
    def pull(u: mx.array, g: mx.array, _: mx.array) -> mx.array:
        return g * derivative(neuron.surrogate, u - neuron.threshold)

    return fire
