"""The PyTorch backend's own convolution and composition against torch's, bit for bit on data that no order of sums can round."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import twinspike as ts
import twinspike_torch as tt
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.run.profiles import PROFILES
from twinspike_conformance.run.runner import run_check
from twinspike_torch import convolution, factorization, taps
from twinspike_torch.factorization import Factors, compose, compose_each


def whole(*shape: int) -> Tensor:
    """Small whole numbers."""
    return torch.randint(-4, 5, shape).double().requires_grad_()


def test_maps_of_events_can_have_channels_last() -> None:
    x = torch.randn(3, 2, 4, 5, 6)
    last = convolution.channels_last(x)
    assert torch.equal(last, x)
    for maps in (convolution.fold(last), last.bfloat16()[0], convolution.channels_last(last.mean(0))):
        assert maps.is_contiguous(memory_format=torch.channels_last)
    assert convolution.channels_last(last).data_ptr() == last.data_ptr()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (7, 5)])
@pytest.mark.parametrize(("channels", "by_taps"), [((3, 60, 1), True), ((3, 2, 40), False)])
def test_convolutions_and_their_gradients_are_torchs_bit_for_bit(
    size: tuple[int, int], channels: tuple[int, int, int], by_taps: bool
) -> None:
    into, out, samples = channels
    for kernel, stride, padding in itertools.product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2)):
        if min(size) + 2 * padding < kernel:
            continue
        x, weight = whole(samples, into, *size), whole(out, into, kernel, kernel)
        if kernel == 5 and max(size) > 1:
            assert convolution._outgrows(weight, x) is by_taps
        expected = functional.conv2d(x, weight, stride=stride, padding=padding)
        g = whole(*expected.shape).detach()
        for layout in (torch.contiguous_format, torch.channels_last):
            y = convolution.convolve(x.contiguous(memory_format=layout), weight, stride, padding)
            assert torch.equal(y, expected)
            found, wanted = (torch.autograd.grad(z, (x, weight), g, retain_graph=True) for z in (y, expected))
            for one, other in zip(found, wanted, strict=True):
                assert torch.equal(one, other), (kernel, stride, padding)


@pytest.mark.parametrize("channels", [2, 15, 16])
@pytest.mark.parametrize("compiler", [None, "aot_eager"])
def test_no_narrow_map_reaches_a_strided_tap(channels: int, compiler: str | None) -> None:
    """oneDNN's gradient of such a kernel writes past its memory and may end the process."""
    x = torch.randn(3, channels, 8, 8, requires_grad=True)
    weight = torch.randn(4, channels, 1, 1, requires_grad=True)
    convolve = convolution.convolve
    if compiler is not None:
        convolve = torch.compile(convolve, backend=compiler, fullgraph=True)
    strides = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten.convolution_backward.default:
                strides.append(args[4])
            return function(*args, **(kwargs or {}))

    y = convolve(x, weight, 2)
    with Calls():
        torch.autograd.grad(y, (x, weight), torch.ones_like(y))
    assert strides == [[2, 2] if channels >= 16 else [1, 1]]


