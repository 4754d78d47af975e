"""The neuron in PyTorch: who computes it, and how it behaves as an autograd function."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import twinspike as ts
import twinspike_torch as tt
from twinspike_torch import lif_form, lif_kernels
from twinspike_torch.backend import TorchBackend


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The kernels' libraries that are there, as the choice sees it."""
    found: set[str] = set()
    monkeypatch.setattr(lif_kernels, "find_spec", lambda name: object() if name in found else None)
    lif_kernels._obstacle.cache_clear()
    yield found
    lif_kernels._obstacle.cache_clear()


def test_importing_the_backend_loads_no_kernel() -> None:
    code = "import sys, twinspike_torch; print(sorted({'numba', 'triton'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_a_missing_library_is_said_and_the_plain_kernel_serves(installed: set[str]) -> None:
    assert TorchBackend().capabilities().kernels["lif on cpu"] == "plain torch: numba is not installed"
    x = torch.randn(3, 2, 4, requires_grad=True)
    assert torch.equal(tt.lif(x, neuron=ts.Neuron()).s, tt.lif(x, neuron=ts.Neuron(), kernel="plain").s)


def test_a_library_that_cannot_be_imported_is_said(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError("needs another NumPy")

    installed.add("numba")
    monkeypatch.setattr(lif_kernels, "_module", broken)
    said = TorchBackend().capabilities().kernels["lif on cpu"]
    assert said == "plain torch: numba can't be imported (needs another NumPy)"


def test_a_kernel_that_is_asked_for_and_missing_is_refused(installed: set[str]) -> None:
    with pytest.raises(ts.SpecError, match=r"lif\.kernel: expected one that works on cpu, got numba, but numba is not installed"):
        tt.lif(torch.zeros(1, 1, 1), neuron=ts.Neuron(), kernel="numba")
    with pytest.raises(ts.SpecError, match="numba is not installed"):
        TorchBackend("numba").capabilities()
    with pytest.raises(ts.SpecError, match=r"lif\.kernel: expected one of auto, plain, numba, triton, got fast"):
        tt.lif(torch.zeros(1, 1, 1), neuron=ts.Neuron(), kernel="fast")  # type: ignore[arg-type]


def test_an_unknown_surrogate_is_an_error() -> None:
    unknown: Any = ...
    for dispatch in (lambda: tt.surrogate.derivative(unknown, torch.zeros(1)), lambda: lif_form._surrogate(unknown)):
        with pytest.raises(AssertionError, match="unreachable, but got: Ellipsis"):
            dispatch()


def test_the_plain_kernel_can_be_asked_for() -> None:
    backend = TorchBackend("plain")
    assert backend.name == "torch-plain"
    assert set(backend.capabilities().kernels.values()) == {"plain torch: asked for"}


def test_gradients_are_not_differentiated_again() -> None:
    x, weight = torch.randn(2, 3, 2, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad((tt.lif(x, neuron=ts.Neuron()).s * weight).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_current_that_changed_before_the_backward_pass_is_noticed() -> None:
    x = torch.randn(3, 2, 4)
    current = (x.requires_grad_() * 1.0).relu()
    s = tt.lif(current, neuron=ts.Neuron()).s
    current.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        s.sum().backward()


def test_outputs_that_nobody_uses_need_no_gradient() -> None:
    x = torch.randn(3, 2, 4, requires_grad=True)
    ones, zeros = torch.ones(2, 4), torch.zeros(3, 2, 4)
    out = tt.lif(x, neuron=ts.Neuron(decay=0.5))
    (alone,) = torch.autograd.grad(out.v, x, ones, retain_graph=True)
    (both,) = torch.autograd.grad([out.s, out.v], x, [zeros, ones])
    assert torch.equal(alone, both)


def test_sequences_of_no_steps_are_refused() -> None:
    with pytest.raises(ts.SpecError, match=r"lif\.x: expected a floating \(T, B, C, \.\.\.\) with T >= 1"):
        tt.lif(torch.zeros(0, 2, 3), neuron=ts.Neuron())


@pytest.mark.skipif(not tt.backend.capabilities().compiled, reason="no C++ compiler here")
def test_a_compiled_backward_pass_does_not_write_into_spikes_that_were_handed_out() -> None:
    """Of one step, whose stack is the step itself; with a learned decay spikes are kept for the backward pass."""
    session = tt.backend.session("cpu", "f64", compiled=True)
    neuron = ts.Neuron(decay_scope="layer", threshold_scope="layer", surrogate=ts.Triangle(width=1.0))
    given = {"x": [[[0.25, 0.75], [-0.5, 1.5]]], "v": [[0.5, 0.25], [0.0, 1.0]], "decay": 0.5, "threshold": 0.5}
    inputs = {name: session.from_numpy(np.asarray(value)) for name, value in given.items()}
    seeds = {"s": session.from_numpy(np.full((1, 2, 2), 7.0))}
    outputs, _ = session.vjp("lif", neuron, inputs, seeds)
    assert outputs["s"].tolist() == [[[1.0, 1.0], [0.0, 1.0]]]
