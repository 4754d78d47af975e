"""How operations may be used: tensors are their own memory, answers stay, and cotangents may be missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from twinspike.operations import OPERATIONS
from twinspike.precision import PRECISIONS
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.cases import CASES, Example, materialize
from twinspike_conformance.checks.base import Bench, Check, space_of

SHOWN = ("lif", "conv2d", "linear", "joint_loss")
"""Operations that are asked: of neurons, of maps, of vectors and of all that the loss sees."""


def _tensors(bench: Bench, example: Example) -> list[Finding]:
    """Tensors share no memory with arrays, answers stay as they are, later sessions change none, missing cotangents are 0."""
    session, row = bench.session, OPERATIONS[example.operation]
    material = materialize(CASES[example.operation], example, PRECISIONS[session.precision].activations)
    inputs = {k: np.array(v) for k, v in material.inputs.items()}
    given = {
        k: np.array(v, PRECISIONS[session.precision].storage if v.dtype.kind == "f" else np.int64) for k, v in inputs.items()
    }
    tensors = {k: session.from_numpy(v) for k, v in given.items()}
    for value in given.values():
        value[...] = 1
    found = []
    for name, tensor in tensors.items():
        for when in ("array written into", "copy written into"):
            back = session.to_numpy(tensor)
            found.append(compare(f"{name}, {when}", back, inputs[name], 0.0, rung="exact", clauses=("PRE-4",)))
            if back.flags.writeable:
                back[...] = 1
    tensors = {k: session.from_numpy(v) for k, v in inputs.items()}
    cotangents = {k: session.from_numpy(v) for k, v in material.cotangents.items()}
    zeros = {k: session.from_numpy(np.zeros_like(v)) for k, v in material.cotangents.items()}

    def asked(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return session.vjp(row.name, material.config, tensors, given)

    def copied(answer: dict[str, Any]) -> dict[str, Any]:
        return {k: np.array(session.to_numpy(v)) for k, v in answer.items()}

    outputs, gradients = session.forward(row.name, material.config, tensors), asked(cotangents)[1]
    early, want = (outputs, gradients), (copied(outputs), copied(gradients))
    bench.backend.session(session.device, session.precision, session.compiled)
    later = session.forward(row.name, material.config, tensors), asked(cotangents)[1]
    shifted = {k: session.from_numpy(v * 0.5 if v.dtype.kind == "f" else v) for k, v in inputs.items()}
    session.forward(row.name, material.config, shifted)
    session.vjp(row.name, material.config, shifted, cotangents)
    for when, answers in (("kept", early), ("after a session was opened", later)):
        for answer, right in zip(answers, want, strict=True):
            now = copied(answer)
            found += [compare(f"{k}, {when}", now[k], right[k], 0.0, rung="property", clauses=("PRE-4",)) for k in right]
    for name in cotangents:
        rest = {k: v for k, v in cotangents.items() if k != name}
        got, right = copied(asked(rest)[1]), copied(asked(rest | {name: zeros[name]})[1])
        found += [
            compare(f"gradient of {k}, no cotangent of {name}", got[k], right[k], 0.0, rung="property", clauses=row.clauses)
            for k in right
        ]
    return found


def _check(name: str) -> Check:
    space = space_of(name, False, 0)
    assert space is not None
    return Check(
        id=f"protocol[{name}]",
        sentence=str(_tensors.__doc__),
        clauses=tuple(dict.fromkeys(("PRE-4", *OPERATIONS[name].clauses))),
        rung="property",
        needs=frozenset({name}),
        space=space,
        run=_tensors,
        weight=0.1,
        eager=True,
    )


CHECKS: tuple[Check, ...] = tuple(_check(name) for name in SHOWN)
