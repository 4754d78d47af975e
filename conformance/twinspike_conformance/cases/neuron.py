"""Examples of the LIF neuron and of the bare spike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from twinspike.config import Arctan, FastSigmoid, Neuron, Rectangle, Sigmoid, Surrogate, Tanh, Triangle
from twinspike.reference.neuron import lif
from twinspike.reference.surrogate import derivative
from twinspike_conformance.bounds.budget import Budget, Grid
from twinspike_conformance.cases.base import TILES, Arrays, Cases, Sizes
from twinspike_conformance.cases.families import ROUNDED, Source
from twinspike_conformance.cases.pairwise import pairwise

SURROGATES: tuple[Surrogate, ...] = (
    Rectangle(width=1.0), Rectangle(width=0.5), Triangle(width=1.0), Triangle(width=2.0),
    Sigmoid(slope=3.0), Arctan(slope=1.5), FastSigmoid(slope=2.5), Tanh(slope=0.75),
)  # fmt: skip


def _neuron(row: dict[str, Any]) -> Neuron:
    reset, v_reset = row["reset"]
    decay, decay_scope = row["decay"]
    threshold, threshold_scope = row["threshold"]
    return Neuron(
        reset=reset,
        v_reset=v_reset,
        detach_reset=row["detach_reset"],
        decay_input=row["decay_input"],
        surrogate=row["surrogate"],
        decay=decay,
        decay_scope=decay_scope,
        threshold=threshold,
        threshold_scope=threshold_scope,
    )


STEEP: tuple[Surrogate, ...] = (
    Rectangle(width=0.9), Triangle(width=0.07), Sigmoid(slope=25.3), Arctan(slope=31.7), FastSigmoid(slope=40.9), Tanh(slope=9.7),
)  # fmt: skip

_VALUES = (
    Neuron(decay=0.3, threshold=0.7, surrogate=STEEP[0], v_reset=-0.3),
    Neuron(decay=1.0, threshold=0.1, surrogate=STEEP[1], reset="soft"),
    Neuron(decay=0.0, threshold=0.007, surrogate=STEEP[2]),
    Neuron(decay=0.997, threshold=1.3, surrogate=STEEP[3], decay_input=True),
    Neuron(decay=1e-3, threshold=3.3, surrogate=STEEP[4], reset="soft", detach_reset=True),
    Neuron(decay=0.9999, threshold=0.3, surrogate=STEEP[5], v_reset=-100.3),
)
"""Constants of full significands, the ends of their ranges, and steep surrogates."""

_CONFIGS = tuple(
    _neuron(row)
    for row in pairwise(
        {
            "reset": (("hard", 0.0), ("hard", -0.25), ("soft", 0.0)),
            "detach_reset": (False, True),
            "decay_input": (False, True),
            "surrogate": SURROGATES,
            "decay": ((0.5, "constant"), (0.25, "constant"), (0.5, "layer"), (0.25, "channel")),
            "threshold": ((0.5, "constant"), (1.0, "constant"), (0.5, "layer"), (1.0, "channel")),
        }
    )
)


LONG = 8
"""Steps beyond which a potential that is never reset takes more bits than there are."""
SURE = 16.0
"""A current that fires every neuron of the exact lane, beyond the reach of every window: a hard reset forgets all bits."""


def _sure(source: Source, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where a sequence is sure to fire: every fourth step, from a first one on that each neuron has of its own."""
    first = source.rng.integers(0, 4, shape[1:])
    return (np.arange(shape[0]).reshape(-1, *(1,) * first.ndim) - first) % 4 == 0  # type: ignore[no-any-return]  # a comparison


def put(array: np.ndarray[Any, Any], values: np.ndarray[Any, Any], start: int = 0) -> None:
    """Write values over the array's elements, from one on, as far as they go."""
    flat = array.reshape(-1)
    flat[start : start + len(values)] = values[: max(0, len(flat) - start)]


def _fill(source: Source, neuron: Neuron, n: Sizes) -> tuple[Arrays, Arrays]:
    shape = (n["B"], n["C"], *((n["H"], n["W"]) if "H" in n else ()))
    inputs: Arrays = {"x": source.main(n["T"], *shape)}
    if not source.exact:
        if source.rng.random() < 0.5 or not n["given"]:  # without a state the first current is the first potential
            put(inputs["x"][0], source.beside(neuron.threshold))
    elif n["T"] > LONG:
        inputs["x"][_sure(source, inputs["x"].shape)] = SURE
    if n["given"]:
        inputs["v"] = source.plain(*shape)
    for quantity, values in (("decay", (0.25, 0.5)), ("threshold", (0.5, 1.0))):
        scope = getattr(neuron, f"{quantity}_scope")
        if scope != "constant":
            size = (n["C"],) if scope == "channel" else ()
            inputs[quantity] = source.rng.choice(values, size) * 1.0 if source.exact else source.rng.uniform(0.2, 0.9, size)
            inputs[quantity] = source._round(inputs[quantity])
    if n["given"] and not source.exact:
        inputs["v"] = _near(source, neuron, inputs)
    elif "threshold" in inputs and not source.exact:
        _just_above(source, inputs)
    return inputs, {"s": source.coarse(n["T"], *shape), "v": source.coarse(*shape)}


