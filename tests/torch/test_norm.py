"""Batch norm of the PyTorch backend: equal in every layout, and accurate at real sizes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import twinspike as ts
from twinspike_torch import norm_cpu
from twinspike_torch.norm import batch_norm_again, batch_norm_train
from twinspike_torch.norm_cpu import serves


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("samples", [1, 4])
def test_batch_norm_does_not_depend_on_the_layouts_of_input_and_gradient(samples: int, dtype: torch.dtype) -> None:
    """With torch's kernel for both dense layouts, and without it for others; 64 roundings of the largest entry bound each."""
    shape = (2, samples, 3, 4, 4)
    values, cotangent = (torch.randn(shape).to(dtype) for _ in range(2))
    gamma, beta = (torch.rand(3, dtype=torch.promote_types(dtype, torch.float32), requires_grad=True) for _ in range(2))
    statistics = torch.zeros(3, dtype=gamma.dtype), torch.ones(3, dtype=gamma.dtype)

    def last(x: Tensor) -> Tensor:
        return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2])

    def strided(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=-1)[..., ::2]

    results = []
    for layout, other in itertools.product((torch.clone, last, strided), (torch.clone, last)):
        x = layout(values).requires_grad_()
        assert serves(x) is (layout is not strided)
        y, mean, var = batch_norm_train(ts.BatchNorm(), x, gamma, beta, *statistics)
        assert torch.equal(batch_norm_again(ts.BatchNorm(), x, gamma, beta), y)
        results.append((y, mean, var, *torch.autograd.grad(y, (x, gamma, beta), other(cotangent))))
    for found in results[1:]:
        for one, expected in zip(found, results[0], strict=True):
            bound = 64 * torch.finfo(one.dtype).eps * expected.detach().abs().max()
            assert (one.detach() - expected.detach()).abs().max() <= bound


def _channels_last(x: Tensor) -> Tensor:
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


@pytest.mark.parametrize("layout", [torch.clone, _channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("samples", [1025, 37])
def test_statistics_and_gradients_of_many_values_are_as_accurate_as_of_few(layout, dtype, samples, monkeypatch) -> None:
    """PRE-7: within the roundings of a chain, however many values there are; one chain of all of them would not be."""
    torch.manual_seed(0)
    values, cotangent = (torch.randn(1, samples, 3, 32, 32) + shift for shift in (0.7, 0.3))
    values, cotangent = layout(values.to(dtype)), layout(cotangent.to(dtype))
    learned = torch.rand(3) + 0.5, torch.rand(3)

    def step(format_: torch.dtype) -> list[Tensor]:
        wide = torch.promote_types(format_, torch.float32)
        x, (gamma, beta) = values.to(format_).clone().requires_grad_(), (c.to(wide).requires_grad_() for c in learned)
        moved = torch.zeros(3, dtype=wide), torch.zeros(3, dtype=wide)
        y, mean, var = batch_norm_train(ts.BatchNorm(momentum=1.0), x, gamma, beta, *moved)
        return [mean, var, *torch.autograd.grad(y, (x, gamma, beta), cotangent.to(format_)), y.detach()]

    def errors() -> list[float]:
        """In units of roundoff of each answer's own format, relative to the sums of magnitudes that it is made of."""
        n, x, g = samples * 1024, values.double(), cotangent.double()
        z = (x - x.mean((0, 1, 3, 4), keepdim=True)) / x.std((0, 1, 3, 4), keepdim=True)
        sizes = [x.abs().sum() / n, 1.0, g.abs().max() * 4, (g * z).abs().sum() / 3, g.abs().sum() / 3, z.abs().max() * 4]
        pairs = zip(step(dtype), step(torch.float64), sizes, strict=True)
        return [float((a.detach().double() - b.detach()).abs().max() / s) / (torch.finfo(a.dtype).eps / 2) for a, b, s in pairs]

    # a chain, its neighbours' sum, and some ten roundings around; of the variance twice, since it is of squares
    assert max(errors()) <= 256 < 2 * (norm_cpu.CHAIN + 16)
    if layout is _channels_last and samples == 1025 and dtype == torch.float32:
        monkeypatch.setattr(norm_cpu, "_in_chains", lambda x: False)
        assert max(errors()) > 4 * (norm_cpu.CHAIN + 16), "the test must see a long chain"
