"""Eager torch on the device that `--device` names: what every training step there goes through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch_examples import dyadic

import twinspike as ts
import twinspike_torch as tt
from twinspike.operations import OPERATIONS, Convolution


def precisions(device: str) -> list[str]:
    return ["f32-ieee", "bf16-mixed"] if device == "cpu" else ["f32-ieee", "tf32", "bf16-mixed"]


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 2, 0), (2, 2, 0)])
def test_convolutions_and_both_gradients_in_either_layout(
    device: str, kernel: int, stride: int, padding: int, memory: torch.memory_format
) -> None:
    """Exact in every precision, on few bits; the gradient comes in the layout of the map, as a network has it."""
    rng, row = np.random.default_rng(0), OPERATIONS["conv2d"]
    config = Convolution(stride=stride, padding=padding)
    inputs = {"x": dyadic(rng, 4, 8, 8, 8, top=1), "kernel": dyadic(rng, 16, 8, kernel, kernel, top=1)}
    wanted = row.forward(config, inputs)
    g = {"y": dyadic(rng, *wanted["y"].shape, top=1)}
    assert row.adjoint is not None
    gradients = row.adjoint(config, inputs, g)
    for precision in precisions(device):
        session = tt.backend.session(device, precision)

        def placed(given: dict[str, Any], session: Any = session) -> dict[str, torch.Tensor]:
            return {name: session.from_numpy(value).contiguous(memory_format=memory) for name, value in given.items()}

        for ours, theirs in zip(session.vjp("conv2d", config, placed(inputs), placed(g)), (wanted, gradients), strict=True):
            for name, value in theirs.items():
                np.testing.assert_array_equal(session.to_numpy(ours[name]), value, err_msg=f"{precision} {name}")


def test_steps_lower_the_loss_on_one_batch_in_every_precision(device: str) -> None:
    """Of a network with convolutions, norms and shortcuts in channels last."""
    network, method, optimizer = ts.network("resnet20", width=4), ts.Method(time_steps=2), ts.SGD()
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((8, 3, 32, 32), dtype=np.float32), rng.integers(0, 10, 8)
    for precision in precisions(device):
        session = tt.backend.session(device, precision)
        program = session.program(network, method, optimizer)
        state = program.load(ts.initial_state(network, method, optimizer))
        losses = []
        for _ in range(4):
            state, metrics = program.train_step(state, images, labels, 0.01)
            losses.append(float(session.to_numpy(metrics.loss)))
        assert losses[-1] < losses[0], precision
