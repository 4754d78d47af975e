"""What tests of the JAX backend share: rows of the operations table on a session and on the reference, and inputs."""

from __future__ import annotations

import functools

import numpy as np

import twinspike_jax as tj
from twinspike.operations import OPERATIONS

T, B, C = 2, 3, 5
ROUNDOFF = 2.0**-53
HALF = {"decay": 0.5, "threshold": 0.5}


@functools.cache
def opened(device, precision="f64", compiled=False):
    """One session of each kind."""
    return tj.backend.session(device, precision, compiled)


def dyadic(rng, shape, quantum=4, top=4):
    """Values k/quantum with |k| <= top."""
    return rng.integers(-top, top + 1, shape) / quantum


def run_row(session, name, config, inputs, cotangents, compared=False):
    """NumPy outputs and gradients of a row."""
    moved = {k: session.from_numpy(np.asarray(v)) for k, v in inputs.items()}
    if not OPERATIONS[name].differentiable:
        return {k: session.to_numpy(v) for k, v in session.forward(name, config, moved).items()}, {}
    moved_g = {k: session.from_numpy(np.asarray(v)) for k, v in cotangents.items()}
    outputs, gradients = session.vjp(name, config, moved, moved_g)
    if OPERATIONS[name].exactness == "exact" and compared:
        for key, value in session.forward(name, config, moved).items():
            np.testing.assert_array_equal(session.to_numpy(value), session.to_numpy(outputs[key]))
    return tuple({k: session.to_numpy(v) for k, v in found.items()} for found in (outputs, gradients))


def reference_row(name, config, inputs, cotangents):
    row = OPERATIONS[name]
    outputs = row.forward(config, inputs)
    return outputs, row.adjoint(config, inputs, cotangents) if row.adjoint else {}


def lif_inputs(rng, given=(), steps=T):
    inputs = {"x": dyadic(rng, (steps, B, C, 2), 4, 6)}
    if "v" in given:
        inputs["v"] = dyadic(rng, (B, C, 2), 4, 2)
    if "decay" in given:
        inputs["decay"] = rng.choice([0.25, 0.5], C)
    if "threshold" in given:
        inputs["threshold"] = np.asarray(0.75)
    return inputs


def lif_cotangents(rng, steps=T):
    return {"s": dyadic(rng, (steps, B, C, 2), 2, 3), "v": dyadic(rng, (B, C, 2), 2, 3)}
