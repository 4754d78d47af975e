"""Precision profiles in JAX terms: formats, the precision of products, and the one place that knows about x64.

JAX has float64 only while a global flag is on. A session in float64 must work with the flag off, and one in
float32 must stay float32 with the flag on, so every entry point of a session runs inside `formats`.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from twinspike.errors import refuse, require
from twinspike.precision import PRECISIONS

DType = Any
"""A dtype that JAX accepts."""


class Policy(NamedTuple):
    """The casts of one profile (clauses PRE-1 to PRE-3); hashable, so that it can be static under `jit`."""

    storage: str
    """Format of parameters, statistics, potentials, norms, readout, heads and losses."""
    activations: str
    """Format of what layers hand to one another, and of the operands of convolutions."""
    product: lax.Precision
    """Of convolutions and matrix products in the storage format; HIGHEST rules TF32 out."""


def policy(precision: str) -> Policy:
    """The policy of a named profile.

    Raises:
        SpecError: no profile has this name.
    """
    if precision not in PRECISIONS:
        raise refuse("precision", expected=f"one of {', '.join(PRECISIONS)}", got=precision)
    profile = PRECISIONS[precision]
    product = lax.Precision.DEFAULT if precision == "tf32" else lax.Precision.HIGHEST
    return Policy(profile.storage, profile.activations, product)


def policy_of(dtype: DType) -> Policy:
    """The policy that computes everything in one format, float32 or float64, as precisely as it can."""
    name = jnp.dtype(dtype).name
    require(name in ("float32", "float64"), "dtype of parameters", expected="float32 or float64", got=name)
    return policy("f64" if name == "float64" else "f32-ieee")


def formats(storage: str) -> AbstractContextManager[Any]:
    """Within it, JAX has 64-bit formats exactly if `storage` is float64, whatever the global flag says."""
    enabled = storage == "float64"
    switch: Any = getattr(jax, "enable_x64", None)
    if switch is None:  # jax 0.7 has it under `experimental`, which later versions deprecate
        switch = importlib.import_module("jax.experimental").enable_x64
    found: AbstractContextManager[Any] = switch(enabled)
    return found


def wide(dtype: DType) -> DType:
    """The format in which a value is computed on: float32 for formats of 16 bits, else its own."""
    return jnp.float32 if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def name_of(casts: Policy) -> str:
    """The profile that a policy is of."""
    return next(name for name in PRECISIONS if policy(name) == casts)
