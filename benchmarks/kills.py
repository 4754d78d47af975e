"""Runs killed by `kill -9`, resumed and held against one that was left alone: they must be equal bit for bit.

    python benchmarks/kills.py --backend torch --kills 100

Half of the kills come at any moment, from the start of a session on; the other half inside a write, of a checkpoint or of the
record: the session to be killed has a slow file system then, whose writes go out in pieces with pauses between them, and it tells
its parent when one begins and ends. Sessions are forked from a process that has imported what they need, and killed for good.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from twinspike_training import checkpoint, compare, files, loop
from twinspike_training.config import Change, load_config
from twinspike_training.progress import Progress
from twinspike_training.run import RunFolder, create, open_run

PRECISION = {"numpy": "f64", "torch": "f32-ieee", "jax": "f32-ieee"}
CONFIG = (
    "width=2", "method.time_steps=2", "data.limit=96", "data.workers=0", "training.batch_size=24", "training.epochs=6",
    "training.log_every=1", "training.checkpoint_every_steps=1",
)  # fmt: skip
"""24 steps, with a checkpoint after each."""

PIECES = 8
BEGAN, ENDED, OVER = b"w", b".", b"x"
"""What a session tells its parent: a write began, it ended, the run is at its end."""


class Tally(msgspec.Struct):
    """What was done."""

    backend: str
    moments: int = 0
    """Kills at any moment."""
    inside: int = 0
    """Kills inside a write, as the session's last word shows."""
    runs: int = 0
    """Runs brought to their end and found equal to the one left alone."""


# --- the session that is killed ---------------------------------------------------------------------


class _Slow:
    """A file whose writes go out in pieces, with pauses."""

    def __init__(self, file: Any, pause: float, tell: Connection | None) -> None:
        self._file, self._pause, self._tell = file, pause, tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Slow:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        if self._tell:
            self._tell.send_bytes(BEGAN)
        size = -(-len(data) // PIECES) or 1
        for at in range(0, len(data), size):
            self._file.write(data[at : at + size])
            self._file.flush()
            time.sleep(self._pause)
        if self._tell:
            self._tell.send_bytes(ENDED)
        return len(data)


def _slow_file_system(pause: float, tell: Connection) -> None:
    """Make writes of checkpoints, configs and records slow, their renaming too, and tell of them."""
    opened, replace, whole = Path.open, os.replace, files.write_atomic

    def open_slow(self: Path, mode: str = "r", *words: Any, **more: Any) -> Any:
        file = opened(self, mode, *words, **more)
        if self.name == "metrics.jsonl" and "a" in mode:
            return _Slow(file, pause, tell)
        return _Slow(file, pause, None) if self.suffix == ".part" else file

    def replace_slowly(*words: Any) -> None:
        time.sleep(pause)
        replace(*words)
        time.sleep(pause)

    def write_told(*words: Any) -> None:
        tell.send_bytes(BEGAN)
        whole(*words)
        tell.send_bytes(ENDED)

    for owner, name, slow in (
        (Path, "open", open_slow),
        (os, "replace", replace_slowly),
        (checkpoint, "write_atomic", write_told),
    ):
        setattr(owner, name, slow)


def _session(folder: str, pause: float, tell: Connection) -> None:
    _slow_file_system(pause, tell)
    loop.resume(open_run(folder), None, Progress(Console(file=io.StringIO())))
    tell.send_bytes(OVER)


# --- the one that kills -----------------------------------------------------------------------------


def killed(context: Any, folder: RunFolder, draw: random.Random, tally: Tally, inside: bool) -> bool:
    """One session and its death; False if it came to its end before."""
    hear, tell = context.Pipe(duplex=False)
    pause = draw.uniform(0.002, 0.02) if inside else 0.0
    process = context.Process(target=_session, args=(str(folder.path), pause, tell))
    process.start()
    tell.close()
    wanted, seen, last = draw.randint(1, 14) if inside or draw.random() < 0.8 else 0, 0, b""
    while seen < wanted and last != OVER:
        last = hear.recv_bytes()
        seen += last == BEGAN
    time.sleep(draw.uniform(0, pause * (PIECES + 2)) if inside else draw.uniform(0, 0.05 if wanted else 2.0))
    with contextlib.suppress(ProcessLookupError):  # it came to its end
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    try:
        while True:
            last = hear.recv_bytes()
    except EOFError:
        hear.close()
    if last == OVER:
        return False
    if inside and last == BEGAN:
        tally.inside += 1
    else:
        tally.moments += 1
    return True


def kill(backend: str, kills: int, number: int = 0, say: Any = lambda _: None) -> Tally:
    """Kill sessions of runs, half of them inside a write, until there were enough; each run is brought to its end.

    Raises:
        AssertionError: a run is another than the one left alone.
    """
    context, draw, tally = multiprocessing.get_context("forkserver"), random.Random(number), Tally(backend)
    context.set_forkserver_preload(["kills", f"twinspike_{backend}.backend"])
    with tempfile.TemporaryDirectory() as home:
        folder = _made(backend, Path(home, "whole"))
        loop.resume(folder, None, Progress(Console(file=io.StringIO())))
        whole = open_run(folder.path)
        while tally.moments + tally.inside < kills:
            folder = _made(backend, Path(home, "killed"))
            alive = True
            while alive and tally.moments + tally.inside < kills:
                alive = killed(context, folder, draw, tally, inside=tally.inside <= tally.moments)
                say(tally)
            loop.resume(folder, None, Progress(Console(file=io.StringIO())))
            assert_equal(whole, folder)
            tally.runs += 1
            shutil.rmtree(folder.path.parent)
    return tally


def _made(backend: str, out: Path) -> RunFolder:
    changes: list[Change] = [*CONFIG, f"backend={backend}", f"precision={PRECISION[backend]}", ("out", str(out))]
    return create(load_config("digits", changes))


def assert_equal(one: RunFolder, other: RunFolder) -> None:
    """The same runs, and nothing half written beside the other."""
    found = compare.difference(one, other)
    assert found is None, found
    left = {path.name for path in other.path.iterdir()} - {path.name for path in one.path.iterdir()}
    assert left <= {"taken-back.jsonl"}, left


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=sorted(PRECISION), required=True)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()

    def say(tally: Tally) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {msgspec.structs.asdict(tally)}", flush=True)

    tally = kill(given.backend, given.kills, given.seed, say)
    print(f"{tally.moments + tally.inside} kills, {tally.inside} inside a write: {tally.runs} runs equal, bit for bit")


if __name__ == "__main__":
    sys.modules["kills"] = sys.modules["__main__"]
    main()
