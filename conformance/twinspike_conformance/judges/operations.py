"""One example on one session: run it, and compare by the strictest rung that applies.

The exact rung decides wherever the bit budget proves that rounding has no room; certificates decide
where an operation takes decisions or is not unique; derived bounds decide the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Session
from twinspike.operations import OPERATIONS, Operation
from twinspike.precision import PRECISIONS, Precision
from twinspike_conformance.bounds.budget import Budget
from twinspike_conformance.bounds.finding import Finding, Rung, compare, holds
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.cases import CASES, Example, Material, materialize
from twinspike_conformance.judges import certificates
from twinspike_conformance.judges.variant import tracked

Values = NDArray[Any]


class Answer(msgspec.Struct):
    """What a backend answered, as NumPy arrays."""

    outputs: dict[str, Values]
    gradients: dict[str, Values]
    again: dict[str, Values]
    """Outputs of a second call."""
    beside: dict[str, Values]
    """Outputs of the call that gave the gradients; empty without one."""
    inputs_after: dict[str, Values]
    cotangents_after: dict[str, Values]


def roundoff_of(precision: Precision) -> float:
    """Unit roundoff for the bounds of float64 and float32 profiles; doubled in float64, where the reference errs as well."""
    return 2.0**-52 if precision.storage == "float64" else precision.roundoff


def product_of(precision: Precision) -> float:
    """Unit roundoff of the operands of products where these may be rounded on the way in, else 0 (clause PRE-3)."""
    return precision.product_roundoff if precision.name == "tf32" else 0.0


def ask(session: Session, row: Operation, material: Material) -> Answer:
    """Run an operation forward twice and, if it has an adjoint, backward."""
    inputs = {name: session.from_numpy(value) for name, value in material.inputs.items()}
    cotangents = {name: session.from_numpy(value) for name, value in material.cotangents.items()}

    def numpy(found: Mapping[str, Any]) -> dict[str, Values]:
        return {name: np.array(session.to_numpy(value)) for name, value in found.items()}

    outputs = numpy(session.forward(row.name, material.config, inputs))
    again = numpy(session.forward(row.name, material.config, inputs))
    gradients: dict[str, Values] = {}
    beside: dict[str, Values] = {}
    if row.adjoint is not None:
        with_gradients, found = session.vjp(row.name, material.config, inputs, cotangents)
        gradients, beside = numpy(found), numpy(with_gradients)
    return Answer(outputs, gradients, again, beside, numpy(inputs), numpy(cotangents))


def examine(session: Session, example: Example) -> list[Finding]:
    """All findings of one example on one session."""
    cases, row = CASES[example.operation], OPERATIONS[example.operation]
    precision = PRECISIONS[session.precision]
    material = materialize(cases, example, precision.activations)
    answer = ask(session, row, material)
    return judge(row, example, material, answer, precision)


def judge(row: Operation, example: Example, material: Material, answer: Answer, precision: Precision) -> list[Finding]:
    """Compare an answer with what the clauses allow."""
    found = _properties(row, material, answer, precision)
    if not all(finding.ok for finding in found):
        return found
    if example.exact and proved_exact(example, material, precision):
        return found + _exact(row, material, answer)
    certificate = _CERTIFICATES.get(row.name)
    if certificate is not None:
        return found + certificate(row, material, answer, precision)
    return found + _bounded(row, material, answer, precision)


def proved_exact(example: Example, material: Material, precision: Precision) -> bool:
    """Whether no partial result of the example can need rounding in the profile's format."""
    cases = CASES[example.operation]
    if cases.budget is None or not cases.exact(material.config):
        return False
    budget = Budget()
    cases.budget(budget, material.config, material.inputs, material.cotangents)
    return budget.fits(precision.activations if precision.product_roundoff != 2.0**-11 else "tf32")


