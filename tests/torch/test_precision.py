"""Sentinels of the precision profiles, on sessions that say another precision than they compute in."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

import twinspike as ts
from twinspike.operations import OPERATIONS
from twinspike.precision import PRECISIONS
from twinspike_conformance.cases import CASES, materialize
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.faults import BY_ID
from twinspike_conformance.faults.backend import modules
from twinspike_conformance.judges.operations import Answer, judge

TORCH = ts.load("torch")
SENTINELS = [name for name in CHECKS if name.startswith(("digits[", "sums[", "kept["))] + ["network[casts]"]


class Renamed:
    """A session under the name of another precision."""

    def __init__(self, inner: ts.backend.Session, name: str) -> None:
        self._inner, self.precision = inner, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _alarms(inside: str, said: str) -> set[str]:
    """Sentinels that find fault with a session of one precision under another's name."""
    bench = Bench(TORCH, Renamed(TORCH.session("cpu", inside), said))
    examples = ((name, example) for name in SENTINELS for example in islice(CHECKS[name].space.cover(), 3))
    return {name for name, example in examples if not all(finding.ok for finding in CHECKS[name].run(bench, example))}


@pytest.mark.parametrize("precision", ["f64", "f32-ieee", "bf16-mixed"])
def test_a_session_of_its_own_name_raises_no_alarm(precision):
    assert _alarms(precision, precision) == set()


@pytest.mark.parametrize(
    ("inside", "said", "alarms"),
    [
        ("f32-ieee", "f64", {"digits[conv2d]", "digits[linear]", "kept[relu]", "sums[linear]", "network[casts]"}),
        ("f32-ieee", "bf16-mixed", {"digits[conv2d]", "network[casts]"}),
        ("bf16-mixed", "f32-ieee", {"digits[conv2d]", "network[casts]"}),
        ("bf16-mixed", "tf32", {"digits[conv2d]", "network[casts]"}),
    ],
)
def test_a_session_of_another_name_is_found(inside, said, alarms):
    assert alarms <= _alarms(inside, said)


@pytest.mark.parametrize("operation", ["conv2d", "linear", "compose"])
def test_products_of_11_bits_pass_as_tf32_and_fail_as_float32_and_8_bits_fail_as_both(operation):
    row, cases = OPERATIONS[operation], CASES[operation]

    def verdict(fault: str, precision: str) -> bool:
        rows = modules(BY_ID[fault])["rows"]
        return all(_judged(rows, example, precision) for example in CHECKS[f"operation[{operation}-rounded]"].space.cover())

    def _judged(rows: Any, example: Any, precision: str) -> bool:
        material = materialize(cases, example, "float32")
        inputs, cotangents = ({k: v.astype(np.float32) for k, v in d.items()} for d in (material.inputs, material.cotangents))
        outputs = getattr(rows, operation)(material.config, inputs)
        gradients = getattr(rows, f"{operation}_adjoint")(material.config, inputs, cotangents)
        answer = Answer(outputs, gradients, outputs, outputs, material.inputs, material.cotangents)
        return all(finding.ok for finding in judge(row, example, material, answer, PRECISIONS[precision]))

    assert verdict("pre-products-tf32", "tf32")
    assert not verdict("pre-products-tf32", "f32-ieee")
    if operation != "compose":
        assert not verdict("pre-products-bfloat16", "tf32")
