"""Examples for the tests of the PyTorch backend: operations, training steps and a network of a few neurons."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import twinspike as ts
import twinspike_torch as tt
from twinspike.config import SURROGATES as KINDS
from twinspike.network import INPUT, Activation, Branch, Conv, GlobalPool, Linear, Norm
from twinspike.operations import OPERATIONS, Composition, Convolution, Nothing, Pooling, Readout
from twinspike.parameters import initial_state

U64 = 2.0**-53
SURROGATES = [kind() for kind in KINDS]
NEURONS = [
    ts.Neuron(decay=0.5),
    ts.Neuron(reset="soft", surrogate=ts.Triangle()),
    ts.Neuron(decay=0.5, v_reset=-0.25, detach_reset=True),
    ts.Neuron(decay=0.5, decay_input=True, reset="soft", detach_reset=True),
]


def dyadic(rng: np.random.Generator, *shape: int, top: int = 4, unit: float = 0.25) -> np.ndarray:
    """Multiples of `unit` of at most `top` units, exact in every format."""
    return rng.integers(-top, top, shape, endpoint=True) * unit


def lif_gradients(kernel: Any, neuron: ts.Neuron, inputs: dict[str, torch.Tensor], g: torch.Tensor, e: torch.Tensor) -> Any:
    """Spikes, potentials, state, and the gradients of all inputs, by a kernel."""
    leaves = {name: value.detach().requires_grad_() for name, value in inputs.items()}
    out = tt.lif_traced(**leaves, neuron=neuron, kernel=kernel)
    found = torch.autograd.grad([out.s, out.v], list(leaves.values()), [g, e])
    return {"s": out.s.detach(), "u": out.u, "v": out.v.detach()}, dict(zip(leaves, found, strict=True))


def exact_cases() -> list[Any]:
    rng = np.random.default_rng(0)

    def d(*shape: int, **options: Any) -> np.ndarray:
        return dyadic(rng, *shape, **options)

    cases = [
        ("relu", Nothing(), {"x": d(3, 4, 5)}),
        ("spike", ts.Neuron(), {"u": d(50, top=8)}),
        ("penalty", Nothing(), {"U": d(2, 4, 3), "V": d(2, 3, 5)}),
        ("conv2d", Convolution(stride=2, padding=1), {"x": d(2, 3, 7, 6), "kernel": d(4, 3, 3, 3)}),
        ("conv2d", Convolution(), {"x": d(2, 3, 5, 5), "kernel": d(4, 3, 1, 1)}),
        ("avg_pool", Pooling(kernel=2, stride=2), {"x": d(2, 3, 5, 7)}),
        ("global_pool", Nothing(), {"x": d(2, 3, 4, 8)}),
        ("linear", Nothing(), {"x": d(3, 5), "weight": d(4, 5), "bias": d(4)}),
        ("readout", Readout(reduction="sum"), {"x": d(3, 2, 5)}),
        ("readout", Readout(reduction="mean"), {"x": d(4, 2, 5)}),
    ]
    for f, shape, factors in [
        (ts.Factorization(), (4, 3, 3, 2), ((3, 2, 4, 2), (3, 2, 2), (3, 2, 2, 3))),
        (ts.Factorization(matricize="out_by_rest"), (4, 3, 3, 2), ((4, 3), (3,), (3, 18))),
        (ts.Factorization(scope="with_heads"), (4, 3), ((4, 3), (3,), (3, 3))),
    ]:
        inputs = dict(zip(("U", "sigma", "V"), (d(*s) for s in factors), strict=True))
        cases.append(("compose", Composition(factorization=f, kernel_shape=shape), inputs))
    for reduction in ("sum", "batch_mean", "mean"):
        for detach in (True, False):
            loss = ts.Loss(feature_reduction=reduction, detach_teacher=detach)
            cases.append(("feature_loss", loss, {"snn": d(4, 8), "ann": d(4, 8)}))
    for neuron in NEURONS:
        x = d(3, 2, 4, 3, top=8)
        cases.append(("lif", neuron, {"x": x}))
        cases.append(("lif", neuron, {"x": x, "v": d(2, 4, 3), "decay": np.full(4, 0.5), "threshold": np.full(4, 0.5)}))
        cases.append(("lif", neuron, {"x": x[..., 0], "decay": np.array(0.25), "threshold": np.array(0.75)}))
    return cases


def both(session: Any, name: str, config: Any, inputs: dict[str, np.ndarray], seed: int = 1) -> tuple[Any, ...]:
    """Outputs and gradients of the backend and of the reference, for dyadic cotangents."""
    row, rng = OPERATIONS[name], np.random.default_rng(seed)
    expected = row.forward(config, inputs)
    cotangents = {k: dyadic(rng, *expected[k].shape) for k in row.cotangents}
    tensors = {k: session.from_numpy(np.asarray(v)) for k, v in inputs.items()}
    before = {k: v.clone() for k, v in tensors.items()}
    got, gradients = session.vjp(name, config, tensors, {k: session.from_numpy(v) for k, v in cotangents.items()})
    assert all(torch.equal(tensors[k], before[k]) for k in tensors), "inputs were modified"
    host = [{k: session.to_numpy(v) for k, v in arrays.items()} for arrays in (got, gradients)]
    assert row.adjoint is not None
    return (*host, expected, row.adjoint(config, inputs, cotangents))


DIGITS = ts.network("digits_cnn", width=4)
EVENTS = ts.network("digits_cnn", width=4, event=True)
STEPS = {
    "plain": (DIGITS, ts.Method(), ts.SGD()),
    "events, nesterov": (EVENTS, ts.Method(time_steps=3), ts.SGD(momentum=0.9, nesterov=True)),
    "per-step loss, adam": (DIGITS, ts.Method(loss=ts.Loss(per_step=True, alpha=0.5, beta=0.1)), ts.Adam(weight_decay=0.1)),
    "folded, learned neurons, adamw": (
        DIGITS,
        ts.Method(
            batch_norm=ts.BatchNorm(time="folded"),
            readout="mean",
            neuron=ts.Neuron(
                decay_scope="channel", threshold_scope="layer", decay_input=True, reset="soft", surrogate=ts.Arctan()
            ),
        ),
        ts.AdamW(weight_decay=0.1, decay_scope="no_norm_bias"),
    ),
    "isolated, low rank, penalty": (
        EVENTS,
        ts.Method(
            loss=ts.Loss(isolate_ann=True, detach_teacher=False, form="kl", alpha=0.5, beta=0.1, feature_reduction="mean"),
            factorization=ts.Factorization(
                scope="with_heads", matricize="out_by_rest", rank=3, orthogonality=ts.Penalty(weight=0.1)
            ),
        ),
        ts.SGD(momentum=0.5, decay_scope="no_norm_bias"),
    ),
    "retraction": (
        DIGITS,
        ts.Method(factorization=ts.Factorization(scope="backbone", orthogonality=ts.Retract(every=2, by="qr"))),
        ts.SGD(),
    ),
    "unfactored": (
        DIGITS,
        ts.Method(factorization=ts.Factorization(scope="none"), neuron=ts.Neuron(v_reset=-0.3, detach_reset=True)),
        ts.SGD(),
    ),
    "resnet18": (ts.network("resnet18", width=4, input_shape=(3, 16, 16)), ts.Method(), ts.SGD()),
    "resnet19": (ts.network("resnet19", width=2, input_shape=(3, 8, 8)), ts.Method(time_steps=2), ts.SGD()),
}


def batch(network: ts.Network, method: ts.Method, size: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lead = (method.time_steps,) if network.event else ()
    return rng.standard_normal((*lead, size, *network.input_shape)), rng.integers(0, network.classes, size)


def moved(network: ts.Network, method: ts.Method, optimizer: Any) -> dict[str, np.ndarray]:
    """An initial state with every parameter and statistic off its default."""
    rng = np.random.default_rng(1)
    state = initial_state(network, method, optimizer)
    return {k: v * (1 + 0.1 * rng.standard_normal(v.shape)) if v.dtype.kind == "f" else v for k, v in state.items()}


def tiny(event: bool = False) -> ts.Network:
    layers = (
        Conv(name="stem.conv", input=INPUT, out_channels=3, kernel=3, padding=1, part="stem"),
        Norm(name="stem.norm", input="stem.conv"),
        Activation(name="stem.act", input="stem.norm"),
        GlobalPool(name="main.feature", input="stem.act"),
        Linear(name="main.head", input="main.feature", out_features=4),
    )
    exits = (Branch(feature="main.feature", head="main.head"),)
    return ts.Network(name="tiny", input_shape=(2, 4, 4), event=event, layers=layers, exits=exits)
