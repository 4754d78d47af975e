"""The suite's command line: run it, hold backends against one another, replay, verify, make pages, measure its strength."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from twinspike import boundary
from twinspike.errors import refuse
from twinspike.setting import read as read_setting
from twinspike_conformance.cases.base import from_digest
from twinspike_conformance.checks import CHECKS, Bench, Check
from twinspike_conformance.commands import cross
from twinspike_conformance.interrupts import INTERRUPTED, Interrupts
from twinspike_conformance.report import official, page, read, store, summary, verify
from twinspike_conformance.report.record import Record, Report
from twinspike_conformance.run import jobs, opening
from twinspike_conformance.run.diagnosis import suspects
from twinspike_conformance.run.profiles import PROFILES, profile
from twinspike_conformance.run.reproduction import reproduction, write_network
from twinspike_conformance.run.runner import Suspects, left_out, not_twice, told, try_example


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 if nothing was wrong, 1 if something was, 2 for what can't be run, 3 for what came to no end, and 128 and the
        signal's number where one ended it.
    """
    with Interrupts() as interrupts:
        try:
            return _main(list(sys.argv[1:] if arguments is None else arguments), interrupts)
        except KeyboardInterrupt:
            print(INTERRUPTED, file=sys.stderr)
            return interrupts.status(128 + signal.SIGINT)


def _main(words: list[str], interrupts: Interrupts) -> int:
    commands: dict[str, Callable[[list[str]], int]] = {
        "cross": partial(_cross, interrupts), "repro": _repro, "verify": _verify, "page": _page,
        **{name: partial(_elsewhere, module) for name, module in _ELSEWHERE.items()},
    }  # fmt: skip
    if words and words[0] in commands:
        return boundary.run(partial(commands[words[0]], words[1:]))
    return boundary.run(partial(_run, interrupts, words))


_ELSEWHERE = {
    "certify": "commands.certify",
    "golden": "commands.golden",
    "mutants": "strength.gate",
    "false-alarms": "strength.false_alarms",
}
_LEFT_OUT = "left out by --only"
_BACKEND = "name, module:object, mutant:ID[@base] or a TOML file with the key backend"


def _parser(description: str, backend: bool = True) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="twinspike_conformance", description=description, allow_abbrev=False)
    if backend:
        parser.add_argument("--device", default="cpu")
        parser.add_argument("--precision", default="f32-ieee")
        parser.add_argument("--compiled", action="store_true")
    return parser


def _run(interrupts: Interrupts, words: list[str]) -> int:
    parser = _parser(
        f"Prove that a backend computes the specification. Other commands: cross, repro, verify, page, {', '.join(_ELSEWHERE)}."
    )
    parser.add_argument("backend", help=_BACKEND)
    _choose(parser)
    parser.add_argument("--expectations", default=None, help="TOML file of known deviations")
    parser.add_argument("--jobs", type=int, default=None, help="processes; by default one per core on the CPU, and one on a GPU")
    parser.add_argument("--limit", type=float, default=None, help="seconds that one check may take; by default the profile's")
    whole = "refuse whatever narrows the run, and leave a mark that the backend may carry beside the report"
    parser.add_argument("--official", action="store_true", help=whole)
    given = parser.parse_args(words)
    if given.official:
        official.demand(**{name: getattr(given, name) for name in ("backend", "profile", "only", "expectations", "report")})
    _demand(given.only, CHECKS)
    wanted = [check for check in CHECKS.values() if given.only in check.id]
    names = ("backend", "device", "precision", "compiled", "profile", "seed", "expectations")
    count = min(jobs.count(given.jobs, given.device), len(jobs.units(wanted)))
    limit = jobs.limit(given.limit, profile(given.profile))
    options = opening.Options(**{name: getattr(given, name) for name in names}, jobs=count, limit=limit)
    waived, started = opening.known(options, given.report), time.time()
    jobs.share_cores(count)
    found: dict[str, Record] = {}

    def report() -> Report:
        records = _records(CHECKS.values(), found, wanted)
        return opening.report(about, options, records, started, waived=waived, narrowed=_narrowed(given.only, records))

    def note(record: Record) -> None:
        found[record.id] = record
        if given.report is not None:
            opening.keep(report(), given.report)
        _tell(given.report, record)

    with jobs.Team(options, partial(_say, given.report)) as team:
        about = team.opened()
        _show(given.report, "\n".join(opening.lines(about, options)))
        with interrupts.part():
            found |= team.run(wanted, note)
    if not given.official:
        return interrupts.status(_close(report(), given.report))
    return interrupts.status(_close_officially(report(), given.report))


