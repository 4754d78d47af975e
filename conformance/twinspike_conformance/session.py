"""Opening what a run is about, and closing it with a report: shared by the command line and the pytest plugin."""

from __future__ import annotations

import platform
import time
import tomllib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from importlib.metadata import distributions
from pathlib import Path

import msgspec

import twinspike
from twinspike.backend import Backend
from twinspike.errors import SpecError, refuse
from twinspike_conformance.checks import Bench
from twinspike_conformance.profiles import profile
from twinspike_conformance.record import Header, Record, Report, Side
from twinspike_conformance.report import expectations, publish


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a user can choose."""

    backend: str
    device: str = "cpu"
    precision: str = "f32-ieee"
    compiled: bool = False
    profile: str = "ci"
    seed: int = 0
    expectations: str | None = None
    jobs: int = 1
    """Processes that run the checks."""


def load(name: str) -> Backend:
    """A backend by name, by `module:object`, as `mutant:ID[@base]`, or by the key `backend` of a TOML file.

    Raises:
        SpecError: it can't be found or loaded.
    """
    if name.endswith(".toml"):
        try:
            data = tomllib.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise SpecError(f"{name}: expected a TOML file with the key backend, got {error}") from None
        if not isinstance(data.get("backend"), str):
            raise refuse(name, expected="the key backend, a string", got=data.get("backend"))
        name = data["backend"]
    if name.startswith("mutant:"):
        from twinspike_conformance.faults.backend import load_mutant  # noqa: PLC0415  # the corpus is large and seldom wanted

        return load_mutant(name)
    return twinspike.load(name)


def bench(options: Options) -> Bench:
    """Open the session that a run is about; SpecError if anything of it is not there."""
    profile(options.profile)
    backend = load(options.backend)
    return Bench(backend, backend.session(options.device, options.precision, options.compiled), options.backend)


def lines(opened: Bench, options: Options, against: Bench | None = None) -> list[str]:
    """The header of a run, of one backend or of one against another."""
    found = [line for bench in (opened, against) if bench is not None for line in _lines_of(bench)]
    return [*found, f"profile {options.profile}, seed {options.seed}{_together(options.jobs)}"]


def _together(jobs: int) -> str:
    return f", {jobs} processes" if jobs > 1 else ""


def _lines_of(opened: Bench) -> list[str]:
    session, claims = opened.session, opened.backend.capabilities()
    versions = ", ".join(f"{name} {version}" for name, version in claims.versions.items())
    mode = "compiled" if session.compiled else "eager"
    flags = ", ".join(f"{name}={value}" for name, value in session.flags().items()) or "none"
    return [
        f"twinspike {twinspike.__version__} conformance: backend {opened.backend.name} ({versions})",
        f"device {session.device}, precision {session.precision}, {mode}, flags read back: {flags}",
    ]


def _side(opened: Bench) -> Side:
    """What a report says about one backend."""
    claims, session = opened.backend.capabilities(), opened.session
    return Side(
        backend=opened.backend.name,
        given=opened.given or opened.backend.name,
        versions={name: str(version) for name, version in claims.versions.items()},
        device=session.device,
        device_name=claims.versions.get(session.device.partition(":")[0], platform.processor() or platform.machine()),
        compiled=session.compiled,
        flags=session.flags(),
    )


def report(opened: Bench, options: Options, records: Sequence[Record], started: float, against: Bench | None = None) -> Report:
    """The report of a finished run, expectations applied; `against` is the second backend of a cross run."""
    packages = sorted(f"{d.metadata['Name']}=={d.version}" for d in distributions())
    header = Header(
        **msgspec.structs.asdict(_side(opened)),
        suite_version=twinspike.__version__,
        spec_version=twinspike.__version__,
        precision=opened.session.precision,
        profile=options.profile,
        seed=options.seed,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=tuple(packages),
        started=datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        seconds=time.time() - started,
        jobs=options.jobs,
        against=None if against is None else _side(against),
    )
    result = Report(header=header, records=tuple(records))
    if options.expectations is None:
        return result
    return expectations.apply(expectations.load(Path(options.expectations)), result, date.today())


def publish_to(result: Report, folder: Path) -> Path:
    """Write all forms of the report; the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    return publish(result, folder)
