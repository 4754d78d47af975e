"""How long the conformance suite takes: smoke and ci of every backend in fresh processes, deep at two sizes.

    python benchmarks/conformance.py [--backends numpy torch jax] [--profiles smoke ci] [--rounds 3] [--deep 20 40]

A run is a new process from its start to its last check: what it took in all, and its shares of starting (the
interpreter, imports, opening the session), compiling and running. Compiling is the suite's own estimate:
what first calls of a shape and config took longer than later ones. `cold` runs find the compilers' caches on
disk empty, `warm` ones as the run before left them; NumPy has none. Kernels of the backends' own, which are built once on
a machine, are not among them: the first round builds them where they are missing. deep draws afresh, at two numbers of draws:
processor time per example beyond the smaller size, against that up to it, tells whether it scales with its examples.
Results go to `results/conformance_DEVICE.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measure import header, spread, write

PACKAGES = {"numpy": "numpy", "torch": "torch", "jax": "jax"}
"""Backend -> the package without which it is not there."""
CACHES = ("TORCHINDUCTOR_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR", "TMPDIR")
"""Where compilers keep what they made; torch precompiles its headers into the folder of temporary files, whatever its cache."""
KEEP_ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
"""JAX keeps by default only what took a second to compile, which here nothing does."""
SLOWEST = 5
"""Checks told of each run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="*", default=[name for name, package in PACKAGES.items() if find_spec(package)])
    parser.add_argument("--profiles", nargs="*", default=["smoke", "ci"], help="of those with a fixed number of examples")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", help="default: f32-ieee, or the only one that the backend has")
    parser.add_argument("--rounds", type=int, default=3, help="cold runs, and as many warm ones")
    parser.add_argument("--deep", nargs="*", type=int, default=[20, 40], help="two numbers of draws, or none for no deep runs")
    parser.add_argument("--only", default="", help="run the checks whose id contains this text")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # this process is one run, of this backend
    parser.add_argument("--draws", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options)))
        return
    if len(options.deep) not in (0, 2) or sorted(set(options.deep)) != options.deep:
        parser.error("--deep: expected two numbers in ascending order, or none")
    name = f"conformance_{options.device.partition(':')[0]}"
    result = header("conformance") | {"device": options.device, "unit": "s", "rows": []}
    for backend in options.backends:
        for profile in options.profiles:
            for cache, runs in in_turns(options, backend, profile).items():
                result["rows"].append(row(backend, profile, cache, runs))
                tell(result["rows"][-1])
                write(name, result, options.out)
        if options.deep:
            result["rows"].append(linearity(options, backend))
            tell(result["rows"][-1])
            write(name, result, options.out)


def in_turns(options: argparse.Namespace, backend: str, profile: str) -> dict[str, list[dict[str, Any]]]:
    """Runs by state of the caches: each cold one is followed by the warm one that finds what it left."""
    found: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for runs in found.values():
                runs.append(fresh(options, backend, profile, Path(folder)))
    return found


def linearity(options: argparse.Namespace, backend: str) -> dict[str, Any]:
    """deep at two sizes, caches cold: seconds per example up to the first, and of those beyond it."""
    runs = []
    for draws in options.deep:
        with tempfile.TemporaryDirectory() as folder:
            runs.append(fresh(options, backend, "deep", Path(folder), draws))
    few, many = runs
    more = many["examples"] - few["examples"]
    return {
        "backend": backend,
        "precision": few["precision"],
        "profile": "deep",
        "draws": options.deep,
        "examples": [few["examples"], many["examples"]],
        "cpu_seconds": [round(few["cpu"], 3), round(many["cpu"], 3)],
        "milliseconds_per_example": round(1e3 * few["cpu"] / few["examples"], 2),
        "milliseconds_per_further_example": round(1e3 * (many["cpu"] - few["cpu"]) / more, 2),
        "failed": few["failed"] + many["failed"],
    }


