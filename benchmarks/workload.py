"""The joint training step that benchmarks share: one network, one batch that stays, the state carried along."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

import twinspike as ts
from twinspike.network import INPUT, Activation, Add, Branch, Conv, GlobalPool, Linear, Network, Norm

LEARNING_RATE = 1e-3
"""Not the paper's 0.1: numbers stay finite over many steps on one batch."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained, and how; a step of it is made by `joint_step`."""

    backend: str
    device: str = "cpu"
    precision: str = "f32-ieee"
    compiled: bool = False
    recompute: bool = False
    graphs: bool = False
    """Whether torch records the step as a CUDA graph, after some steps that are run."""
    network: str = "resnet18"
    """One of the zoo, or `small`."""
    channels: int = 1
    """Of the images of `small`; torch's kernels for channels that lie last serve several alone."""
    width: int | None = None
    """Of the network; None: its usual one."""
    classes: int = 10
    time_steps: int = 4
    batch_size: int = 8


class JointStep:
    """`step()` takes one optimizer step and returns when its loss has arrived; the state is carried along."""

    def __init__(self, work: Workload) -> None:
        self.session: Any = ts.load(work.backend).session(work.device, work.precision, work.compiled)
        network = (
            small(work.channels) if work.network == "small" else ts.network(work.network, width=work.width, classes=work.classes)
        )
        method, optimizer = ts.Method(time_steps=work.time_steps), ts.SGD()
        options = {name: True for name in ("recompute", "graphs") if getattr(work, name)}
        self.program = self.session.program(network, method, optimizer, **options)
        self.state = self.program.load(ts.initial_state(network, method, optimizer))
        self.images, self.labels = batch(work.batch_size, network.input_shape)

    def start(self) -> Any:
        """One step, not waited for: its loss."""
        self.state, metrics = self.program.train_step(self.state, self.images, self.labels, LEARNING_RATE)
        return metrics.loss

    def __call__(self) -> float:
        return float(self.session.to_numpy(self.start()))


def small(channels: int = 1) -> Network:
    """For digits, or images of more channels: one residual block whose shortcut is a kernel of one tap and stride 2."""
    layers = (
        Conv(name="stem", input=INPUT, out_channels=4, kernel=3, padding=1, part="stem"),
        Norm(name="stem.norm", input="stem"),
        Activation(name="one", input="stem.norm"),
        Conv(name="body", input="one", out_channels=4, kernel=3, stride=2, padding=1),
        Norm(name="body.norm", input="body"),
        Conv(name="short", input="one", out_channels=4, kernel=1, stride=2),
        Norm(name="short.norm", input="short"),
        Add(name="sum", input="short.norm", other="body.norm"),
        Activation(name="two", input="sum"),
        GlobalPool(name="f1", input="one"),
        Linear(name="h1", input="f1", out_features=10),
        GlobalPool(name="f2", input="two"),
        Linear(name="h2", input="f2", out_features=10),
    )
    exits = (Branch(feature="f1", head="h1"), Branch(feature="f2", head="h2"))
    return Network(name="small", input_shape=(channels, 8, 8), event=False, layers=layers, exits=exits)


def offers_recompute(backend: str) -> bool:
    """Whether a backend's programs can compute inner values again instead of keeping them."""
    return "recompute" in inspect.signature(ts.load(backend).session().program).parameters


def batch(size: int, shape: tuple[int, int, int] = (3, 32, 32)) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(images, labels), normal and uniform over ten classes, the same at every call."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((size, *shape), dtype=np.float32), rng.integers(0, 10, size)
