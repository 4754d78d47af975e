"""The leaky integrate-and-fire neuron over a whole sequence, with its hand-written adjoint (clauses LIF-*).

Differentiating the recurrence step by step would keep several arrays per step. Here one `custom_vjp` spans
the sequence: it keeps the currents alone and computes the potentials again on the way back. Up to `UNROLL`
steps are written out, which XLA fuses into one pass over memory; longer sequences scan over blocks of
`BLOCK` steps, keeping the state at each block's start, since a scan over single steps is many times slower.

Letters: x current, u potential before reset and v after, s spike; g, d and e are the gradients of s, u and v.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from twinspike.config import Neuron
from twinspike.errors import require
from twinspike_jax.precision import wide
from twinspike_jax.surrogate import derivative

UNROLL = 16
"""Longest sequence that is written out step by step."""
BLOCK = 8
"""Steps per block of a longer one."""

Number = Array | float


class _Form(NamedTuple):
    """What is fixed when a sequence is traced."""

    neuron: Neuron
    constant: int
    """T of a current that is the same at every step and comes without time; 0 for a current with time."""
    potentials: bool
    """Whether u is returned."""
    state: bool
    """Whether the last v is returned."""


class _Block(NamedTuple):
    s: list[Array]
    u: list[Array]
    before: list[Array | None]
    """The state that each step starts from; None stands for 0."""
    v: Array


def _forward(form: _Form, xs: Sequence[Array], v: Array | None, decay: Number, threshold: Number) -> _Block:
    """A few steps, written out; clauses LIF-1 to LIF-4."""
    neuron = form.neuron
    s: list[Array] = []
    u: list[Array] = []
    before: list[Array | None] = []
    for x in xs:
        current = (1.0 - decay) * x if neuron.decay_input else x
        potential = current if v is None else decay * v + current
        if form.potentials:  # what is reported must be what was compared, not a second, differently fused computation
            potential = lax.optimization_barrier(potential)  # type: ignore[no-untyped-call]  # JAX leaves it untyped
        fired = potential >= threshold
        before.append(v)
        if neuron.reset == "hard":
            v = jnp.where(fired, jnp.asarray(neuron.v_reset, potential.dtype), potential)
        else:
            v = jnp.where(fired, potential - threshold, potential)
        u.append(potential)
        s.append(fired)
    assert v is not None
    return _Block(s, u, before, v)


class _Gradients(NamedTuple):
    """Of currents, of the state before them, and of decay and threshold per element."""

    x: list[Array]
    e: Array | None
    decay: Array
    threshold: Array


def _backward(
    form: _Form, xs: Sequence[Array], v: Array | None, quantities: tuple[Any, Any], gs: Sequence[Array], e: Array | None
) -> _Gradients:
    """The same steps backwards; clauses LIF-6 to LIF-10. `e` None stands for 0; sums are per element."""
    neuron, (decay, threshold) = form.neuron, quantities
    block = _forward(form._replace(potentials=False), xs, v, decay, threshold)
    d_decay = d_threshold = jnp.zeros((), xs[0].dtype)
    d_x: list[Array] = []
    for x, fired, u, before, g in reversed(list(zip(xs, block.s, block.u, block.before, gs, strict=True))):
        hard = neuron.reset == "hard"
        through_spike = g
        if e is not None and not neuron.detach_reset:
            through_spike = g + e * (neuron.v_reset - u if hard else -threshold)
        through_spike = through_spike * derivative(neuron.surrogate, u - threshold)
        d = through_spike
        d_threshold = d_threshold - through_spike
        if e is not None:
            kept = jnp.where(fired, jnp.zeros((), e.dtype), e) if hard else e
            d = through_spike + kept
            if not hard:
                d_threshold = d_threshold - jnp.where(fired, e, jnp.zeros((), e.dtype))
        if neuron.decay_input:
            d_decay = d_decay + d * (-x if before is None else before - x)
        elif before is not None:
            d_decay = d_decay + d * before
        d_x.append((1.0 - decay) * d if neuron.decay_input else d)
        e = decay * d
    assert e is not None
    return _Gradients(d_x[::-1], e, d_decay, d_threshold)


def _over_channels(quantity: Array | None, constant: float, ndim: int) -> Number:
    """A decay or threshold in a shape that broadcasts against one step, (B, C, *d)."""
    if quantity is None:
        return constant
    return quantity.reshape(-1, *(1,) * (ndim - 2)) if quantity.ndim == 1 else quantity


def _shared_by(quantity: Array | None, gradient: Array, like: Array) -> Array | None:
    """Sum of a (B, C, *d) gradient over the entries that share the quantity."""
    if quantity is None:
        return None
    gradient = jnp.broadcast_to(gradient, like.shape)
    axes = tuple(i for i in range(gradient.ndim) if quantity.ndim == 0 or i != 1)
    return gradient.sum(axis=axes).astype(quantity.dtype)


class _Sequence:
    """One sequence split into blocks that are scanned and a rest that is written out."""

    def __init__(self, form: _Form, x: Array, quantities: tuple[Array | None, Array | None]) -> None:
        self.form, self.x = form, x
        self.steps = form.constant or x.shape[0]
        self.blocks = 0 if self.steps <= UNROLL else self.steps // BLOCK
        self.scanned = self.blocks * BLOCK
        self.dtype = wide(x.dtype)
        self.step = x if form.constant else x[0]
        neuron, ndim = form.neuron, self.step.ndim
        self.quantities = (
            _over_channels(quantities[0], neuron.decay, ndim),
            _over_channels(quantities[1], neuron.threshold, ndim),
        )

    def currents(self, part: Array | None, steps: int) -> list[Array]:
        """The currents of a block, in the format of potentials; `part` None stands for the constant one."""
        if part is None:
            return [self.x.astype(self.dtype)] * steps
        return [part[t].astype(self.dtype) for t in range(steps)]

    def split(self, values: Array) -> tuple[Array | None, Array]:
        """(n, BLOCK, ...), if anything is scanned, and the rest."""
        if not self.blocks:
            return None, values
        return values[: self.scanned].reshape(self.blocks, BLOCK, *values.shape[1:]), values[self.scanned :]

    def unsplit(self, values: Array) -> Array:
        """(n, BLOCK, ...) with time in one axis again."""
        return values.reshape(self.scanned, *values.shape[2:])

    def zeros(self) -> Array:
        return jnp.zeros(self.step.shape, self.dtype)


def _joined(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _run(form: _Form, x: Array, v: Array | None, decay: Array | None, threshold: Array | None) -> tuple[Any, Any]:
    """((s, u, v), states that the blocks and the rest start from)."""
    run = _Sequence(form, x, (decay, threshold))
    spikes: list[Array] = []
    potentials: list[Array] = []

    def steps(part: Array | None, count: int, v: Array | None) -> tuple[Array, Array, Array | None]:
        block = _forward(form, run.currents(part, count), v, *run.quantities)
        s = jnp.stack([fired.astype(x.dtype) for fired in block.s])
        return block.v, s, jnp.stack(block.u) if form.potentials else None

    def keep(s: Array, u: Array | None) -> None:
        spikes.append(s)
        if u is not None:
            potentials.append(u)

    scanned, part = (None, None) if form.constant else run.split(x)
    starts = None
    if run.blocks:

        def body(v: Array, part: Array | None) -> tuple[Array, Any]:
            after, s, u = steps(part, BLOCK, v)
            return after, (v, s, u)

        start = run.zeros() if v is None else v
        v, (starts, s, u) = lax.scan(body, start, scanned, length=run.blocks)  # type: ignore[arg-type]  # v is None no more
        keep(run.unsplit(s), None if u is None else run.unsplit(u))
    starts = (starts, v)
    if run.steps > run.scanned:
        v, s, u = steps(part, run.steps - run.scanned, v)
        keep(s, u)
    return (_joined(spikes), _joined(potentials) if form.potentials else None, v if form.state else None), starts


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lif(form: _Form, x: Array, v: Array | None, decay: Array | None, threshold: Array | None) -> Any:
    return _run(form, x, v, decay, threshold)[0]


def _lif_forward(form: _Form, x: Array, v: Array | None, decay: Array | None, threshold: Array | None) -> Any:
    out, starts = _run(form, x, v, decay, threshold)
    return out, (x, v, starts, decay, threshold)


def _lif_backward(form: _Form, residuals: Any, cotangents: Any) -> Any:
    x, v, (starts, rest_start), decay, threshold = residuals
    g, _, e = cotangents
    run = _Sequence(form, x, (decay, threshold))
    rest = run.steps - run.scanned
    total = _Gradients([], e, jnp.zeros((), run.dtype), jnp.zeros((), run.dtype))
    d_current = jnp.zeros((), run.dtype)
    d_parts: list[Array] = []

    def steps(part: Array | None, count: int, start: Array | None, g: Array, e: Array | None) -> _Gradients:
        gs = [g[t].astype(run.dtype) for t in range(count)]
        return _backward(form, run.currents(part, count), start, run.quantities, gs, e)

    scanned, part = (None, None) if form.constant else run.split(x)
    g_scanned, g_rest = run.split(g)
    if rest:
        total = steps(part, rest, rest_start, g_rest, e)
        if form.constant:
            d_current = sum(total.x, d_current)
        else:
            d_parts.append(jnp.stack([d.astype(x.dtype) for d in total.x]))
    if run.blocks:

        def body(carry: Any, block: Any) -> tuple[Any, Any]:
            e, d_decay, d_threshold, d_current = carry
            part, start, g = block
            found = steps(part, BLOCK, start, g, e)
            if form.constant:
                d_current, d_part = sum(found.x, d_current), None
            else:
                d_part = jnp.stack([d.astype(x.dtype) for d in found.x])
            return (found.e, d_decay + found.decay, d_threshold + found.threshold, d_current), d_part

        zeros = run.zeros()
        first = (zeros if total.e is None else total.e, zeros + total.decay, zeros + total.threshold, zeros + d_current)
        carry, d_part = lax.scan(body, first, (scanned, starts, g_scanned), length=run.blocks, reverse=True)
        total, d_current = _Gradients([], *carry[:3]), carry[3]
        if not form.constant:
            d_parts.insert(0, run.unsplit(d_part))
    d_x = d_current.astype(x.dtype) if form.constant else _joined(d_parts)
    return (
        d_x,
        None if v is None or total.e is None else total.e.astype(v.dtype),
        _shared_by(decay, total.decay, run.step),
        _shared_by(threshold, total.threshold, run.step),
    )


_lif.defvjp(_lif_forward, _lif_backward)


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
    s, _, after = _lif(_Form(neuron, 0, False, True), x, v, decay, threshold)
    return s, after


def lif_with_potentials(
    x: Array, v: Array | None = None, *, neuron: Neuron, decay: Array | None = None, threshold: Array | None = None
) -> tuple[Array, Array, Array]:
    """As `lif`, but also returns u, the potential of every step before reset, for inspection: no gradient passes it.

    Returns:
        Spikes (T, B, C, ...), u (T, B, C, ...) and the potential after the last step (B, C, ...).
    """
    _check(x, 3)
    s, u, after = _lif(_Form(neuron, 0, True, True), x, v, decay, threshold)
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
) -> tuple[Array, Array | None]:
    """Spikes of a whole layer from the zero state, and u if asked for.

    Args:
        x: current: (T, B, C, ...), or with `constant` (B, C, ...), the same at every step and never copied.
        steps: T.
        constant: whether `x` comes without time.
        neuron: as in `lif`, like `decay` and `threshold`.
        decay: learned, or None.
        threshold: learned, or None.
        potentials: whether u is returned.
    """
    form = _Form(neuron, steps if constant else 0, potentials, False)
    s, u, _ = _lif(form, x, None, decay, threshold)
    return s, u


def _check(x: Array, axes: int) -> None:
    require(x.ndim >= axes, "current x", expected="shape (T, B, C, ...)", got=x.shape)
    require(jnp.issubdtype(x.dtype, jnp.floating), "current x", expected="a floating dtype", got=x.dtype.name)
