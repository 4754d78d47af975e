"""The PyTorch backend's public pieces in ordinary PyTorch use."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch_examples import DIGITS, STEPS, SURROGATES, U64

import twinspike as ts
import twinspike_torch as tt
from twinspike_torch.norm import batch_norm_train


@pytest.mark.parametrize("method", [ts.Method(), STEPS["folded, learned neurons, adamw"][1], STEPS["unfactored"][1]])
@pytest.mark.parametrize("name", ["digits_cnn", "resnet18", "resnet19"])
def test_state_dict_has_the_names_of_the_layout(name: str, method: ts.Method) -> None:
    network = ts.network(name, width=2)
    module = tt.build(network, method, seed=3)
    entries, values = ts.layout(network, method), ts.initial_state(network, method, seed=3)
    assert set(module.state_dict()) == {entry.name for entry in entries}
    assert {name for name, _ in module.named_parameters()} == {entry.name for entry in entries if entry.trained}
    for key, value in module.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), values[key].astype(np.float32))


def test_an_ordinary_training_loop() -> None:
    torch.manual_seed(0)
    method = ts.Method(time_steps=2)
    module = tt.build(DIGITS, method)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    labels = torch.randint(0, 10, (16,))
    images = torch.randn(10, 1, 8, 8)[labels] + 0.1 * torch.randn(16, 1, 8, 8)
    first = last = None
    for _ in range(15):
        optimizer.zero_grad()
        loss = tt.joint_loss(*module(images)[:4], labels, config=method.loss).loss
        loss.backward()
        assert all(p.grad is not None for p in module.parameters()), "unused parameters break DDP"
        optimizer.step()
        first, last = loss.item() if first is None else first, loss.item()
    assert first is not None
    assert last is not None
    assert last < first
    twin = copy.deepcopy(module).eval()
    module.eval()
    with torch.no_grad():
        assert torch.equal(twin(images).logits_snn, module(images).logits_snn)
        before = twin(images).logits_snn
        for p in module.parameters():
            p.zero_()
        assert torch.equal(twin(images).logits_snn, before)


def test_running_statistics_move_in_training_only() -> None:
    module, images = tt.build(DIGITS), torch.randn(3, 1, 8, 8)
    before = {k: v.clone() for k, v in module.named_buffers()}
    module.eval()(images)
    assert all(torch.equal(v, before[k]) for k, v in module.named_buffers())
    module.train()(images)
    assert not any(torch.equal(v, before[k]) for k, v in module.named_buffers())


def test_the_static_stem_takes_the_closed_form_of_equal_updates() -> None:
    """T updates with one value: momentum 1 - (1 - m)^T; within T + 3 roundings of the largest value."""
    norm, x = ts.BatchNorm(momentum=0.3), torch.randn(1, 4, 5, 3, 3, dtype=torch.float64)
    arrays = [torch.rand(5, dtype=torch.float64) + 0.5 for _ in range(4)]
    once = batch_norm_train(norm, x, *arrays, repeats=4)
    steps = batch_norm_train(norm, x.expand(4, -1, -1, -1, -1), *arrays)
    for a, b in ((once.y, steps.y[:1]), (once.mean, steps.mean), (once.var, steps.var)):
        assert (a - b).abs().max() <= 40 * U64 * a.abs().max()


def test_channels_last_is_kept_and_changes_nothing() -> None:
    x = torch.randn(3 * 2, 4, 5, 6, dtype=torch.float64).to(memory_format=torch.channels_last).unflatten(0, (3, 2))
    x.requires_grad_()
    s, v = tt.lif(x, neuron=ts.Neuron())
    assert s.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad((s * torch.randn_like(s)).sum() + v.sum(), x)
    assert gradient.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    y = tt.TwinBatchNorm(4, dtype=torch.float64)(x, "snn")
    assert y.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    plain, _ = tt.lif(x.detach().contiguous(), neuron=ts.Neuron())
    assert torch.equal(plain, s)


def test_autocast_keeps_potentials_and_composition_in_float32() -> None:
    module, images, labels = tt.build(DIGITS), torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(images)
        assert module.stage2.conv.kernel("snn").dtype == torch.float32
        tt.joint_loss(*out[:4], labels, config=ts.Loss()).loss.backward()
    assert out.logits_snn.dtype == torch.float32
    s, v = tt.lif(torch.randn(2, 3, 4).bfloat16(), neuron=ts.Neuron())
    assert (s.dtype, v.dtype) == (torch.bfloat16, torch.float32)


def test_pieces_work_on_their_own() -> None:
    convolution = nn.Conv2d(3, 6, 3, padding=1, bias=False)
    layer = tt.FactorizedConv2d.from_kernel(convolution.weight, padding=1)
    x = torch.randn(2, 3, 5, 5)
    limit = 100 * 2.0**-24 * 27
    assert (layer(x, "ann") - convolution(x)).abs().max() <= limit
    y = layer(x.expand(4, -1, -1, -1, -1), "snn")
    assert y.shape == (4, 2, 6, 5, 5)
    neurons = tt.LIF(ts.Neuron(decay_scope="channel", threshold_scope="layer"), 6)
    s, v = neurons(y)
    halves = neurons(y[:2])
    rest = neurons(y[2:], halves.v)
    assert torch.equal(torch.cat([halves.s, rest.s]), s)
    assert torch.equal(rest.v, v)
    s.sum().backward()
    assert neurons.decay is not None
    assert neurons.decay.grad is not None
    assert layer.sigma_snn.grad is not None
    assert layer.sigma_ann.grad is None


def test_surrogates_integrate_to_one() -> None:
    """Midpoint rule on [-w, w]: the tails of arctan and fast sigmoid beyond w hold at most 1/w of the mass."""
    w, n = 2000.0, 4_000_000
    z = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * w / n) - w
    for config in SURROGATES:
        h = tt.surrogate.derivative(config, z)
        assert (h >= 0).all()
        assert abs(float(h.sum() * (2 * w / n)) - 1) <= 1 / w
    for config in (ts.Sigmoid(), ts.Tanh()):
        assert torch.isfinite(tt.surrogate.derivative(config, torch.tensor([-3e38, 3e38]))).all()
