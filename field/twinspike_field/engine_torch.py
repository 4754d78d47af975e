"""Libraries on PyTorch: gradients by autograd."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from twinspike.config import Arctan, FastSigmoid, Rectangle, Sigmoid, Surrogate, Tanh, Triangle
from twinspike_field.adapter import Function, Tensors

FORMATS = {"f32-ieee": torch.float32, "f64": torch.float64}


class Engine:
    """PyTorch on the CPU, with its defaults left as they are."""

    packages = ("torch",)

    def from_numpy(self, values: Any, precision: str) -> torch.Tensor:
        """A copy, floats in the precision's format."""
        values = np.array(values)
        return torch.from_numpy(values).to(FORMATS[precision] if values.dtype.kind == "f" else torch.int64)

    def to_numpy(self, tensor: torch.Tensor) -> Any:
        """A copy."""
        return tensor.detach().numpy().copy()

    def floating(self, tensor: torch.Tensor) -> bool:
        """Whether its numbers are floats."""
        return tensor.is_floating_point()

    def forward(self, function: Function, inputs: Mapping[str, torch.Tensor], precision: str) -> Tensors:
        """Outputs by name."""
        return function(self._leaves(inputs))

    def vjp(
        self, function: Function, inputs: Mapping[str, torch.Tensor], cotangents: Mapping[str, torch.Tensor], precision: str
    ) -> tuple[Tensors, Tensors]:
        """Outputs, and the gradients of all inputs; what is not connected has 0."""
        leaves = self._leaves(inputs)
        outputs = function(leaves)
        pulled = [(outputs[name], g) for name, g in cotangents.items() if outputs[name].requires_grad]
        names = list(leaves)
        found: Any = [None] * len(names)
        if pulled:
            results, incoming = zip(*pulled, strict=True)
            incoming = tuple(g.to(result.dtype) for result, g in zip(results, incoming, strict=True))
            found = torch.autograd.grad(results, [leaves[n] for n in names], incoming, allow_unused=True)
        gradients = {n: torch.zeros_like(leaves[n]) if g is None else g for n, g in zip(names, found, strict=True)}
        return outputs, gradients

    @staticmethod
    def _leaves(inputs: Mapping[str, torch.Tensor]) -> Tensors:
        return {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}


def broadcast(quantity: torch.Tensor, axes: int) -> torch.Tensor:
    """A learned quantity, () or (C,), in a shape that broadcasts against (B, C, *d) with so many axes behind C."""
    return quantity.reshape(quantity.shape + (1,) * axes) if quantity.ndim else quantity


def tanh_derivative(slope: float, z: torch.Tensor) -> torch.Tensor:
    """Clause SUR-7 without the cancellation in 1 - tanh^2, for libraries that take any function."""
    q = torch.exp(-2 * slope * z.abs())
    return 2 * slope * q / (1 + q) ** 2


def derivative(form: Surrogate, z: torch.Tensor) -> torch.Tensor:
    """What the clauses say of every surrogate (SUR-2 to SUR-7), for libraries that take any function."""
    match form:
        case Rectangle(width=w):
            return (z.abs() < w / 2).to(z.dtype) / w
        case Triangle(width=w):
            return torch.relu(1 - z.abs() / w) / w
        case Sigmoid(slope=k):
            return tanh_derivative(k / 2, z)
        case Tanh(slope=k):
            return tanh_derivative(k, z)
        case Arctan(slope=k):
            return k / 2 / (1 + (math.pi * k / 2 * z) ** 2)
        case FastSigmoid(slope=k):
            return k / 2 / (1 + k * z.abs()) ** 2
