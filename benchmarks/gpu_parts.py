"""The parts of `gpu.py` that measure: `python benchmarks/gpu_parts.py PART FILE ...`.

Each writes what it knows to FILE as soon as it knows it, so that a part that is stopped has not been in vain. What is
measured has the device to itself: a part first imports and compiles, then waits for the lock that `--lock` names.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from gpu_runner import replace, waiting
from measure import cores, spread

BLOCKS = 7
"""Timed blocks, each of several calls that are waited for together."""
GIGA = 1e9
TOP = 40
"""Kernels of a profile that are noted."""


class Notes:
    """Facts in a file, whole after each addition."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: dict[str, Any] = {}

    def add(self, **facts: Any) -> None:
        """Note facts."""
        self.facts |= facts
        replace(self.path, lambda path: path.write_text(json.dumps(self.facts), encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("result", type=Path)
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--graphs", action="store_true")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--authors", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    PARTS[options.part](options, Notes(options.result))


@contextlib.contextmanager
def device_alone(options: argparse.Namespace) -> Iterator[None]:
    """No other part measures or proves anything inside; a file beside the result says that this one waits."""
    before = waiting(options.result)
    with options.lock.open("w") as lock:
        before.touch()
        fcntl.flock(lock, fcntl.LOCK_EX)
        before.unlink(missing_ok=True)
        yield


def ceilings(options: argparse.Namespace, notes: Notes) -> None:
    """What the device can do: a copy of memory, and a product of two square matrices in each format."""
    import torch

    size = 256 if options.tiny else 8192
    with device_alone(options):
        call, wait = _torch_copy(options.device, size * size * 4)
        notes.add(copy_gb_per_second=round(2 * 4 * size * size * 4 / _blocks(call, wait)["median"] / GIGA, 1))
        for name, dtype, reduced in (
            ("bfloat16", torch.bfloat16, "highest"),
            ("tf32", torch.float32, "high"),
            ("float32", torch.float32, "highest"),
        ):
            torch.set_float32_matmul_precision(reduced)
            a, b = (torch.randn(size, size, device=options.device).to(dtype) for _ in range(2))
            seconds = _blocks(partial(torch.matmul, a, b), wait)
            notes.add(**{f"product {name}": {"seconds": seconds, "tflops": round(2 * size**3 / seconds["median"] / 1e12, 2)}})


def _torch_copy(device: str, count: int) -> Call:
    """A copy of so many float32, not zeros."""
    import torch

    source = torch.randn(count, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), _torch_wait(device)


def _torch_wait(device: str) -> Callable[[object], object]:
    import torch

    return lambda _: torch.cuda.synchronize() if device != "cpu" else None


def convolutions(options: argparse.Namespace, notes: Notes) -> None:
    """The convolutions of ResNet-18 in bfloat16 and channels last, forward and both gradients, as torch calls cuDNN."""
    import torch

    wait = _torch_wait(options.device)
    batch = 1 if options.tiny else 4 * options.batch_size
    backward = torch.ops.aten.convolution_backward
    with device_alone(options):
        for searched in (False, True):
            torch.backends.cudnn.benchmark = searched
            for inside, outside, size, stride in SHAPES[: 2 if options.tiny else None]:
                last: dict[str, Any] = {"memory_format": torch.channels_last}
                x = torch.randn(batch, inside, size, size, device=options.device).bfloat16().contiguous(**last)
                w = torch.randn(outside, inside, 3, 3, device=options.device).bfloat16().contiguous(**last)
                y = torch.nn.functional.conv2d(x, w, stride=stride, padding=1)
                g = torch.randn_like(y)
                form = ([0], [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1)
                calls: dict[str, Callable[[], object]] = {
                    "forward": partial(torch.nn.functional.conv2d, x, w, stride=stride, padding=1),
                    "map": partial(backward, g, x, w, *form, [True, False, False]),
                    "kernel": partial(backward, g, x, w, *form, [False, True, False]),
                }
                found = {name: _blocks(call, wait, 0.03) for name, call in calls.items()}
                flops = 2 * 9 * inside * y.numel()
                rates = {f"{name}_tflops": round(flops / seconds["median"] / 1e12, 2) for name, seconds in found.items()}
                name = f"{inside} to {outside}, {size} x {size}, stride {stride}{', searched' if searched else ''}"
                notes.add(**{name: found | rates})


SHAPES = (
    (3, 64, 32, 1),
    (64, 64, 32, 1),
    (64, 128, 32, 2),
    (128, 128, 16, 1),
    (128, 256, 16, 2),
    (256, 256, 8, 1),
    (256, 512, 8, 2),
    (512, 512, 4, 1),
)
"""Channels in and out, side of the map, stride; kernels are 3 x 3."""


def lif(options: argparse.Namespace, notes: Notes) -> None:
    """64 million neurons, T = 4: forward and backward against the device's copy of as much memory.

    Least traffic: forward reads x and writes s, backward reads x and the gradient of s and writes that of x.
    """
    import twinspike as ts

    notes.add(kernels=ts.load(options.backend).capabilities().kernels)
    neurons = 2**12 if options.tiny else 64 * 2**20
    shape = (4, 64, neurons // 64)
    for name, size in (("float32", 4), ("bfloat16", 2)):
        moved = 4 * neurons * size
        with device_alone(options):
            copy, both = {"torch": _torch_lif, "jax": _jax_lif}[options.backend](options.device, name, shape)
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
    wait = _torch_wait(device)
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
    """Seconds per call, of blocks of calls that fill about `seconds` and are waited for once; three where others disturb."""

    def timed(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            last = call()
        wait(last)
        return time.perf_counter() - began

    timed(1)
    count = 1
    while (spent := timed(count)) < seconds / 4:
        count *= 2
    count = max(1, round(count * seconds / spent))
    taken: list[float] = []
    began = time.monotonic()
    while len(taken) < BLOCKS and (len(taken) < 3 or time.monotonic() - began < 3 * BLOCKS * seconds):
        taken.append(timed(count) / count)
    return spread(taken)


def joint(options: argparse.Namespace, notes: Notes) -> None:
    """The joint step with its batch at hand, peak memory, an epoch with its data, and where the time goes.

    All by one program, since a second would be compiled again: torch keeps code on disk, but traces anew.
    """
    from workload import JointStep, Workload, offers_recompute

    work: dict[str, Any] = {"backend": options.backend, "device": options.device, "precision": options.precision}
    work |= {"compiled": options.compiled, "batch_size": options.batch_size, "network": _network(options)}
    work |= {"classes": 100 if _data_name(options) == "cifar100" else 10, "graphs": options.graphs}
    notes.add(T=4, **work)
    began = time.perf_counter()
    step = JointStep(Workload(**work))
    step()  # on the cores, for minutes where it is compiled, for one where Triton's kernels are: the device is hardly touched
    notes.add(first_step_seconds=round(time.perf_counter() - began, 2))
    with device_alone(options):
        for _ in range(4 if options.graphs else 0):  # until the step is recorded
            step()
        seconds = _blocks(step.start, step.session.to_numpy, 0.1 if options.tiny else 1.0)
        notes.add(step_seconds=seconds, images_per_second=round(options.batch_size / seconds["median"], 1))
        notes.add(epoch_seconds_without_data=round(50_000 / options.batch_size * seconds["median"], 3))
        if options.device != "cpu":
            notes.add(peak_mib=_peak(options.backend))
    epoch(options, step, notes)
    with device_alone(options):
        notes.add(profile_us_per_step=profiled(options, step))
    if options.backend == "torch" and not options.compiled and offers_recompute("torch") and options.device != "cpu":
        torch = import_module("torch")
        del step
        with device_alone(options):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            step = JointStep(Workload(**work, recompute=True))
            seconds = _blocks(step.start, step.session.to_numpy)
            notes.add(recompute={"step_seconds": seconds, "peak_mib": _peak("torch")})


def profiled(options: argparse.Namespace, step: Any, steps: int = 3) -> dict[str, float]:
    """Kernel -> microseconds a step, of those that take longest; on a CPU operations."""

    def run() -> None:
        for _ in range(steps):
            loss = step.start()
        step.session.to_numpy(loss)

    spent: Counter[str] = Counter()
    if options.backend == "torch":
        import torch

        kind = "cpu" if options.device == "cpu" else "cuda"
        with torch.profiler.profile() as profile:
            run()
        for event in profile.events():
            noted = getattr(event, "is_user_annotation", False)  # a name for others, which are there too
            if str(event.device_type).lower().endswith(kind) and not noted:
                spent[event.name] += event.self_cpu_time_total if kind == "cpu" else event.time_range.elapsed_us()
    else:
        jax: Any = import_module("jax")
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                run()
            (path,) = Path(folder).rglob("*.xplane.pb")
            for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
                if plane.name.startswith("/host:CPU" if options.device == "cpu" else "/device:GPU"):
                    lines = list(plane.lines)
                    for line in [line for line in lines if line.name.startswith("Stream")] or lines:  # others say the same again
                        for event in line.events:
                            spent[event.name] += event.duration_ns / 1e3
    return {name[:160]: round(total / steps, 1) for name, total in spent.most_common(TOP)}


def _network(options: argparse.Namespace) -> str:
    return "small" if options.tiny else "resnet18"


def _data_name(options: argparse.Namespace) -> str:
    if options.tiny:
        return "digits"
    return "cifar100" if options.data and (options.data / "cifar-100-binary").is_dir() else "cifar10"


def _peak(backend: str) -> float:
    """MiB that the allocator of the device held at most."""
    if backend == "torch":
        held = import_module("torch").cuda.max_memory_allocated()
    else:
        held = import_module("jax").devices()[0].memory_stats()["peak_bytes_in_use"]
    return round(float(held) / 2**20, 1)


def epoch(options: argparse.Namespace, step: Any, notes: Notes) -> None:
    """One epoch of 50,000 images as training does it: read, augmented, trained."""
    from data_pipeline import write_random_cifar
    from workload import LEARNING_RATE

    from twinspike_training.data import DataConfig, open_dataset

    given: dict[str, Any] = {"name": _data_name(options)}
    given |= {"limit": 64} if options.tiny else {"workers": max(1, cores() - 2)}
    with tempfile.TemporaryDirectory() as folder:
        if not options.tiny:
            given["path"] = str(options.data or folder)
            if not options.data:
                write_random_cifar(Path(folder))
        with open_dataset(DataConfig(**given), time_steps=4) as data, device_alone(options):
            program, state, wait = step.program, step.state, step.session.to_numpy
            batches = data.train_batches(0, 0, options.batch_size)
            began, images = 0.0, 0
            with contextlib.closing(batches):  # type: ignore[type-var]  # an iterator to be read to its end or closed
                for number, (pixels, labels) in enumerate(batches):
                    state, metrics = program.train_step(state, pixels, labels, LEARNING_RATE)
                    images += len(labels)
                    if number == 2:  # queues and workers filled
                        wait(metrics.loss)
                        began, images = time.perf_counter(), 0
                wait(metrics.loss)
            rate = images / (time.perf_counter() - began)
        step.state = state
        notes.add(epoch_images_per_second=round(rate, 1), epoch_seconds=round(50_000 / rate, 3), data=given["name"])


def authors_step(options: argparse.Namespace, notes: Notes) -> None:
    """Their step with its batch at hand, and peak memory; an epoch of it without data."""
    import authors
    from workload import LEARNING_RATE, batch

    given: dict[str, Any] = {"device": options.device, "precision": options.precision, "time_steps": 4}
    theirs = authors.load(options.authors, **given, learning_rate=LEARNING_RATE)
    images, labels = batch(options.batch_size)
    with device_alone(options):
        seconds = _blocks(lambda: theirs.step(images, labels), lambda _: None, 0.1 if options.tiny else 1.0)
    notes.add(**given, batch_size=options.batch_size, commit=authors.COMMIT, step_seconds=seconds)
    notes.add(epoch_seconds_without_data=round(50_000 / options.batch_size * seconds["median"], 3))
    if options.device != "cpu":
        notes.add(peak_mib=_peak("torch"))


PARTS = {"ceilings": ceilings, "convolutions": convolutions, "lif": lif, "joint": joint, "authors": authors_step}


if __name__ == "__main__":
    main()
