"""The leaky integrate-and-fire neuron over a whole sequence, with its hand-written adjoint (clauses LIF-*).

Differentiating the recurrence step by step would keep several arrays per step. Here one `custom_vjp` spans
the sequence: it keeps the currents alone and charges the potentials again on the way back. `neuron_kernels` says
what runs on which platform.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from twinspike.config import Neuron
from twinspike.errors import require
from twinspike_jax import neuron_kernels
from twinspike_jax.neuron_form import Form, Inputs, Outputs
from twinspike_jax.precision import wide
from twinspike_jax.residuals import kept


class _Fired(NamedTuple):
    """What a layer gives."""

    outputs: Outputs
    booleans: Array | None
    """Spikes as booleans, kept for the backward pass, where the form asks for them."""


def _run_kernel(form: Form, inputs: Inputs) -> _Fired:
    found = neuron_kernels.forward(form, inputs)
    if not form.booleans:
        return _Fired(found, None)
    booleans = kept(found.s)
    return _Fired(found._replace(s=booleans.astype(inputs.x.dtype)), booleans)


_lif = jax.custom_vjp(_run_kernel, nondiff_argnums=(0,))


def _lif_forward(form: Form, inputs: Inputs) -> tuple[_Fired, Inputs]:
    return _run_kernel(form, inputs), inputs


def _lif_backward(form: Form, inputs: Inputs, cotangents: _Fired) -> tuple[Inputs]:
    found = neuron_kernels.backward(form, inputs, cotangents.outputs.s, cotangents.outputs.v)
    return (Inputs(*found),)


_lif.defvjp(_lif_forward, _lif_backward)


def _run(form: Form, x: Array, v: Array | None, decay: Array | None, threshold: Array | None) -> _Fired:
    """All arrays but the current are taken to the format of potentials here, and their gradients back from it."""
    dtype = wide(x.dtype)
    found: _Fired = _lif(form, Inputs(x, *(None if a is None else a.astype(dtype) for a in (v, decay, threshold))))
    return found


def lif(
    x: Array, v: Array | None = None, *, neuron: Neuron, decay: Array | None = None, threshold: Array | None = None
) -> tuple[Array, Array]:
    """Run a sequence through leaky integrate-and-fire neurons.

    Args:
        x: current, (T, B, C, ...), floating. Potentials are float32 for currents of 16 bits, else of their format.
        v: potential before the first step, (B, C, ...), in the format of potentials; 0 if not given.
        neuron: its options; also decay and threshold where these are not given.
        decay: learned, () or (C,), in [0, 1].
        threshold: learned, () or (C,), > 0.

    Returns:
        Spikes, shape and dtype of `x`, exactly 0 or 1, and the potential after the last step, (B, C, ...).

    Raises:
        SpecError: `x` has fewer than three axes or no floating format.

    Reference: clauses LIF-1 to LIF-10.
    """
    _check(x, 3)
    s, _, after = _run(Form(neuron, 0, False, True), x, v, decay, threshold).outputs
    assert after is not None
    return s, after


def lif_traced(
    x: Array, v: Array | None = None, *, neuron: Neuron, decay: Array | None = None, threshold: Array | None = None
) -> tuple[Array, Array, Array]:
    """As `lif`, but also returns u, the potential of every step before reset, for inspection: no gradient passes it.

    Returns:
        Spikes (T, B, C, ...), u (T, B, C, ...) and the potential after the last step (B, C, ...).
    """
    _check(x, 3)
    s, u, after = _run(Form(neuron, 0, True, True), x, v, decay, threshold).outputs
    assert u is not None
    assert after is not None
    return s, lax.stop_gradient(u), after


def fire(
    x: Array,
    *,
    steps: int,
    constant: bool,
    neuron: Neuron,
    decay: Array | None,
    threshold: Array | None,
    potentials: bool = False,
    last: bool = False,
    booleans: bool = False,
) -> tuple[Array, Array | None, Array | None]:
    """Spikes of a whole layer from the zero state, the same as booleans if asked for, and u likewise.

    Args:
        x: current: (T, B, C, ...), or with `constant` (B, C, ...), the same at every step and never copied.
        steps: T.
        constant: whether `x` comes without time.
        neuron: as in `lif`, like `decay` and `threshold`.
        decay: learned, or None.
        threshold: learned, or None.
        potentials: whether u is returned.
        last: whether C is the last axis and not the one behind B.
        booleans: whether spikes are also returned as booleans, which a backward pass keeps by the policy of `residuals`.
    """
    form = Form(neuron, steps if constant else 0, potentials, False, last, booleans)
    (s, u, _), fired = _run(form, x, None, decay, threshold)
    return s, fired, u


def _check(x: Array, axes: int) -> None:
    require(x.ndim >= axes, "current x", expected="shape (T, B, C, ...)", got=x.shape)
    require(jnp.issubdtype(x.dtype, jnp.floating), "current x", expected="a floating dtype", got=x.dtype.name)