def _close_officially(result: Report, folder: str) -> int:
    """Keep and show the report, and leave the mark if it earns one."""
    result = official.settled(result, CHECKS)
    status = _close(result, folder)
    if not result.header.official:
        _show(folder, f"no mark: {official.obstacle(result, CHECKS)}")
        return status or 1
    if status == 0:
        mark = official.write_mark(Path(folder), CHECKS)
        _show(folder, f"mark: {Path(folder) / store.MARK}: {mark.backend} {mark.sentence()}")
    return status


def _cross(interrupts: Interrupts, words: list[str]) -> int:
    parser = _parser("Hold two backends against one another, on the same examples and from the same states.")
    parser.add_argument("first", help=_BACKEND)
    parser.add_argument("second", help="likewise; options that end in -b are about it")
    _second(parser)
    _choose(parser)
    parser.add_argument(
        "--on", default=None, metavar="FILE", help="steps of this network, state and batches (.npz) in place of the suite's"
    )
    given = parser.parse_args(words)
    if given.on is not None:
        return _on(given, interrupts)
    started, chosen, pair = time.time(), profile(given.profile), _pair(given, given.first, given.second)
    options = opening.Options(backend=given.first, precision=given.precision, profile=given.profile, seed=given.seed)
    opening.known(options, given.report)
    checks = cross.checks(pair)
    _demand(given.only, [*(check.id for check in checks), cross.INDEPENDENCE])
    wanted, found = [check for check in checks if given.only in check.id], dict[str, Record]()
    a, b = opening.side(pair.a), opening.side(pair.b)
    _show(given.report, "\n".join(opening.lines(a, options, b)))

    def report() -> Report:
        records = _records(checks, found, wanted)
        both = cross.independence(pair, given.only)
        if both.status != "not run" and len(found) < len(wanted):  # what is left may be where they differ
            both = msgspec.structs.replace(both, status="not run", reason=INTERRUPTED, comparisons=0)
        records.append(both)
        return opening.report(a, options, records, started, b, narrowed=_narrowed(given.only, records))

    with interrupts.part():
        for check in wanted:
            record = cross.run(pair, check, chosen, given.seed, lambda *_: interrupts.look())
            interrupts.look()
            found[check.id] = record
            if given.report is not None:
                opening.keep(report(), given.report)
            _tell(given.report, record)
    return interrupts.status(_close(report(), given.report))


def _on(given: argparse.Namespace, interrupts: Interrupts) -> int:
    """Steps of one setting: what differs, or how near the two are to what their own inputs demand of each."""
    setting = read_setting(given.on)
    pair = _pair(given, given.first, given.second)
    with interrupts.part():
        findings = cross.through(pair, setting)
        wrong = [finding for finding in findings if not finding.ok]
        for finding in wrong:
            print(f"{finding.sentence()} [{', '.join(finding.clauses)}]")
        steps = f"{len(setting.images)} step{'s' * (len(setting.images) > 1)}"
        worst = max(findings, key=lambda finding: finding.ratio)
        verdict = f"differ in {len(wrong)}" if wrong else f"agree in all {len(findings)}"
        near = "" if wrong else f"; nearest to its bound, at {worst.ratio:.3g} of it: {worst.quantity}"
        print(f"{pair.name} {verdict} comparisons of {steps} of {setting.network.name} in {given.precision}{near}")
        return 1 if wrong else 0
    return interrupts.status(3)


