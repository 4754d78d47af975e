"""An answer held against one clause at a time: the suite's certificates, whose elements are dealt out to clauses.

Certificates judge each step from a library's own values before it, so that what is wrong at one clause excuses and accuses
nothing at another. Potentials after a step without a spike are LIF-1's, after one with a spike the reset's, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.config import Neuron, Surrogate
from twinspike.operations import Operation
from twinspike.precision import PRECISIONS, Precision
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.cases import Material
from twinspike_conformance.judges import certificates
from twinspike_conformance.judges.operations import Answer, roundoff_of

SURROGATE_CLAUSES = {
    "rectangle": "SUR-2", "triangle": "SUR-3", "sigmoid": "SUR-4", "arctan": "SUR-5", "fast_sigmoid": "SUR-6", "tanh": "SUR-7",
}  # fmt: skip
"""Kind of a surrogate -> its clause."""

ASKED = {
    "LIF-1": "charge",
    "LIF-2": "fires from the threshold on",
    "LIF-3": "hard reset",
    "LIF-4": "soft reset",
    "LIF-5": "state given and returned",
    "LIF-6": "gradient through the reset",
    "LIF-7": "gradient, reset detached",
    "LIF-8": "gradient of current and state",
    "LIF-9": "gradient of a learned decay",
    "LIF-10": "gradient of a learned threshold",
    **{clause: kind.replace("_", " ") for kind, clause in SURROGATE_CLAUSES.items()},
    "PRE-1": "format of results",
    "PRE-4": "inputs left as they were",
}
"""The clauses that are judged, in their order, and each in a few words."""

Dealt = Iterator[tuple[str, Finding]]
Mask = NDArray[np.bool_]


def asks_about(neuron: Neuron, operation: str, given: bool) -> tuple[str, ...]:
    """The clauses that an example is about, answered or refused."""
    if operation == "spike":
        return (clause_of(neuron.surrogate),)
    found = ["LIF-1", "LIF-2", "LIF-3" if neuron.reset == "hard" else "LIF-4", "LIF-7" if neuron.detach_reset else "LIF-6"]
    found += ["LIF-5"] if given else []
    found += ["LIF-8"] if given or neuron.decay_input else []
    found += ["LIF-9"] if neuron.decay_scope != "constant" else []
    found += ["LIF-10"] if neuron.threshold_scope != "constant" else []
    return tuple(found)


def clause_of(form: Surrogate) -> str:
    """The clause that says what a surrogate is."""
    return SURROGATE_CLAUSES[str(type(form).__struct_config__.tag)]


def deal(row: Operation, material: Material, answer: Answer, precision: str, *, exact: bool, difference: bool) -> Dealt:
    """Findings of one answer, each with its clause.

    Args:
        row: the operation, `lif` or `spike`.
        material: the numbers that were asked.
        answer: what came.
        precision: of the session.
        exact: whether the numbers are such that nothing rounds.
        difference: whether potentials were watched as differences from the threshold, which rounds them twice more.
    """
    form = PRECISIONS[precision]
    values = {**answer.outputs, **{f"gradient of {name}": g for name, g in answer.gradients.items()}}
    for name, value in values.items():
        right = value.dtype == np.dtype(form.storage)
        yield "PRE-1", _told(f"format of {name}", right, str(value.dtype), form.storage)
    for what, after in ((material.inputs, answer.inputs_after), (material.cotangents, answer.cotangents_after)):
        for name, before in what.items():
            yield "PRE-4", compare(f"{name} after the call", after[name], before, 0.0, rung="property", clauses=("PRE-4",))
    if row.name == "spike":
        yield from _spike(material, answer, form)
    else:
        yield from _lif(material, answer, form, exact=exact, difference=difference)


def _told(quantity: str, ok: bool, got: str, want: str) -> Finding:
    ratio = 0.0 if ok else np.inf
    return Finding(quantity=quantity, rung="property", clauses=("PRE-1",), ok=ok, ratio=ratio, got=got, want=want)


def _spike(material: Material, answer: Answer, form: Precision) -> Dealt:
    """LIF-2 and the surrogate's clause; equality decides only where the threshold is a number of the format."""
    neuron: Neuron = material.config
    u, unit = material.inputs["u"], roundoff_of(form)
    s = np.asarray(answer.beside["s"], np.float64)
    rounded = np.float64(np.dtype(form.storage).type(neuron.threshold))
    fired = (u >= neuron.threshold) * 1.0
    if rounded != neuron.threshold:
        fired = np.where(u == rounded, s, fired)
    yield "LIF-2", compare("s", s, fired, 0.0, rung="certificate", clauses=("LIF-2",))
    clause = clause_of(neuron.surrogate)
    for finding in certificates.spike_backward(neuron, material.inputs, material.cotangents, answer.gradients, unit):
        yield clause, finding


