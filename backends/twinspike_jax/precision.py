"""Precision profiles in JAX terms: formats, the precision of products, and what a session computes in.

JAX has float64 only while a global flag is on, and other settings of a process decide on formats, shapes and devices too.
A session must work with each of them and compute the same, so every entry point of one runs inside `arithmetic`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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


@contextmanager
def arithmetic(storage: str, device: jax.Device) -> Iterator[None]:
    """Hold JAX to a storage format and a device, and to its own defaults, whatever its user has set.

    What only watches is left on: `jax_debug_nans`, `jax_check_tracer_leaks` and their like.

    Args:
        storage: float32 or float64.
        device: where arrays are made that are placed nowhere.
    """
    with ExitStack() as held:
        held.enter_context(formats(storage))
        held.enter_context(jax.default_device(device))
        held.enter_context(jax.default_matmul_precision(None))
        held.enter_context(jax.numpy_dtype_promotion("standard"))
        held.enter_context(jax.numpy_rank_promotion("allow"))
        held.enter_context(jax.transfer_guard("allow"))
        held.enter_context(np.errstate(all="ignore"))
        held.enter_context(jax.disable_jit(False))  # whether a session compiles is its own setting
        yield


def wide(dtype: DType) -> DType:
    """The format in which a value is computed on: float32 for formats of 16 bits, else its own."""
    return jnp.float32 if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def name_of(casts: Policy) -> str:
    """The profile that a policy is of."""
    return next(name for name in PRECISIONS if policy(name) == casts)
