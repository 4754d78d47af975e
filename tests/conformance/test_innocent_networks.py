"""Right programs of networks, whose passes round each in another way, raise no alarm; and they do round in other ways."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.checks.programs import opened
from twinspike_conformance.judges.summands import Summands
from twinspike_conformance.run.runner import examples, try_example
from twinspike_conformance.strength import false_alarms
from twinspike_conformance.strength.innocent_networks import VARIANTS, InnocentNetworks


def bench(name: str, order: int) -> Bench:
    mixed = VARIANTS[name]
    backend = InnocentNetworks(name, msgspec.structs.replace(mixed, rules=msgspec.structs.replace(mixed.rules, order=order)))
    return Bench(backend, backend.session())


def test_right_programs_raise_no_alarm() -> None:
    found = false_alarms.study(1, seed=1, names=tuple(VARIANTS))
    assert found.alarms == ()
    assert all(tally.examples and tally.comparisons > 50 for tally in found.tallies.values())


def test_the_study_is_of_every_check_of_networks() -> None:
    missing = {check.id for check in CHECKS.values() if "networks" in check.needs and check.weight > 0} - {
        check.id for check in false_alarms.checks(networks=True)
    }
    assert all(name.startswith("modes[") for name in missing)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_pass_rounds_in_a_way_of_its_own(name: str) -> None:
    example = next(examples(CHECKS["network[options]"], 1, 1))
    s, program, state = opened(bench(name, 1), example)
    traced = program.trace(state, s.images[0], training=True, labels=s.labels[0])
    got, _ = program.gradients(state, s.images[0], s.labels[0])
    names = [f"{layer}.{key[2:]}" for layer, tap in traced.items() for key in tap if key.startswith("d_")]
    again = [np.asarray(got[n]) for n in names]
    first = [np.asarray(traced[n.rpartition(".")[0]][f"d_{n.rpartition('.')[2]}"]) for n in names]
    assert all(a.dtype == np.float32 for a in again)
    assert any(not np.array_equal(a, b) for a, b in zip(again, first, strict=True))


def test_bfloat16_is_handed_on_and_back_as_the_variant_says() -> None:
    example = next(examples(CHECKS["network[gradients]"], 1, 1))
    for name, back in (("bf16-handed", True), ("bf16-operands", False)):
        s, program, state = opened(bench(name, 1), example)
        trace: Any = program.trace(state, s.images[0], training=True, labels=s.labels[0])

        def short(key: str, trace: Any = trace) -> bool:
            values = [np.asarray(tap[key], np.float32) for layer, tap in trace.items() if layer == "last.norm"]
            return all(not (v.view(np.uint32) & 0xFFFF).any() for v in values)

        assert short("ann")
        assert short("g_ann") == back


def test_a_gradient_whose_terms_cancel_is_judged_by_its_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a norm over one channel all terms go into one number, which is small now and then; its terms are not."""
    check, at = CHECKS["network[gradients]"], 3
    example = list(examples(check, 5, at + 1))[at]
    assert example.config["network"] == "vgg16"
    assert try_example(check, bench("passes", 1), example) == []
    monkeypatch.setattr(Summands, "__call__", lambda self, name: 0.0)
    wrong = try_example(check, bench("passes", 1), example)
    assert [finding.quantity for finding in wrong] == ["gradient of stage1.2.norm.gamma_ann, reported"]
