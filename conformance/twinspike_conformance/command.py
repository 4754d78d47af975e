"""The suite's command line: run it, replay an example, verify a report, make a page of several, measure its strength."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from twinspike.errors import SpecError, refuse
from twinspike_conformance import session as opening
from twinspike_conformance.cases.base import from_digest
from twinspike_conformance.checks import CHECKS
from twinspike_conformance.diagnosis import suspects
from twinspike_conformance.profiles import PROFILES, profile
from twinspike_conformance.record import Record, Report
from twinspike_conformance.report import page, read, terminal, verify
from twinspike_conformance.reproduction import reproduction
from twinspike_conformance.runner import left_out, run_check, try_example


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if the verdict is pass, 1 if it is not, 2 for what can't be run."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"repro": _repro, "verify": _verify, "page": _page, "mutants": _mutants, "certify": _certify}
    try:
        if words and words[0] in commands:
            return commands[words[0]](words[1:])
        return _run(words)
    except SpecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser(description: str, backend: bool = True) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="twinspike_conformance", description=description, allow_abbrev=False)
    if backend:
        parser.add_argument("--device", default="cpu")
        parser.add_argument("--precision", default="f32-ieee")
        parser.add_argument("--compiled", action="store_true")
    return parser


def _run(words: list[str]) -> int:
    parser = _parser("Prove that a backend computes the specification. Other commands: repro, verify, page, mutants, certify.")
    parser.add_argument("backend", help="name, module:object, mutant:ID[@base] or a TOML file with the key backend")
    parser.add_argument("--profile", default="ci", help=f"one of {', '.join(PROFILES)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", default=None, help="folder for report.json, junit.xml, report.html and badges")
    parser.add_argument("--expectations", default=None, help="TOML file of known deviations")
    parser.add_argument("--only", default="", help="run the checks whose id contains this text")
    given = parser.parse_args(words)
    options = opening.Options(
        **{
            name: getattr(given, name)
            for name in ("backend", "device", "precision", "compiled", "profile", "seed", "expectations")
        }
    )
    bench, chosen, started = opening.bench(options), profile(options.profile), time.time()
    print("\n".join(opening.lines(bench, options)), flush=True)
    if not any(given.only in name for name in CHECKS):
        raise refuse("--only", expected="part of the id of a check", got=given.only)
    records: list[Record] = []
    for check in CHECKS.values():
        if given.only not in check.id:
            records.append(left_out(check, "left out by --only"))
            continue
        records.append(run_check(check, bench, chosen, options.seed, suspects))
        print({"pass": ".", "not supported": "s", "not run": "n"}.get(records[-1].status, "F"), end="", flush=True)
    result = opening.report(bench, options, records, started)
    print(terminal.render(result, colour=sys.stdout.isatty()))
    if given.report:
        print(f"report: {opening.publish_to(result, Path(given.report))}")
    return 0 if result.verdict == "pass" else 1


def _repro(words: list[str]) -> int:
    parser = _parser("Replay one example of a report on any backend.")
    parser.add_argument("digest", help="as a report shows it: CHECK:EXAMPLE")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--code", action="store_true", help="also print the example as Python code")
    given = parser.parse_args(words)
    name, _, text = given.digest.rpartition(":")
    if name not in CHECKS:
        raise refuse("digest", expected="CHECK:EXAMPLE as a report shows it", got=given.digest)
    example = from_digest(text)
    bench = opening.bench(
        opening.Options(backend=given.backend, device=given.device, precision=given.precision, compiled=given.compiled)
    )
    print(CHECKS[name].sentence)
    print(f"{example.operation} {example.config} {example.sizes} {example.family} seed {example.seed}")
    wrong = try_example(CHECKS[name], bench, example)
    for finding in wrong:
        print(finding.sentence())
    for suspect in suspects(bench, CHECKS[name], example) if wrong else ():
        print(f"suspect: {suspect}")
    if given.code:
        print(reproduction(bench, example))
    print("fail" if wrong else "pass")
    return 1 if wrong else 0


def _verify(words: list[str]) -> int:
    parser = _parser("Refuse a report that is damaged, of another schema, or not true to itself.", backend=False)
    parser.add_argument("report")
    given = parser.parse_args(words)
    found = verify(Path(given.report))
    print(f"{given.report}: {found.verdict if isinstance(found, Report) else 'sound'}")
    return 0


def _mutants(words: list[str]) -> int:
    from twinspike_conformance.faults import gate  # noqa: PLC0415  # the corpus is large and seldom wanted

    return gate.main(words)


def _certify(words: list[str]) -> int:
    from twinspike_conformance import certify  # noqa: PLC0415  # no run of the suite needs it

    return certify.main(words)


def _page(words: list[str]) -> int:
    parser = _parser("One HTML page for several reports.", backend=False)
    parser.add_argument("reports", nargs="+", help="report.json files")
    parser.add_argument("--out", required=True)
    given = parser.parse_args(words)
    print(page([read(Path(path)) for path in given.reports], Path(given.out)))
    return 0
