"""Options are read: an answer that one option leaves as it is, where the reference gives another, was given without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.checks import check_operation
from twinspike.config import Neuron
from twinspike.errors import SpecError
from twinspike.operations import OPERATIONS, Composition, Nothing, Operation
from twinspike.precision import PRECISIONS, Precision
from twinspike_conformance.bounds.finding import Finding, holds
from twinspike_conformance.cases import CASES, Example, Material, materialize
from twinspike_conformance.cases.alternatives import changed
from twinspike_conformance.checks.base import Bench, Check, answer, space_of
from twinspike_conformance.judges.operations import Allowed, allowed, fits, reference, roundoff_of

Values = NDArray[Any]

Ranged = dict[str, tuple[Values, Values]]
"""Quantity -> (value, how far a right answer may be from it)."""

_CERTIFIED = ("lif", "factorize", "retract")
"""Operations without a bound of the whole: their answers must differ by the roundings of as many sums as there are elements."""


def _matters(bench: Bench, example: Example) -> list[Finding]:
    """Changing one option changes the answer wherever it changes the reference's by more than rounding could."""
    row, precision = OPERATIONS[example.operation], PRECISIONS[bench.session.precision]
    material = materialize(CASES[example.operation], example, precision.activations)
    plain = answer(bench.session, row, material.config, material.inputs, material.cotangents)
    expected = _reference(row, material.config, material, precision)
    found = []
    for option, other, right in _alternatives(row, material, precision):
        differing = [name for name in expected if name in right and _differ(expected[name], right[name])]
        if not differing:
            continue
        moved = _answer(bench, row, other, material, right)
        for name in differing:
            same = moved[name].shape == plain[name].shape and np.array_equal(moved[name], plain[name])
            text = "the answer without the change" if same else "another answer"
            found.append(holds(f"{name}, {option} changed", not same, got=text, want="another answer", clauses=row.clauses))
    return found


def _alternatives(row: Operation, material: Material, precision: Precision) -> Iterator[tuple[str, Any, Ranged]]:
    """Configs with one option changed that take the same inputs, and the reference's answer."""
    shapes = {k: v.shape for k, v in material.inputs.items()}
    floating = {k: v.dtype.kind == "f" for k, v in material.inputs.items()}
    for option, other in changed(material.config):
        try:
            check_operation(row.name, other, shapes, floating)
            yield option, other, _reference(row, other, material, precision)
        except (SpecError, ValueError):
            continue  # the option decides what shapes go in


def _reference(row: Operation, config: Any, material: Material, precision: Precision) -> Ranged:
    """Outputs, and gradients where the cotangents fit them."""
    inputs, cotangents = material.inputs, material.cotangents
    with np.errstate(all="ignore"):
        if row.name not in _CERTIFIED:
            return dict(allowed(row, config, inputs, cotangents, precision))
        found = reference(row, config, inputs, cotangents)
    unit, given = roundoff_of(precision), [np.abs(v).max(initial=1.0) for v in (*inputs.values(), *cotangents.values())]
    least = float(np.finfo(precision.storage).tiny) * float(max(given)) ** 3  # what underflows, times what it meets
    unsure = _undecided(config, inputs, found["u"], unit) if row.name == "lif" else None
    return {k: Allowed(v, v.size * (unit * np.abs(v).max(initial=0.0) + least) + _spread(unsure, v)) for k, v in found.items()}


def _undecided(neuron: Neuron, inputs: dict[str, Values], u: Values, unit: float) -> Values:
    """Neurons (B, C, *d) with a potential so near the threshold, at some step, that rounding decides."""
    threshold = np.asarray(inputs.get("threshold", neuron.threshold))
    wide = threshold.reshape(-1, *(1,) * (u.ndim - 3)) if threshold.ndim else threshold
    largest = np.maximum(np.abs(u), np.abs(inputs["x"])).max(axis=0) + np.abs(inputs.get("v", 0.0)) + wide
    return np.asarray((np.abs(u - wide) <= 4 * len(u) * unit * largest).any(axis=0))


def _spread(unsure: Values | None, value: Values) -> Values | float:
    """No bound for what an undecided neuron gives, nor for a sum that one is part of."""
    if unsure is None or not unsure.any():
        return 0.0
    of_neurons = value.shape[value.ndim - unsure.ndim :] == unsure.shape
    return np.where(unsure, np.inf, 0.0) if of_neurons else np.inf


def _answer(bench: Bench, row: Operation, config: Any, material: Material, right: Ranged) -> dict[str, Values]:
    if row.adjoint is None or fits({k: value for k, (value, _) in right.items()}, material.cotangents):
        return answer(bench.session, row, config, material.inputs, material.cotangents)
    inputs = {k: bench.session.from_numpy(v) for k, v in material.inputs.items()}
    return {k: bench.session.to_numpy(v) for k, v in bench.session.forward(row.name, config, inputs).items()}


def _differ(a: tuple[Values, Values], b: tuple[Values, Values]) -> bool:
    if a[0].shape != b[0].shape:
        return True
    return bool(np.any(np.abs(a[0] - b[0]) > a[1] + b[1]))


def _check(row: Operation) -> Check:
    space = space_of(row.name, False)
    if space is None:
        raise AssertionError(f"{row.name} has no examples")
    return Check(
        id=f"matters[{row.name}]",
        sentence=str(_matters.__doc__),
        clauses=row.clauses,
        rung="property",
        needs=frozenset({row.name}),
        space=space,
        run=_matters,
        eager=True,
        weight=0.25,
    )


_OF_SHAPES = (Nothing, Composition)
"""Configs that no option changes under the same inputs: under each `matricize` compose takes factors of other shapes."""

CHECKS: tuple[Check, ...] = tuple(_check(row) for row in OPERATIONS.values() if row.config not in _OF_SHAPES)
