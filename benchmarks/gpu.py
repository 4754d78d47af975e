"""What the backends do on a machine with a GPU, within ten minutes and without a network: does it run, is it right, how fast.

    python benchmarks/gpu.py --out DIR [--wheels DIR] [--authors PATH] [--parts lif joint] [--device cpu --tiny]

The checkout need not be installed. Needed are torch, jax, optax, NumPy, msgspec, safetensors, Pillow, hypothesis,
pytest, jaxtyping and beartype; a tiny run also scikit-learn, for its digits. What a machine lacks (msgspec and
beartype, as a rule) is carried as wheels: `pip download --no-deps --python-version 3.12 --only-binary :all: msgspec
beartype`, and their folder named by `--wheels` or on PYTHONPATH; they are unpacked, not installed. An epoch reads
`--data`, a folder that holds `cifar-10-batches-bin` or `cifar-100-binary`; without it pixels are random, which
costs as much.

Order: what takes seconds and shows that the rest can work, each alone; joint steps compiled on the cores, meanwhile
measurements, one at a time under a lock: the device's own copy and products, the neuron, the eager step, each
convolution; then proofs, which share the device: the conformance suite in every precision, TF32 caught under the
name of f32-ieee, CPU and device equal in the exact lane, this project's own tests, torch against jax; then what was
compiled: step, epoch with its data, profile. Larger batches, the authors' code (`--authors` names a checkout),
memory and the suite's profile ci take what time is left. Each part is a process with a limit of its own, and all
have `--seconds` together; for want of time parts are not run, and that is said.

What comes back: `DIR/gpu.json`, whole after every number, `DIR/gpu.log` with what the parts said, and
`DIR/reports.tar.gz` with the suite's reports. `--scratch` keeps what was compiled for the next call on the same
machine. `--parts` takes those whose name contains one of the words; what an earlier `DIR/gpu.json` has of other
parts is kept. Copied to `benchmarks/results/gpu.json`, it fills the GPU rows of `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from gpu_runner import Part, Runner, earlier, replace
from measure import ROOT, header

ROOMS = [str(ROOT / room) for room in ("spec", "backends", "conformance", "training", "benchmarks")]
BACKENDS = ("torch", "jax")
PRECISIONS = ("bf16-mixed", "f32-ieee", "tf32")
NEEDED = ("numpy", "msgspec", "hypothesis", "pytest", "jaxtyping", "beartype")
"""Without which no part can run."""
PREFLIGHT, MEASURE, PROVE, FINISH = range(4)
LIMIT = 40.0
"""Seconds that a check of the suite may take at least: opening a backend on a GPU takes a part of them."""
SPARE = 0.35
"""Share of the budget that proofs leave to measurements."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json, gpu.log and reports.tar.gz")
    parser.add_argument("--scratch", type=Path, default=ROOT / "build" / "gpu", help="folder that a later call finds again")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that the machine lacks")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--authors", type=Path, help="folder of a checkout of the authors' code")
    parser.add_argument("--data", type=Path, help="folder of CIFAR's binary files; without it pixels are random")
    parser.add_argument("--batch-sizes", nargs="*", type=int, default=[512, 1024])
    parser.add_argument("--profile", default="smoke", help="of the conformance suite")
    parser.add_argument("--parts", nargs="*", default=[], help="words, one of which a part's name must contain")
    parser.add_argument("--seconds", type=float, default=540.0, help="for everything together")
    parser.add_argument("--tiny", action="store_true", help="sizes that show no more than that all of it runs")
    options = parser.parse_args()
    for name in ("out", "scratch", "wheels", "authors", "data"):  # parts run in the checkout's folder
        if getattr(options, name):
            setattr(options, name, getattr(options, name).resolve())
    for folder in (options.out, options.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    environment = child_environment(options.scratch, [options.wheels] if options.wheels else [])
    given = {key: value for key, value in vars(options).items() if key not in ("out", "scratch", "wheels", "authors", "data")}
    report = header("gpu") | {"options": given, "parts": earlier(options.out)}
    listen()
    Runner(options.out, options.scratch, report, environment, options.seconds).run(list(parts(options)), options.parts)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listen() -> None:
    """Let the first signal end the visit, and later ones not disturb that."""

    def end(number: int, _: object) -> None:
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        sys.exit(f"gpu.py was ended by {signal.Signals(number).name}")

    for number in SIGNALS:
        signal.signal(number, end)


def parts(options: argparse.Namespace) -> Iterator[Part]:
    """All parts, of each stage the worthiest first."""
    yield from preflight(options)
    yield from measurements(options)
    yield from proofs(options)
    yield from rest(options)


def preflight(options: argparse.Namespace) -> Iterator[Part]:
    """Whether anything works, each question a process: some faults end it."""
    for what in ("sessions", "step", "lif", "kernels"):
        for backend in BACKENDS:
            yield check(f"preflight {what} {backend}", what, options, backend, 90, PREFLIGHT)


def measurements(options: argparse.Namespace) -> Iterator[Part]:
    """What is compiled on the cores, and what the device does meanwhile."""
    sizes = [8] if options.tiny else options.batch_sizes
    for size in sizes[:1]:
        yield joint("jax", True, size, options, 300, FINISH, early=True)
        yield joint("torch", True, size, options, 420, FINISH, early=True)
    yield own("ceilings", "ceilings", options, 45, MEASURE)
    for backend in BACKENDS:
        yield own(f"lif {backend}", "lif", options, 60, MEASURE, "--backend", backend)
    for size in sizes[:1]:
        yield joint("torch", False, size, options, 180, MEASURE)
        lacks = "a graph is recorded on a CUDA device" if options.device == "cpu" else ""
        yield joint("torch", False, size, options, 180, MEASURE, graphs=True, lacks=lacks)
    yield own("convolutions torch", "convolutions", options, 60, MEASURE)


def proofs(options: argparse.Namespace) -> Iterator[Part]:
    """What must hold before any time means anything."""
    spare = SPARE * options.seconds
    for backend in BACKENDS:
        yield check(f"exact {backend}", "exact", options, backend, 120, PROVE)._replace(spare=spare, threads=2)
    for precision in PRECISIONS:
        for backend in BACKENDS:
            words = [backend, *_where(options, precision)]
            yield suite(f"conformance {backend} {precision}", words, options, options.profile, 180, PROVE)
    for backend in BACKENDS:
        liar = f"liar:{backend}_{'tf32' if options.device != 'cpu' else 'bf16'}"
        words = [liar, *_where(options, "f32-ieee"), "--only", "digits["]
        yield suite(f"sentinel {backend}", words, options, options.profile, 120, PROVE)._replace(fails=True)
    for backend in BACKENDS:
        at = options.scratch / f"tests-{backend}.xml"
        command = [*_tests(options, backend, at), *(["-k", "(relu or layouts) and not numba"] if options.tiny else [])]
        yield Part(f"tests {backend}", command, at, 200, PROVE, spare=spare, threads=2)
    words = ["cross", *BACKENDS, "--device", options.device, "--device-b", options.device]
    yield suite("cross torch jax", words, options, options.profile, 180, PROVE)


def rest(options: argparse.Namespace) -> Iterator[Part]:
    """What takes the time that is left."""
    for precision in () if not options.authors else ("f16-amp", "bf16-mixed") if options.device != "cpu" else ("f32-ieee",):
        for size in [8] if options.tiny else options.batch_sizes[:1]:
            more = ["--authors", str(options.authors), "--precision", precision, "--batch-size", str(size)]
            yield own(f"joint authors {precision} {size}", "authors", options, 90, FINISH, *more)
    for size in () if options.tiny else options.batch_sizes[1:]:
        yield joint("jax", True, size, options, 240, FINISH)
        yield joint("torch", True, size, options, 300, FINISH)
    at = options.scratch / f"memory_torch_{options.device}.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--device", options.device, "--out", str(options.scratch)]
    command += ["--batch-sizes", "2", "4", "--network", "digits_cnn"] if options.tiny else ["--batch-sizes", "32", "64"]
    command += ["--authors", str(options.authors)] if options.authors and not options.tiny else []
    yield Part("memory torch", command, at, 90, FINISH)
    for backend in BACKENDS:
        for precision in PRECISIONS:
            words = [backend, *_where(options, precision)]
            yield suite(f"profile ci {backend} {precision}", words, options, "ci", 240, FINISH)


