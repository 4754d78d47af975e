"""What becomes of a run over two processes when one of them is lost, stands still, is slow, or finds its disk full.

    python benchmarks/trials.py --backend torch --backend jax

Two processes train as under a launcher that only starts them: nobody but they themselves ends one. After some steps one is
harmed. Held against what the documentation says are: how long the other, and the harmed one where it lives, takes to end; that
each says one line; how many steps are lost; and that the run goes on, on one device, to its end. Prints a table; exits with 1
where a trial is not what it should be. A full disk is a small file system in a mount namespace, which needs Linux's `unshare`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

EVERY = 2
"""Steps between checkpoints."""
LIMIT = 60.0
"""Seconds within which every process must have ended."""
START = 900.0
"""Seconds for starting, compiling and the first steps."""
SET = {
    "width": 2, "method.time_steps": 2, "data.limit": 128, "data.test_limit": 20, "data.workers": 0, "training.batch_size": 16,
    "learning_rate": 0.001,
    "training.epochs": 100000, "training.evaluate_every": 100000, "training.log_every": 1,
    "training.checkpoint_every_steps": EVERY,
}  # fmt: skip
"""A run that goes on until it is ended."""

FULL = 'mount -t tmpfs -o size="$1" full "$2" && shift 2 && exec "$@"'
"""Run a command with a small file system over a folder."""

ABORTED = ("rank 0 lost", "rank 0 stands still", "rank 1 stands still", "disk of the run full")
"""In these a process is alone with JAX, which then aborts it where it notices first, or in its parting: with words of its own."""


class Trial(msgspec.Struct):
    """What one trial showed."""

    backend: str
    harm: str
    ended: dict[int, float] = {}
    """Rank -> seconds from the harm to its end."""
    said: dict[int, list[str]] = {}
    """Rank -> lines that speak of an error."""
    lost: int | None = None
    """Steps taken and not kept."""
    resumed: bool = False
    wrong: list[str] = []


class Rank:
    """One process, in a folder that all share."""

    def __init__(self, folder: Path, backend: str, rank: int, port: int, full: tuple[str, str] | None) -> None:
        environ = os.environ | {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }  # fmt: skip
        words = [sys.executable, "-P", "-m", "twinspike_training.cli", "train", "digits", "--backend", backend, "--name", "run"]
        words += [word for key, value in SET.items() for word in ("--set", f"{key}={value}")]
        if full is not None:
            size, where = full
            words = ["unshare", "-rm", "sh", "-c", FULL, "sh", size, where, *words]
            environ["TMPDIR"] = where
        self.rank, self.output = rank, folder / f"rank-{rank}.txt"
        with self.output.open("w") as output:
            self.popen = subprocess.Popen(words, cwd=folder, env=environ, stdout=output, stderr=output)
        self.ended: float | None = None

    def look(self) -> bool:
        """Whether it has ended; notes when."""
        if self.ended is None and self.popen.poll() is not None:
            self.ended = time.monotonic()
        return self.ended is not None

    def errors(self) -> list[str]:
        """Lines that speak of one, tracebacks too."""
        lines = self.output.read_text(errors="replace").splitlines()
        return [line for line in lines if line.startswith("error:") or "Traceback" in line or "rror:" in line[:40]]

    def close(self) -> None:
        """End what still lives."""
        with contextlib.suppress(OSError):
            self.popen.send_signal(signal.SIGCONT)
        self.popen.kill()
        self.popen.wait()


def taken(folder: Path) -> int:
    """Steps in the run's record."""
    record = folder / "runs/run/metrics.jsonl"
    if not record.exists():
        return 0
    found = 0
    for line in record.read_text().splitlines():
        with contextlib.suppress(ValueError):
            told = json.loads(line)
            found = max(found, told["step"]) if told["kind"] == "step" else found
    return found


