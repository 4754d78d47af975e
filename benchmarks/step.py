"""How long one joint training step takes: ResNet-18, CIFAR images, against the authors' published code.

    python benchmarks/step.py --authors PATH --threads 1                      torch and jax, results/step_1.json
    python benchmarks/step.py --threads 1 --variants torch "torch compiled"   results/step_compiled_1.json

A step is loss, every gradient and the optimizer's move, from NumPy images to a loss that has arrived. All
variants take turns, one step each, in one process. `--authors` names a checkout of
github.com/yfguo91/Joint-A-SNN (see `authors.py`); without it they are left out. The learning rate is 0.001,
not 0.1, so that numbers stay finite over many steps on one batch.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import header, ratio, restrict, spread, take_turns, write

PRECISION = "f32-ieee"
OURS = {
    "torch": ("torch", False),
    "torch compiled": ("torch", True),
    "jax": ("jax", True),
}
"""Variant -> backend and whether it is compiled."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", type=Path, help="folder of their checkout")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="T")
    parser.add_argument("--variants", nargs="*", default=["torch", "jax"], choices=list(OURS))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120.0, help="for the turns, compilation not counted")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args()
    if options.clock == "cpu" and options.threads > 1:
        sys.exit("--clock cpu: expected one thread, since it adds up what all threads take")
    result = header("step", options.clock)
    restrict(options.threads)
    result |= {
        "network": "resnet18",
        "T": options.steps,
        "batch_size": options.batch_size,
        "precision": PRECISION,
        "threads": options.threads,
        "unit": "seconds per step",
    }
    calls, first = calls_of(options)
    taken = take_turns(calls, rounds=options.rounds, slice_seconds=0.0, seconds=options.seconds, clock=options.clock)
    result["rows"] = [row(name, taken, first[name]) for name in taken]
    for found in result["rows"]:
        line = f"{found['variant']:<16} {found['seconds']['median']:8.3f} s, first step {found['first_seconds']:6.1f} s"
        print(line + (f", authors / this {found['authors_over_this']['median']:.2f}" if "authors" in taken else ""))
    print(write(f"step_{'compiled_' if 'torch compiled' in calls else ''}{options.threads}", result))


def row(name: str, taken: dict[str, list[float]], first: float) -> dict[str, Any]:
    """What is kept of one variant."""
    found = {"variant": name, "seconds": spread(taken[name]), "first_seconds": round(first, 2)}
    if "authors" in taken:
        found["authors_over_this"] = ratio(taken["authors"], taken[name])
    if "torch" in taken:
        found["this_over_torch"] = ratio(taken[name], taken["torch"])
    return found


def calls_of(options: argparse.Namespace) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """(a step of each variant, seconds of its very first one: compilation)."""
    import authors
    from workload import LEARNING_RATE, JointStep, Workload, batch

    calls: dict[str, Callable[[], object]] = {}
    if options.authors:
        given: dict[str, Any] = {"device": "cpu", "precision": PRECISION, "time_steps": options.steps}
        theirs = authors.load(options.authors, **given, learning_rate=LEARNING_RATE)
        images, labels = batch(options.batch_size)
        calls["authors"] = lambda: theirs.step(images, labels)
    for name in options.variants:
        backend, compiled = OURS[name]
        sizes = {"time_steps": options.steps, "batch_size": options.batch_size}
        calls[name] = JointStep(Workload(backend=backend, compiled=compiled, precision=PRECISION, **sizes))
    first = {}
    for name, call in calls.items():
        began = time.perf_counter()
        call()
        first[name] = time.perf_counter() - began
        print(f"{name}: first step {first[name]:.1f} s", flush=True)
    return calls, first


if __name__ == "__main__":
    main()
