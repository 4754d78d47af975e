"""Norm, sum and activation in one, in Triton's interpreter, against the layers one by one in float64."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import twinspike as ts
from twinspike.network import INPUT, Activation, Add, Branch, Conv, GlobalPool, Linear, Norm
from twinspike_torch import execution, norm_activation
from twinspike_torch.neuron import lif
from twinspike_torch.norm import batch_norm_train
from twinspike_torch.norm_activation import Source, activated, fits
from twinspike_torch.plan import plan

ROUNDINGS = 256
"""Of sums over rows, by clause PRE-7; what is off in a norm's output is multiplied by a few more operations."""
SHAPE = (3, 20, 1, 3)
"""Channels and rows that are no multiple of a tile's."""


def _last(x: Tensor) -> Tensor:
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several programs, of several tiles each, parts in several blocks."""
    module: Any = importlib.import_module("twinspike_torch.norm_activation_triton")
    for name, value in (("TILE", 64), ("PROGRAMS", 3), ("BLOCK", 1), ("FEW", 2), ("WIDTH", 16)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(importlib.import_module("twinspike_torch.norm_triton"), "TILE", 64)


def _source(steps: int, repeats: int, dtype: torch.dtype, device: str) -> Source:
    x = _last(2 * torch.randn(steps, *SHAPE, dtype=torch.float64) + 0.5).to(device, dtype)
    wide = torch.promote_types(dtype, torch.float32)
    gamma, beta = (torch.rand(SHAPE[1], dtype=torch.float64).to(device, wide) + low for low in (0.5, 0.0))
    return Source(x, gamma, beta, torch.zeros_like(gamma), torch.ones_like(gamma), repeats)


def _leaves(source: Source | Tensor | None) -> list[Tensor]:
    if source is None:
        return []
    return [source] if isinstance(source, Tensor) else [source.x, source.gamma, source.beta]


def _one_by_one(method: ts.Method, twin: str, steps: int, source: Source, other: Source | Tensor | None) -> tuple[Any, ...]:
    moved, total = [], None
    for value in (source, other):
        y = value
        if isinstance(value, Source):
            *given, repeats = value
            y, *after = batch_norm_train(method.batch_norm, *given, repeats=repeats)
            moved.append(tuple(after))
        if y is not None:
            total = y if total is None else total + y
    assert total is not None
    y = functional.relu(total) if twin == "ann" else lif(total.expand(steps, *SHAPE), neuron=method.neuron, kernel="plain").s
    return y, moved


NEURONS = {
    "paper": ts.Neuron(),
    "all options": ts.Neuron(
        decay_input=True, v_reset=-0.25, detach_reset=True, surrogate=ts.Triangle(width=1.5), decay=0.5, threshold=0.75
    ),
    "soft": ts.Neuron(reset="soft", surrogate=ts.Arctan()),
}
CASES = [
    ("snn", 3, 3, "value", "all options", "per_step"),
    ("snn", 2, 2, "norm", "paper", "folded"),
    ("snn", 3, 1, "nothing", "soft", "per_step"),
    ("ann", 1, 1, "norm", "paper", "per_step"),
]


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(("twin", "steps", "shown", "adds", "neuron", "time"), CASES, ids=str)
def test_a_step_equals_the_layers_one_by_one(twin, steps, shown, adds, neuron, time, device) -> None:
    torch.manual_seed(0)
    method = ts.Method(time_steps=steps, neuron=NEURONS[neuron], batch_norm=ts.BatchNorm(time=time))
    repeats = steps if twin == "snn" and shown == 1 else 1
    source = _source(shown, repeats, torch.float64, device)
    other = {"nothing": None, "value": _last(torch.randn(shown, *SHAPE, dtype=torch.float64)).to(device), "norm": None}[adds]
    other = _source(shown, repeats, torch.float64, device) if adds == "norm" else other
    leaves = [leaf.requires_grad_() for leaf in (*_leaves(source), *_leaves(other))]
    assert fits(source, other, steps)
    spikes = torch.zeros((), dtype=torch.float64, device=device) if twin == "snn" else None
    y, moved = activated(method.batch_norm, method if twin == "snn" else None, steps, source, other, spikes)
    right, right_moved = _one_by_one(method, twin, steps, source, other)
    g = _last(torch.randn(steps, *SHAPE, dtype=torch.float64)).to(device)
    if spikes is not None:
        assert torch.equal(y, right)
        assert 0 < int(spikes) == int(right.sum()) < right.numel()
    pairs = [(y, right), *zip(sum(moved, ()), sum(right_moved, ()), strict=True)]
    pairs += zip(torch.autograd.grad(y, leaves, g), torch.autograd.grad(right, leaves, g), strict=True)
    for one, wanted in pairs:
        far = (one - wanted).detach().abs().max()
        assert far <= ROUNDINGS * 2.0**-53 * max(1.0, float(wanted.detach().abs().max()))


def test_other_layouts_and_lengths_go_layer_by_layer(device: str) -> None:
    source = _source(4, 1, torch.float32, device)
    assert fits(source, None, 4)
    assert not fits(source, None, 5)
    assert not fits(source._replace(x=source.x.contiguous()), None, 4)
    assert not fits(source, source.x.contiguous(), 4)
    assert not fits(source, source.x.double(), 4)
    shown_once = _source(1, 4, torch.float32, device)
    assert fits(shown_once, None, 4)
    assert not fits(shown_once, shown_once.x, 4)


def test_what_is_learned_or_long_or_asked_of_another_kernel_goes_layer_by_layer(device: str) -> None:
    where = torch.device(device)
    assert norm_activation.serves(ts.Method(), "triton", where)
    assert not norm_activation.serves(ts.Method(), "plain", where)
    assert not norm_activation.serves(ts.Method(time_steps=9), "triton", where)
    assert not norm_activation.serves(ts.Method(neuron=ts.Neuron(decay_scope="layer")), "triton", where)


def test_a_single_value_per_channel_is_refused(device: str) -> None:
    one = torch.zeros(1, 1, 4, 1, 1, device=device)
    gamma = torch.ones(4, device=device)
    with pytest.raises(ts.SpecError, match="more than one value per channel"):
        activated(ts.BatchNorm(), None, 1, Source(one, gamma, gamma, gamma, gamma, 1), None, None)


def test_in_a_residual_network_every_norm_is_left_to_an_activation() -> None:
    nodes = [node for segment in plan(ts.network("resnet18")) for node in segment.nodes]
    assert {node.name for node in nodes if node.kind in ("norm", "add")} == {node.name for node in nodes if node.deferred}


def test_a_norm_whose_input_another_layer_drops_is_not_left_to_an_activation() -> None:
    layers = (
        Conv(name="a", input=INPUT, out_channels=4, kernel=1, part="stem"),
        Norm(name="norm", input="a"),
        Conv(name="b", input="a", out_channels=4, kernel=1),
        Activation(name="act", input="norm"),
        Add(name="sum", input="act", other="b"),
        GlobalPool(name="pooled", input="sum"),
        Linear(name="head", input="pooled", out_features=10),
    )
    exits = (Branch(feature="pooled", head="head"),)
    for order, left in ((layers, False), ((*layers[:2], layers[3], layers[2], *layers[4:]), True)):
        network = ts.Network(name="two readers", input_shape=(1, 6, 6), event=False, layers=order, exits=exits)
        nodes = {node.name: node for segment in plan(network) for node in segment.nodes}
        assert nodes["norm"].deferred is left


def test_a_network_learns_as_with_its_layers_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block whose shortcut has a norm, in both twins: gradients to the roundings of float32, spikes to the last.

    The sum reads its norms in another order than they are in. A step's momentum is its gradient.
    """
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
        GlobalPool(name="pooled", input="two"),
        Linear(name="head", input="pooled", out_features=10),
    )
    exits = (Branch(feature="pooled", head="head"),)
    network = ts.Network(name="block", input_shape=(1, 6, 6), event=False, layers=layers, exits=exits)
    method, rng = ts.Method(time_steps=2), np.random.default_rng(0)
    images, labels = rng.standard_normal((3, 1, 6, 6), dtype=np.float32), rng.integers(0, 10, 3)
    joined: list[bool] = []
    monkeypatch.setattr(execution, "fits", lambda *given: joined.append(fits(*given)) or joined[-1])
    found = []
    for kernel in ("triton", "plain"):
        session: Any = ts.load(f"twinspike_torch.backend:{kernel}").session("cpu", "f32-ieee")
        program = session.program(network, method, ts.SGD())
        after, metrics = program.train_step(program.load(ts.initial_state(network, method, ts.SGD())), images, labels, 0.1)
        found.append((program.dump(after), metrics))
    assert joined == [True] * 4
    (state, metrics), (right, right_metrics) = found
    assert float(metrics.spike_rate) == float(right_metrics.spike_rate) > 0
    for name, value in right.items():
        assert np.abs(state[name] - value).max() <= ROUNDINGS * 2.0**-24 * np.abs(value).max(), name
