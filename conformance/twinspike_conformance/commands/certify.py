"""Certify one network at its real size: every layer, gradient, statistic and update of one joint step.

The suite's own networks are narrow, so that it ends in a minute. Here the same checks are given the network
that a user trains, layer by layer from the backend's own inputs to each.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from twinspike import plain
from twinspike.config import SGD, Method, decode, encode
from twinspike.errors import require
from twinspike.zoo import ZOO
from twinspike_conformance.cases.structures import build
from twinspike_conformance.checks import CHECKS, Bench, Check
from twinspike_conformance.checks.base import Space
from twinspike_conformance.report.record import Record
from twinspike_conformance.run import opening
from twinspike_conformance.run.profiles import PROFILES
from twinspike_conformance.run.runner import left_out, run_check

ALL = "all"
"""In the place of a network: every structure of the zoo, as before a release."""

PARTS = ("layers", "gradients", "loss", "statistics", "update", "evaluation")
"""The checks of networks that start from the backend's own values, and so stay sharp at any depth."""


def main(words: list[str]) -> int:
    """Print what each check found on each network; 0 if all passed, else the worst of what they ended with.

    Raises:
        SpecError: network, method or backend is not there or does not fit.
    """
    parser = argparse.ArgumentParser(
        prog="twinspike_conformance certify",
        description="Certify one joint step of networks at their real size, layer by layer.",
        allow_abbrev=False,
    )
    parser.add_argument("networks", nargs="+", metavar="network", help=f"a name of the zoo, or `{ALL}`")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="f32-ieee")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--batch", type=int, default=2, help="B, at least 2; memory grows with it")
    parser.add_argument("--width", type=int, default=None, help="channels of the first stage; the network's own if not given")
    parser.add_argument("--config", default=None, help="TOML file whose table `method` is used; the paper's method if not given")
    parser.add_argument("--seed", type=int, default=0, help="of parameters, images and labels")
    report = "folder for report.json, junit.xml, report.html and badges; of several networks, one for each in it"
    parser.add_argument("--report", default=None, help=report)
    given = parser.parse_args(words)
    require(given.batch >= 2, "--batch", expected="a whole number >= 2", got=given.batch)
    method = _method(given.config)
    names = list(dict.fromkeys(name for word in given.networks for name in (ZOO if word == ALL else (word,))))
    width = {} if given.width is None else {"width": given.width}
    described = [{"name": name} | width for name in names]
    for arguments in described:
        build(arguments)  # before the first of them takes its time
    options = opening.Options(
        backend=given.backend, device=given.device, precision=given.precision, compiled=given.compiled, seed=given.seed
    )
    bench = opening.bench(options)
    folders = [given.report if len(names) == 1 or given.report is None else str(Path(given.report) / name) for name in names]
    for folder in folders:
        opening.known(options, folder)
    return max(_certify(bench, options, a, method, given.batch, f) for a, f in zip(described, folders, strict=True))


def _certify(
    bench: Bench, options: opening.Options, arguments: dict[str, Any], method: Method, batch: int, folder: str | None
) -> int:
    """One network: its exit status."""
    network, started = build(arguments), time.time()
    what = f"certify {network.name}, B = {batch}, T = {method.time_steps}, input {network.input_shape}"
    print("\n".join([*opening.lines(opening.side(bench), options)[:-1], what]), flush=True)
    config = {"network": arguments, "method": encode(method), "optimizer": encode(SGD(momentum=0.9))}
    records: list[Record] = []
    for check in CHECKS.values():
        if check.id not in {f"network[{part}]" for part in PARTS}:
            records.append(left_out(check, "not part of a certificate of one network"))
            continue
        records.append(run_check(at(check, config, batch), bench, PROFILES["smoke"], options.seed))
        r = records[-1]
        worst = f"worst error/bound {r.worst_ratio:.3g}" if r.comparisons else r.reason
        print(f"{r.id}: {r.status}, {r.comparisons} comparisons, {worst}, {r.seconds:.0f} s", flush=True)
    report = opening.report(opening.side(bench), options, records, started, narrowed="one network")
    report = msgspec.structs.replace(report, header=msgspec.structs.replace(report.header, profile=what))
    return opening.close(report, folder, colour=sys.stdout.isatty())


def at(check: Check, config: dict[str, Any], batch: int) -> Check:
    """A check of networks whose one example is the given network."""
    space = Space(check.space.operation, (config,), ({"B": batch},), ("normal",), False)
    return msgspec.structs.replace(check, space=space, weight=0.0)


def _method(path: str | None) -> Method:
    if path is None:
        return Method()
    return decode(Method, plain.read_table(Path(path)).get("method", {}), "method")
