"""Every operation of the table, forward and backward, against the reference: one check per operation and lane."""

from __future__ import annotations

from collections.abc import Iterator

from twinspike.operations import TABLE, Operation
from twinspike_conformance.bounds.finding import Finding
from twinspike_conformance.cases import Example
from twinspike_conformance.checks.base import Bench, Check, space_of
from twinspike_conformance.judges.operations import examine

_SENTENCES = {
    True: "{name}: on dyadic data, where no partial result needs rounding, values and gradients equal the reference bit for bit.",
    False: "{name}: on data of every family, values and gradients are as near to the reference as rounding allows, "
    "decisions follow from the backend's own values, and detached paths give exact zeros.",
}


def _run(bench: Bench, example: Example) -> list[Finding]:
    return examine(bench.session, example)


def _checks(row: Operation) -> Iterator[Check]:
    for exact in (True, False):
        space = space_of(row.name, exact)
        if space is not None:
            yield Check(
                id=f"operation[{row.name}-{'exact' if exact else 'rounded'}]",
                sentence=_SENTENCES[exact].format(name=row.name),
                clauses=(*row.clauses, "PRE-1", "PRE-4"),
                rung="exact" if exact else "certificate" if row.exactness == "certified" or row.name == "lif" else "bound",
                needs=frozenset({row.name}),
                space=space,
                run=_run,
            )


CHECKS: tuple[Check, ...] = tuple(check for row in TABLE for check in _checks(row))
