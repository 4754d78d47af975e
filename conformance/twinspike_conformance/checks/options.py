"""Options are read: an answer that one option leaves as it is, where the reference gives another, was given without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.checks import check_operation
from twinspike.errors import SpecError
from twinspike.operations import OPERATIONS, Nothing, Operation
from twinspike.precision import PRECISIONS
from twinspike_conformance.cases import CASES, Example, Material, materialize
from twinspike_conformance.checks.base import Bench, Check, space_of
from twinspike_conformance.checks.relations import answer
from twinspike_conformance.finding import Finding, holds
from twinspike_conformance.judge import roundoff_of
from twinspike_conformance.options import changed

Values = NDArray[Any]

CLEAR = 16
"""Roundoffs of an array's largest element by which the reference's answers must differ to speak of a difference:
not a tolerance, since the backend's answers are then asked to differ at all."""


def _matters(bench: Bench, example: Example) -> list[Finding]:
    """Changing one option changes the answer wherever it changes the reference's."""
    row, precision = OPERATIONS[example.operation], PRECISIONS[bench.session.precision]
    material = materialize(CASES[example.operation], example, precision.activations)
    room = CLEAR * max(roundoff_of(precision), precision.roundoff)
    plain = answer(bench.session, row, material.config, material.inputs, material.cotangents)
    expected = _reference(row, material.config, material)
    found = []
    for option, other, right in _alternatives(row, material):
        differing = [name for name in expected if name in right and _differ(expected[name], right[name], room)]
        if not differing:
            continue
        moved = _answer(bench, row, other, material, right)
        for name in differing:
            same = moved[name].shape == plain[name].shape and np.array_equal(moved[name], plain[name])
            text = "the answer without the change" if same else "another answer"
            found.append(holds(f"{name}, {option} changed", not same, got=text, want="another answer", clauses=row.clauses))
    return found


def _alternatives(row: Operation, material: Material) -> Iterator[tuple[str, Any, dict[str, Values]]]:
    """Configs with one option changed that take the same inputs, and the reference's answer."""
    shapes = {k: v.shape for k, v in material.inputs.items()}
    floating = {k: v.dtype.kind == "f" for k, v in material.inputs.items()}
    for option, other in changed(material.config):
        try:
            check_operation(row.name, other, shapes, floating)
            yield option, other, _reference(row, other, material)
        except (SpecError, ValueError):
            continue  # the option decides what shapes go in


def _reference(row: Operation, config: Any, material: Material) -> dict[str, Values]:
    """Outputs, and gradients where the cotangents fit them."""
    with np.errstate(all="ignore"):
        found: dict[str, Values] = dict(row.forward(config, material.inputs))
        if row.adjoint is not None and _fit(found, material):
            gradients = row.adjoint(config, material.inputs, material.cotangents)
            found |= {f"gradient of {k}": v for k, v in gradients.items()}
    return found


def _answer(bench: Bench, row: Operation, config: Any, material: Material, right: dict[str, Values]) -> dict[str, Values]:
    if row.adjoint is None or _fit(right, material):
        return answer(bench.session, row, config, material.inputs, material.cotangents)
    inputs = {k: bench.session.from_numpy(v) for k, v in material.inputs.items()}
    return {k: bench.session.to_numpy(v) for k, v in bench.session.forward(row.name, config, inputs).items()}


def _fit(outputs: dict[str, Values], material: Material) -> bool:
    return all(outputs[name].shape == g.shape for name, g in material.cotangents.items())


def _differ(a: Values, b: Values, room: float) -> bool:
    if a.shape != b.shape:
        return True
    return bool(np.any(np.abs(a - b) > room * np.abs(a).max(initial=0.0)))


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
        weight=0.25,
    )


CHECKS: tuple[Check, ...] = tuple(_check(row) for row in OPERATIONS.values() if row.config is not Nothing)
