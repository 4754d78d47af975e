"""Memory and speed of samples that are read by their index: events of a pack, and the images of a folder.

    python benchmarks/large_data.py [--events 50000000] [--images 2000]

Packs of 4,096 events a recording are read whole, as any below the budget, and by index; each in a fresh process, turn by turn.
Given are this process's own memory (`RssAnon` of Linux, without pages of files that the system may take back) once the data
set is open and after an epoch, seconds to open it, and samples a second without workers. A folder's images are decoded when they
are needed, `--images` of 64 x 64 pixels here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import spread

EACH = 4096


def write_pack(file: Path, events: int) -> None:
    """Random events, not compressed."""
    rng, recordings = np.random.default_rng(0), events // EACH
    events = recordings * EACH
    np.savez(
        file,
        x=rng.integers(0, 34, events, dtype=np.uint8),
        y=rng.integers(0, 34, events, dtype=np.uint8),
        p=rng.integers(0, 256, events // 8, dtype=np.uint8),
        dt=rng.integers(0, 150, events, dtype=np.uint16),
        offsets=np.arange(0, events + 1, EACH),
        labels=np.arange(recordings) % 10,
        ids=np.r_[1 : recordings - 99, 60_001:60_101],
    )


def write_folder(root: Path, images: int) -> None:
    """Random images of ten classes, and ten to test."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, count in (("train", images), ("val", 10)):
        for i in range(count):
            folder = root / part / str(i % 10)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")


def own_memory() -> float:
    """MiB that this process alone holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def one(name: str, path: str, samples: int, whole: bool) -> None:
    """What a fresh process finds, as a line of JSON."""
    from twinspike_training.data import DataConfig, open_dataset, pack

    if whole:
        pack.BUDGET = sys.maxsize
    before, began = own_memory(), time.perf_counter()
    config = DataConfig(name="events" if name == "events" else "folder", path=path, workers=0)
    with open_dataset(config, time_steps=4) as data:
        opened, seconds = own_memory() - before, time.perf_counter() - began
        batches, seen, began = data.train_batches(0, 0, 64), 0, time.perf_counter()
        for _, labels in batches:
            seen += len(labels)
            if seen >= samples:
                break
        rate = seen / (time.perf_counter() - began)
        print(json.dumps({"open": seconds, "opened": opened, "after": own_memory() - before, "rate": rate}))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=50_000_000)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=2000, help="of an epoch that are read")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, path, samples, whole = given.one
        one(name, path, int(samples), whole == "whole")
        return
    with tempfile.TemporaryDirectory() as folder:
        write_pack(Path(folder, "pack.npz"), given.events)
        write_folder(Path(folder, "images"), given.images)
        kinds = (("events", "pack.npz", "whole"), ("events", "pack.npz", "by index"), ("folder", "images", "by index"))
        found: dict[tuple[str, str], list[dict[str, float]]] = {(name, how): [] for name, _, how in kinds}
        for _ in range(given.rounds):
            for name, file, how in kinds:
                words = [sys.executable, __file__, "--one", name, str(Path(folder, file)), str(given.samples), how]
                found[name, how].append(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    print("| data | read | open, s | MiB then | MiB after an epoch | samples/s |\n| --- | --- | --- | --- | --- | --- |")
    for (name, how), every in found.items():
        cells = []
        for key, digits in (("open", 2), ("opened", 0), ("after", 0), ("rate", 0)):
            s = spread([line[key] for line in every])
            cells.append(f"{s['median']:,.{digits}f} ({s['q1']:,.{digits}f} to {s['q3']:,.{digits}f})")
        print(f"| {name} | {how} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