def _just_above(source: Source, inputs: Arrays) -> None:
    """Every learned threshold the next number above a current of its channel's first sample, which must not fire.

    A threshold is kept in the storage format, whose numbers lie closer than those of currents in bf16-mixed.
    """
    small = np.ldexp(1.0, source.rng.choice((0, -7), np.shape(inputs["threshold"])))
    reached = source._round(inputs["threshold"] * small)
    storage = np.float64 if source.form == "float64" else np.float32
    inputs["threshold"] = np.nextafter(reached.astype(storage), storage(np.inf)).astype(np.float64)
    first = inputs["x"][0, 0]
    first.reshape(len(first), -1)[:, 0] = reached


def _near(source: Source, neuron: Neuron, inputs: Arrays) -> np.ndarray[Any, Any]:
    """The state given, but of every fourth neuron one that charges it to its threshold, to within a few roundings.

    There a charge of one rounding and one of two decide differently, and so does a comparison that is rearranged:
    tests/proofs/ has such numbers, and that decays of powers of two have none.
    """
    x, like = inputs["x"][0], (-1, *(1,) * (inputs["x"].ndim - 3))
    decay, threshold = (
        np.reshape(q, like) if np.ndim(q) else q for q in (inputs.get(k, getattr(neuron, k)) for k in ("decay", "threshold"))
    )
    share = 1.0 - decay if neuron.decay_input else 1.0
    near = source._round((threshold - share * x) / np.maximum(decay, 2.0**-10))
    near = source._round(near * (1.0 + source.rng.integers(-1, 2, x.shape) * source.spacing))
    every_fourth = np.arange(x.size).reshape(x.shape) % 4 == 0
    return np.where(every_fourth, near, inputs["v"])


def _surrogate(b: Budget, neuron: Neuron, z: Any) -> Grid:
    """h at exact z, and the steps to it."""
    width = neuron.surrogate.width  # type: ignore[union-attr]  # the exact lane has windowed surrogates only
    b.each(np.abs(z) / width)
    return b.each(derivative(neuron.surrogate, z))


def _budget(b: Budget, neuron: Neuron, inputs: Arrays, cotangents: Arrays) -> None:
    """The recurrences of LIF-1 to LIF-10: forward on the exact values, backward on grids of all sums of terms."""
    x: Any = inputs["x"]
    like = (-1, *(1,) * (x.ndim - 3))
    decay = np.asarray(inputs.get("decay", neuron.decay)).reshape(like if "decay" in inputs and inputs["decay"].ndim else ())
    theta = np.asarray(inputs.get("threshold", neuron.threshold))
    theta = theta.reshape(like) if theta.ndim else theta
    share = 1.0 - decay if neuron.decay_input else np.ones(())
    trace = lif(neuron, x, *(inputs.get(k) for k in ("v", "decay", "threshold")))
    before = inputs.get("v", np.zeros_like(x[0]))
    g, e = cotangents["s"], b.each(cotangents["v"])
    for u, v, current in zip(trace.u, [before, *trace.v[:-1]], x, strict=True):
        (b.each(decay) * b.each(v) + b.each(share) * b.each(current)) - theta  # notes the charge, LIF-1, and z
        b.each(u)
    sums = {"decay": b.each(0.0), "threshold": b.each(0.0)}
    for t in reversed(range(len(x))):
        u, s, v = trace.u[t], trace.s[t], trace.v[t - 1] if t else before
        h = _surrogate(b, neuron, u - theta)
        soft = neuron.reset == "soft"
        r, k = (b.each(theta), b.each(1.0)) if soft else (b.each(neuron.v_reset - u), b.each(1.0 - s))
        reset = b.each(0.0) if neuron.detach_reset else e * r
        through_spike = (b.each(g[t]) + reset) * h
        d = through_spike + e * k
        b.each(share) * d  # notes the current's gradient
        seen = b.each(v) + b.each(x[t]) if neuron.decay_input else b.each(v)
        sums["decay"] = sums["decay"] + (d * seen).total()
        sums["threshold"] = sums["threshold"] + (through_spike + (e * b.each(s) if soft else 0.0)).total()
        e = b.each(decay) * d


