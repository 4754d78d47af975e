"""Proof that two backends train alike: from one state, on one batch, in float64, quantity by quantity.

Both get the same values before every step, so that nothing accumulates: what differs, differs because
of this step. Losses, all gradients and the stepped state are held against a limit that follows from
the number of roundings; spikes must be equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from twinspike import initial_state
from twinspike.backend import Values
from twinspike.config import encode
from twinspike.errors import require
from twinspike.network import Conv, Linear, Network, Norm, infer_shapes
from twinspike.parameters import kernel_shape
from twinspike.precision import PRECISIONS
from twinspike_training.config import RunConfig, build
from twinspike_training.metrics import LOSS_PARTS
from twinspike_training.run import Ready, prepare

PRECISION = "f64"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity, compared."""

    step: int
    """Counted from 1."""
    kind: str
    """`loss`, `spikes`, `gradient` or `state`."""
    name: str
    difference: float
    """max|a - b| over max(|a|, |b|) of the array; for spikes the number that differ."""
    limit: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the limit; NaN never is."""
        return self.difference <= self.limit


def agreement(first: str, second: str, config: RunConfig, steps: int = 1) -> list[Row]:
    """Compare the first steps of two backends.

    Args:
        first: backend.
        second: backend.
        config: of the run; backend and precision are replaced.
        steps: optimizer steps, each from the state that the first backend came to, >= 1 and within one epoch.

    Returns:
        All comparisons, in the order of the data flow.
    """
    require(steps >= 1, "steps", expected="a whole number >= 1", got=steps)
    a, b = (prepare(_with_backend(config, name)) for name in (first, second))
    require(steps <= a.steps_per_epoch, "steps", expected=f"at most the {a.steps_per_epoch} of one epoch", got=steps)
    limit = error_limit(a.network, config.method.time_steps, config.training.batch_size)
    values: Mapping[str, Values] = initial_state(a.network, config.method, config.optimizer, seed=config.seed)
    rows: list[Row] = []
    batches = a.dataset.train_batches(config.seed, 0, config.training.batch_size)
    for step, (images, labels) in zip(range(1, steps + 1), batches, strict=False):
        found = [_one_step(ready, values, images, labels) for ready in (a, b)]
        rows += _compare(step, found[0], found[1], limit)
        values = found[0]["state"]
    return rows


def _with_backend(config: RunConfig, name: str) -> RunConfig:
    return build({**encode(config), "backend": name, "precision": PRECISION}, "config")


def _one_step(ready: Ready, values: Mapping[str, Values], images: Values, labels: Values) -> dict[str, dict[str, Values]]:
    program, to_numpy = ready.program, ready.session.to_numpy
    state = program.load(values)
    trace = program.trace(state, images, training=True)
    gradients, metrics = program.gradients(state, images, labels)
    stepped, _ = program.train_step(state, images, labels, ready.config.learning_rate)
    return {
        "spikes": {name: trace[name]["snn"] for name in ready.network.activations},
        "loss": {part: to_numpy(getattr(metrics, part)) for part in LOSS_PARTS},
        "gradient": gradients,
        "state": program.dump(stepped),
    }


def _compare(step: int, a: Mapping[str, Any], b: Mapping[str, Any], limit: float) -> list[Row]:
    rows = []
    for kind, values in a.items():
        require(
            values.keys() == b[kind].keys(),
            f"{kind} names",
            expected="the same of both backends",
            got=sorted(values.keys() ^ b[kind].keys()),
        )
        for name, one in values.items():
            other = b[kind][name]
            require(one.shape == other.shape, f"{kind} {name}", expected=f"shape {one.shape} of both backends", got=other.shape)
            if kind == "spikes":
                rows.append(Row(step=step, kind=kind, name=name, difference=float((one != other).sum()), limit=0.0))
            else:
                rows.append(Row(step=step, kind=kind, name=name, difference=relative_difference(one, other), limit=limit))
    return rows


def relative_difference(a: Values, b: Values) -> float:
    """max|a - b| over the largest magnitude in either; 0 where both are 0, NaN where one is."""
    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    largest = max(np.abs(one).max(initial=0.0), np.abs(other).max(initial=0.0))
    if largest == 0:
        return 0.0
    return float(np.abs(one - other).max() / largest)


def error_limit(network: Network, time_steps: int, batch_size: int) -> float:
    """Unit roundoff times the roundings on the longest path through forward and backward pass.

    Each layer adds the lengths of the sums behind one of its values: of the forward product, of the
    gradient of its input, and of the gradient of its kernel or of its statistics; neurons add T.
    """
    shapes = infer_shapes(network)
    roundings = 0
    for layer in network.layers:
        places = math.prod(shapes[layer.name][1:]) * batch_size * time_steps
        match layer:
            case Conv() | Linear():
                kernel = kernel_shape(layer, shapes[layer.input])
                products = math.prod(kernel[2:])
                roundings += products * (kernel[0] + kernel[1]) + places + min(kernel[:2])
            case Norm():
                roundings += 2 * places
            case _:
                roundings += time_steps
    return roundings * PRECISIONS[PRECISION].roundoff
