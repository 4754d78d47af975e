"""The proof of agreement: it passes for equals, and it can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import tiny

import twinspike as ts
from twinspike.network import Branch, GlobalPool, Linear
from twinspike_training import agreement
from twinspike_training.agreement import error_limit, relative_difference


def test_equal_backends_agree_exactly(tmp_path: Path) -> None:
    rows = agreement.agreement("numpy", "numpy", tiny(tmp_path), steps=2)
    assert {row.kind for row in rows} == {"spikes", "loss", "gradient", "state"}
    assert {row.step for row in rows} == {1, 2}
    assert all(row.difference == 0 for row in rows)


FAULTS = {
    "spikes": ("stem.act", lambda value: 1 - value),
    "loss": ("loss", lambda value: value * (1 + 1e-9)),
    "gradient": ("stem.conv.U", lambda value: value * (1 + 1e-9)),
    "state": ("stem.norm.var_snn", lambda value: value + 1e-9),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_small_fault_in_any_quantity_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    name, spoil = FAULTS[kind]
    real, calls = agreement._one_step, []

    def second_is_faulty(*arguments: Any) -> Any:
        found = real(*arguments)
        calls.append(1)
        if len(calls) == 2:
            found[kind] = {**found[kind], name: spoil(found[kind][name])}
        return found

    monkeypatch.setattr(agreement, "_one_step", second_is_faulty)
    rows = agreement.agreement("numpy", "numpy", tiny(tmp_path))
    assert [(row.kind, row.name) for row in rows if not row.agrees] == [(kind, name)]


def test_relative_difference() -> None:
    assert relative_difference(np.zeros(3), np.zeros(3)) == 0
    assert relative_difference(np.array([1.0, 4.0]), np.array([1.0, 3.0])) == 0.25
    assert np.isnan(relative_difference(np.array([np.nan]), np.array([1.0])))
    assert not agreement.Row(step=1, kind="loss", name="", difference=float("nan"), limit=1.0).agrees


def test_the_limit_counts_roundings() -> None:
    network = ts.network("digits_cnn", width=2)
    assert error_limit(network, 2, 16) < error_limit(network, 4, 16) < error_limit(network, 4, 64)
    layers = (GlobalPool(name="p", input="input"), Linear(name="l", input="p", out_features=7))
    small = ts.Network(name="small", input_shape=(3, 4, 4), layers=layers, exits=(Branch(feature="p", head="l"),))
    # Pooling counts T; the linear layer its sums over 3 inputs, 7 outputs and T B places, and composing at rank 3.
    assert error_limit(small, 2, 5) == (2 + (3 + 7 + 2 * 5 + 3)) * 2.0**-53
