"""Mistakes: the same SpecError for the same mistake from every backend, and no answer to what is not claimed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Session
from twinspike.checks import check_operation
from twinspike.errors import SpecError
from twinspike.operations import OPERATIONS
from twinspike.precision import PRECISIONS
from twinspike_conformance.bounds.finding import Finding
from twinspike_conformance.cases import CASES, Example, materialize
from twinspike_conformance.cases.networks import BUCKETS, CONFIGS, FAMILIES, setting
from twinspike_conformance.checks.base import Bench, Check, Space, refusal, space_of

Values = NDArray[Any]

PROGRAMS = 6
"""Networks, the shallow ones first, that a backend which claims none is asked for."""


def _mistakes(inputs: Mapping[str, Values]) -> dict[str, dict[str, Values]]:
    """Inputs with one thing wrong each, by what it is."""
    first = next(iter(inputs))
    value = inputs[first]
    rest = {k: v for k, v in inputs.items() if k != first}
    return {
        "a missing input": rest,
        "an unknown input": {**inputs, "colour": value},
        "one axis too many": {**inputs, first: value[None, None, None, None, None]}
        if value.ndim
        else {**inputs, first: value[None]},
        "an integer dtype": {**inputs, first: value.astype(np.int64)},
        "an empty axis": {**inputs, first: value[:0]} if value.ndim else rest,
    }


def _operation(bench: Bench, example: Example) -> list[Finding]:
    """Inputs that don't fit an operation are refused in the specification's own line."""
    form = PRECISIONS[bench.session.precision].activations
    material = materialize(CASES[example.operation], example, form)
    found = []
    for what, inputs in _mistakes(material.inputs).items():
        shapes = {k: v.shape for k, v in inputs.items()}
        floating = {k: v.dtype.kind == "f" for k, v in inputs.items()}
        try:
            check_operation(example.operation, material.config, shapes, floating)
        except SpecError as error:
            tensors = {k: bench.session.from_numpy(v) for k, v in inputs.items()}
            call = partial(bench.session.forward, example.operation, material.config, tensors)
            found.append(refusal(what, call, str(error)))
    tensors = {k: bench.session.from_numpy(v) for k, v in material.inputs.items()}
    found.append(refusal("a config of the wrong type", lambda: bench.session.forward(example.operation, object(), tensors), None))
    return found


def _unclaimed(session: Session, name: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Calls of an operation that nothing but the claim forbids: real inputs of every config, and cotangents."""
    space, row = space_of(name, False), OPERATIONS[name]
    for example in space.cover() if space is not None else ():
        material = materialize(CASES[name], example, PRECISIONS[session.precision].activations)

        def ask(call: Callable[..., Any], *parts: dict[str, Values], config: Any = material.config) -> Any:
            return call(name, config, *({k: session.from_numpy(v) for k, v in part.items()} for part in parts))

        what = f"{name} {example.config} {example.sizes}, not claimed"
        yield what, partial(ask, session.forward, material.inputs)
        if row.adjoint is not None:
            yield f"gradients of {what}", partial(ask, session.vjp, material.inputs, material.cotangents)


def _claims(bench: Bench, example: Example) -> list[Finding]:
    """What is not claimed is refused: operations, asked what could be answered, networks, precisions, devices and modes."""
    backend, session = bench.backend, bench.session
    claims = backend.capabilities()
    found = [refusal("an unknown operation", lambda: session.forward("no_such_operation", object(), {}), None)]
    calls: dict[str, Callable[[], Any]] = {}
    for name in sorted(set(OPERATIONS) - claims.operations):
        calls |= dict(_unclaimed(session, name))
    for config in () if claims.networks else CONFIGS[:PROGRAMS]:
        s = setting(Example("network", config, BUCKETS[0], FAMILIES[0], False, 0), PRECISIONS[session.precision].storage)
        calls[f"network {s.network.name}, not claimed"] = partial(session.program, s.network, s.method, s.optimizer)
    for name in (*sorted(set(PRECISIONS) - claims.precisions), "f31"):
        calls[f"precision {name}, not claimed"] = partial(backend.session, session.device, name, False)
    for name in sorted({"cpu", "cuda", "abacus"} - {d.partition(":")[0] for d in claims.devices}):
        calls[f"device {name}, not there"] = partial(backend.session, name, session.precision, False)
    if not claims.compiled:
        calls["compiled mode, not claimed"] = partial(backend.session, session.device, session.precision, True)
    found += [refusal(what, call, None) for what, call in calls.items()]
    for name in sorted(claims.precisions):
        opened = backend.session(session.device, name, False)
        ok = opened.precision == name and opened.device == session.device
        got = f"{opened.precision} on {opened.device}"
        want = f"{name} on {session.device}"
        found.append(Finding(quantity="session opened", rung="property", clauses=("PRE-4",), ok=ok, got=got, want=want))
    return found


CHECKS: tuple[Check, ...] = (
    *(
        Check(
            id=f"refusals[{name}]",
            sentence=str(_operation.__doc__),
            clauses=(),
            rung="property",
            needs=frozenset({name}),
            space=space,
            run=_operation,
            weight=0.1,
        )
        for name in OPERATIONS
        if (space := space_of(name, False)) is not None
    ),
    Check(
        id="claims",
        sentence=str(_claims.__doc__),
        clauses=("PRE-4",),
        rung="property",
        needs=frozenset(),
        space=Space("claims", ({},), ({},), ("none",), False),
        run=_claims,
        weight=0.0,
    ),
)
