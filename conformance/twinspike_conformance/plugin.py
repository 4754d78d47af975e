"""The pytest plugin: options, the bench, and a record of every check; loaded by `-p twinspike_conformance.plugin` alone."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from twinspike.errors import SpecError
from twinspike_conformance.checks import CHECKS, Check
from twinspike_conformance.report.record import Record, Report
from twinspike_conformance.run import jobs, opening
from twinspike_conformance.run.profiles import PROFILES, profile
from twinspike_conformance.run.runner import left_out


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
            limit=jobs.limit(get("--limit"), profile(get("--profile"))),
        )
        self.waived = opening.known(self.options, get("--report"))
        self.records: dict[str, Record] = {}
        self.started = time.time()
        self._config = config
        self.team = jobs.Team(self.options, self.say)
        with ExitStack() as stack:
            stack.enter_context(self.team)
            self.about = self.team.opened()
            self.close = stack.pop_all().close

    def say(self, text: str) -> None:
        """A line on the terminal, whatever pytest captures."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.write_line(f"\n{text}")

    def check(self, check: Check) -> Record:
        """Run a check and keep its record."""
        record = self.team.one(check)
        if sum(other.status == "fail" for other in self.records.values()) < jobs.FIRST:
            record = self.team.alone(record)
        self.records[check.id] = record
        return record

    def report(self) -> Report:
        """Of all checks: those that pytest did not come to are records too."""
        get = self._config.getoption
        words = [f"{option} {get(name)!r}" for option, name in (("-k", "keyword"), ("-m", "markexpr")) if get(name)]
        left = f"left out by pytest{''.join(f' {word}' for word in words)}"
        records = [self.records.get(name) or left_out(check, left) for name, check in CHECKS.items()]
        narrowed = left if len(self.records) < len(records) else ""
        return opening.report(self.about, self.options, records, self.started, waived=self.waived, narrowed=narrowed)


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
    group.addoption("--limit", type=float, default=None, help="seconds that one check may take; by default the profile's")
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
    return opening.lines(run.about, run.options)


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
    opening.close(run.report(), config.getoption("--report"), terminalreporter.write_line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process that ran the checks."""
    if _RUN in config.stash:
        config.stash[_RUN].close()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run without a test is no run."""
    if exitstatus == pytest.ExitCode.OK and not session.config.stash[_RUN].records:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