@pytest.mark.parametrize("compiler", [None, "aot_eager"])
def test_sums_of_16_bits_are_taken_in_float32_where_the_processor_has_no_instructions_for_them(
    compiler: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole numbers sum exactly in float32, and past 256 not in bfloat16; torch's own convolutions stand in for oneDNN's."""
    x, g = (torch.randint(0, 4, shape).bfloat16() for shape in ((40, 3, 6, 6), (40, 4, 6, 6)))
    weight = torch.randint(-2, 3, (4, 3, 3, 3)).bfloat16()

    def gradients(dtype: torch.dtype) -> tuple[Tensor, ...]:
        torch.compiler.reset()
        convolve = convolution.convolve
        if compiler is not None:
            convolve = torch.compile(convolve, backend=compiler, fullgraph=True)
        given = x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()
        return torch.autograd.grad(convolve(*given, 1, 1), given, g.to(dtype))

    expected = [d.bfloat16() for d in gradients(torch.float64)]
    torch._C._set_mkldnn_enabled(False)
    try:
        assert all(map(torch.equal, gradients(torch.bfloat16), expected))
        monkeypatch.setattr(convolution, "_sums", lambda device, dtype: dtype)
        assert not all(map(torch.equal, gradients(torch.bfloat16), expected)), "the test must see sums in bfloat16"
    finally:
        torch._C._set_mkldnn_enabled(True)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_off_the_cpu_gradients_of_either_layout_are_taken(stride: int, layout: torch.memory_format) -> None:
    """What would run on a GPU, on the device that computes nothing."""
    x = torch.empty(2, 3, 8, 8, device="meta").contiguous(memory_format=layout).requires_grad_()
    weight = torch.empty(4, 3, 3, 3, device="meta", requires_grad=True)
    y = convolution.convolve(x, weight, stride, 1)
    for other in (torch.contiguous_format, torch.channels_last):
        found = torch.autograd.grad(y, (x, weight), torch.empty_like(y).contiguous(memory_format=other), retain_graph=True)
        assert [d.shape for d in found] == [x.shape, weight.shape]


def test_spikes_kept_as_booleans_give_the_same_gradients() -> None:
    s = torch.randint(0, 2, (3, 2, 4, 5, 6)).double().requires_grad_()
    weight = whole(5, 4, 3, 3)
    y, kept = convolution.convolve(s, weight, 1, 1), convolution.convolve(s, weight, 1, 1, spikes=s.detach().bool())
    assert torch.equal(y, kept)
    g = whole(*y.shape).detach()
    for one, other in zip(*(torch.autograd.grad(z, (s, weight), g) for z in (y, kept)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4)])
def test_convolutions_of_factors_are_those_of_the_composed_kernel_bit_for_bit(size: tuple[int, int]) -> None:
    for kernel, stride, padding in itertools.product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2)):
        if min(size) + 2 * padding < kernel:
            continue
        factors = Factors(whole(kernel, kernel, 4, 2), whole(kernel, kernel, 2), whole(kernel, kernel, 2, 3))
        weight = compose(*factors, factorization=ts.Factorization(), kernel_shape=(4, 3, kernel, kernel))
        spikes = torch.randint(0, 2, (2, 3, 3, *size)).double().requires_grad_()
        for x, kept in ((whole(2, 3, *size), None), (spikes, None), (spikes, spikes.detach().bool())):
            expected = convolution.convolve(x, weight, stride, padding)
            y = convolution.convolve_factored(x, factors, stride, padding, kept)
            assert torch.equal(y, expected)
            g = whole(*y.shape).detach()
            found, wanted = (torch.autograd.grad(z, (x, *factors), g, retain_graph=True) for z in (y, expected))
            for one, other in zip(found, wanted, strict=True):
                assert torch.equal(one, other), (kernel, stride, padding)


def test_pixels_of_taps_are_counted_without_padding() -> None:
    for size, kernel, stride, padding in itertools.product((1, 2, 5), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2)):
        if size + 2 * padding >= kernel:
            met = functional.conv1d(torch.ones(1, 1, size), torch.ones(1, 1, kernel), stride=stride, padding=padding)
            assert taps.pixels(size, met.shape[-1], kernel, stride, padding) == met.sum()


def test_factors_pay_where_pixels_are_fewer_than_ranks() -> None:
    def of(out: int, into: int, kernel: int) -> tuple[torch.Size, torch.Size]:
        rank = min(out, into)
        return torch.Size((kernel, kernel, out, rank)), torch.Size((kernel, kernel, rank, into))

    assert convolution.factors_pay(*of(512, 512, 3), 8 * 100)  # the last stage on 4 x 4 maps, the artificial twin
    assert not convolution.factors_pay(*of(512, 512, 3), 128 * 100)
    assert not convolution.factors_pay(*of(64, 64, 3), 8 * 94**2)
    assert not convolution.factors_pay(*of(8, 8, 3), 9)  # too small to be worth its calls


@pytest.mark.parametrize("isolate", [False, True])
def test_training_with_factors_equals_training_with_composed_kernels(monkeypatch: pytest.MonkeyPatch, isolate: bool) -> None:
    """Gradients, in float64, within 1e-12 of their norm; both ways are taken."""
    network = ts.network("resnet18", width=4, input_shape=(3, 16, 16), classes=4)
    method = ts.Method(time_steps=2, loss=ts.Loss(isolate_ann=isolate))
    images, labels = torch.randn(3, 3, 16, 16, dtype=torch.float64), torch.arange(3)
    called: list[Tensor] = []
    applied = taps.FactoredConvolution.apply
    monkeypatch.setattr(taps.FactoredConvolution, "apply", lambda x, *rest: called.append(x) or applied(x, *rest))
    found = []
    for worth in (0, math.inf):
        monkeypatch.setattr(convolution, "WORTH", worth)
        body = tt.build(network, method, dtype=torch.float64)
        before = len(called)
        tt.joint_loss(*body(images)[:4], labels, config=method.loss).loss.backward()
        assert (len(called) > before) is (worth == 0)
        found.append({name: p.grad for name, p in body.named_parameters()})
    twins = {x.shape[0] for x in called}
    assert twins == {3, 6}  # samples of the artificial twin, and with time steps of the spiking one
    for name, g in found[0].items():
        assert (g - found[1][name]).norm() <= 1e-12 * g.norm(), name


@pytest.mark.parametrize("precision", ["f32-ieee", "f64"])
def test_convolutions_with_factors_conform(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """The suite's own networks are so small that they compose every kernel."""
    asked: list[int] = []
    monkeypatch.setattr("twinspike_torch.network.factors_pay", lambda u, v, pixels: asked.append(pixels) or True)
    backend = ts.load("torch")
    bench = Bench(backend, backend.session("cpu", precision))
    for check in ("network[layers]", "network[gradients]"):
        assert run_check(CHECKS[check], bench, PROFILES["ci"], 0).status == "pass"
    assert asked


@pytest.mark.parametrize("large", [1, factorization.LARGE])
@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("matricize", ["per_position", "out_by_rest"])
def test_composing_both_kernels_equals_composing_each(
    monkeypatch: pytest.MonkeyPatch, matricize: str, isolate: bool, large: int
) -> None:
    monkeypatch.setattr(factorization, "LARGE", large)
    f, shape = ts.Factorization(matricize=matricize), (5, 3, 2, 2)  # type: ignore[arg-type]  # a literal, parametrized
    lead, n = ((2, 2), 3) if matricize == "per_position" else ((), 12)
    u, ann, snn, v = whole(*lead, 5, 3), whole(*lead, 3), whole(*lead, 3), whole(*lead, 3, n)
    shared = (u.detach(), v.detach()) if isolate else (u, v)
    form = {"factorization": f, "kernel_shape": shape}
    expected = compose(u, ann, v, **form), compose(shared[0], snn, shared[1], **form)
    found = compose_each(f, u, v, shape, (ann, snn), isolated=(False, isolate))
    g = [whole(*shape).detach() for _ in range(2)]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    gradients = (torch.autograd.grad(both, (u, ann, snn, v), g) for both in (found, expected))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