def _lif(material: Material, answer: Answer, form: Precision, *, exact: bool, difference: bool) -> Dealt:
    neuron: Neuron = material.config
    out, inputs, unit = answer.beside, material.inputs, roundoff_of(form)
    s, u = np.asarray(out["s"], np.float64), np.asarray(out["u"], np.float64)
    slack = 0.0 if exact or not difference else 2.0 * unit * (np.abs(u) + np.abs(_threshold(neuron, inputs)))
    for finding in certificates.lif_forward(neuron, inputs, out, unit):
        match finding.quantity:
            case "u":
                yield from _potentials(neuron, inputs, s, finding, slack)
            case "v":
                fired, last = s[-1] == 1.0, np.broadcast_to(slack, u.shape)[-1]
                yield from _part("v", finding, fired, "LIF-3" if neuron.reset == "hard" else "LIF-4", last)
                yield from _part("v", finding, ~fired, "LIF-5", last)
            case "s" if difference and not exact:
                near = np.abs(u - _threshold(neuron, inputs)) <= slack
                yield from _part("s", finding, ~near, "LIF-2", 0.0)
            case _:
                yield "LIF-2", finding
    if difference and not exact:
        return  # the potentials at which its surrogate was taken are not known to the bit
    for finding in certificates.lif_backward(neuron, inputs, out, material.cotangents, answer.gradients, unit):
        match finding.quantity:
            case "gradient of x":
                yield "LIF-7" if neuron.detach_reset else "LIF-6", finding
                if neuron.decay_input:
                    yield "LIF-8", finding
            case "gradient of v":
                yield "LIF-8", finding
            case "gradient of decay":
                yield "LIF-9", finding
            case _:
                yield "LIF-10", finding


def _threshold(neuron: Neuron, inputs: Any) -> Any:
    theta = np.asarray(inputs.get("threshold", neuron.threshold), np.float64)
    return theta.reshape(-1, *(1,) * (inputs["x"].ndim - 3)) if theta.ndim else theta


def _potentials(neuron: Neuron, inputs: Any, s: NDArray[np.float64], finding: Finding, slack: Any) -> Dealt:
    """u dealt out: after a spike to the reset's clause, after a given state to LIF-5, else to the charge's."""
    before = np.concatenate([np.zeros_like(s[:1]), s[:-1]]) == 1.0
    first = np.zeros(s.shape, np.bool_)
    first[0] = "v" in inputs
    yield from _part("u", finding, before, "LIF-3" if neuron.reset == "hard" else "LIF-4", slack)
    yield from _part("u", finding, first, "LIF-5", slack)
    yield from _part("u", finding, ~before & ~first, "LIF-1", slack)


def _part(quantity: str, whole: Finding, where: Mask, clause: str, slack: Any) -> Dealt:
    """The part of a comparison that is a clause's; shapes that differ are everybody's."""
    if whole.compared is None:
        yield clause, whole
        return
    got, want, bound = whole.compared
    if where.any():
        chosen = np.where(where, got, want)
        yield clause, compare(quantity, chosen, want, bound + slack, rung="certificate", clauses=(clause,))
