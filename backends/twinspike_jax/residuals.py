"""What a backward pass is given of the forward pass; all else it computes again from that.

Under `jax.checkpoint` with this policy, what is `kept` is found by the backward pass and nothing else: outputs of
convolutions and of linear layers, moments of norms, rectified values, and spikes as booleans. It serves on CPUs where
activations have 16 bits: of every float that a policy keeps JAX makes a copy, by a rounding to its own format, which took
wider activations some 4 % of a step. On a GPU computing again costs more than memory that is there: without it XLA's step of
ResNet-18 for an H100 (T = 4, B = 512, `benchmarks/traffic.py jax`) moves 94 GB and not 108, and takes 22 MB an image for it and
not 14.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from twinspike_jax.precision import Policy

_NAME = "twinspike_kept"
KEPT = jax.checkpoint_policies.save_only_these_names(_NAME)
"""Policy of `jax.checkpoint` that keeps what is `kept`."""


def spares(casts: Policy, platform: str) -> bool:
    """Whether little is kept without being asked for."""
    return platform == "cpu" and casts.activations != casts.storage


def kept(value: Array) -> Array:
    """The value itself, which the backward pass is to find rather than compute."""
    named: Array = checkpoint_name(value, _NAME)  # type: ignore[no-untyped-call]  # JAX leaves it untyped
    return named


@jax.custom_jvp
def restored(spikes: Array, booleans: Array) -> Array:
    """Spikes out of booleans, so that a backward pass needs no others; gradients go to `spikes`."""
    return booleans.astype(spikes.dtype)


@restored.defjvp
def _restored_tangent(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    spikes, booleans = primals
    return booleans.astype(spikes.dtype), tangents[0]  # a call of `restored` would need the spikes again


@jax.custom_jvp
def rectified(x: Array) -> Array:
    """max(0, x), kept, with derivative 0 where that is 0 (clause LAY-4)."""
    return kept(jnp.maximum(x, 0))


@rectified.defjvp
def _rectified_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = kept(jnp.maximum(primals[0], 0))  # named here: of a call only the inside is seen
    return y, jnp.where(y > 0, tangents[0], jnp.zeros_like(tangents[0]))