def joint(
    backend: str,
    compiled: bool,
    size: int,
    options: argparse.Namespace,
    limit: float,
    stage: int,
    *,
    graphs: bool = False,
    **more: Any,
) -> Part:
    """A joint step, its epoch and its profile."""
    mode = "jax" if backend == "jax" else f"torch {'compiled' if compiled else 'graphs' if graphs else 'eager'}"
    words = ["--backend", backend, "--batch-size", str(size)]
    words += [f"--{name}" for name, asked in (("compiled", compiled), ("graphs", graphs)) if asked]
    words += ["--data", str(options.data)] if options.data else []
    return own(f"joint {mode} bf16-mixed {size}", "joint", options, limit, stage, *words)._replace(**more)


def own(name: str, part: str, options: argparse.Namespace, limit: float, stage: int, *more: str) -> Part:
    """A part of `gpu_parts.py`: it takes the device's lock itself."""
    words = ["--lock", str(options.scratch / "device.lock"), *more]
    return _script("gpu_parts.py", name, part, options, limit, stage, words)._replace(alone=True)


def check(name: str, part: str, options: argparse.Namespace, backend: str, limit: float, stage: int) -> Part:
    """A part of `gpu_checks.py`."""
    return _script("gpu_checks.py", name, part, options, limit, stage, ["--backend", backend])


