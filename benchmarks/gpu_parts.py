"""The parts of `gpu.py` that are not commands of their own: `python benchmarks/gpu_parts.py PART FILE ...`.

Each writes what it knows to FILE as soon as it knows it, so that a part that is stopped has not been in vain.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from measure import spread
from workload import LEARNING_RATE, JointStep, Workload, batch, offers_recompute

BLOCKS = 7
"""Timed blocks, each of several calls that are waited for together."""
GIGA = 1e9


class Notes:
    """Facts in a file, whole after each addition."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: dict[str, Any] = {}

    def add(self, **facts: Any) -> None:
        """Note facts."""
        self.facts |= facts
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.facts), encoding="utf-8")
        part.replace(self.path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("exact", "lif", "joint", "authors"))
    parser.add_argument("result", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--authors", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    notes = Notes(options.result)
    {"exact": exact, "lif": lif, "joint": joint, "authors": authors_step}[options.part](options, notes)


def exact(options: argparse.Namespace, notes: Notes) -> None:
    """CPU and device on dyadic data, where no partial result needs rounding: every output and gradient must be equal."""
    import twinspike as ts
    from twinspike.precision import PRECISIONS
    from twinspike_conformance.cases import CASES, materialize
    from twinspike_conformance.checks.base import space_of
    from twinspike_conformance.judge import ask, proved_exact

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


def lif(options: argparse.Namespace, notes: Notes) -> None:
    """64 million neurons, T = 4: forward and backward against the device's copy of as much memory.

    Least traffic: forward reads x and writes s, backward reads x and the gradient of s and writes that of x.
    """
    import twinspike as ts

    notes.add(kernels=ts.load(options.backend).capabilities().kernels)
    neurons = 2**12 if options.tiny else 64 * 2**20
    shape = (4, 64, neurons // 64)
    for name, size in (("float32", 4), ("bfloat16", 2)):
        copy, both = {"torch": _torch_lif, "jax": _jax_lif}[options.backend](options.device, name, shape)
        moved = 4 * neurons * size
        copied, spent = (_blocks(*call) for call in (copy, both))
        bandwidth = 2 * moved / copied["median"] / GIGA
        achieved = 5 * moved / spent["median"] / GIGA
        facts = {"copy_gb_per_second": bandwidth, "lif_gb_per_second": achieved, "share_of_copy": achieved / bandwidth}
        facts = {key: round(value, 3) for key, value in facts.items()}
        notes.add(**{name: facts | {"neurons": neurons, "seconds": spent, "ns": spread([spent["median"]], 1e9 / (4 * neurons))}})


Call = tuple[Callable[[], object], Callable[[object], object]]
"""(what is enqueued, how its end is waited for)."""


def _torch_lif(device: str, dtype: str, shape: tuple[int, ...]) -> tuple[Call, Call]:
    """(copy, LIF forward and backward)."""
    import torch

    import twinspike as ts
    from twinspike_torch import lif as run

    form = getattr(torch, dtype)
    x = (torch.randint(-8, 9, shape, device=device) / 8).to(form).requires_grad_()
    g, out = (torch.randint(-8, 9, shape, device=device) / 8).to(form), torch.empty(shape, dtype=form, device=device)
    paper = ts.Neuron()

    def wait(_: object) -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    return (lambda: out.copy_(g), wait), (lambda: torch.autograd.grad(run(x, neuron=paper).s, x, g), wait)


def _jax_lif(device: str, dtype: str, shape: tuple[int, ...]) -> tuple[Call, Call]:
    """The same; the copy is a negation, which XLA can't leave out."""
    import twinspike as ts
    from twinspike_jax import lif as run

    jax: Any = import_module("jax")
    place, paper = jax.devices("cpu" if device == "cpu" else "gpu")[0], ts.Neuron()
    with jax.default_device(place):
        keys = jax.random.split(jax.random.key(0))
        x, g = ((jax.random.randint(key, shape, -8, 9) / 8).astype(dtype) for key in keys)

    @jax.jit  # type: ignore[untyped-decorator]  # jax types parts of itself only
    def both(x: Any, g: Any) -> Any:
        s, pull = jax.vjp(lambda x: run(x, neuron=paper)[0], x)
        return s, pull(g)

    negate = jax.jit(lambda x: -x)
    return (lambda: negate(x), jax.block_until_ready), (lambda: both(x, g), jax.block_until_ready)


def _blocks(call: Callable[[], object], wait: Callable[[object], object], seconds: float = 0.2) -> dict[str, Any]:
    """Seconds per call, of blocks of calls that fill about `seconds` and are waited for once."""
    wait(call())
    began = time.perf_counter()
    wait(call())
    count = max(1, round(seconds / max(1e-6, time.perf_counter() - began)))
    taken = []
    for _ in range(BLOCKS):
        began = time.perf_counter()
        for _ in range(count):
            last = call()
        wait(last)
        taken.append((time.perf_counter() - began) / count)
    return spread(taken)


def joint(options: argparse.Namespace, notes: Notes) -> None:
    """The joint step with its batch at hand, peak memory, then an epoch with its data."""
    work: dict[str, Any] = {"backend": options.backend, "device": options.device, "precision": options.precision}
    work |= {"compiled": options.compiled, "batch_size": options.batch_size, "network": _network(options)}
    notes.add(T=4, **work)
    began = time.perf_counter()
    step = JointStep(Workload(**work))
    step()
    notes.add(first_step_seconds=round(time.perf_counter() - began, 2))
    seconds = _blocks(step.start, step.session.to_numpy, 0.1 if options.tiny else 1.0)
    notes.add(step_seconds=seconds, images_per_second=round(options.batch_size / seconds["median"], 1))
    if options.device != "cpu":
        notes.add(peak_mib=_peak(options.backend))
    del step
    epoch(options, notes)
    if options.backend == "torch" and not options.compiled and offers_recompute("torch") and options.device != "cpu":
        torch = import_module("torch")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        step = JointStep(Workload(**work, recompute=True))
        seconds = _blocks(step.start, step.session.to_numpy)
        notes.add(recompute={"step_seconds": seconds, "peak_mib": _peak("torch")})


def _network(options: argparse.Namespace) -> str:
    return "digits_cnn" if options.tiny else "resnet18"


def _peak(backend: str) -> float:
    """MiB that the allocator of the device held at most."""
    if backend == "torch":
        held = import_module("torch").cuda.max_memory_allocated()
    else:
        held = import_module("jax").devices()[0].memory_stats()["peak_bytes_in_use"]
    return round(float(held) / 2**20, 1)


def epoch(options: argparse.Namespace, notes: Notes) -> None:
    """One epoch of CIFAR-10's size as training does it: read, augmented, trained."""
    from data_pipeline import write_random_cifar
    from measure import cores

    from twinspike import initial_state
    from twinspike_training.config import build
    from twinspike_training.run import prepare

    with tempfile.TemporaryDirectory() as folder:
        data: dict[str, Any] = {"name": "digits", "limit": 64}
        if not options.tiny:
            data = {"name": "cifar10", "path": options.data or folder, "workers": max(1, cores() - 2)}
            if not options.data:
                write_random_cifar(Path(folder))
        wanted = {"backend": options.backend, "device": options.device, "precision": options.precision, "data": data}
        wanted |= {"compile": options.compiled, "network": _network(options)}
        config = build({**wanted, "training": {"epochs": 1, "batch_size": options.batch_size}}, "benchmark")
        ready = prepare(config)
        program, wait = ready.program, ready.session.to_numpy
        state = program.load(initial_state(ready.network, config.method, config.optimizer, seed=config.seed))
        batches = ready.dataset.train_batches(config.seed, 0, options.batch_size)
        began, images = 0.0, 0
        with contextlib.closing(batches):  # type: ignore[type-var]  # an iterator to be read to its end or closed
            for number, (pixels, labels) in enumerate(batches):
                state, metrics = program.train_step(state, pixels, labels, LEARNING_RATE)
                if number == 2:  # compiled, caches and queues filled
                    wait(metrics.loss)
                    began, images = time.perf_counter(), 0
                images += len(labels)
            wait(metrics.loss)
        rate = (images - options.batch_size) / (time.perf_counter() - began)
        notes.add(epoch_images_per_second=round(rate, 1), epoch_seconds=round(50_000 / rate, 3), data=data["name"])


def authors_step(options: argparse.Namespace, notes: Notes) -> None:
    """Their step with its batch at hand, and peak memory; an epoch of it without data."""
    import authors

    given: dict[str, Any] = {"device": options.device, "precision": options.precision, "time_steps": 4}
    theirs = authors.load(options.authors, **given, learning_rate=LEARNING_RATE)
    images, labels = batch(options.batch_size)
    seconds = _blocks(lambda: theirs.step(images, labels), lambda _: None, 0.1 if options.tiny else 1.0)
    notes.add(**given, batch_size=options.batch_size, commit=authors.COMMIT, step_seconds=seconds)
    notes.add(epoch_seconds_without_data=round(50_000 / options.batch_size * seconds["median"], 3))
    if options.device != "cpu":
        notes.add(peak_mib=_peak("torch"))


if __name__ == "__main__":
    main()
