"""Every entry point of a session and of a program, gone through once: what it gives, as bytes, to be compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jax_networks import SMALL, batch

import twinspike as ts
from twinspike.operations import Convolution, Nothing

METHOD = ts.Method(
    time_steps=2,
    neuron=ts.Neuron(surrogate=ts.Sigmoid(), decay_input=True),
    factorization=ts.Factorization(orthogonality=ts.Retract(by="polar", every=1)),
)
OPTIMIZER = ts.AdamW()
STATE = ts.initial_state(SMALL, METHOD, OPTIMIZER, seed=0)


COMPILED = ("linear", "lif")
"""Operations that a compiled session goes through: one of each kind, since each is compiled by itself."""


def tour(backend: str, device: str, precision: str, compiled: bool = False) -> dict[str, np.ndarray]:
    """What a new session computes, by the name of the entry point and of the value."""
    return dict(_tour(ts.load(backend).session(device, precision, compiled), compiled))


def _tour(session: Any, compiled: bool) -> Iterator[tuple[str, np.ndarray]]:
    yield "flags", np.array(sorted(session.flags().items()))
    for name, config, inputs in _operations(np.random.default_rng(0)):
        if compiled and name not in COMPILED:
            continue
        placed = {key: session.from_numpy(value) for key, value in inputs.items()}
        outputs = session.forward(name, config, placed)
        yield from ((f"forward {name} {key}", session.to_numpy(value)) for key, value in outputs.items())
        row = ts.OPERATIONS[name]
        if row.differentiable:
            cotangents = {key: session.from_numpy(np.ones_like(session.to_numpy(outputs[key]))) for key in row.cotangents}
            for kind, values in zip(("outputs", "gradients"), session.vjp(name, config, placed, cotangents), strict=True):
                yield from ((f"vjp {name} {kind} {key}", session.to_numpy(value)) for key, value in values.items())
    program = session.program(SMALL, METHOD, OPTIMIZER)
    images, labels = batch(SMALL, METHOD)
    state = program.load(STATE)
    gradients, metrics = program.gradients(state, images, labels)
    yield from ((f"gradients {key}", value) for key, value in gradients.items())
    yield "gradients loss", session.to_numpy(metrics.loss)
    for layer, taps in program.trace(state, images, labels=labels).items():
        yield from ((f"trace {layer} {key}", value) for key, value in taps.items())
    yield from ((f"seen {layer} {key}", v) for layer, taps in program.trace(state, images).items() for key, v in taps.items())
    state, metrics = program.train_step(state, images, labels, 0.0625)
    for key in metrics.__struct_fields__:
        yield f"train_step {key}", session.to_numpy(getattr(metrics, key))
    found = program.evaluate(state, images)
    for key in found.__struct_fields__:
        yield f"evaluate {key}", session.to_numpy(getattr(found, key))
    yield from ((f"dump {key}", value) for key, value in program.dump(state).items())


def _operations(rng: np.random.Generator) -> Iterator[tuple[str, Any, dict[str, np.ndarray]]]:
    """Products, a sum, a decomposition, a neuron, a loss and a step: what settings of a framework could change."""
    n = rng.standard_normal
    yield "conv2d", Convolution(stride=1, padding=1), {"x": n((2, 3, 6, 6)), "kernel": n((4, 3, 3, 3))}
    yield "linear", Nothing(), {"x": n((3, 40)), "weight": n((4, 40)), "bias": n(4)}
    norm = {"x": n((2, 3, 4, 2, 2)), "gamma": n(4), "beta": n(4), "mean": n(4), "var": n(4) ** 2}
    yield "batch_norm_train", ts.BatchNorm(), norm
    yield "factorize", ts.Factorization(rank=0.9), {"kernel": n((4, 3, 3, 3))}
    yield "lif", ts.Neuron(), {"x": n((3, 2, 5)), "decay": rng.random(5), "threshold": rng.random(5)}
    yield "cross_entropy", Nothing(), {"logits": n((4, 6)), "labels": rng.integers(0, 6, 4)}
    step = {"p": n((3, 4)), "g": n((3, 4)), "m": n((3, 4)), "v": n((3, 4)) ** 2}
    yield "optimizer_step", ts.AdamW(), step | {"lr": np.array(0.0625), "step": np.array(3)}


def assert_same(ours: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """The same values in the same formats, bit for bit."""
    assert ours.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (ours[name].dtype, ours[name].shape) == (value.dtype, value.shape), name
        assert ours[name].tobytes() == value.tobytes(), name
