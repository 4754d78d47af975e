"""Running operation by operation: every primitive compiled by itself, quickly, and kept for whoever needs it again.

Sessions that are not compiled exist to be compared with, so what counts is how soon they answer. JAX alone compiles
each primitive with all optimizations, anew for every constant in it, for a hundred times the time that it will ever
run. Here a function is traced once and flattened to primitives; XLA leaves out what makes it slow, as many are
compiled at once as there are cores, and equal ones serve all functions of the process. Nothing is fused: what one
primitive hands to several others is one value, where a fused program may compute it twice and round it in two ways.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

WISHES: Mapping[str, Any] = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""What makes XLA's CPU compiler several times as fast; versions of XLA that don't know one compile without it."""

Piece = Callable[..., Sequence[Array]]


@lru_cache
def quick_options(platform: str) -> dict[str, Any] | None:
    """Those of the wishes that this version of XLA takes; None where there are none for the platform."""
    if platform != "cpu":
        return None
    return {name: value for name, value in WISHES.items() if _taken({name: value})} or None


def _taken(options: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


class Pieces:
    """A function of pytrees of arrays that is run primitive by primitive; pure, and traced once per shapes."""

    def __init__(self, function: Callable[..., Any], device: jax.Device) -> None:
        self._function, self._device = function, device
        self._plans: dict[Hashable, tuple[_Plan, Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives for these arguments, arrays on the device."""
        leaves, tree = jax.tree.flatten(arguments)
        key = tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in self._plans:
            closed, shapes = jax.make_jaxpr(self._function, return_shape=True)(*arguments)
            self._plans[key] = _Plan(closed, self._device), jax.tree.structure(shapes)
        plan, structure = self._plans[key]
        return jax.tree.unflatten(structure, plan.run(leaves))


class _Step(NamedTuple):
    piece: Piece
    inputs: list[int]
    outputs: list[int]
    spent: list[int]
    """Places of values that no later step needs."""


class _Plan:
    """A flattened function: values have places in a list, and steps say which they read and write."""

    def __init__(self, closed: ClosedJaxpr, device: jax.Device) -> None:
        self._device = device
        self._values: list[Any] = []  # constants in their places
        self._given = [self._place() for _ in closed.jaxpr.invars]
        flat: list[tuple[Any, list[int], list[int]]] = []
        self._results = self._flatten(closed, self._given, flat)
        pieces = _pieces([equation for equation, _, _ in flat], device)
        needed, steps = set(self._results), []
        for piece, (_, inputs, outputs) in zip(reversed(pieces), reversed(flat), strict=True):
            spent = [place for place in {*inputs, *outputs} if place not in needed]
            needed.update(inputs)
            steps.append(_Step(piece, inputs, outputs, spent))
        self._steps = steps[::-1]

    def run(self, arguments: Sequence[Array]) -> list[Array]:
        """The results, in order."""
        values = list(self._values)
        for place, value in zip(self._given, arguments, strict=True):
            values[place] = value
        for piece, inputs, outputs, spent in self._steps:
            for place, value in zip(outputs, piece(*[values[i] for i in inputs]), strict=True):
                values[place] = value
            for place in spent:
                values[place] = None
        return [values[place] for place in self._results]

    def _place(self, constant: Any = None) -> int:
        self._values.append(None if constant is None else jax.device_put(constant, self._device))
        return len(self._values) - 1

    def _flatten(self, closed: ClosedJaxpr, given: Sequence[int], flat: list[tuple[Any, list[int], list[int]]]) -> list[int]:
        """Append the primitives of a function and of those that it calls; the places of its results."""
        jaxpr = closed.jaxpr
        places = dict(zip(jaxpr.constvars, map(self._place, closed.consts), strict=True))
        places.update(zip(jaxpr.invars, given, strict=True))

        def place(atom: Any) -> int:
            kind: Any = atom.aval
            return self._place(np.asarray(atom.val, kind.dtype)) if isinstance(atom, Literal) else places[atom]

        for equation in jaxpr.eqns:
            inputs = [place(atom) for atom in equation.invars]
            called = next(_called(equation), None)
            if called is not None:
                outputs = self._flatten(called, inputs, flat)
            elif equation.primitive.name == "optimization_barrier":  # where nothing is fused it has nothing to keep apart
                outputs = inputs
            else:
                outputs = [self._place() for _ in equation.outvars]
                flat.append((equation, inputs, outputs))
            places.update(zip(equation.outvars, outputs, strict=True))
        return [place(atom) for atom in jaxpr.outvars]


def _called(equation: Any) -> Iterator[ClosedJaxpr]:
    """The function that an equation does nothing but call; custom derivatives have been taken when it is run."""
    if equation.primitive.name in ("checkpoint", "remat", "remat2"):
        yield ClosedJaxpr(equation.params["jaxpr"], ())
    if equation.primitive.name in ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"):
        yield from (equation.params[name] for name in ("jaxpr", "call_jaxpr", "fun_jaxpr") if name in equation.params)


_PIECES: dict[Hashable, Piece] = {}
"""Compiled primitives by what they compute, of what and where."""


def _pieces(equations: Sequence[Any], device: jax.Device) -> list[Piece]:
    """The pieces of some equations; those that are not there yet are compiled, as many at once as there are cores."""
    keys = [(device, *_kinds(e.invars), e.primitive.name, _frozen(e.params)) for e in equations]
    missing = {key: equation for key, equation in zip(keys, equations, strict=True) if key not in _PIECES}
    options = quick_options(device.platform)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = {key: pool.submit(_lowered(equation, device).compile, options) for key, equation in missing.items()}
    _PIECES.update({key: piece.result() for key, piece in compiled.items()})
    return [_PIECES[key] for key in keys]


def _lowered(equation: Any, device: jax.Device) -> Any:
    """A primitive as a program of its own; this is Python's work and done on one core."""
    primitive, place = equation.primitive, jax.sharding.SingleDeviceSharding(device)

    def run(*values: Array) -> Sequence[Array]:
        found = primitive.bind(*values, **equation.params)
        return list(found) if primitive.multiple_results else [found]

    shape: Any = jax.ShapeDtypeStruct
    shapes = [shape(v.aval.shape, v.aval.dtype, sharding=place) for v in equation.invars]
    return jax.jit(run, out_shardings=place).lower(*shapes)


# --- what a primitive computes, as something that can be compared -----------------------------------------------


def _kinds(atoms: Sequence[Any]) -> tuple[Hashable, ...]:
    return tuple((atom.aval.shape, str(atom.aval.dtype)) for atom in atoms)


@lru_cache(4096)
def _body(jaxpr: Any) -> Hashable:
    """The body of a loop, its variables numbered in the order in which they appear."""
    names: dict[Any, int] = {}

    def atoms(found: Sequence[Any]) -> Hashable:
        parts = [_frozen(np.asarray(a.val)) if isinstance(a, Literal) else names.setdefault(a, len(names)) for a in found]
        return tuple(parts), _kinds(found)

    head = atoms([*jaxpr.constvars, *jaxpr.invars])
    body = tuple((e.primitive.name, _frozen(e.params), atoms(e.invars), atoms(e.outvars)) for e in jaxpr.eqns)
    return len(jaxpr.constvars), head, body, atoms(jaxpr.outvars)


def _frozen(value: Any) -> Hashable:
    """A parameter of an equation; functions count by name, since a piece never differentiates what it holds."""
    if isinstance(value, ClosedJaxpr):
        return _body(value.jaxpr), tuple(_frozen(np.asarray(const)) for const in value.consts)
    if isinstance(value, Jaxpr):
        return _body(value)
    if isinstance(value, np.ndarray | Array):
        values = np.asarray(value)
        return values.shape, values.dtype.str, values.tobytes()
    if isinstance(value, Mapping):
        return tuple((name, _frozen(entry)) for name, entry in sorted(value.items()))
    if isinstance(value, tuple | list):
        return (type(value).__name__, *(_frozen(entry) for entry in value))
    if isinstance(value, float):
        return value.hex()
    if callable(value) and not isinstance(value, type):
        return getattr(value, "__name__", type(value).__name__)
    return type(value).__name__, value
