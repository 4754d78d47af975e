"""The comparison with the authors' code: every array has one name of theirs, and a difference in any is seen."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import twinspike as ts
from twinspike.parameters import layout

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("authors_arrays")


def test_every_array_has_one_name_of_theirs(arrays: Any) -> None:
    names = [entry.name for entry in layout(arrays.NETWORK, arrays.METHOD)]
    theirs = [arrays.their_name(name) for name in names]
    assert len(set(theirs)) == len(names)
    assert sum(name.endswith(".U") for name in theirs) == 29
    for name, want in {
        "stem.conv.sigma_ann": "conv1.sigma_ann",
        "stem.norm.gamma_snn": "bn1.bn_snn.weight",
        "stage1.2.1.norm.beta_ann": "layer1.1.bn1.bn_ann.bias",
        "stage3.1.shortcut.conv.V": "layer3.0.downsample.0.V",
        "stage3.1.shortcut.norm.var_ann": "layer3.0.downsample.1.bn_ann.running_var",
        "branch2.3.conv.U": "bottleneck2_1.6.U",
        "branch2.1.norm.mean_snn": "bottleneck2_1.1.bn_snn.running_mean",
        "branch3.head.weight_snn": "middle_fc3.weight_snn",
        "main.head.bias": "fc.bias",
    }.items():
        assert arrays.their_name(name) == want


def test_what_is_compared_are_the_method_s_defaults(arrays: Any) -> None:
    assert ts.Method(linear_init="fan_out") == arrays.METHOD
    assert {arrays.group(entry.name) for entry in layout(arrays.NETWORK, arrays.METHOD)} == {
        *("U", "V", "heads", "heads' biases"),
        *(f"{quantity}_{twin}" for quantity in ("sigma", "gamma", "beta", "mean", "var") for twin in ("ann", "snn")),
    }


def test_a_difference_in_any_array_is_one_of_its_group(arrays: Any) -> None:
    want = {"a.U": np.array([1.0, 4.0]), "b.U": np.array([1.0, 2.0]), "b.weight_ann": np.ones(2)}
    assert arrays.deviations(want, want) == {"U": 0.0, "heads": 0.0}
    found = want | {"b.U": np.array([1.5, 2.0])}
    assert arrays.deviations(found, want, "gradient of ") == {"gradient of U": 0.25, "gradient of heads": 0.0}
    with pytest.raises(AssertionError, match=r"b\.U"):
        arrays.deviations({"a.U": want["a.U"], "b.weight_ann": np.ones(2)}, want)
    with pytest.raises(AssertionError, match=r"b\.U"):
        arrays.deviations(found | {"b.U": np.ones(3)}, want)
