"""The fused kernels of the neuron in PyTorch against the reference; on the CPU Triton's run in its interpreter."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch_examples import SURROGATES, dyadic, lif_gradients

import twinspike as ts
import twinspike_torch as tt
from twinspike.operations import OPERATIONS
from twinspike_torch import lif_kernels
from twinspike_torch.lif_form import form

ROUNDOFF = {torch.float64: 2.0**-53, torch.float32: 2.0**-24}
OPTIONS = [
    {"reset": reset, "detach_reset": detached, "decay_input": weighted}
    for reset in ("hard", "soft")
    for detached in (False, True)
    for weighted in (False, True)
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    on_host = metafunc.config.getoption("device") == "cpu"
    if "kernel" in metafunc.fixturenames:
        metafunc.parametrize("kernel", ["numba", "triton"] if on_host else ["triton"])


def example(steps: int, learned: tuple[int, ...] | None, state: bool, device: str, dtype: torch.dtype) -> Any:
    """Dyadic inputs and cotangents, on the device and as the reference takes them."""
    rng = np.random.default_rng(steps)
    host = {"x": dyadic(rng, steps, 2, 3, 5, top=8)}
    if state:
        host["v"] = dyadic(rng, 2, 3, 5)
    if learned is not None:
        host |= {"decay": np.full(learned, 0.5), "threshold": np.full(learned, 0.75)}
    seeds = {"s": dyadic(rng, steps, 2, 3, 5), "v": dyadic(rng, 2, 3, 5)}
    arrays = [{k: torch.from_numpy(v).to(device, dtype) for k, v in values.items()} for values in (host, seeds)]
    return host, seeds, *arrays


@pytest.mark.parametrize("dtype", ROUNDOFF, ids=str)
@pytest.mark.parametrize(("learned", "state"), [(None, False), ((), True), ((3,), True)])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_every_option_equals_the_reference_bit_for_bit(
    kernel: Any, options: Any, learned: Any, state: bool, dtype: torch.dtype, device: str
) -> None:
    neuron, row = ts.Neuron(decay=0.5, v_reset=-0.25 if options["reset"] == "hard" else 0.0, **options), OPERATIONS["lif"]
    host, seeds, inputs, cotangents = example(2, learned, state, device, dtype)
    got = lif_gradients(kernel, neuron, inputs, cotangents["s"], cotangents["v"])
    assert row.adjoint is not None
    for values, wanted in zip(got, (row.forward(neuron, host), row.adjoint(neuron, host, seeds)), strict=True):
        assert values.keys() <= wanted.keys()
        for name, value in values.items():
            assert value.dtype == dtype
            np.testing.assert_array_equal(value.cpu().numpy(), wanted[name], err_msg=name)


@pytest.mark.parametrize("steps", [1, 17, 30])
def test_sequences_longer_than_a_segment_equal_the_reference_bit_for_bit(kernel: Any, steps: int, device: str) -> None:
    """Without decay a step adds two bits to gradients; through soft resets that are detached it adds none."""
    neuron, row = ts.Neuron(decay=1.0, reset="soft", detach_reset=True, threshold=0.75), OPERATIONS["lif"]
    host, seeds, inputs, cotangents = example(steps, None, True, device, torch.float64)
    host |= {"decay": np.ones(3), "threshold": np.full(3, 0.75)}
    inputs |= {"decay": torch.ones(3, device=device).double(), "threshold": torch.full((3,), 0.75, device=device).double()}
    got = lif_gradients(kernel, neuron, inputs, cotangents["s"], cotangents["v"])
    assert row.adjoint is not None
    for values, wanted in zip(got, (row.forward(neuron, host), row.adjoint(neuron, host, seeds)), strict=True):
        for name, value in values.items():
            np.testing.assert_array_equal(value.cpu().numpy(), wanted[name], err_msg=name)


@pytest.mark.parametrize("dtype", ROUNDOFF, ids=str)
@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: type(s).__name__)
def test_every_surrogate_s_gradient(kernel: Any, surrogate: Any, dtype: torch.dtype, device: str) -> None:
    """Of one step it is h(u - threshold), exact in u, here while h is a normal number: 4 roundings of exp and 8 operations."""
    neuron = ts.Neuron(surrogate=surrogate, threshold=0.5)
    u = torch.arange(-80, 81, dtype=dtype, device=device).reshape(1, 1, -1) / 4
    one = torch.ones_like(u)
    _, found = lif_gradients(kernel, neuron, {"x": u}, one, torch.zeros_like(u[0]))
    wanted = ts.reference.surrogate.derivative(surrogate, u.cpu().double().numpy() - 0.5)
    assert wanted.max() > 0
    assert (np.abs(found["x"].cpu().numpy() - wanted) <= 12 * ROUNDOFF[dtype] * wanted).all()


def test_an_unknown_surrogate_is_refused(kernel: Any, device: str) -> None:
    """Not computed as the last of those that there are."""
    x = torch.ones(1, 1, 1, device=device)
    for number in (6, -1):
        unknown = form(ts.Neuron())._replace(surrogate=float(number))
        with pytest.raises(Exception, match=r"unknown surrogate|surrogate of the numba kernel: expected one of \[0"):
            lif_kernels.backward(kernel, x, None, None, None, x, None, unknown, (False, False))


def layouts() -> dict[str, Any]:
    dense = torch.from_numpy(dyadic(np.random.default_rng(0), 3, 2, 4, 5, 6, top=8))
    return {
        "channels last": dense.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (3, 2)),
        "steps inside": dense.movedim(0, -1).contiguous().movedim(-1, 0),
        "transposed": dense.transpose(-1, -2),
        "every other": dense[..., ::2],
        "expanded over time": dense[:1].expand(3, -1, -1, -1, -1),
        "expanded over channels": dense[:, :, :1].expand(-1, -1, 4, -1, -1),
        "one channel": dense[:, :, 1:2],
        "no space": dense[..., 0, 0],
        "empty": dense[:, :0],
    }


@pytest.mark.parametrize("layout", layouts())
def test_layouts_change_nothing_and_are_kept(kernel: Any, layout: str, device: str) -> None:
    neuron, x = ts.Neuron(decay=0.5, reset="soft"), layouts()[layout].to(device)
    channels = x.shape[2]
    learned = {"decay": torch.arange(channels, device=device).double() / 8, "threshold": torch.full((channels,), 0.5).to(x)}
    g, e = torch.from_numpy(dyadic(np.random.default_rng(1), *x.shape)).to(device), torch.ones_like(x[0])
    got = lif_gradients(kernel, neuron, {"x": x, **learned}, g, e)
    wanted = lif_gradients("plain", neuron, {"x": x, **learned}, g, e)
    for ours, theirs in zip(got, wanted, strict=True):
        for name in theirs:
            assert torch.equal(ours[name], theirs[name]), name
    for value in (got[0]["s"], got[0]["u"], got[1]["x"]):
        assert value[0].stride() == torch.empty_like(x[0]).stride()


def test_double_use_of_a_gradient_s_memory_is_refused(kernel: Any, device: str) -> None:
    x = torch.zeros(2, 1, 3, device=device, requires_grad=True)
    s = tt.lif(x, neuron=ts.Neuron(), kernel=kernel).s.sum()
    s.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        s.backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_formats_of_sixteen_bits_keep_potentials_in_float32(kernel: Any, dtype: torch.dtype, device: str) -> None:
    x = torch.tensor([1 + 2.0**-7, 2.0**-7], dtype=dtype, device=device).reshape(2, 1, 1)
    neuron = ts.Neuron(decay=2.0**-10, threshold=2.0, surrogate=ts.Rectangle(width=8.0))
    out, found = lif_gradients(kernel, neuron, {"x": x}, torch.ones_like(x), torch.zeros(1, 1, device=device))
    assert out["u"][1].item() == 2.0**-7 + 2.0**-10 * (1 + 2.0**-7)
    assert (out["s"].dtype, out["u"].dtype, found["x"].dtype) == (dtype, torch.float32, dtype)
    assert found["x"].flatten().tolist()[1] == 0.125


def test_a_compiler_keeps_a_kernel_as_an_operator(kernel: Any, device: str) -> None:
    neuron = ts.Neuron(decay_scope="channel", threshold_scope="layer")
    layer = tt.LIF(neuron, 3, kernel=kernel, device=device)
    x = torch.from_numpy(dyadic(np.random.default_rng(0), 3, 2, 3, 4, top=8)).float().to(device)
    results = []
    for run in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, inside its tracer
            s, v = run(leaf)
            (s.sum() + v.sum()).backward()
        results.append([s, v, leaf.grad, *(p.grad for p in layer.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_the_operators_say_what_they_return(kernel: Any, memory: torch.memory_format, device: str) -> None:
    x = torch.zeros(3 * 2, 4, 5, 6, device=device).to(memory_format=memory).unflatten(0, (3, 2))
    learned = (torch.full((4,), 0.5, device=device), torch.tensor(0.5, device=device))
    options, checks = list(form(ts.Neuron())), ("test_schema", "test_faketensor")
    torch.library.opcheck(lif_kernels._forward_operator, (x, None, *learned, options, kernel, True), test_utils=checks)
    arguments = (x, torch.zeros_like(x[0]), *learned, x, None, options, kernel, [True, False])
    torch.library.opcheck(lif_kernels._backward_operator, arguments, test_utils=checks)