def _properties(row: Operation, material: Material, answer: Answer, precision: Precision) -> list[Finding]:
    """Names, formats, repeatability, untouched inputs."""
    required = {name for name, dims in row.outputs.items() if not dims.endswith("?")}
    names = set(answer.outputs)
    want = f"{sorted(required)} and at most {sorted(row.outputs)}"
    found = [
        holds("names of outputs", required <= names <= set(row.outputs), got=str(sorted(names)), want=want, clauses=row.clauses)
    ]
    wanted = {name for name in row.differentiable if name in material.inputs} if row.adjoint else set()
    same = set(answer.gradients) == wanted
    found.append(
        holds("names of gradients", same, got=str(sorted(answer.gradients)), want=str(sorted(wanted)), clauses=row.clauses)
    )
    if not (found[0].ok and found[1].ok):
        return found
    formats = ("PRE-1",) if precision.activations == precision.storage else ("PRE-2",)
    for name, value in together(answer.outputs, answer.gradients).items():
        right = value.dtype == np.dtype(precision.storage)
        found.append(holds(f"format of {name}", right, got=str(value.dtype), want=precision.storage, clauses=formats))
    for name, value in answer.again.items():
        found.append(compare(f"{name}, second call", value, answer.outputs[name], 0.0, rung="property", clauses=row.clauses))
    for what, after in ((material.inputs, answer.inputs_after), (material.cotangents, answer.cotangents_after)):
        for name, before in what.items():
            found.append(compare(f"{name} after the call", after[name], before, 0.0, rung="property", clauses=("PRE-4",)))
    return found


def _exact(row: Operation, material: Material, answer: Answer) -> list[Finding]:
    """Bit for bit against the float64 reference."""
    want = row.forward(material.config, material.inputs)
    found = [
        compare(name + suffix, value, want[name], 0.0, rung="exact", clauses=row.clauses)
        for suffix, outputs in _calls(answer)
        for name, value in outputs.items()
    ]
    if row.adjoint is not None:
        gradients = row.adjoint(material.config, material.inputs, material.cotangents)
        for name, value in answer.gradients.items():
            found.append(compare(f"gradient of {name}", value, gradients[name], 0.0, rung="exact", clauses=row.clauses))
    return found


def _calls(answer: Answer) -> tuple[tuple[str, dict[str, Values]], ...]:
    """Outputs of the plain call and of the call with gradients, with a suffix for their names."""
    return ("", answer.outputs), (" beside gradients", answer.beside)


def track(values: Mapping[str, Values], precision: Precision) -> dict[str, Any]:
    """Float arrays as Tracked ones; integers as they are."""
    roundoff, product = roundoff_of(precision), product_of(precision)
    return {k: Tracked(v, roundoff=roundoff, product=product) if v.dtype.kind == "f" else v for k, v in values.items()}


GRADIENT = "gradient of "
"""Begins the name of a gradient where it stands beside outputs."""


