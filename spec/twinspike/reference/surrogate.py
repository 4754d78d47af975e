"""Surrogates h(z) for the derivative of the spike, and their primitives (clauses SUR-*).

z = u - threshold. The primitive rises from 0 to 1 and has h as its derivative everywhere but at the
kinks of rectangle and triangle: put in place of the step it gives the smooth twin, on which finite
differences check hand-written adjoints. Even functions are computed from |z|, so that they are even
to the bit, and exponentials only of numbers <= 0, so that they don't overflow.
"""

from __future__ import annotations

import math
from typing import assert_never

import numpy as np

from twinspike.config import Arctan, FastSigmoid, Rectangle, Sigmoid, Surrogate, Tanh, Triangle
from twinspike.reference import Array


def derivative(surrogate: Surrogate, z: Array) -> Array:
    """h(z), which stands in for ds/du.

    Args:
        surrogate: its form, and its width or slope.
        z: potential minus threshold, any shape, finite.

    Returns:
        h, >= 0, shape and format of `z`.
    """
    with np.errstate(over="ignore"):  # y and y^2 may become infinite, where h is 0
        match surrogate:
            case Rectangle(width=w):
                return np.asarray((np.abs(z) < w / 2).astype(z.dtype) / w)
            case Triangle(width=w):
                return np.asarray(np.maximum(0.0, 1.0 - np.abs(z) / w) / w)
            case Sigmoid(slope=k):
                q = np.exp(-np.abs(k * z))
                return np.asarray(k * q / (1.0 + q) ** 2)
            case Arctan(slope=k):
                return np.asarray((k / 2) / (1.0 + (math.pi * k * z / 2) ** 2))
            case FastSigmoid(slope=k):
                return np.asarray((k / 2) / (1.0 + k * np.abs(z)) ** 2)
            case Tanh(slope=k):  # 1 - tanh(y)^2 = 4 q/(1 + q)^2 at q = exp(-2|y|), without the cancellation
                q = np.exp(-2.0 * np.abs(k * z))
                return np.asarray(2.0 * k * q / (1.0 + q) ** 2)
            case _:
                assert_never(surrogate)


def primitive(surrogate: Surrogate, z: Array) -> Array:
    """The integral of h from minus infinity to z: the smooth twin's spike, in [0, 1].

    Args:
        surrogate: its form, and its width or slope.
        z: potential minus threshold, any shape, finite.
    """
    match surrogate:
        case Rectangle(width=w):
            return np.asarray(np.clip(z / w + 0.5, 0.0, 1.0))
        case Triangle(width=w):
            y = np.clip(z / w, -1.0, 1.0)
            return np.asarray(0.5 + y - y * np.abs(y) / 2)
        case Sigmoid(slope=k):
            return _logistic(k * z)
        case Arctan(slope=k):
            return np.asarray(np.arctan(math.pi * k * z / 2) / math.pi + 0.5)
        case FastSigmoid(slope=k):
            return np.asarray((1.0 + k * z / (1.0 + k * np.abs(z))) / 2)
        case Tanh(slope=k):  # (1 + tanh(y))/2 is the logistic function of 2 y
            return _logistic(2.0 * k * z)
        case _:
            assert_never(surrogate)


def _logistic(y: Array) -> Array:
    q = np.exp(-np.abs(y))
    return np.asarray(np.where(y >= 0, 1.0, q) / (1.0 + q), dtype=y.dtype)