def _second(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device-b", default="cpu", help="of the second backend")
    parser.add_argument("--compiled-b", action="store_true", help="the second backend compiled")
    for option, of in (("--devices", "first"), ("--devices-b", "second")):
        parser.add_argument(
            option, type=int, default=1, help=f"that the {of} backend's programs train over; networks alone are compared"
        )


def _pair(given: argparse.Namespace, first: str, second: str) -> cross.Pair:
    sides = ((first, given.device, given.compiled, given.devices), (second, given.device_b, given.compiled_b, given.devices_b))
    a, b = (
        opening.bench(opening.Options(backend=name, device=device, precision=given.precision, compiled=compiled, devices=devices))
        for name, device, compiled, devices in sides
    )
    return cross.Pair(a, b)


def _choose(parser: argparse.ArgumentParser) -> None:
    """Options of what is run and where its report goes."""
    parser.add_argument("--profile", default="ci", help=f"one of {', '.join(PROFILES)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", default=None, help="folder for report.json, junit.xml, report.html and badges")
    parser.add_argument("--only", default="", help="run the checks whose id contains this text")


def _demand(only: str, names: Iterable[str]) -> None:
    if not any(only in name for name in names):
        raise refuse("--only", expected="part of the id of a check", got=only)


def _records(checks: Iterable[Check], found: Mapping[str, Record], wanted: Collection[Check]) -> list[Record]:
    """A record of each check, in order: those that are wanted and not found were not come to."""
    ids = {check.id for check in wanted}
    return [found.get(check.id) or left_out(check, INTERRUPTED if check.id in ids else _LEFT_OUT) for check in checks]


def _narrowed(only: str, records: Iterable[Record]) -> str:
    """What made the run one of a part of the suite."""
    reasons = {record.reason for record in records}
    return ", ".join(word for word, reason in ((f"--only {only}", _LEFT_OUT), (INTERRUPTED, INTERRUPTED)) if reason in reasons)


def _show(report: str | None, text: str, end: str = "\n") -> None:
    """Print; where nobody takes it any more a run goes on if it is to leave a report."""
    try:
        print(text, end=end, flush=True)
    except OSError:
        if report is None:
            raise
        boundary.silence()


def _say(report: str | None, text: str) -> None:
    """A line of its own among the letters."""
    _show(report, f"\n{text}")


def _tell(report: str | None, record: Record) -> None:
    """A letter."""
    _show(report, {"pass": ".", "not supported": "s", "not run": "n", "error": "E"}.get(record.status, "F"), end="")


def _close(result: Report, folder: str | None) -> int:
    """Keep and show the report."""
    return opening.close(result, folder, partial(_show, folder), colour=sys.stdout.isatty())


def _repro(words: list[str]) -> int:
    parser = _parser("Replay one example of a report on any backend.")
    parser.add_argument("digest", help="as a report shows it: CHECK:EXAMPLE")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--against", default=None, help="the second backend, of an example of a cross run")
    _second(parser)
    code = "also print the example as Python code; of a network, write a script and its numbers into FOLDER, by default this one"
    parser.add_argument("--code", nargs="?", const=".", default=None, metavar="FOLDER", help=code)
    given = parser.parse_args(words)
    name, _, text = given.digest.rpartition(":")
    paired = name.startswith("cross[")
    if paired and given.against is None:
        raise refuse("--against", expected="the second backend, since the example is of a cross run", got="nothing")
    checks, explain, benches = _replayed(given) if paired else (CHECKS, suspects, [_one(given)])
    if name not in checks:
        raise refuse("digest", expected="CHECK:EXAMPLE as a report shows it", got=given.digest)
    example = from_digest(text)
    print(checks[name].sentence)
    print(example.words())
    wrong, again = (try_example(checks[name], benches[0], example) for _ in range(2))
    note = not_twice(told(wrong), told(again))
    for line in ([note] if note else []) + [finding.sentence() for finding in wrong or again]:
        print(line)
    for suspect in explain(benches[0], checks[name], example) if wrong else ():
        print(f"suspect: {suspect}")
    if given.code is not None and example.operation == "network":
        print(*write_network(Path(given.code), benches[0], example, *benches[1:]), sep="\n")
    elif given.code is not None:
        print(reproduction(benches[0], example, *benches[1:]))
    if not wrong and not again:
        print("right in this process alone: if it was wrong in a run of this backend, the answer depends on earlier calls")
    print("fail" if wrong or again else "pass")
    return 1 if wrong or again else 0


def _one(given: argparse.Namespace) -> Bench:
    options = opening.Options(backend=given.backend, device=given.device, precision=given.precision, compiled=given.compiled)
    return opening.bench(options)


def _replayed(given: argparse.Namespace) -> tuple[dict[str, Check], Suspects, list[Bench]]:
    """Checks of a pair, who finds its suspects, and its benches."""
    pair = _pair(given, given.backend, given.against)
    return {check.id: check for check in cross.checks(pair)}, partial(cross.suspects_of, pair), [pair.a, pair.b]


def _verify(words: list[str]) -> int:
    parser = _parser(
        "Refuse a report that is damaged, of another schema, not true to itself, or of a part of the suite.", backend=False
    )
    parser.add_argument("report")
    parser.add_argument("--official", action="store_true", help="refuse a report of a run that was not official")
    parser.add_argument("--mark", default=None, help=f"hold this mark against it; by default {store.MARK} beside it, if any")
    given = parser.parse_args(words)
    path = Path(given.report)
    found = verify(path, CHECKS)
    beside = path.with_name(store.MARK)
    mark = Path(given.mark) if given.mark is not None else beside if beside.is_file() else None
    said = ""
    if mark is not None:
        said = f"; mark: {official.check_mark(mark, path, CHECKS).sentence()}"
    elif given.official or found.header.official:
        said = f"; official: {official.mark_of(path, CHECKS).sentence()}"
    print(f"{given.report}: {found.verdict}, profile {found.header.profile}, {summary.count_text(found)}{said}")
    return 0


def _elsewhere(module: str, words: list[str]) -> int:
    """A command of a module that no run of the suite needs."""
    return int(importlib.import_module(f"twinspike_conformance.{module}").main(words))


def _page(words: list[str]) -> int:
    parser = _parser("One HTML page for several reports.", backend=False)
    parser.add_argument("reports", nargs="+", help="report.json files")
    parser.add_argument("--out", required=True)
    given = parser.parse_args(words)
    print(page([read(Path(path)) for path in given.reports], Path(given.out)))
    return 0
