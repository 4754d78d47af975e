"""Recorded training steps: when one is recorded, what it is given, and that nothing differs; a recorder stands for CUDA's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

import twinspike as ts
from twinspike_torch.graphs import WARM
from twinspike_torch.program import ProgramState, TorchProgram

NETWORK = ts.network("digits_cnn", width=2)
METHOD, OPTIMIZER = ts.Method(time_steps=2), ts.SGD()


class Recorder:
    """As a CUDA graph: nothing is computed while recording, and each replay writes into the same memory."""

    def __init__(self) -> None:
        self.recorded, self.replays = 0, 0
        self.state: ProgramState | None = None

    def __call__(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        self.recorded += 1
        assert self.state is not None
        before = {name: value.clone() for name, value in self.state.statistics.items()}
        results = function()
        for name, value in before.items():
            self.state.statistics[name].copy_(value)
        for value in tree_leaves(results):
            value.fill_(-1)

        def replay() -> None:
            self.replays += 1
            for old, new in zip(tree_leaves(results), tree_leaves(function()), strict=True):
                old.copy_(new)

        return results, replay


def _program(recorder: Recorder | None) -> TorchProgram:
    return TorchProgram(NETWORK, METHOD, OPTIMIZER, torch.device("cpu"), "f32-ieee", False, False, "plain", None, recorder)


def _start(program: TorchProgram) -> ProgramState:
    return program.load(ts.initial_state(NETWORK, METHOD, OPTIMIZER))


def _batch(size: int, number: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(number)
    return rng.standard_normal((size, *NETWORK.input_shape), dtype=np.float32), rng.integers(0, 10, size)


def test_replayed_steps_are_the_steps_and_their_metrics_stay() -> None:
    """Batches differ from step to step, a shorter one comes between, and metrics are read at the end."""
    recorder = Recorder()
    sizes = [4] * (WARM + 2) + [3, 4]
    ends = []
    for taken in (recorder, None):
        program = _program(taken)
        state, seen = _start(program), []
        for number, size in enumerate(sizes):
            recorder.state = state
            state, metrics = program.train_step(state, *_batch(size, number), 0.1)
            seen.append(metrics)
        ends.append((program.dump(state), [float(m.loss) for m in seen], [int(m.correct_snn) for m in seen]))
    assert recorder.recorded == 1
    assert recorder.replays == 3
    for name, value in ends[0][0].items():
        np.testing.assert_array_equal(value, ends[1][0][name], err_msg=name)
    assert ends[0][1:] == ends[1][1:]


def test_another_state_is_recorded_anew() -> None:
    recorder = Recorder()
    program = _program(recorder)
    for _ in range(2):
        state = _start(program)
        for number in range(WARM + 1):
            recorder.state = state
            state, _metrics = program.train_step(state, *_batch(4, number), 0.1)
    assert recorder.recorded == recorder.replays == 2


def test_gradients_asked_for_alone_are_never_replayed() -> None:
    recorder = Recorder()
    program = _program(recorder)
    state = _start(program)
    for number in range(WARM + 2):
        program.gradients(state, *_batch(4, number))
    assert recorder.recorded == 0


def test_a_cpu_records_nothing() -> None:
    session = ts.load("torch").session("cpu")
    with pytest.raises(ts.SpecError, match=r"program.graphs: expected one CUDA device, got .*cpu.*; leave graphs out"):
        session.program(NETWORK, METHOD, OPTIMIZER, graphs=True)
