"""What is not claimed is asked for in earnest: a backend that answers it all the same is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import twinspike as ts
from twinspike.errors import refuse, require
from twinspike.operations import OPERATIONS
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.faults.within import Within
from twinspike_conformance.report.record import Record
from twinspike_conformance.run.profiles import PROFILES
from twinspike_conformance.run.runner import run_check

PAIRED = sorted(name for name, row in OPERATIONS.items() if row.adjoint is not None)


class Session(Within):
    """Refuses what is not claimed, but for one way to ask for it."""

    def __init__(self, inner: Any, claims: Any, answers: str) -> None:
        super().__init__(inner)
        self._claims, self._answers = claims, answers

    def forward(self, operation: str, config: Any, inputs: Any) -> Any:
        self._allow("forward", operation)
        return self.inner.forward(operation, config, inputs)

    def vjp(self, operation: str, config: Any, inputs: Any, cotangents: Any) -> Any:
        self._allow("vjp", operation)
        return self.inner.vjp(operation, config, inputs, cotangents)

    def program(self, network: Any, method: Any, optimizer: Any, *, recompute: bool = False) -> Any:
        if not self._claims.networks and self._answers not in ("program", network.name):
            raise refuse("program", expected="operations only", got="a network")
        return self.inner.program(network, method, optimizer, recompute=recompute)

    def _allow(self, way: str, operation: str) -> None:
        allowed = operation in self._claims.operations or self._answers == way
        require(allowed, "operation", expected="one that is claimed", got=operation)


class Backend:
    """NumPy's, with fewer claims than it could keep."""

    name = "modest"

    def __init__(self, answers: str = "", without: str = "", networks: bool = True) -> None:
        self.base, self._answers = ts.load("numpy"), answers
        claims = self.base.capabilities()
        self._claims = msgspec.structs.replace(claims, operations=claims.operations - {without}, networks=networks)

    def capabilities(self) -> Any:
        return self._claims

    def session(self, device: str = "cpu", precision: str = "f64", compiled: bool = False) -> Any:
        return Session(self.base.session(device, precision, compiled), self._claims, self._answers)


def claims(backend: Any, precision: str = "f64") -> Record:
    """The record of the check."""
    return run_check(CHECKS["claims"], Bench(backend, backend.session("cpu", precision)), PROFILES["smoke"], 0)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_an_operation_that_is_not_claimed_and_is_answered_fails(operation):
    assert claims(Backend(without=operation)).status == "pass"
    record = claims(Backend("forward", without=operation))
    assert record.failure is not None
    assert record.failure.sentences[0].startswith(f"{operation} {{")
    assert "not claimed: expected a SpecError of one line, got an answer" in record.failure.sentences[0]


@pytest.mark.parametrize("operation", PAIRED)
def test_so_do_its_gradients(operation):
    record = claims(Backend("vjp", without=operation))
    assert record.failure is not None
    assert record.failure.sentences[0].startswith(f"gradients of {operation} {{")


@pytest.mark.parametrize("answers", ["program", "block", "digits_cnn", "resnet18"])
def test_so_does_a_network(answers):
    assert claims(Backend(networks=False)).status == "pass"
    record = claims(Backend(answers, networks=False))
    assert record.failure is not None
    assert record.failure.sentences[0].startswith("network ")


def test_an_operation_that_is_answered_for_some_inputs_alone_fails():
    class Sometimes(Session):
        def forward(self, operation: str, config: Any, inputs: Any) -> Any:
            if operation == "relu" and np.shape(inputs["x"]) == (33, 129):
                return self.inner.forward(operation, config, inputs)
            return super().forward(operation, config, inputs)

    backend = Backend(without="relu")
    session = Sometimes(backend.base.session("cpu", "f64"), backend.capabilities(), "")
    record = run_check(CHECKS["claims"], Bench(backend, session), PROFILES["smoke"], 0)
    assert record.failure is not None
    assert "'C': 129" in record.failure.sentences[0]


@pytest.mark.parametrize("precision", ["f32-ieee", "f64"])
def test_the_template_of_one_operation_claims_what_it_keeps(precision, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples" / "lif_only"))
    assert claims(ts.load("lif_only:backend"), precision).status == "pass"
