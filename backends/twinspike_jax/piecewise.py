"""Running a function so that it answers soon, each of its primitives rounded by itself.

Sessions that are not compiled exist to be compared with, so what counts is how soon they answer. JAX alone compiles
each primitive with all optimizations, anew for every constant in it, for a hundred times the time that it will ever
run. Here a function is traced once and flattened to primitives, constants become arguments, and XLA leaves out what
makes it slow. Where it was seen to round every primitive by itself, the whole function is one program: compiling one
takes as long as some twenty of its primitives, even if it has only one. Elsewhere every primitive is a program, so
that nothing is fused, and as many are compiled at once as there are cores. Equal ones serve all functions of the
process in either case.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal  # type: ignore[attr-defined, unused-ignore]  # jax 0.12 doesn't say so

WISHES: Mapping[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,  # many programs are compiled at once
    "xla_llvm_disable_expensive_passes": True,
}
"""What makes XLA's CPU compiler several times as fast; versions of XLA that don't know one compile without it."""
TERMS: Mapping[str, Any] = {"xla_disable_hlo_passes": "algsimp", "xla_allow_excess_precision": False}
"""What programs of several primitives need: no formula is replaced by another, and no cast to a short format left out."""
TOGETHER = 200
"""Most primitives of a program where it may have several: longer ones take more than in proportion, and no second core."""

Piece = Callable[..., Sequence[Array]]


@lru_cache
def quick_options(platform: str) -> dict[str, Any] | None:
    """Those of the wishes that this version of XLA takes; None where there are none for the platform."""
    if platform != "cpu":
        return None
    return {name: value for name, value in WISHES.items() if _compiled(platform, {name: value}) is not None} or None


@lru_cache
def joint_options(platform: str) -> dict[str, Any] | None:
    """Options under which a program of several primitives rounds each of them by itself; None where there are none.

    A multiply-add and a cast there and back show it: at the lowest level of optimization the two roundings of the
    first stay two, even in one loop, and with excess precision forbidden the second loses its digits.
    """
    quick = quick_options(platform)
    if quick is None:
        return None
    options = {**quick, **TERMS}
    program = _compiled(platform, options)
    if program is None:
        return None
    a = np.full(64, 1 + 2.0**-12, np.float32)
    rest, cast = program(a, a, np.full(64, -1 - 2.0**-11, np.float32))
    return options if not np.any(rest) and np.all(np.asarray(cast) == 1) else None


def _compiled(platform: str, options: dict[str, Any]) -> Callable[..., Any] | None:
    """A program of a multiply-add and of a cast, on an array; None where XLA does not take the options."""
    place = jax.sharding.SingleDeviceSharding(jax.local_devices(backend=platform)[0])

    def function(a: Array, b: Array, c: Array) -> tuple[Array, Array]:
        return a * b + c, a.astype(jnp.bfloat16).astype(jnp.float32)

    struct: Any = jax.ShapeDtypeStruct
    shape = struct((64,), np.float32, sharding=place)
    try:
        found: Callable[..., Any] = jax.jit(function).lower(shape, shape, shape).compile(options)
    except jax.errors.JaxRuntimeError:
        return None
    return found


class Pieces:
    """A function of pytrees of arrays that is run as programs of one primitive or of all; pure, and traced once per shapes."""

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


class _Line(NamedTuple):
    """One primitive of a flattened function: it reads values from places and writes them to others."""

    equation: Any
    inputs: list[int]
    outputs: list[int]


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
        flat: list[_Line] = []
        self._results = self._flatten(closed, self._given, flat)
        needed, lines = set(self._results), []
        for line in reversed(flat):
            if not needed.isdisjoint(line.outputs):
                needed.update(line.inputs)
                lines.append(line)
        joint = joint_options(device.platform)
        size = 1 if joint is None else TOGETHER
        programs, spent, needed = [], [], set(self._results)
        for start in range(0, len(lines), size):
            program = _Program(lines[start : start + size][::-1], needed)
            programs.append(program)
            spent.append([place for place in {*program.inputs, *program.outputs} if place not in needed])
            needed.update(program.inputs)
        pieces = _pieces(programs, device, quick_options(device.platform) if joint is None else joint)
        steps = [_Step(piece, p.inputs, p.outputs, s) for piece, p, s in zip(pieces, programs, spent, strict=True)]
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

    def _flatten(self, closed: ClosedJaxpr, given: Sequence[int], flat: list[_Line]) -> list[int]:
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
            elif equation.primitive.name in ("optimization_barrier", "stop_gradient", "name"):  # which change no value
                outputs = inputs
            else:
                outputs = [self._place() for _ in equation.outvars]
                flat.append(_Line(equation, inputs, outputs))
            places.update(zip(equation.outvars, outputs, strict=True))
        return [place(atom) for atom in jaxpr.outvars]


def _called(equation: Any) -> Iterator[ClosedJaxpr]:
    """The function that an equation does nothing but call; custom derivatives have been taken when it is run."""
    if equation.primitive.name in ("checkpoint", "remat", "remat2"):
        yield ClosedJaxpr(equation.params["jaxpr"], ())
    if equation.primitive.name in ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"):
        yield from (equation.params[name] for name in ("jaxpr", "call_jaxpr", "fun_jaxpr") if name in equation.params)


class _Program:
    """Lines that are to be one program, and what of their values goes in and out."""

    def __init__(self, lines: Sequence[_Line], needed: Set[int]) -> None:
        self._lines = lines
        written = {place for line in lines for place in line.outputs}
        kinds = {place: atom.aval for line in lines for place, atom in zip(line.inputs, line.equation.invars, strict=True)}
        self._kinds = {place: kind for place, kind in kinds.items() if place not in written}
        self.inputs = list(self._kinds)
        self.outputs = [place for line in lines for place in line.outputs if place in needed]

    def key(self) -> Hashable:
        """What it computes and of what, places numbered in the order in which they appear."""
        names: dict[int, int] = {}

        def numbered(places: Sequence[int]) -> tuple[int, ...]:
            return tuple(names.setdefault(place, len(names)) for place in places)

        inputs = numbered(self.inputs)
        body = [
            (line.equation.primitive.name, _frozen(line.equation.params), numbered(line.inputs), numbered(line.outputs))
            for line in self._lines
        ]
        kinds = tuple((kind.shape, str(kind.dtype)) for kind in self._kinds.values())
        return inputs, kinds, tuple(body), numbered(self.outputs)

    def lowered(self, device: jax.Device) -> Any:
        """What XLA compiles; this is Python's work and done on one core."""
        place = jax.sharding.SingleDeviceSharding(device)

        def run(*given: Array) -> list[Array]:
            values = dict(zip(self.inputs, given, strict=True))
            for equation, inputs, outputs in self._lines:
                found = equation.primitive.bind(*[values[i] for i in inputs], **equation.params)
                values.update(zip(outputs, found if equation.primitive.multiple_results else [found], strict=True))
            return [values[place] for place in self.outputs]

        struct: Any = jax.ShapeDtypeStruct
        shapes = [struct(kind.shape, kind.dtype, sharding=place) for kind in self._kinds.values()]
        return jax.jit(run, out_shardings=place).lower(*shapes)


_PIECES: WeakValueDictionary[Hashable, Piece] = WeakValueDictionary()
"""Compiled programs by what they compute, of what and where, as long as any function needs them."""


def _pieces(programs: Sequence[_Program], device: jax.Device, options: dict[str, Any] | None) -> list[Piece]:
    """The programs compiled; those that are not there yet now, as many at once as there are cores."""
    keys: list[Hashable] = [(device, program.key()) for program in programs]
    found: dict[Hashable, Piece] = {key: piece for key in keys if (piece := _PIECES.get(key)) is not None}
    missing = {key: program for key, program in zip(keys, programs, strict=True) if key not in found}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = {key: pool.submit(program.lowered(device).compile, options) for key, program in missing.items()}
    found.update({key: piece.result() for key, piece in compiled.items()})
    _PIECES.update(found)
    return [found[key] for key in keys]


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
