"""What Numba's kernels of the neuron do with blocks, threads and processes, and how they round."""

from __future__ import annotations

import multiprocessing
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch_examples import lif_gradients

import twinspike as ts
from twinspike_torch import lif_numba, lif_numba_loops, lif_numba_numbers


def test_no_loop_is_compiled_for_an_unknown_surrogate() -> None:
    with pytest.raises(ts.SpecError, match=r"^surrogate of the numba kernel: expected one of \[0, 1, 2, 3, 4, 5\], got 6$"):
        lif_numba_loops.backward(np.float32, np.float32, 6, 0)


def numba_gradients(neurons: int, threads: int, steps: int = 3) -> list[torch.Tensor]:
    found, before = torch.Generator().manual_seed(neurons), torch.get_num_threads()
    x = torch.randn(steps, 1, 2, neurons, generator=found)
    learned = {"decay": torch.tensor([0.5, 0.25]), "threshold": torch.tensor([0.5, 0.75])}
    torch.set_num_threads(threads)
    try:
        out, grads = lif_gradients("numba", ts.Neuron(surrogate=ts.Arctan()), {"x": x, **learned}, x, x[0])
    finally:
        torch.set_num_threads(before)
    return [*out.values(), *grads.values()]


@pytest.fixture
def shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small work goes to threads too, in small blocks."""
    monkeypatch.setattr(lif_numba, "SHARE", 1)
    monkeypatch.setattr(lif_numba, "BLOCK", 64)


@pytest.mark.usefixtures("shared_out")
@pytest.mark.parametrize("neurons", [1, 31, 32, 33, 64, 200])
def test_blocks_and_threads_change_no_bit(neurons: int) -> None:
    """Two channels of `neurons` neurons, on both sides of whole blocks; results are those of one block."""
    alone = numba_gradients(neurons, 1)
    assert all(torch.equal(a, b) for threads in (2, 5) for a, b in zip(alone, numba_gradients(neurons, threads), strict=True))
    plain, grads = lif_gradients(
        "plain", ts.Neuron(), {"x": torch.ones(1, 1, 2, neurons)}, torch.ones(1, 1, 2, neurons), torch.zeros(1, 2, neurons)
    )
    ours, ours_grads = lif_gradients(
        "numba", ts.Neuron(), {"x": torch.ones(1, 1, 2, neurons)}, torch.ones(1, 1, 2, neurons), torch.zeros(1, 2, neurons)
    )
    assert torch.equal(plain["s"], ours["s"])
    assert torch.equal(grads["x"], ours_grads["x"])


@pytest.mark.parametrize("neurons", [20_000, 40_001])
def test_threads_change_no_bit_of_a_sum_over_all_neurons(neurons: int) -> None:
    """So many that torch would share their sum out to threads."""
    found, before = [], torch.get_num_threads()
    x = torch.randn(2, 1, 2, neurons, generator=torch.Generator().manual_seed(0))
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            inputs = {"x": x, "decay": torch.tensor(0.5), "threshold": torch.tensor(0.5)}
            found.append(lif_gradients("numba", ts.Neuron(surrogate=ts.Arctan()), inputs, x, x[0])[1])
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(found[0][name], other[name]) for other in found[1:] for name in found[0])


def _in_child(queue: Any) -> None:
    queue.put([value.sum().item() for value in numba_gradients(200, 2)])


@pytest.mark.usefixtures("shared_out")
def test_a_forked_process_computes_on() -> None:
    here = [value.sum().item() for value in numba_gradients(200, 2)]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == here
    child.join(60)
    assert child.exitcode == 0


@numba.njit
def _to_bits_and_back(values: Any, bits: Any, back: Any) -> None:
    for i in range(len(values)):
        bits[i] = lif_numba_numbers.narrow(values[i])
        back[i] = lif_numba_numbers.widen(bits[i])


def test_gradients_are_rounded_to_bfloat16_as_torch_rounds() -> None:
    """All 2^16 patterns of the upper half of a float32, with lower halves around a tie; NaN stays NaN."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        values = (upper | np.uint32(lower)).view(np.float32)
        bits, back = np.empty(1 << 16, np.uint16), np.empty(1 << 16, np.float32)
        _to_bits_and_back(values, bits, back)
        wanted = torch.from_numpy(values).to(torch.bfloat16)
        got = torch.from_numpy(bits).view(torch.bfloat16)
        assert torch.equal(got.isnan(), wanted.isnan())
        assert torch.equal(got[~got.isnan()].view(torch.int16), wanted[~wanted.isnan()].view(torch.int16))
        np.testing.assert_array_equal(back, got.float().numpy())
