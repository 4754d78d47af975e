"""What all benchmarks share: runs in turn, their spread, the machine, and the file of results.

Times of two programs are comparable only if the machine was the same while both ran. So variants take
turns (A B C, B C A, ...), each for some milliseconds, and a ratio is the median of the ratios within one
turn. Every file of results says where, when, with which versions and under which load it was made.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SCHEMA = 1
PACKAGES = ("twinspike", "torch", "jax", "jaxlib", "optax", "numpy", "numba", "triton")
LOADED = 0.5
"""Load average of the last minute above which others were using the machine."""

Clock = Literal["wall", "cpu"]
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""wall: what a user waits. cpu: time of the process on all cores, for one thread on a machine that others use."""


def take_turns(
    variants: Mapping[str, Callable[[], object]], *, rounds: int, slice_seconds: float, seconds: float, clock: Clock = "wall"
) -> dict[str, list[float]]:
    """Seconds per call of each variant, one entry per round.

    Args:
        variants: name -> call that returns when its work is done; called before the clock starts.
        rounds: turns wanted.
        slice_seconds: a variant repeats its call within a turn until about this long; 0: one call is a turn.
        seconds: no further round begins after this time; three are always made.
        clock: see `CLOCKS`.
    """
    now = CLOCKS[clock]

    def timer(call: Callable[[], object]) -> Callable[[int], float]:
        def timed(count: int) -> float:
            began = now()
            for _ in range(count):
                call()
            return now() - began

        return timed

    gc.collect()
    gc.disable()
    try:
        timers = {name: timer(call) for name, call in variants.items()}
        return take_timed_turns(timers, rounds=rounds, slice_seconds=slice_seconds, seconds=seconds)
    finally:
        gc.enable()


def take_timed_turns(
    timers: Mapping[str, Callable[[int], float]], *, rounds: int, slice_seconds: float, seconds: float
) -> dict[str, list[float]]:
    """As `take_turns`, of what makes a number of calls and gives the seconds that they took."""
    repeats = {}
    for name, timed in timers.items():
        timed(1)
        repeats[name] = max(1, round(slice_seconds / max(1e-9, timed(1)))) if slice_seconds else 1
    names, until = list(timers), time.monotonic() + seconds
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        if turn >= 3 and time.monotonic() > until:
            break
        for name in (*names[turn % len(names) :], *names[: turn % len(names)]):
            found[name].append(timers[name](repeats[name]) / repeats[name])
    return found


def spread(values: Sequence[float], scale: float = 1.0) -> dict[str, float | int]:
    """Number, median, quartiles and least of some measurements, times `scale`."""
    ordered = sorted(value * scale for value in values)
    quarters = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    low, middle, high = (float(f"{quarter:.4g}") for quarter in quarters)
    return {"n": len(ordered), "median": middle, "q1": low, "q3": high, "least": float(f"{ordered[0]:.4g}")}


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float | int]:
    """How many times longer the first takes than the second, turn by turn."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)])


def header(name: str, clock: Clock = "wall") -> dict[str, Any]:
    """What a file of results begins with; call it before any work, since it notes the load."""
    load = os.getloadavg()[0]
    return {
        "schema": SCHEMA,
        "benchmark": name,
        "command": _command(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(PACKAGES),
        "load": round(load, 2),
        "under_load": load > LOADED,
        "clock": clock,
    }


def _command() -> str:
    """The command line, without the folders of this machine."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def machine() -> dict[str, Any]:
    """Processor, cores and system; the GPU too where there is one."""
    found: dict[str, Any] = {"processor": _processor(), "cores": cores(), "system": platform.platform(terse=True)}
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        found["gpu"] = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found["gpu"] = "none"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Package -> version of those that are installed, and Python's."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def restrict(threads: int) -> None:
    """Keep this process to so many cores and threads, and its heap as `twinspike train` does.

    To be called before a framework is loaded: jax takes its number of threads from the cores that the process may use,
    OpenMP from the variable.
    """
    from twinspike_training import heap  # here, since gpu.py imports this file where nothing of the project can be found yet

    if threads > cores():
        sys.exit(f"--threads: expected at most {cores()}, the cores of this machine, got {threads}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])  # the first core serves interrupts
    os.environ["OMP_NUM_THREADS"] = str(threads)
    heap.keep()


def write(name: str, result: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Write one file of results, whole or not at all."""
    path = (folder or RESULTS) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    return path
