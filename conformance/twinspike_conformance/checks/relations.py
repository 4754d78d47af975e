"""Relations between answers of one backend: they need no reference, and see what an example alone can't.

All are exact: on dyadic data by the bit budget, on other data because powers of two change no rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.config import Neuron
from twinspike.operations import OPERATIONS, Operation
from twinspike.precision import PRECISIONS
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.cases import CASES, Example, Material, materialize
from twinspike_conformance.checks.base import Bench, Check, answer, space_of
from twinspike_conformance.judges.operations import proved_exact

Values = NDArray[Any]
Named = dict[str, Values]


def _prepare(bench: Bench, example: Example) -> tuple[Operation, Material, bool]:
    precision = PRECISIONS[bench.session.precision]
    material = materialize(CASES[example.operation], example, precision.activations)
    return OPERATIONS[example.operation], material, proved_exact(example, material, precision)


def _equal(row: Operation, found: Named, want: Named, names: set[str] | None = None) -> list[Finding]:
    keys = [k for k in want if names is None or k in names]
    return [compare(k, found[k], want[k], 0.0, rung="property", clauses=row.clauses) for k in keys]


def _axis(dims: str, letter: str) -> int | None:
    letters = dims.replace("?", "").split()
    return letters.index(letter) if letter in letters else None


# --- batch -------------------------------------------------------------------------------------------

_PER_SAMPLE = ("lif", "conv2d", "avg_pool", "global_pool", "linear", "batch_norm_eval", "readout")


def _batch(bench: Bench, example: Example) -> list[Finding]:
    """A batch gives what its samples give one by one."""
    row, material, exact = _prepare(bench, example)
    if not exact and row.name != "lif":
        return []
    whole = answer(bench.session, row, material.config, material.inputs, material.cotangents)
    axes = {name: _axis(dims, "B") for name, dims in (row.inputs | row.outputs).items()}
    size = next(v.shape[axes[k]] for k, v in material.inputs.items() if axes[k] is not None)  # type: ignore[index]
    parts = []
    for i in range(size):

        def one(values: Mapping[str, Values], i: int = i) -> Named:
            return {k: v if axes[k] is None else v.take([i], axis=axes[k]) for k, v in values.items()}

        parts.append(answer(bench.session, row, material.config, one(material.inputs), one(material.cotangents)))
    joined = {}
    for name in whole:
        axis = axes[name.removeprefix("gradient of ")]
        if axis is not None:
            joined[name] = np.concatenate([part[name] for part in parts], axis=axis)
        elif exact:  # a shared quantity's gradient is the sum over samples
            joined[name] = np.sum([part[name] for part in parts], axis=0)
    return _equal(row, whole, joined)


# --- memory layout -----------------------------------------------------------------------------------


def _strided(bench: Bench, example: Example) -> list[Finding]:
    """Inputs that lie in memory in another order, with gaps or backwards, give the same results, bit for bit."""
    row, material, exact = _prepare(bench, example)
    plain = answer(bench.session, row, material.config, material.inputs, material.cotangents)

    if not exact:
        return []
    rng = np.random.Generator(np.random.Philox(example.seed))

    def scattered(values: Mapping[str, Values]) -> Named:
        return {k: _elsewhere(v, rng.permutation(v.ndim), int(rng.integers(4))) for k, v in values.items()}

    moved = answer(bench.session, row, material.config, scattered(material.inputs), scattered(material.cotangents))
    return _equal(row, moved, plain)


def _elsewhere(values: Values, order: Values, kind: int) -> Values:
    """The same array with its axes in that order of memory: dense, with gaps, backwards, or with gaps along every axis."""
    if not values.ndim:
        return values
    moved = np.ascontiguousarray(values.transpose(order))
    if kind == 1:
        moved = np.repeat(moved, 2, axis=-1)[..., ::2]
    elif kind == 2:
        moved = np.flip(np.flip(moved).copy())
    elif kind == 3:
        gaps = (slice(None, None, 2),) * moved.ndim
        wide = np.zeros(tuple(2 * n for n in moved.shape), moved.dtype)
        wide[gaps] = moved
        moved = wide[gaps]
    return moved.transpose(np.argsort(order))


# --- time --------------------------------------------------------------------------------------------


def _split(bench: Bench, example: Example) -> list[Finding]:
    """LIF-5: a sequence split at any step, its state carried over, gives the results of the whole, gradients included."""
    row, material, exact = _prepare(bench, example)
    x, cotangents = material.inputs["x"], material.cotangents
    if len(x) < 2 or not exact:
        return []
    at = 1 + example.seed % (len(x) - 1)
    shared = {k: v for k, v in material.inputs.items() if k in ("decay", "threshold")}
    whole = answer(bench.session, row, material.config, material.inputs, cotangents)
    start = {"v": material.inputs["v"]} if "v" in material.inputs else {}
    zeros = {"s": cotangents["s"][:at], "v": np.zeros_like(cotangents["v"])}
    carried = answer(bench.session, row, material.config, {"x": x[:at], **start, **shared}, zeros)["v"]
    after = {"s": cotangents["s"][at:], "v": cotangents["v"]}
    second = answer(bench.session, row, material.config, {"x": x[at:], "v": carried, **shared}, after)
    before = {"s": cotangents["s"][:at], "v": second["gradient of v"]}
    first = answer(bench.session, row, material.config, {"x": x[:at], **start, **shared}, before)
    want = {k: np.concatenate([first[k], second[k]]) for k in ("s", "u", "gradient of x")}
    want |= {"v": second["v"]}
    want |= {k: first[k] for k in ("gradient of v",) if k in whole}
    want |= {k: first[k] + second[k] for k in ("gradient of decay", "gradient of threshold") if k in whole}
    return _equal(row, whole, want)


# --- powers of two -----------------------------------------------------------------------------------

_LINEAR: dict[str, tuple[str, ...]] = {
    "conv2d": ("x",),
    "avg_pool": ("x",),
    "global_pool": ("x",),
    "readout": ("x",),
    "relu": ("x",),
    "compose": ("U",),
    "linear": ("x", "bias"),
}
"""Operations that are homogeneous in some of their inputs."""


def _doubled(bench: Bench, example: Example) -> list[Finding]:
    """Inputs times 4 give outputs times 4, bit for bit: scaling by a power of two changes no rounding."""
    row, material, _ = _prepare(bench, example)
    scaled = {k: v * 4.0 if k in _LINEAR[row.name] else v for k, v in material.inputs.items()}
    plain = answer(bench.session, row, material.config, material.inputs, material.cotangents)
    moved = answer(bench.session, row, material.config, scaled, material.cotangents)
    return _equal(row, moved, {k: v * 4.0 for k, v in plain.items() if k in row.outputs})


def _rescaled_neuron(bench: Bench, example: Example) -> list[Finding]:
    """Currents, threshold, reset and width times 4 give the same spikes, and potentials times 4."""
    row, material, _ = _prepare(bench, example)
    config: Neuron = material.config
    scale = (
        {"width": config.surrogate.width * 4.0} if hasattr(config.surrogate, "width") else {"slope": config.surrogate.slope / 4.0}
    )
    fields = {f: getattr(config, f) for f in config.__struct_fields__}
    fields |= {"threshold": config.threshold * 4.0, "v_reset": config.v_reset * 4.0, "surrogate": type(config.surrogate)(**scale)}
    inputs = {k: v * (1.0 if k == "decay" else 4.0) for k, v in material.inputs.items()}
    plain = answer(bench.session, row, config, material.inputs, material.cotangents)
    moved = answer(bench.session, row, Neuron(**fields), inputs, material.cotangents)
    return _equal(row, moved, {"s": plain["s"], "u": plain["u"] * 4.0, "v": plain["v"] * 4.0})


# --- modes -------------------------------------------------------------------------------


def _modes(bench: Bench, example: Example) -> list[Finding]:
    """Eager and compiled give the same results, bit for bit on dyadic data."""
    row, material, exact = _prepare(bench, example)
    session = bench.session
    if not exact:
        return []
    other = bench.in_mode(not session.compiled)
    plain = answer(session, row, material.config, material.inputs, material.cotangents)
    return _equal(row, answer(other, row, material.config, material.inputs, material.cotangents), plain)


def _check(
    kind: str,
    operation: str,
    sentence: str,
    run: Callable[[Bench, Example], list[Finding]],
    exact: bool,
    weight: float,
    bucket: int | None = None,
) -> Check:
    space = space_of(operation, exact, bucket)
    if space is None:
        raise AssertionError(f"{operation} has no such lane")
    return Check(
        id=f"{kind}[{operation}]",
        sentence=sentence,
        clauses=OPERATIONS[operation].clauses,
        rung="property",
        needs=frozenset({operation, "compiled"} if kind == "modes" else {operation}),
        space=space,
        run=run,
        weight=weight,
    )


_COMPILED = {"lif": 1}
"""Bucket of `modes` where it is not the first: each costs two compilations, and four steps often need too many bits."""

_EXACT = tuple(name for name in CASES if space_of(name, True) is not None)

CHECKS: tuple[Check, ...] = (
    *(
        _check("batch", name, str(_batch.__doc__), _batch, space_of(name, True) is not None, 0.5)
        for name in _PER_SAMPLE
        if name in _EXACT
    ),
    *(_check("strided", name, str(_strided.__doc__), _strided, True, 0.5) for name in _EXACT),
    *(_check("modes", name, str(_modes.__doc__), _modes, True, 0.15, _COMPILED.get(name, 0)) for name in _EXACT),
    *(_check("doubled", name, str(_doubled.__doc__), _doubled, False, 0.5) for name in _LINEAR),
    _check("split", "lif", str(_split.__doc__), _split, True, 0.5),
    _check("rescaled", "lif", str(_rescaled_neuron.__doc__), _rescaled_neuron, False, 0.2),
)
