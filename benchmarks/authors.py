"""The authors' published training step, driven from a checkout of their code as their `main.py` drives it.

    python benchmarks/authors.py PATH                      torch and the reference beside it, in float64, a table
    python benchmarks/authors.py PATH --backends torch --batch-size 8

Their code is not part of this project: get it from github.com/yfguo91/Joint-A-SNN and name its folder.
What is adapted, all of it here and none of it in what is timed: `main.py` reads the command line and
torchvision when imported, so it gets an empty command line and, where torchvision is missing, an empty
stand-in; its model is built on the chosen device where it calls `.cuda()`; the model's printing while it
initializes is dropped. Autocast is what their `--amp` decides: float16 with loss scaling on CUDA, or none;
`bf16-mixed` is their step under bfloat16 autocast instead, without scaling; `f64` makes their `.float()` a `.double()`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import sys
import types
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

COMMIT = "1c4a679"
"""The version that results refer to."""


class Authors(NamedTuple):
    """One training step and what it works on."""

    model: torch.nn.Module
    step: Callable[[NDArray[Any], NDArray[Any]], float]
    """One optimizer step; returns the loss as their loop does, which waits for the device."""


def load(path: Path, *, device: str, precision: str, time_steps: int, learning_rate: float, classes: int = 10) -> Authors:
    """Their ResNet-18 with their loss and optimizer.

    Args:
        path: folder of their checkout.
        device: `cpu` or `cuda`.
        precision: f64, f32-ieee, f16-amp (theirs, on CUDA) or bf16-mixed.
        time_steps: T.
        learning_rate: of their SGD; theirs is 0.1.
        classes: K.
    """
    if not (path / "models" / "resnet.py").is_file():
        sys.exit(f"--authors: expected a checkout of github.com/yfguo91/Joint-A-SNN, got {path}")
    main = _program(path)
    with contextlib.redirect_stdout(io.StringIO()):
        model = main.multi_resnet18_kd(num_classes=classes)
    model.T = time_steps
    model.to(device).train()
    if precision == "f64":
        model.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, weight_decay=5e-4)
    scaler = torch.amp.GradScaler(device) if precision == "f16-amp" else None
    cast = {"f16-amp": torch.float16, "bf16-mixed": torch.bfloat16}.get(precision)

    def forward(images: NDArray[Any], labels: NDArray[Any]) -> Any:
        x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
        with torch.autocast(device, dtype=cast, enabled=cast is not None):
            return main.compute_loss(model, x, y)

    def step(images: NDArray[Any], labels: NDArray[Any]) -> float:
        optimizer.zero_grad()
        with _doubled() if precision == "f64" else contextlib.nullcontext():
            loss = forward(images, labels)
            if scaler is None:
                loss.backward()
        if scaler is None:
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return float(loss.item())

    return Authors(model, step)


@contextlib.contextmanager
def _doubled() -> Iterator[None]:
    """Their spikes and masks are made by `.float()`, which no double layer takes."""
    single = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.float = single  # type: ignore[method-assign]


@cache
def _program(path: Path) -> Any:
    """Their `main.py` as a module."""
    with _importable(path):
        return importlib.import_module("main")


@contextlib.contextmanager
def _importable(path: Path) -> Iterator[None]:
    """Their folder on the path, an empty command line, and stand-ins for what is missing but not needed."""
    before = sys.argv
    sys.argv = ["main.py"]
    sys.path.insert(0, str(path))
    if find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.transforms", "torchvision.datasets"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]
        sys.modules["torchvision.datasets"].CIFAR10 = sys.modules["torchvision.datasets"].CIFAR100 = None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        sys.argv = before
        sys.path.remove(str(path))


RATE = 0.1
"""Their learning rate."""


def main() -> None:
    """Print how far a backend is from their code."""
    from authors_arrays import NETWORK, compared
    from authors_samples import different

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="folder of their checkout")
    parser.add_argument("--backends", nargs="*", default=["torch", "numpy"], help="of the specification")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--time-steps", type=int, default=4, help="T")
    parser.add_argument("--steps", type=int, default=5, help="optimizer steps")
    parser.add_argument("--samples", type=int, default=2000, help="images that are varied by both")
    options = parser.parse_args()
    with _importable(options.path):
        print(f"of {options.samples} images varied on the same draws, {different(options.samples)} differ in a pixel")
    rng = np.random.default_rng(0)
    size = (options.batch_size, *NETWORK.input_shape)
    batches = [(rng.normal(size=size), rng.integers(0, NETWORK.classes, options.batch_size)) for _ in range(options.steps)]
    print(f"commit {COMMIT}: ResNet-18, T = {options.time_steps}, B = {options.batch_size}, rate {RATE}, float64")
    for backend in options.backends:
        given: dict[str, Any] = {"device": "cpu", "precision": "f64", "time_steps": options.time_steps}
        loaded = load(options.path, **given, learning_rate=RATE)
        first, one, last = compared(loaded, backend, batches, RATE, options.time_steps)
        print(f"\n{backend}: largest difference over the array's largest element\n")
        print("| | step 1 |\n| --- | --- |\n" + "\n".join(f"| {name} | {value:.1e} |" for name, value in sorted(first.items())))
        print(f"\n| | after step 1 | after step {options.steps} |\n| --- | --- | --- |")
        print("\n".join(f"| {name} | {value:.1e} | {last[name]:.1e} |" for name, value in sorted(one.items())))


if __name__ == "__main__":
    main()
