"""Large examples: beyond the blocks, tiles and bytes that kernels work in, where what is right in small may be wrong.

Each is held against the reference, and against itself: a sum does not depend on what its terms are called, and a
linear map and its adjoint give one product. Shapes are those of `Cases.large`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.config import encode
from twinspike.operations import OPERATIONS, TABLE, Operation
from twinspike.precision import PRECISIONS, Precision
from twinspike_conformance.bounds.budget import Budget
from twinspike_conformance.bounds.finding import Finding, Rung, compare
from twinspike_conformance.cases import CASES, Example, Material, materialize
from twinspike_conformance.checks.base import Bench, Check, Space, answer
from twinspike_conformance.judges.operations import GRADIENT, allowed, examine, proved_exact

Values = NDArray[Any]
Named = dict[str, Values]

Run = Callable[[Bench, Example], list[Finding]]

FEW = 8
"""Pairs of a shape and a config, or one for each shape where there are more of these: each costs a compilation."""


def large_space(
    operation: str, exact: bool, *, small: bool = False, wanted: Callable[[Any], bool] = lambda config: True
) -> Space | None:
    """Large examples of an operation in one lane: every shape with a few configs; None where there are none.

    Args:
        operation: of the table.
        exact: which lane.
        small: put the usual shapes before the large ones, which may leave no room for exactness in short formats.
        wanted: which configs are of use.
    """
    cases = CASES[operation]
    groups = [(cases.large_configs or cases.configs, cases.large)]
    if small:
        groups.insert(0, (cases.configs, cases.buckets))
    pairs: list[tuple[Any, dict[str, int]]] = []
    for given, shapes in groups:
        configs = [c for c in given if wanted(c) and (not exact or (cases.budget is not None and cases.exact(c)))]
        if configs and shapes:
            each = min(len(configs), max(1, FEW // len(shapes)))
            pairs += [(configs[i % len(configs)], shapes[i // each]) for i in range(each * len(shapes))]
    if not pairs:
        return None
    buckets = tuple(shape for _, shapes in groups for shape in shapes)
    families = cases.exact_families if exact else cases.families
    pinned = tuple(buckets.index(shape) for _, shape in pairs)
    return Space(operation, tuple(encode(c) for c, _ in pairs), buckets, families, exact, pinned)


def prepare(bench: Bench, example: Example) -> tuple[Operation, Material, Precision]:
    """Row, numbers and precision of an example."""
    precision = PRECISIONS[bench.session.precision]
    return OPERATIONS[example.operation], materialize(CASES[example.operation], example, precision.activations), precision


def _large(bench: Bench, example: Example) -> list[Finding]:
    """In large shapes, values and gradients are those of the reference, as in small ones."""
    return examine(bench.session, example)


# --- other names for the same terms ------------------------------------------------------------------

_AXES: dict[str, tuple[str, ...]] = {
    "spike": ("*d",),
    "relu": ("*d",),
    "optimizer_step": ("*d",),
    "conv2d": ("B", "I", "O"),
    "avg_pool": ("B", "C"),
    "global_pool": ("B", "C"),
    "linear": ("B", "I", "O"),
    "readout": ("B", "F"),
    "compose": ("r",),
    "penalty": ("*p", "r"),
    "batch_norm_train": ("B", "C"),
    "batch_norm_eval": ("T", "B", "C"),
    "cross_entropy": ("B", "K"),
    "distillation": ("B", "K"),
    "feature_loss": ("B", "F"),
    "joint_loss": ("B", "K", "F", "S"),
}
"""Axes along which an operation treats all entries alike, by the letters of the operations table."""


def _along(dims: str, letter: str) -> int | None:
    """The axis of a letter, counted from the end behind a variable number of axes; None where there is none."""
    letters = dims.replace("?", "").split()
    if letter not in letters:
        return None
    at = letters.index(letter)
    if letter == "*d":
        return -1
    return at - len(letters) if any(part.startswith("*") for part in letters[:at]) else at


def _letters(row: Operation, config: Any) -> tuple[str, ...]:
    """Of the axes above, and time where all of it is normalized together."""
    return (*_AXES[row.name], "T") if getattr(config, "time", "") == "folded" else _AXES[row.name]


def _size(row: Operation, material: Material, letter: str) -> int:
    axes = {name: _along(row.inputs[name], letter) for name in material.inputs}
    return next(len(np.moveaxis(material.inputs[name], axis, 0)) for name, axis in axes.items() if axis is not None)


def _permuted(bench: Bench, example: Example) -> list[Finding]:
    """Samples, channels, classes, ranks or elements in another order give the results of before in that order."""
    row, material, precision = prepare(bench, example)
    dims, rng = row.inputs | row.outputs, np.random.Generator(np.random.Philox(example.seed))
    sizes = {letter: _size(row, material, letter) for letter in _letters(row, material.config)}
    letters = sorted(sizes, key=lambda letter: -sizes[letter])
    letter = letters[0 if example.seed % 3 else rng.integers(len(letters))]  # two times of three the longest axis
    axes = {name: _along(dims[name], letter) for name in dims}
    order = rng.permutation(sizes[letter])
    back = np.argsort(order)

    def moved(values: Named, places: Values) -> Named:
        along = {name: axes[name.removeprefix(GRADIENT)] for name in values}
        return {name: v if (axis := along[name]) is None else np.take(v, places, axis=axis) for name, v in values.items()}

    inputs = moved(material.inputs, order)
    if letter == "K" and "labels" in inputs:
        inputs["labels"] = back[inputs["labels"]]
    plain = answer(bench.session, row, material.config, material.inputs, material.cotangents)
    other = moved(answer(bench.session, row, material.config, inputs, moved(material.cotangents, order)), back)
    right = allowed(row, material.config, material.inputs, material.cotangents, precision)
    return [
        compare(f"{k}, {letter} in another order", other[k], plain[k], 2.0 * right[k].bound, rung="bound", clauses=row.clauses)
        for k in plain
    ]


# --- a linear map and its adjoint --------------------------------------------------------------------

_LINEAR: dict[str, tuple[tuple[str, ...], ...]] = {
    "conv2d": (("x",), ("kernel",)),
    "avg_pool": (("x",),),
    "global_pool": (("x",),),
    "linear": (("x", "bias"), ("weight", "bias")),
    "readout": (("x",),),
    "compose": (("U",), ("sigma",), ("V",)),
}
"""Operations, and inputs that they are linear in together: <g, y> is the sum of <gradient of x, x> over these."""


def _dual(bench: Bench, example: Example) -> list[Finding]:
    """A linear operation and its adjoint agree: <g, y(x)> equals <gradient of x, x>, exactly where nothing is rounded."""
    row, material, precision = prepare(bench, example)
    if not proved_exact(example, material, precision):
        return []
    found = answer(bench.session, row, material.config, material.inputs, material.cotangents)
    (output,) = row.outputs
    pairs = {"output": [(found[output], material.cotangents[output])]}
    pairs |= {
        " and ".join(names): [(found[GRADIENT + name], material.inputs[name]) for name in names] for names in _LINEAR[row.name]
    }
    budget = Budget()
    for terms in pairs.values():
        for a, b in terms:
            (budget.of(a) * budget.of(b)).sum(2 * a.size)
    if not budget.fits("float64"):
        return []
    sums = {name: sum(float((a.astype(np.float64) * b).sum()) for a, b in terms) for name, terms in pairs.items()}
    want = sums.pop("output")
    return [
        compare(f"product with the gradient of {name}", got, want, 0.0, rung="property", clauses=row.clauses)
        for name, got in sums.items()
    ]


_RELATIONS: tuple[tuple[str, tuple[str, ...], bool, Run], ...] = (
    ("permuted", tuple(_AXES), False, _permuted),
    ("dual", tuple(_LINEAR), True, _dual),
)
"""Kind, its operations, whether it is about the exact lane, and the check."""


def large_check(
    kind: str,
    operation: str,
    run: Run,
    *,
    exact: bool = False,
    rung: Rung = "property",
    needs: str = "",
    weight: float = 1.0,
    families: tuple[str, ...] = (),
    wanted: Callable[[Any], bool] = lambda config: True,
) -> Check:
    """A check of an operation in large shapes, which may need others beside it, separated by blanks, with configs `wanted`."""
    space = large_space(operation, exact, small=run is _dual, wanted=wanted)
    if space is None:
        raise AssertionError(f"{operation} has no such lane")
    if families:
        space = msgspec.structs.replace(space, families=families)
    return Check(
        id=f"{kind}]" if "[" in kind else f"{kind}[{operation}]",
        sentence=" ".join(str(run.__doc__).split("\n\n", maxsplit=1)[0].split()),
        clauses=OPERATIONS[operation].clauses,
        rung=rung,
        needs=frozenset({operation, *needs.split()}),
        space=space,
        run=run,
        weight=weight,
        eager=True,
    )


def _checks() -> Iterator[Check]:
    for row in TABLE:
        for lane, exact in (("exact", True), ("rounded", False)):
            if large_space(row.name, exact) is not None:
                rung: Rung = "exact" if exact else "bound"
                yield large_check(f"sizes[{row.name}-{lane}", row.name, _large, exact=exact, rung=rung)
    for kind, names, exact, run in _RELATIONS:
        yield from (large_check(kind, name, run, exact=exact) for name in names)


CHECKS: tuple[Check, ...] = tuple(_checks())