def together(outputs: Mapping[str, Any], gradients: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs, and gradients as `gradient of NAME`."""
    return {**outputs, **{GRADIENT + name: value for name, value in gradients.items()}}


def fits(outputs: Mapping[str, Any], cotangents: Mapping[str, Values]) -> bool:
    """Whether cotangents have the shapes of their outputs, which an option may have changed."""
    return all(outputs[name].shape == g.shape for name, g in cotangents.items())


def reference(row: Operation, config: Any, inputs: Mapping[str, Values], cotangents: Mapping[str, Values]) -> dict[str, Values]:
    """The exact outputs, and as `gradient of NAME` gradients if the cotangents fit them."""
    return _run(row.forward, row.adjoint, config, inputs, cotangents)


def _run(
    forward: Callable[..., Any], adjoint: Callable[..., Any] | None, config: Any, inputs: Any, cotangents: Any
) -> dict[str, Any]:
    found: dict[str, Any] = dict(forward(config, inputs))
    if adjoint is None or not fits(found, cotangents):
        return found
    return together(found, adjoint(config, inputs, cotangents))


class Allowed(NamedTuple):
    """What the exact answer is, and how far from it a right one may be, element by element; 0 where no rounding comes in."""

    value: Values
    bound: Values


def allowed(
    row: Operation, config: Any, inputs: Mapping[str, Values], cotangents: Mapping[str, Values], precision: Precision
) -> dict[str, Allowed]:
    """The reference run in error-tracking arithmetic: outputs, and as `gradient of NAME` gradients if the cotangents fit them.

    In bf16-mixed a convolution's results, and no other's, are rounded to the format of activations (PRE-2).
    """
    rows = tracked()["rows"]
    functions = getattr(rows, row.name), getattr(rows, f"{row.name}_adjoint", None)
    found = _run(*functions, config, track(inputs, precision), track(cotangents, precision))
    sizes = _magnitudes(row, config, inputs, cotangents) if precision.cast and row.name == "conv2d" else {}
    return {name: _allowed(value, precision.cast * sizes[name] if sizes else 0.0) for name, value in found.items()}


def _allowed(right: Any, cast: Any) -> Allowed:
    value, error = (right.value, right.error) if isinstance(right, Tracked) else (np.asarray(right, np.float64), 0.0)
    zero = not np.any(value) and not np.any(error)
    return Allowed(value, np.broadcast_to(0.0 if zero else error + cast, value.shape))


def _bounded(row: Operation, material: Material, answer: Answer, precision: Precision) -> list[Finding]:
    """Against the reference run in error-tracking arithmetic; a detached path must give exact zeros."""
    right = allowed(row, material.config, material.inputs, material.cotangents, precision)
    pairs = [(name + suffix, value, right[name]) for suffix, outputs in _calls(answer) for name, value in outputs.items()]
    pairs += [(name, value, right[name]) for name, value in together({}, answer.gradients).items()]
    found = []
    for name, got, want in pairs:
        rung: Rung = "bound" if want.bound.any() or want.value.any() else "exact"
        found.append(compare(name, got, want.value, want.bound, rung=rung, clauses=row.clauses))
    return found


def _magnitudes(row: Operation, config: Any, inputs: Mapping[str, Values], cotangents: Mapping[str, Values]) -> dict[str, Values]:
    """Of sums of products, the sums of magnitudes, twice: an inner rounding to the format of activations and the last one."""
    sizes = ({k: np.abs(v) for k, v in values.items()} for values in (inputs, cotangents))
    return {k: 2 * v for k, v in reference(row, config, *sizes).items()}


def _certify_lif(row: Operation, material: Material, answer: Answer, precision: Precision) -> list[Finding]:
    unit = roundoff_of(precision)
    found = certificates.lif_forward(material.config, material.inputs, answer.outputs, unit)
    found += certificates.lif_forward(material.config, material.inputs, answer.beside, unit)
    return found + certificates.lif_backward(
        material.config, material.inputs, answer.beside, material.cotangents, answer.gradients, unit
    )


def _certify_spike(row: Operation, material: Material, answer: Answer, precision: Precision) -> list[Finding]:
    config, u, unit = material.config, material.inputs["u"], roundoff_of(precision)
    theta = np.float64(np.dtype(precision.storage).type(config.threshold))
    decided = (
        np.where(u == theta, answer.outputs["s"], u >= config.threshold) if theta != config.threshold else u >= config.threshold
    )
    found = [compare("s", answer.outputs["s"], decided, 0.0, rung="certificate", clauses=("LIF-2",))]
    return found + certificates.spike_backward(config, material.inputs, material.cotangents, answer.gradients, unit)


def _certify_factorize(row: Operation, material: Material, answer: Answer, precision: Precision) -> list[Finding]:
    return certificates.factorize(material.config, material.inputs, answer.outputs, roundoff_of(precision))


def _certify_retract(row: Operation, material: Material, answer: Answer, precision: Precision) -> list[Finding]:
    return certificates.retract(material.config, material.inputs, answer.outputs, roundoff_of(precision))


_CERTIFICATES: dict[str, Callable[[Operation, Material, Answer, Precision], list[Finding]]] = {
    "lif": _certify_lif,
    "spike": _certify_spike,
    "factorize": _certify_factorize,
    "retract": _certify_retract,
}
