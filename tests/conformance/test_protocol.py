"""Faults that show in how a program is used: right programs have none, and checks of use find them."""

from __future__ import annotations

import pytest

import twinspike
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.faults import BY_ID, FAULTS
from twinspike_conformance.faults.protocol_sessions import MISUSED, touched
from twinspike_conformance.strength.kill import kill, relevant

NUMPY = twinspike.load("numpy")
OF_USE = {
    name: check for name, check in CHECKS.items() if name.startswith(("protocol[", "network[metrics]", "network[refusals]"))
}


def test_faults_of_use_are_of_the_corpus_and_checks_of_use_come_first():
    assert len(MISUSED) >= 60
    assert {fault.id for fault in FAULTS if fault.id.startswith("proto-")} == set(MISUSED)
    for name in MISUSED:
        first = relevant(BY_ID[name], NUMPY)[0]
        assert first.id in OF_USE
        assert first.needs & touched(name)


@pytest.mark.parametrize("name", [name for name in OF_USE if name != "network[refusals]"])
def test_what_is_used_as_the_protocol_says_passes(name):
    bench, check = Bench(NUMPY, NUMPY.session("cpu", "f64")), CHECKS[name]
    found = check.run(bench, next(iter(check.space.cover())))
    assert len(found) > 5
    assert all(finding.ok for finding in found)


@pytest.mark.parametrize(
    "fault",
    [
        *("proto-one-state", "proto-evaluation-overwritten", "proto-evaluate-stale", "proto-batch-first-size"),
        *("proto-images-strided", "proto-load-slots-lacking", "proto-dump-short-counter", "proto-recompute-twice"),
        *("proto-metrics-no-loss", "proto-last-opened", "proto-cotangent-ones"),
    ],
)
def test_two_checks_of_use_find_a_fault(fault):
    checks = OF_USE | {"network[state]": CHECKS["network[state]"]}
    assert len(kill(BY_ID[fault], NUMPY, checks=checks).killers) == 2