def _script(file: str, name: str, part: str, options: argparse.Namespace, limit: float, stage: int, words: Sequence[str]) -> Part:
    at = options.scratch / f"{name.replace(' ', '-')}.json"
    command = [sys.executable, str(ROOT / "benchmarks" / file), part, str(at), "--device", options.device, *words]
    return Part(name, [*command, *(["--tiny"] if options.tiny else [])], at, limit, stage)


def suite(name: str, words: Sequence[str], options: argparse.Namespace, profile: str, limit: float, stage: int) -> Part:
    """A run of the conformance suite, whose checks have limits, so that one which hangs leaves time to others."""
    at = options.scratch / name.replace(" ", "-")
    some = ["--only", "relu"] if options.tiny and "--only" not in words else []
    command = [sys.executable, "-m", "twinspike_conformance", *words, "--profile", profile, "--report", str(at), *some]
    command += ["--limit", f"{max(LIMIT, limit / 3):g}"] if words[0] != "cross" else []  # which has none
    spare = SPARE * options.seconds if stage == PROVE else 0.0
    lacks = "it needs a CUDA device: no CPU rounds to TF32" if "tf32" in words and options.device == "cpu" else ""
    return Part(name, command, at / "report.json", limit, stage, spare=spare, lacks=lacks, threads=2)


def _where(options: argparse.Namespace, precision: str) -> list[str]:
    return ["--device", options.device, "--precision", precision]


def _tests(options: argparse.Namespace, backend: str, result: Path) -> list[str]:
    """pytest, of the backend's tests those that compute on the device that is named."""
    files = [str(ROOT / "tests" / backend)]
    kernels = ("test_lif.py", "test_norm_triton.py", "test_norm_activation.py") if backend == "torch" else ()
    files += [str(ROOT / "tests" / "kernels" / name) for name in kernels]
    # Warnings are errors where versions are pinned, and these are the machine's own.
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider", f"--junitxml={result}"]
    return [*command, "--device", options.device, "--on-device", *files]


def child_environment(scratch: Path, wheels: Sequence[Path]) -> dict[str, str]:
    """Environment in which the rooms can be imported and backends be found by name, installed or not.

    Code that frameworks compile is kept in `scratch`, unless the environment names other folders.
    """
    given = [Path(word) for word in os.environ.get("PYTHONPATH", "").split(os.pathsep) if word]
    site = scratch / "site"
    for wheel in sorted(wheel for folder in (*wheels, *given) if folder.is_dir() for wheel in folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    there = [str(site), *map(str, given), *sys.path]
    missing = [name for name in NEEDED if PathFinder.find_spec(name, there) is None]
    if missing:
        sys.exit(f"gpu.py: expected the packages {', '.join(NEEDED)}, got no {', '.join(missing)}: name wheels by --wheels")
    path = [*ROOMS, str(site), *map(str, given)]
    try:
        distribution("twinspike")
    except PackageNotFoundError:
        path.insert(0, str(_entry_points(scratch / "metadata" / "twinspike-0.dist-info")))
    kept = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton", "JAX_COMPILATION_CACHE_DIR": "jax"}
    return {
        **{name: str(scratch / folder) for name, folder in kept.items()},
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # parts share the device's memory
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
    }


def _entry_points(info: Path) -> Path:
    """Write the metadata by which backends are found; the folder to be put on the path."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    )
    info.mkdir(parents=True, exist_ok=True)
    metadata = "Metadata-Version: 2.1\nName: twinspike\nVersion: 0\n"
    for name, text in (("METADATA", metadata), ("entry_points.txt", groups)):
        replace(info / name, partial(Path.write_text, data=text, encoding="utf-8"))
    return info.parent


if __name__ == "__main__":
    main()
