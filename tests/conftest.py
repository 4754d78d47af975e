"""How the tests are run: nothing is skipped, and what a test file needs is said by its name.

A skipped test looks like a passed one, so a skip is a failure here. An environment that lacks a
framework leaves whole files out instead, by name and in the open: `pytest --without torch`.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Before anything of it is imported: in tests, and in tests only, calls check their annotations. Modules whose
# quantities may be scalars are left out, since NumPy turns arrays of shape () into numbers that are no arrays.
install_import_hook(
    [f"twinspike.reference.{name}" for name in ("factorization", "layers", "losses", "norm")], "beartype.beartype"
)

NEEDS: dict[str, frozenset[str]] = {
    "torch": frozenset({"torch"}),
    "jax": frozenset({"jax"}),
    "cross": frozenset({"torch", "jax"}),
    "training": frozenset({"train"}),
    "data": frozenset({"train"}),
    "browser": frozenset({"browser"}),
    "kernels": frozenset({"torch", "kernels"}),
}
"""Word in a test file's name -> what must be installed for it: `test_cross_training.py` needs all three."""

settings.register_profile("tests", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("tests")


def needs(path: Path) -> frozenset[str]:
    """What a test file needs beside the specification, by the words of its name."""
    return frozenset[str]().union(*(NEEDS.get(word, frozenset()) for word in path.stem.split("_")))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("twinspike")
    words = sorted(frozenset[str]().union(*NEEDS.values()))
    group.addoption(
        "--without",
        action="append",
        default=[],
        choices=words,
        help="leave out the test files that need this (repeatable)",
    )
    group.addoption("--only", choices=words, help="run the test files that need this, and no others")
    group.addoption("--device", default="cpu", help="device on which backends are tested, such as cpu or cuda")
    group.addoption("--on-device", action="store_true", help="run the tests that compute on that device, and no others")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("device") == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which torch's compiler does


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    needed, only = needs(collection_path), config.getoption("only")
    left_out = bool(needed & set(config.getoption("without")))
    other = only is not None and collection_path.suffix == ".py" and only not in needed
    return True if left_out or other else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("on_device"):
        others = [item for item in items if "device" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """The device that `--device` names."""
    return str(pytestconfig.getoption("device"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.outcome == "skipped":
        _fail(report)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure that gives its place and reason."""
    where = report.longrepr
    reason = f"{where[0]}:{where[1]}: {where[2]}" if isinstance(where, tuple) else str(where)
    report.outcome = "failed"
    report.longrepr = f"{reason}\nSkips are failures here: leave the file out with --without, or mend the test."
