"""torch.func over the neuron: the plain values, the clauses' gradients; what can't be transformed is one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

import twinspike as ts
import twinspike_torch as tt

NEURONS = {
    "published": ts.Neuron(),
    "soft": ts.Neuron(reset="soft", decay=0.5, surrogate=ts.Triangle(width=2.0)),
    "v_reset, detached, decayed input": ts.Neuron(v_reset=-0.25, detach_reset=True, decay_input=True, decay=0.5),
    "learned": ts.Neuron(decay_scope="channel", threshold_scope="channel", decay=0.5),
}


def dyadic(*shape: int, seed: int) -> Tensor:
    """Multiples of 1/8 in [-1, 1]: nothing below needs rounding in float64."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).double() / 8


def given(neuron: ts.Neuron) -> tuple[Tensor, ...]:
    x, v = dyadic(3, 4, 2, 5, seed=0), dyadic(4, 2, 5, seed=1)
    if neuron.decay_scope == "constant":
        return x, v
    return x, v, torch.tensor([0.25, 0.5]).double(), torch.tensor([0.5, 0.25]).double()


def run(neuron: ts.Neuron, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    x, v, *learned = inputs
    quantities: dict[str, Any] = dict(zip(("decay", "threshold"), learned, strict=False))
    s, after = tt.lif(x, v, neuron=neuron, **quantities)
    return s, after


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own, of its forward mode
@pytest.mark.parametrize("name", NEURONS)
def test_gradients_are_those_of_autograd_bit_for_bit_where_nothing_rounds(name: str) -> None:
    neuron, inputs = NEURONS[name], given(NEURONS[name])
    cotangents = dyadic(3, 4, 2, 5, seed=2), dyadic(4, 2, 5, seed=3)
    leaves = [value.clone().requires_grad_() for value in inputs]
    outputs = run(neuron, *leaves)
    want = torch.autograd.grad(outputs, leaves, cotangents)
    values, pull = vjp(lambda *each: run(neuron, *each), *inputs)
    assert all(torch.equal(got, value) for got, value in zip(values, outputs, strict=True))
    assert all(torch.equal(got, value) for got, value in zip(pull(cotangents), want, strict=True))
    # forward mode is the same matrix: <cotangent, J tangent> = <J' cotangent, tangent>, sums of dyadic numbers
    tangents = tuple(dyadic(*value.shape, seed=4 + i) for i, value in enumerate(inputs))
    _, pushed = jvp(lambda *each: run(neuron, *each), inputs, tangents)
    left = sum((c * p).sum() for c, p in zip(cotangents, pushed, strict=True))
    assert left == sum((g * t).sum() for g, t in zip(want, tangents, strict=True))


@pytest.mark.parametrize("surrogate", [ts.Rectangle(), ts.Sigmoid(), ts.Tanh(), ts.Arctan(), ts.FastSigmoid(), ts.Triangle()])
def test_vmap_of_grad_is_one_gradient_each(surrogate: Any) -> None:
    neuron = ts.Neuron(surrogate=surrogate)
    xs = dyadic(3, 2, 4, 2, 5, seed=0)
    layer = tt.LIF(neuron)

    def loss(x: Tensor) -> Tensor:
        return layer(x).s.sum() + tt.spike(x, neuron=neuron).sum()

    got = vmap(grad(loss))(xs)
    assert torch.equal(got, torch.stack([grad(loss)(x) for x in xs]))
    leaf = xs.clone().requires_grad_()
    (want,) = torch.autograd.grad(sum(loss(x) for x in leaf), leaf)
    # two orders of a few products: 16 roundings of what is summed, all terms of one size
    assert (got - want).abs().max() <= 16 * 2.0**-53 * want.abs().max()


def test_potentials_are_traced_outside_of_the_graph() -> None:
    x = dyadic(3, 4, 2, 5, seed=0)
    neuron = ts.Neuron()
    u = vmap(lambda one: tt.lif_traced(one, neuron=neuron).u)(x[None])
    assert torch.equal(u[0], tt.lif_traced(x, neuron=neuron).u)
    g = grad(lambda one: tt.lif_traced(one, neuron=neuron).u.sum())(x)
    assert torch.equal(g, torch.zeros_like(x))


def test_what_a_transform_would_take_apart_is_one_line() -> None:
    x = dyadic(3, 4, 2, 5, seed=0)
    if "numba" in str(tt.backend.capabilities().kernels):
        with pytest.raises(ts.SpecError, match=r"^lif.kernel: expected auto or plain within torch.func, got numba$"):
            grad(lambda one: tt.lif(one, neuron=ts.Neuron(), kernel="numba").s.sum())(x)
    line = r"^gradient of lif: expected a call outside of torch.func and vmap, got one within; take the whole function "
    leaf = x.clone().requires_grad_()
    s = tt.lif(leaf, neuron=ts.Neuron()).s.sum((1, 2, 3))
    with pytest.raises(ts.SpecError, match=line):
        torch.autograd.grad(s, leaf, torch.eye(3).double(), is_grads_batched=True)
    net = tt.build(ts.network("digits_cnn", width=2))
    with pytest.raises(ts.SpecError, match=r"^TwinNetwork: expected a call outside of torch.func and vmap, got one within; "):
        grad(lambda images: net(images).logits_snn.sum())(torch.zeros(2, 1, 8, 8))


def test_a_network_says_its_sizes() -> None:
    lines = repr(tt.build(ts.network("digits_cnn"))).splitlines()
    counts = "92,361 parameters (84,663 shared), 1,472 statistics"
    assert lines[1] == f"  digits_cnn: images 1x8x8, T = 4, 10 classes, 3 exits, 9 layers of neurons, {counts}"
    assert "    (conv): FactorizedConv2d(16x1x3x3, rank 1, 171 parameters)" in lines
    assert any(line.startswith("    (norm): TwinBatchNorm(16 channels, one for each twin, ") for line in lines)
    assert "    (head): TwinLinear(10x64, one for each twin, 1,290 parameters)" in lines
