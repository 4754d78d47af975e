"""The pytest plugin: options, the bench, and a record of every check; loaded by `-p twinspike_conformance.plugin` alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from twinspike.errors import SpecError
from twinspike_conformance import session as opening
from twinspike_conformance.checks import CHECKS, Bench, Check
from twinspike_conformance.diagnosis import suspects
from twinspike_conformance.profiles import PROFILES, Profile, profile
from twinspike_conformance.record import Record
from twinspike_conformance.report import terminal
from twinspike_conformance.runner import run_check


class Run:
    """One run of the suite: what it runs on, and what it found so far."""

    def __init__(self, config: pytest.Config) -> None:
        get = config.getoption
        self.options = opening.Options(
            backend=get("--backend"),
            device=get("--device"),
            precision=get("--precision"),
            compiled=get("--compiled"),
            profile=get("--profile"),
            seed=get("--seed"),
            expectations=get("--expectations"),
        )
        self.bench: Bench = opening.bench(self.options)
        self.profile: Profile = profile(self.options.profile)
        self.records: list[Record] = []
        self.started = time.time()

    def check(self, check: Check) -> Record:
        """Run a check and keep its record."""
        record = run_check(check, self.bench, self.profile, self.options.seed, suspects)
        self.records.append(record)
        return record


_RUN = pytest.StashKey[Run]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The suite's options, as the command line has them."""
    group = parser.getgroup("twinspike conformance")
    group.addoption("--backend", default=None, help="name, module:object, mutant:ID[@base] or a TOML file with key backend")
    group.addoption("--device", default="cpu")
    group.addoption("--precision", default="f32-ieee")
    group.addoption("--compiled", action="store_true")
    group.addoption("--profile", default="ci", help=f"one of {', '.join(PROFILES)}")
    group.addoption("--seed", type=int, default=0)
    group.addoption("--report", default=None, help="folder for the report")
    group.addoption("--expectations", default=None, help="TOML file of known deviations")


def pytest_configure(config: pytest.Config) -> None:
    """Open the backend; what can't be opened ends the run."""
    if config.getoption("--backend") is None:
        raise pytest.UsageError("--backend: expected the name of a backend, got nothing")
    try:
        config.stash[_RUN] = Run(config)
    except SpecError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_report_header(config: pytest.Config) -> list[str]:
    """What runs."""
    run = config.stash[_RUN]
    return opening.lines(run.bench, run.options)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per check."""
    if "check" in metafunc.fixturenames:
        metafunc.parametrize("check", CHECKS.values(), ids=CHECKS.keys())


@pytest.fixture(scope="session")
def conformance_run(request: pytest.FixtureRequest) -> Run:
    """The run that a test belongs to."""
    return request.config.stash[_RUN]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The verdict, and the report if one was asked for."""
    run = config.stash[_RUN]
    report = opening.report(run.bench, run.options, run.records, run.started)
    terminalreporter.write(terminal.render(report))
    folder = config.getoption("--report")
    if folder:
        terminalreporter.write_line(f"report: {opening.publish_to(report, Path(folder))}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run without a test is no run."""
    if exitstatus == pytest.ExitCode.OK and not session.config.stash[_RUN].records:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
