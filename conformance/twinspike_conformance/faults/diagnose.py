"""From a wrong answer to the fault: which faults of the corpus would have given exactly this.

A hint for the reader of a failure and no verdict: the answer is wrong whether or not a fault is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from twinspike.operations import OPERATIONS
from twinspike.reference import rows
from twinspike_conformance.bounds.roundings import PRODUCT, SUM
from twinspike_conformance.cases import Example, Material
from twinspike_conformance.faults import FAULTS
from twinspike_conformance.faults.backend import modules
from twinspike_conformance.faults.base import Fault
from twinspike_conformance.faults.reach import reach

Named = dict[str, NDArray[Any]]


class Answered(Protocol):
    """What a backend answered: outputs, and gradients if the operation has any."""

    outputs: Named
    gradients: Named


def suspects(example: Example, material: Material, answer: Answered) -> tuple[str, ...]:
    """Ids of the faults whose faulty reference gives this answer.

    Bit for bit on dyadic data; on other data, and for faults that leave the dyadic numbers, within
    n u max|value| for n numbers that go in, a bound on what another order of the same steps can do.
    What the right reference gives as well, in the format of the answer, is no sign of any fault.

    Args:
        example: that failed.
        material: its numbers.
        answer: the backend's, wrong.
    """
    right = _run(rows, example.operation, material, answer)
    if right is not None and _agree(right, answer, 0.0):
        return ()
    runs = list(_runs(example.operation, material, answer))
    equal = tuple(fault.id for fault, found in runs if _agree(found, answer, 0.0))
    if equal:
        return equal
    roundings = (PRODUCT + SUM) * sum(np.size(value) for value in (*material.inputs.values(), *material.cotangents.values()))
    if right is not None and _agree(right, answer, roundings):
        return ()
    return tuple(fault.id for fault, found in runs if _agree(found, answer, roundings))


def described(ids: tuple[str, ...]) -> tuple[str, ...]:
    """`ID: description` of each."""
    by_id = {fault.id: fault for fault in FAULTS}
    return tuple(f"{name}: {by_id[name].description}" for name in ids)


@cache
def _touching(operation: str) -> tuple[Fault, ...]:
    return tuple(fault for fault in FAULTS if fault.edits and operation in reach(fault.edits).operations)


@cache
def _modules(fault: Fault) -> dict[str, ModuleType]:
    return modules(fault)


def _runs(operation: str, material: Material, answer: Answered) -> Iterator[tuple[Fault, tuple[Named, Named]]]:
    """What each fault that touches the operation answers, in the format of the answer; those that raise are left out."""
    for fault in _touching(operation):
        found = _run(_modules(fault)["rows"], operation, material, answer)
        if found is not None:
            yield fault, found


def _run(module: ModuleType, operation: str, material: Material, answer: Answered) -> tuple[Named, Named] | None:
    """Outputs and gradients by a reference, right or faulty, in the format of the answer; None if it raises."""
    form = next((v.dtype for v in answer.outputs.values() if v.dtype.kind == "f"), np.dtype(np.float64))
    inputs, cotangents = _copies(material.inputs, form), _copies(material.cotangents, form)
    try:
        with np.errstate(all="ignore"):
            outputs = getattr(module, operation)(material.config, inputs)
            if OPERATIONS[operation].adjoint is None:
                return outputs, {}
            return outputs, getattr(module, f"{operation}_adjoint")(material.config, inputs, cotangents)
    except Exception:  # a fault may break on any shape; then it did not give this answer
        return None


def _copies(values: Named, form: np.dtype[Any]) -> Named:
    return {name: np.array(value, form if value.dtype.kind == "f" else value.dtype) for name, value in values.items()}


def _agree(found: tuple[Named, Named], answer: Answered, units: float) -> bool:
    """Whether all values agree, to so many units of roundoff of the largest value."""
    for mine, theirs in zip(found, (answer.outputs, answer.gradients), strict=True):
        if set(mine) != set(theirs):
            return False
        for name, value in mine.items():
            other = theirs[name]
            if value.shape != other.shape:
                return False
            largest = np.abs(value).max(initial=0.0) if units else 0.0
            bound = units * largest * (np.finfo(other.dtype).eps / 2 if other.dtype.kind == "f" else 0.0)
            with np.errstate(invalid="ignore", over="ignore"):
                near = (value == other) | (np.abs(value - other) <= bound) | (np.isnan(value) & np.isnan(other))
            if not near.all():
                return False
    return True
