"""The neuron in plain XLA, for any device: scans over time (clauses LIF-*).

It serves wherever no kernel of this package does. On CPUs a scan over single steps is faster than steps that are
written out, in blocks or all together; elsewhere each step of a scan costs a launch, so short sequences are written out
where spikes alone are wanted.

Letters: x current, u potential before reset and v after, s spike; g, d and e are the gradients of s, u and v.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from twinspike_jax.neuron_form import Form, Gradients, Inputs, Outputs, shared
from twinspike_jax.precision import wide
from twinspike_jax.surrogate import derivative

WRITTEN_OUT = 16
"""Longest sequence that is written out where `unroll` asks for it."""

Number = Array | float


def forward(form: Form, inputs: Inputs, *, unroll: bool = False) -> Outputs:
    """Spikes, and what else the form asks for."""
    v, (s, u, _) = _charged(form, inputs, potentials=form.potentials, before=False, unroll=unroll)
    return Outputs(s, u, v if form.state else None)


def backward(form: Form, inputs: Inputs, g: Array, e: Array | None) -> Gradients:
    """Gradients of what was given.

    A round of the loop takes d of step t from the last one, hands it on to everything that it is for, and computes that of
    step t - 1; so what a caller gets is what the steps before were computed from, to the bit. The last round's goes to waste.
    """
    neuron, x, steps = form.neuron, inputs.x, form.steps(inputs.x)
    hard, dtype, zeros = neuron.reset == "hard", wide(x.dtype), _zeros(form, inputs)
    decay, threshold = _quantities(form, inputs)
    _, (_, u, before) = _charged(form, inputs, potentials=True, before=inputs.decay is not None, unroll=False)

    def at(values: Array, t: Array | int) -> Array:
        found: Array = lax.dynamic_index_in_dim(values, t, keepdims=False)
        return found

    def adjoint(e: Array, t: Array | int) -> tuple[Array, Array | None]:
        """d of step t, and what a learned threshold gets from it."""
        potential = at(u, t)
        fired = potential >= threshold
        through_spike = at(g, t).astype(dtype)
        if not neuron.detach_reset:
            through_spike = through_spike + e * (neuron.v_reset - potential if hard else -threshold)
        through_spike = through_spike * derivative(neuron.surrogate, potential - threshold)
        d = through_spike + (jnp.where(fired, zeros, e) if hard else e)
        if inputs.threshold is None:
            return d, None
        return d, -through_spike if hard else -through_spike - jnp.where(fired, e, zeros)

    def step(carry: tuple[Any, ...], t: Array) -> tuple[Any, Array | None]:
        d, term, _, d_decay, d_threshold, d_constant = carry
        if term is not None:
            d_threshold = d_threshold + term
        if before is not None:
            used = (x if form.constant else at(x, t)).astype(dtype) if neuron.decay_input else None
            d_decay = d_decay + d * (at(before, t) if used is None else at(before, t) - used)
        d_x = (1.0 - decay) * d if neuron.decay_input else d
        e = jnp.where(t == steps, end, decay * d) if lone else decay * d
        after = *adjoint(e, jnp.maximum(t - 1, 0)), d, d_decay, d_threshold
        return ((*after, d_constant + d_x), None) if form.constant else ((*after, d_constant), d_x.astype(x.dtype))

    end = zeros if e is None else e
    if steps == 0:
        none = None if inputs.decay is None else zeros, None if inputs.threshold is None else zeros
        return _gradients(form, inputs, zeros if form.constant else jnp.zeros_like(x), end, *none)
    lone = steps == 1  # a loop of one round would be written out: one before it hands on nothing, and computes d of step 1
    first_d = (zeros, None if inputs.threshold is None else zeros) if lone else adjoint(end, steps - 1)
    start = *first_d, zeros, zeros, zeros, zeros
    (_, _, first, d_decay, d_threshold, d_constant), d_x = lax.scan(step, start, jnp.arange(_rounds(steps)), reverse=True)
    return _gradients(form, inputs, d_constant if d_x is None else d_x[:steps], decay * first, d_decay, d_threshold)


def _gradients(form: Form, inputs: Inputs, d_x: Array, e: Array, d_decay: Array | None, d_threshold: Array | None) -> Gradients:
    """Of what was given, from the gradients of every neuron."""
    return Gradients(
        d_x.astype(inputs.x.dtype),
        None if inputs.v is None else e,
        shared(form, inputs.decay, d_decay),
        shared(form, inputs.threshold, d_threshold),
    )


def _charged(form: Form, inputs: Inputs, *, potentials: bool, before: bool, unroll: bool) -> tuple[Array, Any]:
    """The last v, and s, u and the v before of every step, the last two where asked for; clauses LIF-1 to LIF-4."""
    neuron, x, steps = form.neuron, inputs.x, form.steps(inputs.x)
    decay, threshold = _quantities(form, inputs)
    dtype = wide(x.dtype)

    def charge(v: Array, current: Array) -> Array:
        now = current.astype(dtype)
        return decay * v + ((1.0 - decay) * now if neuron.decay_input else now)

    def fire(u: Array) -> tuple[Array, Array]:
        fired = u >= threshold
        after = jnp.where(fired, jnp.asarray(neuron.v_reset, dtype) if neuron.reset == "hard" else u - threshold, u)
        return after, fired.astype(form.spikes(x))

    def step(v: Array, current: Array | None) -> tuple[Array, Any]:
        u = charge(v, x if current is None else current)
        after, s = fire(u)
        return after, (s, u if potentials else None, v if before else None)

    def step_from_potential(carry: tuple[Array, Array], t: Array) -> tuple[Any, Any]:
        u, v = carry
        after, s = fire(u)
        return (charge(after, current(jnp.minimum(t + 1, steps - 1))), after), (s, u, v if before else None)

    def current(t: Array | int) -> Array:
        return x if form.constant else lax.dynamic_index_in_dim(x, t, keepdims=False)

    start = _zeros(form, inputs) if inputs.v is None else inputs.v
    if steps == 0 or not potentials:
        return lax.scan(step, start, None if form.constant else x, **_scan(form, x, unroll))
    # XLA may compute a value once for each of its uses and round it in two ways. What a loop carries it can't: so each
    # potential is carried to where it is compared, reset and handed out. The last round's charge goes to waste.
    _, found = lax.scan(step_from_potential, (charge(start, current(0)), start), jnp.arange(_rounds(steps)))
    found = jax.tree.map(lambda a: a[:steps], found)
    return fire(found[1][-1])[0], found


def _rounds(steps: int) -> int:
    """Rounds of a loop that is to stay one: XLA writes a single round out, and may then evaluate twice what it carried."""
    return max(steps, 2)


def _scan(form: Form, x: Array, unroll: bool) -> dict[str, Any]:
    return {"length": form.steps(x), "unroll": unroll and form.steps(x) <= WRITTEN_OUT}


def _zeros(form: Form, inputs: Inputs) -> Array:
    return jnp.zeros(form.step(inputs.x), wide(inputs.x.dtype))


def _quantities(form: Form, inputs: Inputs) -> tuple[Number, Number]:
    """Decay and threshold in shapes that broadcast against one step."""
    space = len(form.space(inputs.x))

    def over_channels(learned: Array | None, constant: float) -> Number:
        if learned is None:
            return constant
        return learned.reshape(-1, *(1,) * space) if learned.ndim == 1 else learned

    return over_channels(inputs.decay, form.neuron.decay), over_channels(inputs.threshold, form.neuron.threshold)
