"""Suspects for a failing example: the fault corpus, asked only when something has failed."""

from __future__ import annotations

from twinspike.operations import OPERATIONS
from twinspike.precision import PRECISIONS
from twinspike_conformance.cases import CASES, Example, materialize
from twinspike_conformance.checks import Bench, Check
from twinspike_conformance.judges.operations import ask
from twinspike_conformance.raised import interrupted


def suspects(bench: Bench, check: Check, example: Example) -> tuple[str, ...]:
    """Faults that reproduce the backend's answer to the example, `ID: description`; none if it gives no answer."""
    if not check.id.startswith("operation["):
        return ()
    from twinspike_conformance.faults import diagnose  # noqa: PLC0415  # the corpus is large and seldom wanted

    material = materialize(CASES[example.operation], example, PRECISIONS[bench.session.precision].activations)
    try:
        answer = ask(bench.session, OPERATIONS[example.operation], material)
    except BaseException as error:  # a backend that raises has no output to recognize
        if interrupted(error):
            raise
        return ()
    return diagnose.described(diagnose.suspects(example, material, answer))
