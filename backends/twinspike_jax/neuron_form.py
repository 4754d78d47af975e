"""What the neuron's kernels have in common: what is asked of them, what they are given and what they give."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from twinspike.config import Neuron


class Form(NamedTuple):
    """What is fixed when a sequence is traced."""

    neuron: Neuron
    constant: int
    """T of a current that is the same at every step and comes without time; 0 for a current with time."""
    potentials: bool
    """Whether u is returned."""
    state: bool
    """Whether the last v is returned."""
    last: bool = False
    """Whether C is the last axis of a step, (B, *d, C), and not the second, (B, C, *d)."""
    booleans: bool = False
    """Whether kernels give spikes as booleans."""

    def steps(self, x: Array) -> int:
        """T."""
        return self.constant or x.shape[0]

    def step(self, x: Array) -> tuple[int, ...]:
        """Shape of one step, (B, C, *d)."""
        return x.shape if self.constant else x.shape[1:]

    def spikes(self, x: Array) -> Any:
        """Format in which kernels give spikes."""
        return np.dtype(bool) if self.booleans else x.dtype

    def space(self, x: Array) -> tuple[int, ...]:
        """Shape of what stands behind C in a step."""
        return () if self.last else self.step(x)[2:]


class Inputs(NamedTuple):
    """Arrays of a sequence; None: not given."""

    x: Array
    """Current, (T, B, C, *d), or (B, C, *d) if constant."""
    v: Array | None
    """Potential before the first step, (B, C, *d), in the format of potentials, like all that follow."""
    decay: Array | None
    """Learned, () or (C,)."""
    threshold: Array | None
    """Learned, () or (C,)."""


class Outputs(NamedTuple):
    """What a sequence gives; None: not asked for."""

    s: Array
    """Spikes, (T, B, C, *d), in the current's format, or booleans where the form asks for them."""
    u: Array | None
    """Potentials before reset, (T, B, C, *d)."""
    v: Array | None
    """Potential after the last step, (B, C, *d)."""


class Gradients(NamedTuple):
    """Gradients of `Inputs`, in their shapes; None: not given."""

    x: Array
    v: Array | None
    decay: Array | None
    threshold: Array | None


def shared(form: Form, quantity: Array | None, gradient: Array | None) -> Array | None:
    """Sum of a gradient per neuron, (B, C, *d), over the neurons that share a learned quantity; None: nothing is learned."""
    if quantity is None or gradient is None:
        return None
    channel = gradient.ndim - 1 if form.last else 1
    return gradient.sum(axis=tuple(i for i in range(gradient.ndim) if quantity.ndim == 0 or i != channel))


def shaped(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """What a kernel's result looks like."""
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]  # JAX leaves it untyped
