"""What the backends do on a machine with a GPU, within ten minutes: their tests, and an epoch of CIFAR-10 each.

    python benchmarks/gpu.py --data cifar-10-batches-bin --out DIR

Nothing needs to be installed but the backends' own libraries. Each part runs in a process of its own with
a time limit; what is known so far is always in `DIR/gpu.json`, and `DIR/gpu.log` has what the parts said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
ROOMS = [str(ROOT / room) for room in ("spec", "backends", "conformance", "training")]
BACKENDS = ("torch", "jax")
WARM = 5
"""Steps before the clock starts: the first compiles, the next fill caches and queues."""
REPEATS = 30
"""Steps on one batch, to tell the device's speed from that of the data."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of CIFAR-10's binary files; without it the digits are trained")
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.log")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precisions", nargs="*", default=["bf16-mixed", "f32-ieee"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--width", type=int, default=0, help="of the network; 0: its usual one")
    parser.add_argument("--limit", type=int, default=0, help="training samples; 0: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--eager", action="store_true", help="do not compile the training step")
    parser.add_argument("--seconds", type=float, default=570.0, help="for everything together")
    parser.add_argument("--tests", nargs="*", default=[], help="test files; default: all that need one framework")
    parser.add_argument("--epoch", nargs=3, metavar=("BACKEND", "PRECISION", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.epoch:
        epoch(options, *options.epoch)
    else:
        everything(options)


def everything(options: argparse.Namespace) -> None:
    """Run the parts, those that matter most first, and write what they gave after each."""
    options.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "schema": 1,
        "machine": machine(),
        "options": {**vars(options), "out": str(options.out)},
        "parts": {},
    }
    deadline = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as folder, (options.out / "gpu.log").open("w", encoding="utf-8") as log:
        environment = child_environment(Path(folder))
        for name, command, result, limit in parts(options, Path(folder)):
            left = deadline - time.monotonic()
            print(f"{name}: ", end="", flush=True)
            if left < 10:
                report["parts"][name] = {"status": "not run", "reason": "no time left"}
            else:
                report["parts"][name] = run(command, environment, log, min(limit, left)) | read(result)
            print(json.dumps({k: v for k, v in report["parts"][name].items() if k not in ("command", "tail")}), flush=True)
            (options.out / "gpu.json").write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")


def parts(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, list[str], Path, float]]:
    """Name, command, file of results and time limit of each part."""
    own = [sys.executable, str(Path(__file__).resolve()), *passed_on(options)]
    for number, precision in enumerate(options.precisions):
        for backend in BACKENDS:
            result = folder / f"{backend}-{precision}.json"
            yield f"epoch {backend} {precision}", [*own, "--epoch", backend, precision, str(result)], result, 150.0
        if number == 0:
            yield from test_parts(options, folder)
    cross = [sys.executable, "-m", "twinspike_training.cli", "check", *BACKENDS, "--set", f"device={options.device}"]
    yield "check torch jax", cross, folder / "none", 90.0


def test_parts(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, list[str], Path, float]]:
    # Warnings are errors where versions are pinned, and these are the machine's own.
    pytest = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider", "--device", options.device]
    for backend in BACKENDS:
        files = options.tests or sorted(str(path) for path in (ROOT / "tests").glob(f"test_*{backend}*.py"))
        others = [f"--without={other}" for other in BACKENDS if other != backend]
        result = folder / f"{backend}.xml"
        yield f"tests {backend}", [*pytest, *others, "--without=train", f"--junitxml={result}", *files], result, 110.0


def passed_on(options: argparse.Namespace) -> list[str]:
    """The options that an epoch's own process needs."""
    given = {"--out": options.out, "--device": options.device, "--batch-size": options.batch_size, "--width": options.width}
    given |= {"--limit": options.limit, "--workers": options.workers, **({"--data": options.data} if options.data else {})}
    return [*(str(word) for pair in given.items() for word in pair), *(["--eager"] if options.eager else [])]


