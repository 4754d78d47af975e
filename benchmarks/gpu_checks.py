"""The parts of `gpu.py` that check and do not measure: `python benchmarks/gpu_checks.py PART FILE ...`."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
from gpu_parts import Notes
from workload import JointStep, Workload

import twinspike as ts
from twinspike.config import Surrogate
from twinspike.operations import OPERATIONS, Convolution
from twinspike.precision import PRECISIONS

LAYERS = ((3, 1, 1), (3, 2, 1), (1, 2, 0), (2, 2, 0))
"""Kernel, stride and padding."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("result", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    PARTS[options.part](options, Notes(options.result))


def profiles(options: argparse.Namespace) -> list[str]:
    """Of float32, those that the device is said to have."""
    known = ts.load(options.backend).capabilities().precisions
    return [name for name in PRECISIONS if name in known and name != "f64" and (name != "tf32" or options.device != "cpu")]


def kernels(options: argparse.Namespace, notes: Notes) -> None:
    """Which kernels serve, and why not others."""
    found = ts.load(options.backend).capabilities()
    notes.add(kernels=found.kernels, versions=found.versions, devices=found.devices)


def sessions(options: argparse.Namespace, notes: Notes) -> None:
    """In every precision: the flags as they read back, and convolutions with both gradients, exact on few bits."""
    backend, rng = ts.load(options.backend), np.random.default_rng(0)
    differing: list[str] = []
    for precision, compiled in itertools.product(profiles(options), (False, True)):
        if compiled and options.backend == "torch":
            continue  # one operation of torch is the same in both
        session: Any = backend.session(options.device, precision, compiled)
        notes.add(**{f"flags {precision}": session.flags()})
        for kernel, stride, padding in LAYERS:
            config = Convolution(stride=stride, padding=padding)
            inputs = {"x": rng.integers(-1, 2, (4, 8, 8, 8)), "kernel": rng.integers(-1, 2, (16, 8, kernel, kernel))}
            inputs = {name: value.astype(np.float64) for name, value in inputs.items()}
            row = OPERATIONS["conv2d"]
            y = row.forward(config, inputs)["y"]
            g = rng.integers(-1, 2, y.shape).astype(np.float64)
            assert row.adjoint is not None
            wanted = {"y": y} | {f"gradient of {name}": d for name, d in row.adjoint(config, inputs, {"y": g}).items()}
            placed = [{key: _last(session, value) for key, value in given.items()} for given in (inputs, {"y": g})]
            outputs, gradients = session.vjp("conv2d", config, *placed)
            got = {"y": outputs["y"]} | {f"gradient of {name}": d for name, d in gradients.items()}
            name = f"{precision}{' compiled' if compiled else ''} {kernel}x{kernel} stride {stride}"
            differing += [f"{name}: {key}" for key in wanted if not np.array_equal(session.to_numpy(got[key]), wanted[key])]
            notes.add(**{name: "ok" if not any(text.startswith(f"{name}:") for text in differing) else "differs"})
    _end(notes, differing)


def _last(session: Any, values: Any) -> Any:
    """On the device, in torch with channels last, as its networks have them."""
    placed = session.from_numpy(values)
    if not hasattr(placed, "is_contiguous"):
        return placed
    import torch

    return placed.contiguous(memory_format=torch.channels_last)


def lif(options: argparse.Namespace, notes: Notes) -> None:
    """Every surrogate, T = 4 and 16, in every precision, on the device and on the CPU: spikes and gradients.

    On few bits spikes are exact, gradients too but for surrogates that round.
    """
    backend, rng = ts.load(options.backend), np.random.default_rng(0)
    differing: list[str] = []
    for precision in (name for name in profiles(options) if name != "tf32"):
        pair = [backend.session(device, precision) for device in ("cpu", options.device)]
        for surrogate, steps in itertools.product(get_args(Surrogate), (4, 16)):
            x, g = (rng.integers(-8, 9, (steps, 4, 8, 33)) / 8 for _ in range(2))
            both = [_spikes(session, ts.Neuron(surrogate=surrogate()), x, g) for session in pair]
            name = f"{precision} {surrogate.__name__} T = {steps}"
            unlike = int(np.sum(both[0]["s"] != both[1]["s"]))
            notes.add(**{name: {"spikes": unlike, "gradient": float(np.max(np.abs(both[0]["x"] - both[1]["x"])))}})
            differing += [name] if unlike else []
    _end(notes, differing)


def _spikes(session: Any, neuron: ts.Neuron, x: Any, g: Any) -> Mapping[str, Any]:
    outputs, gradients = session.vjp("lif", neuron, {"x": session.from_numpy(x)}, {"s": session.from_numpy(g)})
    return {"s": session.to_numpy(outputs["s"]), "x": session.to_numpy(gradients["x"])}


def step(options: argparse.Namespace, notes: Notes) -> None:
    """Two joint steps of a residual block in every precision, with a loss that is finite; torch eager, jax compiled."""
    differing = []
    for precision in profiles(options):
        work: dict[str, Any] = {"backend": options.backend, "precision": precision, "network": "small", "channels": 3}
        run = JointStep(Workload(**work, device=options.device, compiled=options.backend == "jax"))
        losses = [run(), run()]
        notes.add(**{precision: {"losses": losses}})
        if options.backend == "torch" and options.device != "cpu":  # replayed from the fourth on
            runs = [JointStep(Workload(**work, device=options.device, graphs=graphs)) for graphs in (False, True)]
            eager, replayed = ([one() for _ in range(8)] for one in runs)
            notes.add(**{f"{precision}, steps run and replayed": {"run": eager, "replayed": replayed}})
            losses += replayed
        differing += [] if np.all(np.isfinite(losses)) else [precision]
    _end(notes, differing)


def exact(options: argparse.Namespace, notes: Notes) -> None:
    """CPU and device on dyadic data, where no partial result needs rounding: every output and gradient must be equal."""
    from twinspike_conformance.cases import CASES, materialize
    from twinspike_conformance.checks.base import space_of
    from twinspike_conformance.judges.operations import ask, proved_exact

    backend = ts.load(options.backend)
    here, there = (backend.session(device, "f32-ieee") for device in ("cpu", options.device))
    counts: dict[str, int] = {}
    differing: list[str] = []
    for name in sorted(backend.capabilities().operations)[: 3 if options.tiny else None]:
        space = space_of(name, exact=True)
        for example in space.cover() if space else ():
            material = materialize(CASES[name], example, "float32")
            if not proved_exact(example, material, PRECISIONS["f32-ieee"]):
                continue
            one, two = (ask(session, ts.OPERATIONS[name], material) for session in (here, there))
            for mine, other in ((one.outputs, two.outputs), (one.gradients, two.gradients)):
                for key, value in mine.items():
                    counts[name] = counts.get(name, 0) + 1
                    if not np.array_equal(value, other[key]):
                        differing.append(f"{name} {key}: {example.digest()}")
        notes.add(compared=counts, arrays=sum(counts.values()), differing=differing)


def _end(notes: Notes, differing: list[str]) -> None:
    notes.add(differing=differing)
    if differing:
        sys.exit(f"differing: {'; '.join(differing)}")


PARTS = {"kernels": kernels, "sessions": sessions, "lif": lif, "step": step, "exact": exact}


if __name__ == "__main__":
    main()
