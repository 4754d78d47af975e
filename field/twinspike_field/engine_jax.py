"""Libraries on JAX: gradients by its vector-Jacobian product, float64 within a call alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinspike_field.adapter import Function, Tensors

FORMATS = {"f32-ieee": np.float32, "f64": np.float64}


class Engine:
    """JAX on the CPU; a call in float64 has `jax_enable_x64` set, and no other."""

    packages = ("jax", "jaxlib")

    def from_numpy(self, values: Any, precision: str) -> jax.Array:
        """A copy, floats in the precision's format."""
        values = np.array(values)
        with jax.enable_x64(precision == "f64"):
            return jnp.asarray(values.astype(FORMATS[precision]) if values.dtype.kind == "f" else values)

    def to_numpy(self, tensor: jax.Array) -> Any:
        """A copy."""
        return np.array(tensor)

    def floating(self, tensor: jax.Array) -> bool:
        """Whether its numbers are floats."""
        return bool(jnp.issubdtype(tensor.dtype, jnp.floating))

    def forward(self, function: Function, inputs: Mapping[str, jax.Array], precision: str) -> Tensors:
        """Outputs by name."""
        with jax.enable_x64(precision == "f64"):
            return function(dict(inputs))

    def vjp(
        self, function: Function, inputs: Mapping[str, jax.Array], cotangents: Mapping[str, jax.Array], precision: str
    ) -> tuple[Tensors, Tensors]:
        """Outputs, and the gradients of all inputs."""
        with jax.enable_x64(precision == "f64"):
            outputs, pull = jax.vjp(function, dict(inputs))
            incoming = {name: cotangents.get(name, jnp.zeros_like(value)) for name, value in outputs.items()}
            (gradients,) = pull({name: g.astype(outputs[name].dtype) for name, g in incoming.items()})
        return outputs, gradients


def broadcast(quantity: Any, axes: int) -> Any:
    """A learned quantity, () or (C,), in a shape that broadcasts against (B, C, *d) with so many axes behind C."""
    return quantity.reshape(quantity.shape + (1,) * axes) if quantity.ndim else quantity


def tanh_derivative(slope: float, z: jax.Array) -> jax.Array:
    """Clause SUR-7 without the cancellation in 1 - tanh^2, for libraries that take any function."""
    q = jnp.exp(-2 * slope * jnp.abs(z))
    return 2 * slope * q / (1 + q) ** 2
