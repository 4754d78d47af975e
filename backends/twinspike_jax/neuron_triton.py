"""The neuron on CUDA devices as Triton kernels, written in Pallas: one pass over memory for each direction (clauses LIF-*).

Each program takes a block of neurons through all time steps, with its state in registers. Backward charges the
potentials again: up to `CHUNK` steps are held in registers; longer sequences first keep the state at every chunk's start.

Letters: x current, u potential before reset and v after, s spike; g, d and e are the gradients of s, u and v.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from twinspike.config import Neuron
from twinspike_jax.neuron_form import Form, Gradients, Inputs, Outputs, shaped, shared
from twinspike_jax.precision import wide
from twinspike_jax.surrogate import derivative

BLOCK = 1024
"""Neurons per program where few steps are held; a power of two, as Triton wants."""
CHUNK = 8
"""Steps whose potentials backward holds in registers."""
WARPS = 4


@functools.cache
def missing() -> str | None:
    """Why these kernels can't serve here, in half a line, or None: they are compiled for the device to find out."""
    try:
        device = jax.devices("cuda")[0]
    except RuntimeError:  # JAX's way to say that there is none
        return "no CUDA device"
    if not hasattr(triton, "load"):
        return f"jax {jax.__version__} has no masked loads in pallas.triton"
    form = Form(Neuron(), 0, False, False)
    placed = jax.sharding.SingleDeviceSharding(device)
    x = jax.ShapeDtypeStruct((2, 2, 3), jnp.float32, sharding=placed)  # type: ignore[no-untyped-call]  # as in `shaped`

    def both(x: Array) -> tuple[Outputs, Gradients]:
        inputs = Inputs(x, None, None, None)
        return forward(form, inputs), backward(form, inputs, x, None)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # jax 0.12 announces that it will drop Triton
            jax.jit(both).lower(x).compile()
    except Exception as error:  # whatever a compiler raises, plain XLA serves, and says why
        return " ".join(f"Triton does not compile here: {type(error).__name__}: {error}".split())[:200]
    return None


def forward(form: Form, inputs: Inputs, *, interpret: bool = False) -> Outputs:
    """Spikes, and what else the form asks for; `interpret` runs the kernel on any device, slowly."""
    x, dtype = inputs.x, wide(inputs.x.dtype)
    step, steps = form.step(x), form.steps(x)
    n = math.prod(step)
    shapes = {"s": shaped((steps, n), x.dtype)}
    if form.potentials:
        shapes["u"] = shaped((steps, n), dtype)
    if form.state:
        shapes["after"] = shaped((n,), dtype)

    def kernel(a: dict[str, Any], rows: _Rows) -> None:
        cell = _Cell.of(form, a, rows, form.space(x), dtype)

        def one(t: Any, v: Array) -> Array:
            u = cell.charge(v, cell.current(a["x"], t))
            rows.put(a["s"], (u >= cell.threshold).astype(x.dtype), t)
            if form.potentials:
                rows.put(a["u"], u, t)
            return cell.reset(u)

        v = _loop(steps, one, cell.start(a.get("v")))
        if form.state:
            rows.put(a["after"], v)

    found = _call(kernel, _flat(form, inputs), shapes, n, BLOCK, interpret)
    return Outputs(
        found["s"].reshape(steps, *step).astype(form.spikes(x)),
        found["u"].reshape(steps, *step) if form.potentials else None,
        found["after"].reshape(step) if form.state else None,
    )


