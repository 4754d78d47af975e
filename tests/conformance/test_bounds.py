"""The suite's bounds: sound, as sharp as their rules say, and what proves; two thousand times as wide they let faults live."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from itertools import islice

import pytest

import twinspike as ts
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.faults import BY_ID, subtle
from twinspike_conformance.faults.backend import mutant
from twinspike_conformance.run.runner import examples
from twinspike_conformance.strength.kill import kill, relevant

NUMPY = ts.load("numpy")
WIDER = 2000.0
ONE_SESSION = [check for check in CHECKS.values() if "networks" not in check.needs and check.rung in ("bound", "certificate")]
ONE_SESSION.remove(CHECKS["sums[batch_norm_train]"])
"""Checks of operations that bounds or certificates decide; the one left out has a clause's number and a test of its own."""

Family = tuple[str, str]
"""A check and a quantity that it compares within a bound."""

AVERAGED = {("sizes[feature_loss-rounded]", "loss")}
"""A sum of a thousand squares: what each loses averages out below the bound of the worst case; the exact lane decides there."""


def _family(check: str, quantity: str) -> Family:
    return check, quantity.removesuffix(" beside gradients")


def _ratios(backend: ts.backend.Backend, check_id: str, count: int) -> dict[Family, float]:
    """Largest error/bound per family, over the check's first examples."""
    found: dict[Family, float] = defaultdict(float)
    bench = Bench(backend, backend.session("cpu", "f64"))
    for example in examples(CHECKS[check_id], 0, count):
        for finding in CHECKS[check_id].run(bench, example):
            if finding.rung in ("bound", "certificate") and (finding.bound > 0 or not finding.ok):
                key = _family(check_id, finding.quantity)
                found[key] = max(found[key], finding.ratio)
    return found


@cache
def _killed_by_the_bound() -> dict[Family, set[str]]:
    """Family -> subtle faults that its bound kills, and that it would let live were it `WIDER` times as wide."""
    found: dict[Family, set[str]] = defaultdict(set)
    for fault in subtle.FAULTS:
        for check in relevant(fault, NUMPY, {check.id: check for check in ONE_SESSION}):
            for family, ratio in _ratios(mutant(fault, NUMPY), check.id, 40).items():
                if 1.0 < ratio <= WIDER:
                    found[family].add(fault.id)
    return found


def test_every_bound_and_certificate_of_operations_kills_a_fault_that_it_would_let_live_were_it_wider():
    compared = {family for check in ONE_SESSION for family in _ratios(NUMPY, check.id, 40)}
    assert len(compared) > 60
    assert compared - set(_killed_by_the_bound()) == AVERAGED


@pytest.mark.parametrize(
    ("check", "fault", "at"),
    [
        ("network[layers]", "subtle-conv-products", 0),
        ("network[gradients]", "subtle-conv-products", 0),
        ("network[loss]", "subtle-weights-of-terms", 0),
        ("network[evaluation]", "subtle-readout-half", 0),
        ("network[statistics]", "subtle-norm-momentum", 0),
        ("network[update]", "subtle-sgd-rate", 2),
        ("network[step]", "subtle-conv-products", 0),
    ],
)
def test_every_bound_of_networks_kills_a_fault_that_it_would_let_live_were_it_wider(check, fault, at):
    faulty = mutant(BY_ID[fault], NUMPY)
    bench = Bench(faulty, faulty.session("cpu", "f64"))
    example = next(islice(CHECKS[check].space.cover(), at, None))
    findings = CHECKS[check].run(bench, example)
    assert {finding.rung for finding in findings if not finding.ok} == {"bound"}
    assert all(finding.within(WIDER) for finding in findings)


def test_a_fault_lives_in_the_whole_suite_of_operations_where_bounds_are_wider():
    fault = BY_ID["subtle-features"]
    checks = {check.id: check for check in relevant(fault, NUMPY) if "networks" not in check.needs}
    assert len(kill(fault, NUMPY, checks=checks).killers) == 2
    assert kill(fault, NUMPY, checks=checks, wider=WIDER).killers == ()
