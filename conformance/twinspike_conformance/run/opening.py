"""Opening what a run is about, and closing it with a report: shared by the command line and the pytest plugin."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import msgspec

import twinspike
from twinspike import plain
from twinspike.backend import Backend
from twinspike.boundary import legible
from twinspike.errors import refuse
from twinspike_conformance.checks import Bench
from twinspike_conformance.raised import said
from twinspike_conformance.report import expectations, publish, store, summary, terminal
from twinspike_conformance.report.expectations import Expectation
from twinspike_conformance.report.record import Header, Record, Report, Side
from twinspike_conformance.run.profiles import profile
from twinspike_conformance.run.replicas import Replicated


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a user can choose."""

    backend: str
    device: str = "cpu"
    precision: str = "f32-ieee"
    compiled: bool = False
    devices: int = 1
    """Devices that programs train over."""
    profile: str = "ci"
    seed: int = 0
    expectations: str | None = None
    jobs: int = 1
    """Processes that run the checks."""
    limit: float = 600.0
    """Seconds that a check may take, and a backend to open."""


def load(name: str) -> Backend:
    """A backend by name, by `module:object`, as `mutant:ID[@base]`, or by the key `backend` of a TOML file.

    Raises:
        SpecError: it can't be found or loaded.
    """
    if name.endswith(".toml"):
        data = plain.read_table(Path(name))
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
    if options.devices != 1:
        backend = Replicated(backend, options.backend, options.devices)
    session = backend.session(options.device, options.precision, options.compiled)
    return Bench(backend, session, options.backend, replicas=options.devices)


def known(options: Options, folder: str | None) -> tuple[Expectation, ...]:
    """The expectations of a run, read before it begins, as is seen to that its report can be written.

    Raises:
        SpecError: the file of expectations is none, or the report's folder can't be made or written into.
    """
    if folder is not None:
        store.writable(Path(folder))
    return () if options.expectations is None else expectations.load(Path(options.expectations))


def lines(about: Side, options: Options, against: Side | None = None) -> list[str]:
    """The header of a run, of one backend or of one against another."""
    found = [line for side in (about, against) if side is not None for line in _lines_of(side, options)]
    return [*found, f"profile {options.profile}, seed {options.seed}{_together(options.jobs)}"]


def _together(jobs: int) -> str:
    return f", {jobs} processes" if jobs > 1 else ""


def _lines_of(side: Side, options: Options) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in side.versions.items())
    mode = "compiled" if side.compiled else "eager"
    flags = ", ".join(f"{name}={value}" for name, value in side.flags.items()) or "none"
    other = summary.other_specification(side.written_for)
    return [
        f"twinspike {twinspike.__version__} conformance: backend {side.backend} ({versions})",
        f"device {side.device}, precision {options.precision}, {mode}, flags read back: {flags}",
        *([f"{side.backend} was {other}"] if other else []),
    ]


def _clear(value: object) -> str:
    return legible(str(value))


def side(opened: Bench) -> Side:
    """What a report says about one backend."""
    claims, session = opened.backend.capabilities(), opened.session
    # A backend is anyone's, and what it says of itself is shown in terminals and pictures.
    device, versions = _clear(session.device), {_clear(name): _clear(version) for name, version in claims.versions.items()}
    return Side(
        backend=_clear(opened.backend.name),
        given=_clear(opened.given or opened.backend.name),
        versions=versions,
        device=device,
        device_name=versions.get(device.partition(":")[0], platform.processor() or platform.machine()),
        compiled=bool(session.compiled),
        flags={_clear(name): _clear(value) for name, value in session.flags().items()},
        written_for=_clear(claims.specification),
    )


def report(
    about: Side,
    options: Options,
    records: Sequence[Record],
    started: float,
    against: Side | None = None,
    waived: Sequence[Expectation] = (),
    narrowed: str = "",
) -> Report:
    """The report of a run.

    Args:
        about: the backend that ran.
        options: as they were given.
        records: one of each check, those that were left out too.
        started: seconds since the epoch.
        against: the second backend of a cross run.
        waived: what `known` read.
        narrowed: what limited the run to a part of the suite; empty where nothing did.
    """
    header = Header(
        **msgspec.structs.asdict(about),
        suite_version=twinspike.__version__,
        spec_version=twinspike.__version__,
        precision=options.precision,
        profile=options.profile,
        seed=options.seed,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=_packages(),
        started=datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        seconds=time.time() - started,
        jobs=options.jobs,
        narrowed=narrowed,
        against=against,
    )
    return expectations.apply(waived, Report(header=header, records=tuple(records)), date.today())


@cache
def _packages() -> tuple[str, ...]:
    return tuple(sorted(f"{d.metadata['Name']}=={d.version}" for d in distributions()))


def keep(result: Report, folder: str) -> None:
    """Leave the JSON of a run that goes on, in case that it is killed; what can't be written is told by `close`."""
    with suppress(OSError):
        for name in (*store.FORMS[1:], store.MARK):  # of an earlier run
            (Path(folder) / name).unlink(missing_ok=True)
        store.write(result, Path(folder) / store.FORMS[0])


def close(result: Report, folder: str | None, write: Callable[[str], object] = print, colour: bool = False) -> int:
    """Keep the report, then show it.

    Returns:
        The exit status: 0 if nothing that ran was wrong, 1 if something was or is undecided, 3 if a check or a form of the
        report came to no end, so that less was found out than was asked for.
    """
    lost = ""
    if folder is not None:
        try:
            result = publish(result, Path(folder))
        except OSError as error:
            lost = f"error: {folder}: the report can't be written: {error.strerror or error}"
    try:
        shown = terminal.render(result, colour=colour)
    except Exception as error:  # of the suite's own: what is written stands
        shown, lost = "", lost or f"error: the summary can't be shown: {said(error)}"
    if shown:
        write(shown)
    if folder is not None and not lost:
        write(f"report: {Path(folder) / 'report.html'}")
    if lost:
        write(lost)
    if lost or any(record.status == "error" for record in result.records):
        return 3
    return 0 if result.verdict in ("pass", "incomplete") else 1