def backward(form: Form, inputs: Inputs, g: Array, e: Array | None, *, interpret: bool = False) -> Gradients:
    """Gradients of what was given; XLA sums over the neurons that share a quantity."""
    x, dtype = inputs.x, wide(inputs.x.dtype)
    step, steps = form.step(x), form.steps(x)
    n, chunks = math.prod(step), -(-steps // CHUNK)
    shapes = {"d_x": shaped((1 if form.constant else steps, n), x.dtype)}
    asked = [name for name in ("v", "decay", "threshold") if getattr(inputs, name) is not None]
    shapes |= {f"d_{name}": shaped((n,), dtype) for name in asked}
    if chunks > 1:
        shapes["starts"] = shaped((chunks, n), dtype)

    def kernel(a: dict[str, Any], rows: _Rows) -> None:
        cell = _Cell.of(form, a, rows, form.space(x), dtype)
        first = cell.start(a.get("v"))

        def keep(chunk: Any, v: Array) -> Array:
            rows.put(a["starts"], v, chunk)
            for t in range(CHUNK):
                v = cell.reset(cell.charge(v, cell.current(a["x"], chunk * CHUNK + t)))
            return v

        def back(begin: Any, count: int, v: Array, carry: _Carry) -> _Carry:
            held = []
            for t in range(count):
                current = cell.current(a["x"], begin + t)
                u = cell.charge(v, current)
                held.append((u, v, current))
                v = cell.reset(u)
            for t in reversed(range(count)):
                carry, d_x = cell.back(*held[t], rows.get(a["g"], begin + t).astype(dtype), carry)
                if not form.constant:
                    rows.put(a["d_x"], d_x.astype(x.dtype), begin + t)
            return carry

        zeros = jnp.zeros((rows.size,), dtype)
        carry = _Carry(rows.get(a["e"]) if "e" in a else zeros, zeros, zeros, zeros)
        if chunks == 1:
            carry = back(0, steps, first, carry)
        else:
            rest = steps - (chunks - 1) * CHUNK
            last = lax.fori_loop(0, chunks - 1, keep, first)
            carry = back((chunks - 1) * CHUNK, rest, last, carry)

            def earlier(i: Any, carry: _Carry) -> _Carry:
                chunk = chunks - 2 - i
                return back(chunk * CHUNK, CHUNK, rows.get(a["starts"], chunk), carry)

            if not interpret:
                triton.debug_barrier()  # a state may be read by another thread than the one that kept it
            carry = lax.fori_loop(0, chunks - 1, earlier, carry)
        if form.constant:
            rows.put(a["d_x"], carry.d_x.astype(x.dtype), 0)
        for name, value in (("v", carry.e), ("decay", carry.d_decay), ("threshold", carry.d_threshold)):
            if name in asked:
                rows.put(a[f"d_{name}"], value)

    given = _flat(form, inputs) | {"g": g.reshape(steps, n)} | ({} if e is None else {"e": e.reshape(n)})
    found = _call(kernel, given, shapes, n, BLOCK if steps <= 4 else BLOCK // 2, interpret)
    each = {name: found[f"d_{name}"].reshape(step) for name in asked}
    return Gradients(
        found["d_x"].reshape(x.shape),
        each.get("v"),
        shared(form, inputs.decay, each.get("decay")),
        shared(form, inputs.threshold, each.get("threshold")),
    )


class _Rows(NamedTuple):
    """A program's neurons in arrays (T, N) and (N,)."""

    start: Any
    size: int
    mask: Array

    def get(self, ref: Any, *row: Any) -> Array:
        found: Array = triton.load(self._of(ref, row), mask=self.mask, other=0)
        return found

    def put(self, ref: Any, value: Array, *row: Any) -> None:
        triton.store(self._of(ref, row), value, mask=self.mask)

    def _of(self, ref: Any, row: Sequence[Any]) -> Any:
        own = pl.ds(self.start, self.size)
        return ref.at[(*(jnp.asarray(t, jnp.int32) for t in row), own)]  # the interpreter takes no Python numbers


class _Carry(NamedTuple):
    """Sums on the way back, per neuron of the program."""

    e: Array
    d_decay: Array
    d_threshold: Array
    d_x: Array
    """Of a constant current."""


class _Cell(NamedTuple):
    """The equations of one step for the neurons of a program."""

    form: Form
    rows: _Rows
    decay: Any
    threshold: Any
    learned: tuple[bool, bool]
    dtype: Any

    @classmethod
    def of(cls, form: Form, a: dict[str, Any], rows: _Rows, space: Sequence[int], dtype: Any) -> _Cell:
        """With a learned quantity loaded for each neuron."""

        def quantity(name: str) -> Any:
            if name not in a:
                return getattr(form.neuron, name)
            channels = a[name].shape[0]
            neurons = rows.start + jnp.arange(rows.size, dtype=jnp.int32)
            own = neurons // math.prod(space) % channels if channels > 1 else jnp.zeros_like(neurons)
            return triton.load(a[name].at[own])

        return cls(form, rows, quantity("decay"), quantity("threshold"), ("decay" in a, "threshold" in a), dtype)

    def start(self, ref: Any | None) -> Array:
        return jnp.zeros((self.rows.size,), self.dtype) if ref is None else self.rows.get(ref)

    def current(self, ref: Any, t: Any) -> Array:
        return self.rows.get(ref, 0 if self.form.constant else t).astype(self.dtype)

    def charge(self, v: Array, current: Array) -> Array:
        charged: Array = self.decay * v + ((1.0 - self.decay) * current if self.form.neuron.decay_input else current)
        return charged

    def reset(self, u: Array) -> Array:
        neuron = self.form.neuron
        after = jnp.full_like(u, neuron.v_reset) if neuron.reset == "hard" else u - self.threshold
        kept: Array = jnp.where(u >= self.threshold, after, u)
        return kept

    def back(self, u: Array, v: Array, current: Array, g: Array, carry: _Carry) -> tuple[_Carry, Array]:
        """One step back, and the current's gradient."""
        neuron, e, zeros = self.form.neuron, carry.e, jnp.zeros_like(u)
        hard, fired = neuron.reset == "hard", u >= self.threshold
        through_spike = g
        if not neuron.detach_reset:
            through_spike = g + e * (neuron.v_reset - u if hard else -self.threshold)
        through_spike = through_spike * derivative(neuron.surrogate, u - self.threshold)
        d = through_spike + (jnp.where(fired, zeros, e) if hard else e)
        d_x = (1.0 - self.decay) * d if neuron.decay_input else d
        d_decay, d_threshold = carry.d_decay, carry.d_threshold
        if self.learned[0]:
            d_decay = d_decay + d * (v - current if neuron.decay_input else v)
        if self.learned[1]:
            d_threshold = d_threshold - through_spike - (zeros if hard else jnp.where(fired, e, zeros))
        return _Carry(self.decay * d, d_decay, d_threshold, carry.d_x + d_x if self.form.constant else carry.d_x), d_x


def _flat(form: Form, inputs: Inputs) -> dict[str, Array]:
    """What is given, by name: (T, N), or (1, N) if constant; (N,); and (C,) or (1,)."""
    rows = 1 if form.constant else inputs.x.shape[0]
    given = {name: a.reshape(-1) for name, a in inputs._asdict().items() if a is not None}
    return given | {"x": inputs.x.reshape(rows, math.prod(form.step(inputs.x)))}


def _loop(steps: int, one: Callable[[Any, Array], Array], v: Array) -> Array:
    """Steps in turn; few are written out, so that their loads can begin together."""
    if steps > 2 * CHUNK:
        looped: Array = lax.fori_loop(0, steps, one, v)
        return looped
    for t in range(steps):
        v = one(t, v)
    return v


def _call(
    kernel: Callable[[dict[str, Any], _Rows], None],
    given: dict[str, Array],
    shapes: dict[str, Any],
    n: int,
    block: int,
    interpret: bool,
) -> dict[str, Array]:
    """Run a kernel on arrays by name, one program per block of neurons."""

    def program(*refs: Any) -> None:
        start = pl.program_id(0) * block
        rows = _Rows(start, block, start + jnp.arange(block, dtype=jnp.int32) < n)
        kernel(dict(zip((*given, *shapes), refs, strict=True)), rows)

    run = pl.pallas_call(
        program,
        grid=(-(-n // block),),
        out_shape=tuple(shapes.values()),
        interpret=interpret,
        compiler_params=triton.CompilerParams(num_warps=WARPS),
        name="twinspike_lif",
    )
    return dict(zip(shapes, run(*given.values()), strict=True))
