"""One library in one precision: every clause that is asked, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from twinspike.backend import Backend, Session
from twinspike.config import Surrogate
from twinspike.errors import SpecError
from twinspike.operations import OPERATIONS
from twinspike.precision import PRECISIONS
from twinspike_conformance.bounds.finding import Finding
from twinspike_conformance.cases import CASES, Example, Material, materialize
from twinspike_conformance.cases.families import rounded
from twinspike_conformance.judges.operations import Answer
from twinspike_conformance.raised import interrupted, said
from twinspike_field.clauses import ASKED, asks_about, clause_of, deal
from twinspike_field.questions import SURROGATES, of_lif, of_spike
from twinspike_field.report import Cell, Outcome

BACKWARD = ("LIF-6", "LIF-7", "LIF-8", "LIF-9", "LIF-10")
"""Clauses of the neuron's gradients, which take a surrogate that agrees."""


class _Tally:
    """What is found of one clause."""

    def __init__(self) -> None:
        self.asked = self.refused = self.compared = self.told = self.wrong = 0
        self.refusals: dict[str, int] = {}
        self.worst = 0.0
        self.first = ""
        self.example = ""

    def add(self, finding: Finding, example: Example) -> None:
        """One comparison."""
        self.compared += 1
        self.told += not finding.vacuous
        self.worst = max(self.worst, finding.ratio)
        if not finding.ok:
            self.wrong += 1
            if not self.first:
                self.first, self.example = finding.sentence(), example.words()

    def refuse(self, reason: str) -> None:
        """One example that the library can't express."""
        self.refused += 1
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def cell(self, clause: str, precision: str) -> Cell:
        """What is reported."""
        outcome: Outcome = "differs" if self.wrong else "agrees" if self.told else "cannot"
        return Cell(
            clause=clause,
            precision=precision,
            outcome=outcome,
            asked=self.asked,
            refused=self.refused,
            compared=self.compared,
            wrong=self.wrong,
            worst=self.worst if np.isfinite(self.worst) else -1.0,
            refusals=tuple(sorted(self.refusals)),
            first=self.first,
            example=self.example,
        )


def judge(backend: Backend, precision: str, *, difference: bool = False) -> tuple[Cell, ...]:
    """Ask everything, and say of each clause what came of it.

    Args:
        backend: any that offers `spike`, or `spike` and `lif`.
        precision: of the session.
        difference: whether its potentials are watched as differences from the threshold (`Adapter.watches_difference`).

    Surrogates come first: the neuron is then asked with one that is as the clauses say, so that a surrogate which is not
    accuses no other clause. Where there is none, gradients of the neuron are not judged.
    """
    asked = _Asked(backend.session("cpu", precision), {clause: _Tally() for clause in ASKED}, difference)
    asked.ask(of_spike())
    form = asked.agreeing()
    without = BACKWARD if form is None else ()
    if "lif" in backend.capabilities().operations:
        asked.ask(of_lif(form or SURROGATES[0]), without)
    for clause in without:
        asked.tallies[clause].refuse("no surrogate agrees, so that gradients can't be judged")
    return tuple(asked.tallies[clause].cell(clause, precision) for clause in ASKED)


class _Asked(NamedTuple):
    """A session that is asked, and what is found so far."""

    session: Session
    tallies: dict[str, _Tally]
    difference: bool

    def ask(self, examples: Iterable[Example], without: tuple[str, ...] = ()) -> None:
        """Ask some examples, and count what is found but of some clauses."""
        for example in examples:
            for clause, finding in self._findings(example):
                if clause not in without:
                    self.tallies[clause].add(finding, example)

    def agreeing(self) -> Surrogate | None:
        """A surrogate whose clause holds."""
        for form in SURROGATES:
            tally = self.tallies[clause_of(form)]
            if tally.told and not tally.wrong:
                return form
        return None

    def _findings(self, example: Example) -> Iterator[tuple[str, Finding]]:
        """What one example gives, by clause; what is refused is counted."""
        precision = PRECISIONS[self.session.precision]
        material = materialize(CASES[example.operation], example, precision.activations)
        # few bits, so that a gradient loses none where a spike is returned in a shorter format, which PRE-1 tells
        material.cotangents = {name: rounded(g, "bfloat16") for name, g in material.cotangents.items()}
        about = asks_about(material.config, example.operation, "v" in material.inputs)
        for clause in about:
            self.tallies[clause].asked += 1
        try:
            answer = _answer(self.session, example.operation, material)
        except SpecError as error:
            for clause in about:
                self.tallies[clause].refuse(str(error))
            return
        except BaseException as error:  # whatever the library raises is its answer
            if interrupted(error):
                raise
            for clause in about:
                yield clause, Finding(
                    quantity="answer", rung="property", clauses=(clause,), ok=False, ratio=np.inf, raised=True,
                    got=said(error), want="a result",
                )  # fmt: skip
            return
        row = OPERATIONS[example.operation]
        yield from deal(row, material, answer, self.session.precision, exact=example.exact, difference=self.difference)


def _answer(session: Session, operation: str, material: Material) -> Answer:
    inputs = {name: session.from_numpy(value) for name, value in material.inputs.items()}
    cotangents = {name: session.from_numpy(value) for name, value in material.cotangents.items()}
    outputs, gradients = session.vjp(operation, material.config, inputs, cotangents)

    def numpy(found: dict[str, Any]) -> dict[str, Any]:
        return {name: np.array(session.to_numpy(value)) for name, value in found.items()}

    return Answer(numpy(outputs), numpy(gradients), {}, numpy(outputs), numpy(inputs), numpy(cotangents))
