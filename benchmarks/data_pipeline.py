"""How many training images a second the data pipeline gives, and what it takes from the thread that trains.

    python benchmarks/data_pipeline.py [--path CIFAR-10] [--batch-size 256] [--images 20000]

Without a path, a CIFAR-10 of random pixels is written to a temporary folder. For each kind and number of
workers it prints images per second (best of three epochs, started from running workers), and how fast a
thread that only makes short calls into native code goes on while batches are made at full speed, as a share of
its speed alone: the calls stand for the kernel launches of an eager framework.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import threading
import time
from pathlib import Path
from typing import Literal

import numpy as np

from twinspike_training.data import DataConfig, Dataset, open_dataset
from twinspike_training.data.config import POLICIES, Policy

AUGMENTATIONS: dict[str, tuple[Policy, ...]] = {
    "none": (),
    "crop flip cutout": ("crop", "flip", "cutout"),
    "with autoaugment": POLICIES,
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


def throughput(data: Dataset, batch_size: int) -> float:
    """Images per second of one epoch, after its first batch."""
    batches = data.train_batches(0, 0, batch_size)
    next(batches)
    start = time.perf_counter()
    images = sum(len(labels) for _, labels in batches)
    return images / (time.perf_counter() - start)


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
    parser.add_argument("--images", type=int, default=20_000, help="training images per epoch")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, NumPy {np.__version__}")
    print(f"batch size {options.batch_size}, {options.images} images an epoch\n")
    print(f"{'augmentation':<18} {'workers':<11} {'images/s':>9} {'share left to the training thread':>34}")
    with tempfile.TemporaryDirectory() as folder:
        if options.path is None:
            write_random_cifar(Path(folder))
        path = options.path or folder
        alone = calls_per_second()
        for name, policies in AUGMENTATIONS.items():
            for workers, worker in WORKERS:
                config = DataConfig(
                    name="cifar10", path=path, augment=policies, workers=workers, worker=worker, limit=options.images
                )
                with open_dataset(config, time_steps=1) as data:
                    best = max(throughput(data, options.batch_size) for _ in range(3))
                    left = f"{share_left(data, options.batch_size, alone):34.0%}" if workers else f"{'(same thread)':>34}"
                print(f"{name:<18} {f'{workers} {worker}':<11} {best:9,.0f} {left}", flush=True)


if __name__ == "__main__":
    main()