def _spike_fill(source: Source, neuron: Neuron, n: Sizes) -> tuple[Arrays, Arrays]:
    u = source.main(n["B"], n["C"])
    if not source.exact:
        u = _tails(source, neuron, u)
        # exponentials overflow far from the threshold on either side, whatever else is there
        far = np.ldexp(source.rng.uniform(1.0, 2.0), 10)
        u[0, :2] = source._round(np.array([-far, far]))
        theta, reach = neuron.threshold, getattr(neuron.surrogate, "width", 1.0)
        near = source.beside(theta, theta - reach / 2, theta + reach / 2, theta + reach)
        if source.rng.random() < 0.5:
            put(u, source.rng.permutation(near)[: u.size // 3], 2)
    return {"u": u}, {"s": source.coarse(n["B"], n["C"])}


def _tails(source: Source, neuron: Neuron, u: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Every third potential, and the last three, out where sigmoid and tanh are 0 or 1 to the last digit.

    There h has all of its own digits until it underflows. Libraries compute what fills a vector by one function and the
    rest by another: lengths are odd, so that either gets some, whether a vector holds 2, 4, 8 or 16 numbers.
    """
    end = 1.1 * -math.log(np.finfo(np.float64 if source.form == "float64" else np.float32).tiny)
    slope = getattr(neuron.surrogate, "slope", 1.0)
    far = np.exp(source.rng.uniform(math.log(4.0), math.log(end), u.shape)) / slope * source.rng.choice([-1.0, 1.0], u.shape)
    chosen = source.rng.random(u.shape) < 1 / 3
    chosen.flat[-3:] = True
    return np.where(chosen, source._round(neuron.threshold + far), u)


def _spike_budget(b: Budget, neuron: Neuron, inputs: Arrays, cotangents: Arrays) -> None:
    b.of(cotangents["s"]) * _surrogate(b, neuron, inputs["u"] - neuron.threshold)  # noted


def _short(neuron: Neuron) -> bool:
    """Whether the neuron has a window, and constants of few bits."""
    windowed = isinstance(neuron.surrogate, Rectangle | Triangle) and neuron.surrogate not in STEEP
    return windowed and neuron not in _VALUES


CASES = (
    Cases(
        operation="lif",
        configs=_CONFIGS + _VALUES,
        buckets=(
            {"T": 4, "B": 3, "C": 2, "H": 5, "W": 7, "given": 0},
            {"T": 3, "B": 2, "C": 5, "given": 1},
            {"T": 1, "B": 3, "C": 2, "given": 1},
            {"T": 5, "B": 1, "C": 3, "H": 2, "W": 6, "given": 0},
            # one neuron beyond the blocks of 1024 and 16384 that kernels work in
            {"T": 2, "B": 25, "C": 41, "given": 1},
            {"T": 2, "B": 5, "C": 29, "H": 1, "W": 113, "given": 0},
        ),
        large=(
            {"T": 67, "B": 2, "C": 3, "given": 1},
            {"T": 2, "B": 33, "C": 131, "given": 1},
            {"T": 131, "B": 1, "C": 2, "given": 0},
            {"T": 2, "B": 32, "C": 128, "given": 0},
        ),
        large_configs=(
            Neuron(decay_scope="channel", threshold_scope="channel", surrogate=Triangle(width=2.0), v_reset=-0.25),
            Neuron(decay=0.5, decay_scope="layer", threshold_scope="layer", decay_input=True, detach_reset=True),
            Neuron(reset="soft", decay_scope="channel", threshold_scope="layer", surrogate=Sigmoid(slope=3.0)),
            _VALUES[0],
            _VALUES[2],
        ),
        fill=_fill,
        exact=_short,
        families=tuple(ROUNDED),
        budget=_budget,
    ),
    Cases(
        operation="spike",
        configs=(
            *(Neuron(surrogate=s, threshold=t) for s in SURROGATES for t in (0.5, 1.0)),
            *(Neuron(surrogate=s, threshold=t) for s, t in zip(STEEP, (0.7, 0.1, 3.3, 1.3, 0.3, 0.7), strict=True)),
        ),
        buckets=({"B": 3, "C": 7}, {"B": 1, "C": 15}, {"B": 33, "C": 129}),
        large=TILES,
        large_configs=(
            *(Neuron(surrogate=s, threshold=0.7) for s in STEEP),
            *(Neuron(surrogate=s, threshold=0.5) for s in SURROGATES),
        ),
        fill=_spike_fill,
        exact=_short,
        families=tuple(ROUNDED),
        budget=_spike_budget,
    ),
)
