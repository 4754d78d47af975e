"""Surrogate derivatives h(z), z = u - threshold, each a plain function of tensors (clauses SUR-*).

They take part in a hand-written backward and are not differentiated themselves. Sigmoid and tanh are
evaluated at -|z|, which is the same by symmetry and loses no digits to 1 - q at large z.
"""

from __future__ import annotations

import math
from typing import assert_never

import torch
from torch import Tensor

from twinspike.config import Arctan, FastSigmoid, Rectangle, Sigmoid, Surrogate, Tanh, Triangle


def derivative(surrogate: Surrogate, z: Tensor) -> Tensor:
    """h(z) of a surrogate.

    Args:
        surrogate: its form, with its width or slope.
        z: u - threshold, any shape, floating.

    Returns:
        h, of z's shape and dtype, >= 0.
    """
    match surrogate:
        case Rectangle():
            return rectangle(z, surrogate.width)
        case Triangle():
            return triangle(z, surrogate.width)
        case Sigmoid():
            return sigmoid(z, surrogate.slope)
        case Arctan():
            return arctan(z, surrogate.slope)
        case FastSigmoid():
            return fast_sigmoid(z, surrogate.slope)
        case Tanh():
            return tanh(z, surrogate.slope)
        case _:
            assert_never(surrogate)


def rectangle(z: Tensor, width: float = 1.0) -> Tensor:
    """1/width where |z| < width/2, else 0 (clause SUR-2)."""
    return z.abs().lt_(width / 2).mul_(1.0 / width)  # as numbers at once: booleans cost several times as much


def triangle(z: Tensor, width: float = 1.0) -> Tensor:
    """max(0, 1 - |z|/width)/width (clause SUR-3)."""
    return (1.0 - z.abs() / width).clamp(min=0.0) / width


def sigmoid(z: Tensor, slope: float = 2.0) -> Tensor:
    """slope q (1 - q), q = 1/(1 + exp(-slope z)) (clause SUR-4)."""
    q = torch.sigmoid(z.abs() * -slope)
    return slope * q * (1.0 - q)


def arctan(z: Tensor, slope: float = 2.0) -> Tensor:
    """(slope/2)/(1 + (pi slope z/2)^2) (clause SUR-5)."""
    return (slope / 2) / (1.0 + (z * (math.pi * slope / 2)).square())


def fast_sigmoid(z: Tensor, slope: float = 2.0) -> Tensor:
    """(slope/2)/(1 + slope |z|)^2 (clause SUR-6)."""
    return (slope / 2) / (1.0 + slope * z.abs()).square()


def tanh(z: Tensor, slope: float = 2.0) -> Tensor:
    """(slope/2)(1 - tanh(slope z)^2), as 2 slope q (1 - q) with q = 1/(1 + exp(2 slope |z|)) (clause SUR-7)."""
    q = torch.sigmoid(z.abs() * (-2.0 * slope))
    return 2.0 * slope * q * (1.0 - q)
