"""The authors' published training step, driven from a checkout of their code as their `main.py` drives it.

Their code is not part of this project: get it from github.com/yfguo91/Joint-A-SNN and name its folder.
What is adapted, all of it here and none of it in what is timed: `main.py` reads the command line and
torchvision when imported, so it gets an empty command line and, where torchvision is missing, an empty
stand-in; its model is built on the chosen device where it calls `.cuda()`; the model's printing while it
initializes is dropped. Autocast is what their `--amp` decides: float16 with loss scaling on CUDA, or none;
`bf16-mixed` is their step under bfloat16 autocast instead, without scaling.
"""

from __future__ import annotations

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
        precision: f32-ieee, f16-amp (theirs, on CUDA) or bf16-mixed.
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
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, weight_decay=5e-4)
    scaler = torch.amp.GradScaler(device) if precision == "f16-amp" else None
    cast = {"f16-amp": torch.float16, "bf16-mixed": torch.bfloat16}.get(precision)

    def forward(images: NDArray[Any], labels: NDArray[Any]) -> Any:
        x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
        with torch.autocast(device, dtype=cast, enabled=cast is not None):
            return main.compute_loss(model, x, y)

    def step(images: NDArray[Any], labels: NDArray[Any]) -> float:
        optimizer.zero_grad()
        loss = forward(images, labels)
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return float(loss.item())

    return Authors(model, step)


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
