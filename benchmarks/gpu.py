"""What the backends do on a machine with a GPU, within ten minutes and without a network: proofs, then times.

    python benchmarks/gpu.py --out DIR [--authors PATH] [--parts lif joint] [--device cpu --tiny]

The checkout need not be installed. Needed are torch, jax, optax, NumPy, msgspec, safetensors, Pillow, hypothesis
and pytest; a tiny run also scikit-learn, for its digits. What a machine lacks (msgspec, as a rule) goes onto
PYTHONPATH: `pip download --no-deps` its wheel elsewhere for the machine's Python, then there
`pip install --no-index --no-deps --target SITE WHEELS`.

Proofs run first and beside one another: the conformance suite on the device in every precision, TF32 caught
under the name of f32-ieee, CPU and device equal in the exact lane, this project's own tests, and torch
against jax. Times follow one after another with the device to themselves: the neuron against the device's own
copy, the joint step, an epoch with its data, memory, and the authors' code if `--authors` names a checkout.
Each part is a process of its own with a time limit; what is known so far is always in `DIR/gpu.json`,
`DIR/gpu.log` has what the parts said, `DIR/reports.tar.gz` the suite's reports. `--parts` takes those whose
name contains one of the words; what an earlier `DIR/gpu.json` has of other parts is kept. Copied to
`benchmarks/results/gpu.json`, it fills the GPU rows of `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from measure import ROOT, cores, header

ROOMS = [str(ROOT / room) for room in ("spec", "backends", "conformance", "training", "benchmarks")]
BACKENDS = ("torch", "jax")
PRECISIONS = ("f32-ieee", "tf32", "bf16-mixed")
LEAST = 10.0
"""Seconds that must be left for a part to be begun."""


class Part(NamedTuple):
    """One process."""

    name: str
    command: list[str]
    result: Path
    """File that it leaves behind: JSON, the suite's report or JUnit."""
    limit: float
    """Seconds after which it is ended."""
    fails: bool = False
    """Whether failing is what it must do."""
    threads: int | None = None
    """Of OpenMP, for parts that run beside others; None: as many as there are cores."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json, gpu.log and reports.tar.gz")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--authors", type=Path, help="folder of a checkout of the authors' code")
    parser.add_argument("--data", help="folder of CIFAR-10's binary files; without it pixels are random")
    parser.add_argument("--batch-sizes", nargs="*", type=int, default=[512, 1024])
    parser.add_argument("--profile", default="smoke", help="of the conformance suite")
    parser.add_argument("--parts", nargs="*", default=[], help="words, one of which a part's name must contain")
    parser.add_argument("--seconds", type=float, default=570.0, help="for everything together")
    parser.add_argument("--tiny", action="store_true", help="sizes that show no more than that all of it runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    given = {key: value for key, value in vars(options).items() if key not in ("out", "authors", "data")}
    report = header("gpu") | {"options": given, "parts": {}}
    if (earlier := options.out / "gpu.json").is_file():
        report["parts"] = json.loads(earlier.read_text(encoding="utf-8"))["parts"]
    deadline = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as name, (options.out / "gpu.log").open("w", encoding="utf-8") as log:
        folder = Path(name)
        runner = _Runner(options.out, report, log, child_environment(folder), deadline, options.parts)
        # Proofs are not timed, so that they may share the device and the cores.
        with ThreadPoolExecutor(max(1, cores() // 2)) as pool:
            list(pool.map(runner.run, [part._replace(threads=2) for part in proofs(options, folder)]))
        for part in times(options, folder):
            runner.run(part)
        with tarfile.open(options.out / "reports.tar.gz", "w:gz") as archive:
            for found in sorted(folder.glob("*/report.html")):
                archive.add(found.parent, found.parent.name)


def proofs(options: argparse.Namespace, folder: Path) -> Iterator[Part]:
    """What must hold before any time means anything."""
    suite = [sys.executable, "-m", "twinspike_conformance"]
    some = ["--only", "relu"] if options.tiny else []
    cuda = options.device != "cpu"
    for backend in BACKENDS:
        for precision in PRECISIONS if cuda else ("f32-ieee", "bf16-mixed"):
            at = folder / f"{backend}-{precision}"
            where = ["--device", options.device, "--precision", precision, "--profile", options.profile, "--report", str(at)]
            yield Part(f"conformance {backend} {precision}", [*suite, backend, *where, *some], at / "report.json", 240)
    for backend in BACKENDS:
        at = folder / f"{backend}-liar"
        liar = f"liar:{backend}_{'tf32' if cuda else 'bf16'}"
        where = ["--device", options.device, "--precision", "f32-ieee", "--profile", options.profile, "--report", str(at)]
        command = [*suite, liar, *where, "--only", "digits["]
        yield Part(f"sentinel {backend}", command, at / "report.json", 120, fails=True)
        at = folder / f"exact-{backend}.json"
        yield Part(f"exact {backend}", own("exact", at, options, "--backend", backend), at, 120)
    at = folder / "cross-torch-jax"
    where = ["--device", options.device, "--device-b", options.device, "--profile", options.profile, "--report", str(at)]
    yield Part("cross torch jax", [*suite, "cross", *BACKENDS, *where, *some], at / "report.json", 240)
    # Warnings are errors where versions are pinned, and these are the machine's own.
    pytest = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider", "--device", options.device]
    for backend in BACKENDS:
        files = sorted(str(path) for path in (ROOT / "tests").glob(f"test_*{backend}*.py"))
        others = [f"--without={other}" for other in BACKENDS if other != backend]
        at = folder / f"{backend}.xml"
        few = ["-k", "lif or relu"] if options.tiny else []
        yield Part(f"tests {backend}", [*pytest, *others, "--without=train", f"--junitxml={at}", *few, *files], at, 200)


def times(options: argparse.Namespace, folder: Path) -> Iterator[Part]:
    """What is timed, by importance."""
    for backend in BACKENDS:
        at = folder / f"lif-{backend}.json"
        yield Part(f"lif {backend}", own("lif", at, options, "--backend", backend), at, 60)
    modes = {"torch compiled": ("torch", ["--compiled"]), "jax": ("jax", ["--compiled"]), "torch eager": ("torch", [])}
    for size in options.batch_sizes if not options.tiny else [8]:
        for mode, (backend, flags) in modes.items():
            name = f"joint {mode} bf16-mixed {size}"
            at = folder / f"{name.replace(' ', '-')}.json"
            yield Part(name, own("joint", at, options, "--backend", backend, *flags, "--batch-size", str(size)), at, 150)
        if options.authors:
            for precision in ("f16-amp", "bf16-mixed") if options.device != "cpu" else ("f32-ieee",):
                at = folder / f"authors-{precision}-{size}.json"
                more = ["--authors", str(options.authors), "--precision", precision, "--batch-size", str(size)]
                yield Part(f"joint authors {precision} {size}", own("authors", at, options, *more), at, 90)
    sizes = ["2", "4"] if options.tiny else ["32", "64"]
    at = folder / f"memory_torch_{options.device}.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--device", options.device, "--out", str(folder)]
    command += ["--batch-sizes", *sizes, *(["--network", "digits_cnn"] if options.tiny else [])]
    command += ["--authors", str(options.authors)] if options.authors and not options.tiny else []
    yield Part("memory torch", command, at, 90)


def own(part: str, result: Path, options: argparse.Namespace, *more: str) -> list[str]:
    """Command of a part in `gpu_parts.py`."""
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_parts.py"), part, str(result), "--device", options.device]
    command += ["--data", options.data] if options.data else []
    return [*command, *more, *(["--tiny"] if options.tiny else [])]


class _Runner:
    """Runs parts and writes the report after each."""

    def __init__(
        self, out: Path, report: dict[str, Any], log: Any, environment: dict[str, str], deadline: float, words: list[str]
    ) -> None:
        self.out, self.report, self.log = out, report, log
        self.environment, self.deadline, self.words = environment, deadline, words
        self.lock = threading.Lock()

    def run(self, part: Part) -> None:
        """Run one part, if it is wanted and there is time."""
        left = self.deadline - time.monotonic()
        if self.words and not any(word in part.name for word in self.words):
            found = {"status": "not run", "reason": "left out by --parts"}
        elif left < LEAST:
            found = {"status": "not run", "reason": "no time left"}
        else:
            environment = self.environment | ({"OMP_NUM_THREADS": str(part.threads)} if part.threads else {})
            found, text = execute(part.command, environment, min(part.limit, left))
            found |= read(part.result)
            if part.fails:
                found["status"] = "ok" if found.get("verdict") == "fail" else f"expected a verdict fail: {found['status']}"
            if found["status"] != "ok":
                found["said"] = text.rstrip().rpartition("\n")[2]
            with self.lock:
                self.log.write(f"$ {' '.join(part.command)}\n{text}\n{found['status']}\n\n")
                self.log.flush()
        with self.lock:
            if found["status"] != "not run" or part.name not in self.report["parts"]:
                self.report["parts"][part.name] = found
            print(f"{part.name}: {json.dumps(found)}", flush=True)
            text = json.dumps(self.report, indent=1, default=str)
            (self.out / "gpu.json").write_text(text.replace(str(ROOT), "CHECKOUT") + "\n", encoding="utf-8")


def execute(command: Sequence[str], environment: dict[str, str], seconds: float) -> tuple[dict[str, Any], str]:
    """(status and seconds, what it said) of one process; a late one is ended with all its children."""
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
        return {"status": status, "seconds": round(time.monotonic() - began, 1)}, output.read()


def read(result: Path) -> dict[str, Any]:
    """What a part left behind, whole or not: its JSON, the counts of a report of the suite, or of a JUnit file."""
    if not result.is_file():
        return {}
    if result.name == "report.json":
        records = json.loads(result.read_text(encoding="utf-8"))["records"]
        chosen = [record for record in records if record["reason"] != "left out by --only"]
        counts: dict[str, Any] = {"statuses": {}, "comparisons": sum(record["comparisons"] for record in chosen)}
        for record in chosen:
            counts["statuses"][record["status"]] = counts["statuses"].get(record["status"], 0) + 1
        failed = [record["id"] for record in chosen if record["status"] in ("fail", "error")]
        return counts | {"failed": failed, "verdict": "fail" if failed else "pass"}
    if result.suffix == ".json":
        return dict(json.loads(result.read_text(encoding="utf-8")))
    (suite,) = ElementTree.parse(result).getroot().iter("testsuite")
    found: dict[str, Any] = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    bad = [case for case in suite.iter("testcase") if case.find("failure") is not None or case.find("error") is not None]
    return found | {"failed": [f"{case.get('classname')}::{case.get('name')}" for case in bad]}


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
    # Proofs of both frameworks share the device's memory.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


if __name__ == "__main__":
    main()