def child_environment(folder: Path) -> dict[str, str]:
    """Environment in which the rooms can be imported and backends be found by name, installed or not."""
    path = [*ROOMS, os.environ.get("PYTHONPATH", "")]
    try:
        distribution("twinspike")
    except PackageNotFoundError:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        info = folder / "metadata" / "twinspike-0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: twinspike\nVersion: 0\n", encoding="utf-8")
        groups = "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
            for group, points in project["entry-points"].items()
        )
        (info / "entry_points.txt").write_text(groups, encoding="utf-8")
        path.insert(0, str(info.parent))
    # Tests of both frameworks share the device with whatever else runs on it; the epochs have it to themselves.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def run(command: Sequence[str], environment: dict[str, str], log: Any, seconds: float) -> dict[str, Any]:
    """Run one part; a part that is late is ended with all its processes."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            status = "ok" if process.wait(seconds) == 0 else f"failed with {process.returncode}"
        except subprocess.TimeoutExpired:
            status = f"stopped after {seconds:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        text = output.read()
    log.write(f"$ {' '.join(command)}\n{text}\n{status}\n\n")
    log.flush()
    found: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - began, 1)}
    return found if status == "ok" else found | {"command": list(command), "tail": text[-3000:]}


def read(result: Path) -> dict[str, Any]:
    """What a part wrote, whole or not: an epoch's JSON, or the counts of a JUnit file."""
    if not result.is_file():
        return {}
    if result.suffix == ".json":
        return dict(json.loads(result.read_text(encoding="utf-8")))
    (suite,) = ElementTree.parse(result).getroot().iter("testsuite")
    counts: dict[str, Any] = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    bad = [case for case in suite.iter("testcase") if case.find("failure") is not None or case.find("error") is not None]
    return counts | {"failed": [f"{case.get('classname')}::{case.get('name')}" for case in bad]}


def machine() -> dict[str, Any]:
    """Where this runs."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        gpu = f"none: {error}"
    versions = {}
    for package in ("torch", "jax", "jaxlib", "optax", "numpy", "msgspec", "triton"):
        try:
            versions[package] = distribution(package).version
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {"gpu": gpu, "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def epoch(options: argparse.Namespace, backend: str, precision: str, file: str) -> None:
    """Train one epoch with one backend and write what is known after each stage of it."""
    from twinspike import initial_state, learning_rate
    from twinspike_training.config import build
    from twinspike_training.evaluation import evaluate
    from twinspike_training.run import prepare

    data: dict[str, Any] = {"workers": options.workers, "limit": options.limit}
    data |= {"name": "cifar10", "path": options.data} if options.data else {"name": "digits"}
    wanted = {"backend": backend, "device": options.device, "precision": precision, "compile": not options.eager}
    wanted |= {"network": "resnet18" if options.data else "digits_cnn", "width": options.width, "data": data}
    config = build({**wanted, "training": {"epochs": 1, "batch_size": options.batch_size}}, "benchmark")
    found: dict[str, Any] = {"config": wanted, "batch_size": options.batch_size}

    def note(**facts: Any) -> None:
        found.update(facts)
        Path(file).write_text(json.dumps(found), encoding="utf-8")

    began = time.perf_counter()
    ready = prepare(config)
    program, wait = ready.program, ready.session.to_numpy
    state = program.load(initial_state(ready.network, config.method, config.optimizer, seed=config.seed))
    note(versions=ready.capabilities.versions, prepare_seconds=time.perf_counter() - began)

    length, losses = ready.steps_per_epoch, []
    warm = min(WARM, length - 1)
    batches = ready.dataset.train_batches(config.seed, 0, options.batch_size)
    with contextlib.closing(batches):  # type: ignore[type-var]  # an iterator to be read to its end or closed
        clock = time.perf_counter()
        for step, (images, labels) in enumerate(batches):
            rate = learning_rate(config.schedule, config.learning_rate, 0, step, 1, length)
            state, metrics = program.train_step(state, images, labels, rate)
            losses.append(metrics.loss)
            if step in (0, warm - 1):
                wait(metrics.loss)
                note(**{"first_step_seconds" if step == 0 else "warm_seconds": time.perf_counter() - clock})
                clock = time.perf_counter() if step == warm - 1 else clock
    wait(losses[-1])
    seconds = time.perf_counter() - clock
    values = [float(wait(loss)) for loss in losses]
    note(steps=length, epoch_images_per_second=(length - warm) * options.batch_size / seconds, epoch_seconds=seconds)
    note(loss_first=values[0], loss_last=values[-1])

    clock = time.perf_counter()
    result = evaluate(ready, state)
    note(accuracy_snn=result.accuracy_snn, accuracy_ann=result.accuracy_ann, evaluation_seconds=time.perf_counter() - clock)

    clock = time.perf_counter()
    for _ in range(REPEATS):
        state, metrics = program.train_step(state, images, labels, config.learning_rate)
    wait(metrics.loss)
    note(device_images_per_second=REPEATS * options.batch_size / (time.perf_counter() - clock))


if __name__ == "__main__":
    main()
