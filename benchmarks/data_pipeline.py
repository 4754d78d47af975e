"""How many training images a second the data pipeline gives, and what it takes from the thread that trains.

    python benchmarks/data_pipeline.py [--path CIFAR-10] [--batch-size 256] [--images 10000]

Without a path, a CIFAR-10 of random pixels is written to a temporary folder. For each kind and number of
workers it gives images per second of each of some epochs, started from running workers; where all of it happens
in this process also images per second of processor time, which is what a core gives. The last column is how fast
a thread that only makes short calls into native code goes on while batches are made at full speed, as a share of
its speed alone: the calls stand for the kernel launches of an eager framework. Results go to
`results/data_pipeline.json`.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from measure import header, spread, write

from twinspike_training.data import DataConfig, Dataset, open_dataset
from twinspike_training.data.config import Policy

AUGMENTATIONS: dict[str, tuple[Policy, ...]] = {
    "none": (),
    "crop flip cutout": ("crop", "flip", "cutout"),
    "with autoaugment": ("crop", "flip", "autoaugment", "cutout"),
}
WORKERS: tuple[tuple[int, Literal["thread", "process"]], ...] = (
    (0, "thread"),
    (1, "thread"),
    (2, "thread"),
    (1, "process"),
    (2, "process"),
)


def write_random_cifar(root: Path) -> None:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for file in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        rows = rng.integers(0, 256, (10_000, 3073), dtype=np.uint8)
        rows[:, 0] %= 10
        rows.tofile(folder / file)
    (folder / "batches.meta.txt").write_text("".join(f"class {i}\n" for i in range(10)))


def throughput(data: Dataset, batch_size: int, epoch: int) -> tuple[float, float]:
    """Images per second of one epoch after its first batch: by the clock, and by this process's processor time."""
    batches = data.train_batches(0, epoch, batch_size)
    next(batches)
    wall, cpu = time.perf_counter(), time.process_time()
    images = sum(len(labels) for _, labels in batches)
    return images / (time.perf_counter() - wall), images / (time.process_time() - cpu)


def calls_per_second(seconds: float = 0.5) -> float:
    """Short native calls of this thread per second: additions to an array large enough to let other threads in."""
    array = np.zeros(1000, dtype=np.float32)
    one = np.float32(1)
    calls, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        for _ in range(50):
            np.add(array, one, out=array)
        calls += 50
    return calls / spent


def share_left(data: Dataset, batch_size: int, alone: float) -> float:
    """Speed of the calls while batches are made without pause, over their speed alone."""
    stop = threading.Event()

    def consume() -> None:
        epoch = 0
        while not stop.is_set():
            epoch += 1
            for _ in data.train_batches(0, epoch, batch_size):
                if stop.is_set():
                    break

    thread = threading.Thread(target=consume)
    thread.start()
    time.sleep(0.3)
    try:
        return calls_per_second() / alone
    finally:
        stop.set()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", help="CIFAR-10 in its binary layout")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--images", type=int, default=10_000, help="training images per epoch")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    result = header("data_pipeline") | {"batch_size": options.batch_size, "images": options.images, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        if options.path is None:
            write_random_cifar(Path(folder))
        alone = calls_per_second()
        for name in AUGMENTATIONS:
            for workers, worker in WORKERS:
                row = measured(options, options.path or folder, name, workers, worker, alone)
                result["rows"].append(row)
                left = f"{row['share_left']:.0%} left to the training thread" if workers else "in the training thread"
                speed = f"{row['images_per_second']['median']:9,.0f} images/s"
                print(f"{name:<18} {workers} {worker:<8} {speed}, {left}", flush=True)
    print(write("data_pipeline", result))


def measured(
    options: argparse.Namespace, path: str, name: str, workers: int, worker: Literal["thread", "process"], alone: float
) -> dict[str, Any]:
    """One row: an augmentation with a kind and number of workers."""
    config = DataConfig(
        name="cifar10", path=path, augment=AUGMENTATIONS[name], workers=workers, worker=worker, limit=options.images
    )
    row: dict[str, Any] = {"augmentation": name, "workers": workers, "worker": worker}
    with open_dataset(config, time_steps=1) as data:
        wall, cpu = zip(*(throughput(data, options.batch_size, epoch) for epoch in range(options.epochs)), strict=True)
        row["images_per_second"] = spread(wall)
        if not workers:
            return row | {"images_per_core_second": spread(cpu)}
        return row | {"share_left": round(share_left(data, options.batch_size, alone), 3)}


if __name__ == "__main__":
    main()