def fresh(options: argparse.Namespace, backend: str, profile: str, caches: Path, draws: int | None = None) -> dict[str, Any]:
    """One run in a process of its own; what it tells, and what it took in all."""
    words = ["--one", backend, "--profiles", profile, "--device", options.device, "--only", options.only]
    words += [] if options.precision is None else ["--precision", options.precision]
    words += [] if draws is None else ["--draws", str(draws)]
    places = {name: str(caches / name) for name in CACHES}
    command = [sys.executable, __file__, *words, "--began", repr(time.time())]
    done = subprocess.run(command, env=os.environ | places | KEEP_ALL, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def one(options: argparse.Namespace) -> dict[str, Any]:
    """This process as one run: all checks of a profile on a backend."""
    import msgspec

    from twinspike_conformance.checks import CHECKS
    from twinspike_conformance.run import jobs
    from twinspike_conformance.run import opening as session
    from twinspike_conformance.run.profiles import profile
    from twinspike_conformance.run.runner import run_check

    (name,) = options.profiles
    chosen = profile(name)
    if options.draws is not None:
        chosen = msgspec.structs.replace(chosen, draws=options.draws)
    count = jobs.count(None, options.device) if options.draws is None else 1  # workers know a profile by its name alone
    jobs.share_cores(count)
    offered = session.load(options.one).capabilities().precisions
    precision = options.precision or ("f32-ieee" if "f32-ieee" in offered else min(offered))
    given = session.Options(backend=options.one, device=options.device, precision=precision, profile=name, jobs=count)
    wanted = [check for check in CHECKS.values() if options.only in check.id]
    if options.draws is None:
        with jobs.Team(given, print) as team:
            team.opened()
            ready = time.time()
            records = list(team.run(wanted, lambda record: None).values())
        spent = 0.0  # of the processes, which have ended
    else:
        bench = session.bench(given)
        ready, spent = time.time(), sum(os.times()[:4])
        jobs.spare_the_collector()
        records = [run_check(check, bench, chosen, 0) for check in wanted]
    slowest = sorted(records, key=lambda record: -record.seconds)[:SLOWEST]
    return {
        "precision": precision,
        "processes": count,
        "start": ready - options.began,
        "tests": time.time() - ready,
        "cpu": sum(os.times()[:4]) - spent,
        "compile": sum(record.compile_seconds for record in records) / count,
        "examples": sum(record.examples for record in records),
        "failed": [record.id for record in records if record.status in ("fail", "error")],
        "slowest": {record.id: round(record.seconds, 3) for record in slowest},
    }


def row(backend: str, profile: str, cache: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What some equal runs took."""
    whole = [run["start"] + run["tests"] for run in runs]
    shares = {
        "start": sum(run["start"] for run in runs) / sum(whole),
        "compile": sum(run["compile"] for run in runs) / sum(whole),
    }
    shares["run"] = 1.0 - sum(shares.values())
    return {
        "backend": backend,
        "precision": runs[0]["precision"],
        "processes": runs[0]["processes"],
        "profile": profile,
        "cache": cache,
        "seconds": spread(whole),
        "shares": {name: round(share, 3) for name, share in shares.items()},
        "examples": runs[0]["examples"],
        "failed": sorted({name for run in runs for name in run["failed"]}),
        "slowest": runs[0]["slowest"],
    }


def tell(found: dict[str, Any]) -> None:
    """One line per row."""
    head = f"{found['backend']:<6} {found['profile']:<6}"
    failed = f", FAILED: {', '.join(found['failed'])}" if found["failed"] else ""
    if found["profile"] == "deep":
        first, further = found["milliseconds_per_example"], found["milliseconds_per_further_example"]
        print(f"{head} {found['examples']} examples, {first} ms each, {further} ms each further one{failed}", flush=True)
        return
    seconds, shares = found["seconds"], found["shares"]
    text = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    print(
        f"{head} {found['cache']} {seconds['median']} s ({seconds['q1']} to {seconds['q3']}, n = {seconds['n']}): {text}{failed}",
        flush=True,
    )


if __name__ == "__main__":
    main()