def kept(folder: Path) -> int:
    """Steps in the last checkpoint, whose header tells of them."""
    data = (folder / "runs/run/last.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return int(json.loads(header["__metadata__"]["twinspike"])["steps"])


def wait(until: Callable[[], bool], seconds: float) -> bool:
    """Look every tenth of a second; False if time is over."""
    began = time.monotonic()
    while not until():
        if time.monotonic() - began > seconds:
            return False
        time.sleep(0.1)
    return True


def lose(ranks: list[Rank], rank: int) -> None:
    """Kill a process."""
    ranks[rank].popen.kill()


def stand_still(ranks: list[Rank], rank: int) -> None:
    """Stop a process as a machine that hangs does."""
    ranks[rank].popen.send_signal(signal.SIGSTOP)


def fill(ranks: list[Rank], rank: int) -> None:
    """Nothing more: its small disk is filled by the run."""


HARMS: dict[str, tuple[Callable[[list[Rank], int], None], int, str]] = {
    "rank 1 lost": (lose, 1, ""),
    "rank 0 lost": (lose, 0, ""),
    "rank 1 stands still": (stand_still, 1, ""),
    "rank 0 stands still": (stand_still, 0, ""),
    "rank 0 slow": (stand_still, 0, ""),
    "rank 1 slow": (stand_still, 1, ""),
    "disk of the run full": (fill, 0, "run"),
    "temporary disk of rank 1 full": (fill, 1, "own"),
}
"""What is done, to which rank, and which small disk it gets."""
GOES_ON = ("rank 0 slow", "rank 1 slow", "temporary disk of rank 1 full")
"""What ends no process."""


def run(backend: str, harm: str, base: Path) -> Trial:
    """One trial from its start to the resumed run's end."""
    trial = Trial(backend, harm, {}, {}, wrong=[])
    do, rank, disk = HARMS[harm]
    folder = base / f"{backend}-{harm.replace(' ', '-')}"
    folder.mkdir()
    place = folder / ("runs" if disk == "run" else "own")
    place.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    size = {"run": "96k", "own": "16k"}
    ranks = [Rank(folder, backend, r, port, (size[disk], str(place)) if disk and r == rank else None) for r in (0, 1)]
    try:
        if disk != "run":
            if not wait(lambda: taken(folder) > 2 * EVERY or any(r.look() for r in ranks), START):
                trial.wrong.append("no steps")
            if any(r.look() for r in ranks):
                trial.wrong.append("ended before it was harmed")
        _harmed(trial, ranks, do, rank, harm, disk)
    finally:
        for process in ranks:
            process.close()
    trial.said = {r.rank: r.errors() for r in ranks}
    _judge(trial, ranks, rank, do)
    if disk != "run":  # its small disk is gone with its process
        _go_on(trial, folder, backend)
    return trial


def _harmed(trial: Trial, ranks: list[Rank], do: Any, rank: int, harm: str, disk: str) -> None:
    began = time.monotonic()
    do(ranks, rank)
    if harm in GOES_ON:
        folder = ranks[0].output.parent
        for _ in range(0 if disk else 20):  # it computes a tenth of the time, for ten seconds
            ranks[rank].popen.send_signal(signal.SIGCONT)
            time.sleep(0.05)
            ranks[rank].popen.send_signal(signal.SIGSTOP)
            time.sleep(0.45)
        ranks[rank].popen.send_signal(signal.SIGCONT)
        before = taken(folder)
        if not wait(lambda: taken(folder) > before + EVERY or any(r.look() for r in ranks), LIMIT) or any(
            r.look() for r in ranks
        ):
            trial.wrong.append("it did not go on")
        return
    others = [r for r in ranks if r.rank != rank]
    wanted = ranks if disk else others
    wait(lambda: [r.look() for r in wanted].count(True) == len(wanted), START if disk else 3 * LIMIT)
    if disk:
        began = min((r.ended for r in ranks if r.ended), default=began)
    trial.ended |= {r.rank: r.ended - began for r in wanted if r.ended is not None}
    if do is stand_still:  # now it wakes, and finds itself alone
        again = time.monotonic()
        ranks[rank].popen.send_signal(signal.SIGCONT)
        wait(ranks[rank].look, 3 * LIMIT)
        ended = ranks[rank].ended
        if ended is not None:
            trial.ended[rank] = ended - again


def _judge(trial: Trial, ranks: list[Rank], rank: int, do: Any) -> None:
    if trial.harm in GOES_ON:
        trial.wrong += [f"rank {r}: {lines}" for r, lines in trial.said.items() if lines]
        return
    for process in ranks:
        r = process.rank
        if do is lose and r == rank:
            continue
        seconds, lines = trial.ended.get(r), trial.said[r]
        if seconds is None or seconds > LIMIT:
            trial.wrong.append(f"rank {r} had not ended after {LIMIT:.0f} s")
        if trial.backend == "jax" and trial.harm in ABORTED and process.popen.returncode == -signal.SIGABRT:
            trial.said[r] += ["and JAX's own words"]
            continue
        if len(lines) != 1 or not lines[0].startswith("error: "):
            trial.wrong.append(f"rank {r} said {lines}, not one line")
        if process.popen.returncode != 2:
            trial.wrong.append(f"rank {r} ended with {process.popen.returncode}, not 2")


def _go_on(trial: Trial, folder: Path, backend: str) -> None:
    trial.lost = taken(folder) - kept(folder)
    more = kept(folder) + 2
    words = [sys.executable, "-P", "-m", "twinspike_training.cli", "train", "--resume", "runs/run", "--backend", backend]
    for change in ("devices=1", f"training.max_steps={more}"):
        words += ["--set", change]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    trial.resumed = done.returncode == 0 and kept(folder) == more
    if not trial.resumed:
        trial.wrong.append(f"resumed: {(done.stderr or done.stdout)[-300:]}")
    if trial.lost > EVERY:
        trial.wrong.append(f"{trial.lost} steps lost")


def row(trial: Trial) -> str:
    """A line of the table."""
    ended = ", ".join(f"rank {r} after {seconds:.1f} s" for r, seconds in sorted(trial.ended.items())) or "goes on"
    lines = " / ".join(line for _, every in sorted(trial.said.items()) for line in every)
    lost = "" if trial.lost is None else str(trial.lost)
    return f"| {trial.backend} | {trial.harm} | {ended} | {lost} | {'yes' if trial.resumed else ''} | {lines} |"


def main() -> int:
    """Run the trials that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", choices=["torch", "jax"], help="may be given again; both if not given")
    parser.add_argument("--harm", action="append", choices=sorted(HARMS), help="likewise")
    parser.add_argument("--keep", type=Path, help="folder to keep the runs and what they said in")
    arguments = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="twinspike-trials-")) if arguments.keep is None else arguments.keep
    base.mkdir(parents=True, exist_ok=True)
    wrong = 0
    print("| backend | harm | ended | steps lost | goes on | said |\n| --- | --- | --- | ---: | --- | --- |")
    for backend in arguments.backend or ["torch", "jax"]:
        for harm in arguments.harm or HARMS:
            trial = run(backend, harm, base)
            print(row(trial), flush=True)
            for what in trial.wrong:
                print(f"wrong: {backend}, {harm}: {what}", file=sys.stderr, flush=True)
            wrong += len(trial.wrong)
    if arguments.keep is None:
        shutil.rmtree(base)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
