"""The neuron on CPUs by the C++ kernels of `native/`: calls of XLA's foreign function interface (clauses LIF-*)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from twinspike.config import SURROGATES, Rectangle, Triangle
from twinspike_jax.native_build import Library
from twinspike_jax.neuron_form import Form, Gradients, Inputs, Outputs, shaped
from twinspike_jax.precision import wide

_NUMBERS = {kind: i for i, kind in enumerate(SURROGATES)}
"""Surrogates as `lif.h` counts them."""
_STORED = (jnp.float32, jnp.float64, jnp.bfloat16)
"""Formats that the kernels read and write; others are converted before."""


def forward(library: Library, form: Form, inputs: Inputs) -> Outputs:
    """Spikes, and what else the form asks for."""
    given = _given(inputs)
    step, dtype = form.step(inputs.x), wide(given[0].dtype)
    whole = (form.steps(inputs.x), *step)
    shapes = (whole, whole if form.potentials else (0,), step if form.state else (0,))
    formats = form.spikes(given[0]), dtype, dtype
    results = [shaped(shape, of) for shape, of in zip(shapes, formats, strict=True)]
    s, u, v = _call(library.targets["twinspike_lif_forward"], results, given, _attributes(form, inputs.x))
    return Outputs(s.astype(form.spikes(inputs.x)), u if form.potentials else None, v if form.state else None)


def backward(library: Library, form: Form, inputs: Inputs, g: Array, e: Array | None) -> Gradients:
    """Gradients of what was given; the kernel sums over the neurons that share a quantity."""
    neuron, given = form.neuron, _given(inputs)
    x = given[0]
    dtype = wide(x.dtype)
    results = [shaped(x.shape, x.dtype), *(shaped(a.shape, dtype) for a in given[1:])]
    scale = neuron.surrogate.width if isinstance(neuron.surrogate, Rectangle | Triangle) else neuron.surrogate.slope
    attributes = _attributes(form, x) | {
        "detach": np.bool_(neuron.detach_reset),
        "surrogate": np.int64(_NUMBERS[type(neuron.surrogate)]),
        "scale": np.float64(scale),
    }
    arrays = (*given, g.astype(x.dtype), _or_nothing(e, dtype))
    d_x, *others = _call(library.targets["twinspike_lif_backward"], results, arrays, attributes)
    d_v, d_decay, d_threshold = (None if a is None else d.reshape(a.shape) for a, d in zip(inputs[1:], others, strict=True))
    return Gradients(d_x.astype(inputs.x.dtype), d_v, d_decay, d_threshold)


def _given(inputs: Inputs) -> tuple[Array, ...]:
    """Currents in a stored format, state, and quantities as (C,) or (1,); an array without entries for what is not given.

    Sequences keep their shape: XLA computes an array anew for each shape that it is read in, and may round it in two ways.
    """
    x = inputs.x if inputs.x.dtype in _STORED else inputs.x.astype(jnp.float32)
    v, *quantities = (_or_nothing(a, wide(x.dtype)) for a in inputs[1:])
    return x, v, *(a.reshape(-1) for a in quantities)


def _or_nothing(a: Array | None, dtype: Any) -> Array:
    return jnp.zeros((0,), dtype) if a is None else a.astype(dtype)


def _attributes(form: Form, x: Array) -> dict[str, Any]:
    neuron = form.neuron
    return {
        "decay": np.float64(neuron.decay),
        "threshold": np.float64(neuron.threshold),
        "v_reset": np.float64(neuron.v_reset),
        "soft": np.bool_(neuron.reset == "soft"),
        "decay_input": np.bool_(neuron.decay_input),
        "steps": np.int64(form.steps(x)),
        "neurons": np.int64(math.prod(form.step(x))),
        "space": np.int64(math.prod(form.space(x))),
        "constant": np.bool_(form.constant),
    }


def _call(target: str, results: Sequence[Any], arrays: Sequence[Array], attributes: dict[str, Any]) -> Sequence[Array]:
    called: Sequence[Array] = jax.ffi.ffi_call(target, results, vmap_method="broadcast_all")(*arrays, **attributes)
    return called
