"""The walls between rooms, as they stand when the code runs: what an import brings in, and what it leaves out.

The walls between source files are contracts of import-linter in pyproject.toml; the `lint` environment checks them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from types import FunctionType

import pytest

import twinspike

LOADED = """
import sys
before = set(sys.modules)
import {name}
import json
print(json.dumps(sorted({{module.partition(".")[0] for module in set(sys.modules) - before}})))
"""


def brought_in(name: str) -> set[str]:
    """Top-level modules outside the standard library that a fresh interpreter loads to import a package."""
    command = [sys.executable, "-c", LOADED.format(name=name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(json.loads(done.stdout)) - sys.stdlib_module_names - {"_distutils_hack"}


@pytest.mark.parametrize(("name", "own"), [("twinspike", {"twinspike"}), ("twinspike_numpy", {"twinspike", "twinspike_numpy"})])
def test_specification_and_numpy_backend_load_numpy_and_msgspec_alone(name: str, own: set[str]) -> None:
    assert brought_in(name) - brought_in("numpy, msgspec") == own


def test_bounds_of_the_suite_load_numpy_and_msgspec_alone() -> None:
    rooms = ", ".join(f"twinspike_conformance.bounds.{module}" for module in ("budget", "finding", "spectral", "tracked"))
    assert brought_in(rooms) - brought_in("numpy, msgspec") == {"twinspike_conformance"}


@pytest.mark.parametrize("name", ["twinspike_training", "twinspike_conformance"])
def test_rooms_that_use_backends_load_none(name: str) -> None:
    assert not brought_in(name) & {"torch", "jax", "jaxlib", "optax", "twinspike_numpy", "twinspike_torch", "twinspike_jax"}


def test_registered_names_are_listed_without_loading_any() -> None:
    command = [sys.executable, "-c", "import sys, twinspike; twinspike.names(); print(*sys.modules)"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "jax", "twinspike_numpy", "twinspike_torch", "twinspike_jax"} & set(loaded)


def test_every_public_name_is_there_and_told() -> None:
    assert len(set(twinspike.__all__)) == len(twinspike.__all__)
    for name in twinspike.__all__:
        public = getattr(twinspike, name)
        assert public.__doc__ or not isinstance(public, type | FunctionType), name
