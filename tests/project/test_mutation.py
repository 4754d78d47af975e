"""What mutation testing is told: modules and tests that are there, and reasons for mutants of them."""

from __future__ import annotations

import importlib.util
import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = runpy.run_path(str(ROOT / "mutation" / "run.py"))["TARGETS"]
ALIVE = tomllib.loads((ROOT / "mutation" / "equivalent.toml").read_text(encoding="utf-8"))["alive"]


@pytest.mark.parametrize("target", TARGETS)
def test_modules_and_tests_are_there(target):
    assert [module for module in TARGETS[target].modules if importlib.util.find_spec(module) is None] == []
    assert [test for test in TARGETS[target].tests if not (ROOT / "tests" / test).is_file()] == []


def test_every_mutant_that_may_live_is_of_a_function_that_is_there():
    modules = {module for target in TARGETS.values() for module in target.modules}
    for key, reason in ALIVE.items():
        place, _, line = key.partition(": ")
        module, _, name = place.rpartition(".")
        assert module in modules
        *owner, function = name.removeprefix("xǁ").split("ǁ") if "ǁ" in name else [name.removeprefix("x_")]
        found = importlib.import_module(module)
        assert callable(getattr(getattr(found, owner[0]) if owner else found, function)), key
        assert line
        assert len(reason) > 10
