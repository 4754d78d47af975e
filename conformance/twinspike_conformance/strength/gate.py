"""The gate of the corpus from the command line: every fault, what killed it, and whether the suite is strong enough."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import msgspec

from twinspike.errors import refuse, require
from twinspike.precision import PRECISIONS
from twinspike_conformance.checks import CHECKS
from twinspike_conformance.faults import FAULTS
from twinspike_conformance.faults.backend import fits
from twinspike_conformance.faults.base import Fault
from twinspike_conformance.report import publish
from twinspike_conformance.report.record import KillRow
from twinspike_conformance.run import opening
from twinspike_conformance.run.runner import run_check
from twinspike_conformance.strength.kill import CI, finest, kill, survivors


def main(words: list[str]) -> int:
    """Print the kill matrix; 0 if every fault that is not proved equivalent has two killers and no equivalent one has any.

    Raises:
        SpecError: the base or precision is not there, or no fault is chosen.
    """
    parser = argparse.ArgumentParser(
        prog="twinspike_conformance mutants",
        description="Put every fault of the corpus into a backend and see which checks of the ci profile find it.",
        allow_abbrev=False,
    )
    parser.add_argument("--base", default="numpy", help="backend that the faults are put into")
    parser.add_argument("--precision", default=None, help="the base's finest if not given")
    parser.add_argument("--only", default="", help="faults whose id contains this text")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th of these, from the K-th on")
    parser.add_argument(
        "--wider", type=float, default=1.0, help="multiply every bound by this: what then lives, its bound killed"
    )
    parser.add_argument("--report", default=None, help="folder for a report of the base's own run and the matrix")
    given = parser.parse_args(words)
    base, started = opening.load(given.base), time.time()
    precision = given.precision or finest(base)
    options = opening.Options(backend=given.base, device=base.capabilities().devices[0], precision=precision)
    opening.known(options, given.report)
    bench = opening.bench(options)
    chosen = [fault for fault in FAULTS if given.only in fault.id]
    if not chosen:
        raise refuse("--only", expected="part of the id of a fault", got=given.only)
    chosen = part(chosen, given.part)
    rows = []
    for fault in chosen:
        if not fits(fault, base):
            print(f"{fault.id}: needs a base whose arrays are NumPy's", flush=True)
            continue
        if fault.storage not in ("", PRECISIONS[precision].storage):
            print(f"{fault.id}: a fault in {fault.storage} alone", flush=True)
            continue
        rows.append(kill(fault, base, precision=precision, wider=given.wider))
        print(line(rows[-1]), flush=True)
    print("\n".join(summary(rows)))
    if given.report:
        records = [run_check(check, bench, CI, options.seed) for check in CHECKS.values()]
        report = opening.report(opening.side(bench), options, records, started)
        publish(msgspec.structs.replace(report, kills=tuple(rows)), Path(given.report))
        print(f"report: {Path(given.report) / 'report.html'}")
    return 1 if survivors(rows) else 0


def part(faults: list[Fault], text: str) -> list[Fault]:
    """Every N-th of the faults from the K-th on, so that N parts are the whole.

    Raises:
        SpecError: the text is not K/N with 1 <= K <= N, or no fault is left.
    """
    first, _, of = text.partition("/")
    fits_it = first.isdecimal() and of.isdecimal() and 1 <= int(first) <= int(of)
    chosen = faults[int(first) - 1 :: int(of)] if fits_it else []
    require(bool(chosen), "--part", expected=f"K/N with 1 <= K <= N, and K <= {len(faults)}", got=text)
    return chosen


def line(row: KillRow) -> str:
    """One fault: its clause, and each killer with the rung that failed and the number of examples it needed."""
    pairs = zip(row.killers, row.rungs, row.examples, strict=True)
    killers = ", ".join(f"{name} ({rung}, {count})" for name, rung, count in pairs) or "nothing"
    verdict = "equivalent, " if row.equivalent else "" if row not in survivors([row]) else "TOO FEW: "
    return f"{row.fault} [{row.clause}]: {verdict}{killers}"


def summary(rows: list[KillRow]) -> list[str]:
    """The matrix' numbers, and what breaks the gate."""
    counts = [len(row.killers) for row in rows if not row.equivalent]
    equivalent = [row for row in rows if row.equivalent]
    alarms = sum(bool(row.killers) for row in equivalent)
    text = f"{len(counts)} faults: {sum(n >= 2 for n in counts)} killed by two checks or more, {counts.count(1)} by one, "
    text += f"{counts.count(0)} by none; {len(equivalent)} proved equivalent, of which {alarms} raised a false alarm"
    return [text, *(f"breaks the gate: {line(row)}" for row in survivors(rows))]
