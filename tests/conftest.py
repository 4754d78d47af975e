"""How the tests are run: nothing is skipped, and what a test file needs is said by its folder.

A skipped test looks like a passed one, so a skip is a failure here. An environment that lacks a
framework leaves whole folders out instead, by name and in the open: `pytest --without torch`.
"""

from __future__ import annotations

import os
import signal
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

HERE = Path(__file__).parent

NEEDS: dict[str, frozenset[str]] = {
    "spec": frozenset(),
    "conformance": frozenset(),
    "project": frozenset(),
    "torch": frozenset({"torch"}),
    "jax": frozenset({"jax"}),
    "cross": frozenset({"torch", "jax"}),
    "training": frozenset({"train"}),
    "browser": frozenset({"browser"}),
    "kernels": frozenset({"torch", "kernels"}),
    "proofs": frozenset({"proofs"}),
    "export": frozenset({"export"}),
    "ray": frozenset({"train", "torch", "jax", "ray"}),
    "nir_libraries": frozenset({"torch", "nir-libraries"}),
}
"""Folder -> what must be installed for the test files in it: `training/cross/` needs all three."""

settings.register_profile("tests", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("tests")


def needs(path: Path) -> frozenset[str]:
    """What a test file, or what lies in a folder, needs beside the specification: the needs of all folders that it is in."""
    folders = path.relative_to(HERE).parts[: None if path.is_dir() else -1]
    return frozenset[str]().union(*(NEEDS.get(name, frozenset()) for name in folders))


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
    # Started in the background of a script, or under nohup, tests would ignore what they send themselves, as runs are to.
    for name, usual in (("SIGINT", signal.default_int_handler), ("SIGTERM", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    if config.getoption("device") == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which torch's compiler does


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if not collection_path.is_relative_to(HERE):
        return None
    if collection_path.match("test_*.py") and not set(collection_path.relative_to(HERE).parts[:-1]) & NEEDS.keys():
        raise pytest.UsageError(f"{collection_path} lies in no folder that says what it needs: {', '.join(NEEDS)}")
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
