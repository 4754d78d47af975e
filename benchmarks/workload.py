"""The joint training step that benchmarks share: one network, one batch that stays, the state carried along."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import twinspike as ts

LEARNING_RATE = 1e-3
"""Not the paper's 0.1: numbers stay finite over many steps on one batch."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained, and how; a step of it is made by `joint_step`."""

    backend: str
    device: str = "cpu"
    precision: str = "f32-ieee"
    compiled: bool = False
    recompute: bool = False
    network: str = "resnet18"
    width: int | None = None
    """Of the network; None: its usual one."""
    time_steps: int = 4
    batch_size: int = 8


class JointStep:
    """`step()` takes one optimizer step and returns when its loss has arrived; the state is carried along."""

    def __init__(self, work: Workload) -> None:
        self.session: Any = ts.load(work.backend).session(work.device, work.precision, work.compiled)
        network = ts.network(work.network, width=work.width)
        method, optimizer = ts.Method(time_steps=work.time_steps), ts.SGD()
        options = {"recompute": True} if work.recompute else {}
        self.program = self.session.program(network, method, optimizer, **options)
        self.state = self.program.load(ts.initial_state(network, method, optimizer))
        self.images, self.labels = batch(work.batch_size, network.input_shape)

    def start(self) -> Any:
        """One step, not waited for: its loss."""
        self.state, metrics = self.program.train_step(self.state, self.images, self.labels, LEARNING_RATE)
        return metrics.loss

    def __call__(self) -> float:
        return float(self.session.to_numpy(self.start()))


def offers_recompute(backend: str) -> bool:
    """Whether a backend's programs can compute inner values again instead of keeping them."""
    return "recompute" in inspect.signature(ts.load(backend).session().program).parameters


def batch(size: int, shape: tuple[int, int, int] = (3, 32, 32)) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(images, labels), normal and uniform over ten classes, the same at every call."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((size, *shape), dtype=np.float32), rng.integers(0, 10, size)
