"""More relations between answers of one backend: scales and shifts that cancel, factors that are known beforehand.

Where `relations` ask for equality on dyadic data, these hold on any: a power of two changes no rounding, and
where rounding has room, two answers to one question differ by no more than the two bounds of the reference's
running error analysis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.config import SGD, Adam, Factorization, Optimizer, Retract
from twinspike.operations import OPERATIONS, Operation
from twinspike.precision import PRECISIONS, Precision
from twinspike.reference import factorization as fac
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.bounds.roundings import PRODUCT, SUM
from twinspike_conformance.bounds.spectral import backward_error, moved_by
from twinspike_conformance.bounds.tracked import TINY
from twinspike_conformance.cases import CASES, Example, Material, materialize
from twinspike_conformance.cases.families import rounded
from twinspike_conformance.checks.base import Bench, Check, answer, space_of
from twinspike_conformance.checks.sizes import large_check
from twinspike_conformance.judges.certificates import followed
from twinspike_conformance.judges.operations import allowed, roundoff_of

Values = NDArray[Any]
Named = dict[str, Values]


def _prepare(bench: Bench, example: Example) -> tuple[Operation, Material, Precision]:
    precision = PRECISIONS[bench.session.precision]
    return OPERATIONS[example.operation], materialize(CASES[example.operation], example, precision.activations), precision


def _bounds(row: Operation, precision: Precision, config: Any, inputs: Named, cotangents: Named) -> Named:
    """How far a right answer may be from the exact one: output, or `gradient of NAME` -> bound per element."""
    return {name: right.bound for name, right in allowed(row, config, inputs, cotangents, precision).items()}


# --- scales that cancel ------------------------------------------------------------------------------


def _scaled_norm(bench: Bench, example: Example) -> list[Finding]:
    """Values times 4, statistics and eps to match, gamma and beta times 2: twice the result, half the gradient, exactly."""
    row, material, _ = _prepare(bench, example)
    factors = {"x": 4.0, "mean": 4.0, "var": 16.0, "gamma": 2.0, "beta": 2.0, "y": 2.0, "gradient of x": 0.5}
    config = msgspec.structs.replace(material.config, eps=16.0 * material.config.eps)
    inputs = {k: v * factors.get(k, 1.0) for k, v in material.inputs.items()}
    plain = answer(bench.session, row, material.config, material.inputs, material.cotangents)
    moved = answer(bench.session, row, config, inputs, material.cotangents)
    want = {k: v * factors.get(k, 1.0) for k, v in plain.items()}
    return [compare(k, moved[k], want[k], 0.0, rung="property", clauses=row.clauses) for k in want]


def _outputs(bench: Bench, row: Operation, config: Any, tensors: Mapping[str, Any]) -> Named:
    """Outputs of one call, copied."""
    return {k: np.array(bench.session.to_numpy(v)) for k, v in bench.session.forward(row.name, config, tensors).items()}


def _scaled_optimizer(bench: Bench, example: Example) -> list[Finding]:
    """Gradients times 4, slots and constants to match, move a parameter to the same bits; SGD scales with its parameter."""
    row, material, _ = _prepare(bench, example)
    config: Optimizer = material.config
    other: Optimizer = config
    factors = {"p": 4.0, "g": 4.0, "momentum": 4.0}
    if not isinstance(config, SGD):
        decay = 4.0 * config.weight_decay if isinstance(config, Adam) else config.weight_decay
        factors = {"g": 4.0, "m": 4.0, "v": 16.0}
        other = msgspec.structs.replace(config, eps=4.0 * config.eps, weight_decay=decay)
    tensors = {k: bench.session.from_numpy(v) for k, v in material.inputs.items()}
    plain, again = (_outputs(bench, row, config, tensors) for _ in range(2))
    scaled = {k: v * factors[k] if k in factors else v for k, v in material.inputs.items()}
    moved = answer(bench.session, row, other, scaled, {})
    found = [compare(f"{k}, called again", again[k], plain[k], 0.0, rung="property", clauses=("PRE-4",)) for k in plain]
    want = {k: v * factors.get(k, 1.0) for k, v in plain.items()}
    return found + [compare(k, moved[k], want[k], 0.0, rung="property", clauses=row.clauses) for k in want]


def _rates(bench: Bench, example: Example) -> list[Finding]:
    """A parameter at 0 moves four times as far at four times the learning rate, to the bit, whatever rates came before."""
    row, material, _ = _prepare(bench, example)
    given = material.inputs | {"p": np.zeros_like(material.inputs["p"])}
    once, more = (answer(bench.session, row, material.config, given | {"lr": rate * given["lr"]}, {})["p"] for rate in (1.0, 4.0))
    return [compare("p at four times the rate", more, 4.0 * once, 0.0, rung="property", clauses=row.clauses)]


def _given(bench: Bench, example: Example) -> list[Finding]:
    """In one step a constant decay and threshold do what learned ones of the same value do."""
    row, material, precision = _prepare(bench, example)
    config, form, unit = material.config, precision.storage, roundoff_of(precision)
    if len(material.inputs["x"]) > 1 or (config.decay_scope, config.threshold_scope) != ("constant", "constant"):
        return []
    learned = msgspec.structs.replace(config, decay_scope="layer", threshold_scope="layer")
    values = {name: rounded(np.asarray(getattr(config, name)), form) for name in ("decay", "threshold")}
    plain = answer(bench.session, row, config, material.inputs, material.cotangents)
    other = answer(bench.session, row, learned, material.inputs | values, material.cotangents)
    u = followed(config, material.inputs, plain["s"], unit)
    near = np.abs(u.value - config.threshold) <= 2.0 * u.error + 2.0 * unit * config.threshold
    return [
        compare("u", other["u"], plain["u"], 2.0 * u.error, rung="bound", clauses=("LIF-1", "LIF-9")),
        compare("s", other["s"], plain["s"], near * 1.0, rung="accept_set", clauses=("LIF-2", "LIF-10")),
    ]


def _even(bench: Bench, example: Example) -> list[Finding]:
    """Surrogates are even: on both sides of the threshold, near it and far from it, gradients are the same to the bit."""
    row, material, precision = _prepare(bench, example)
    if precision.activations == "bfloat16":
        return []  # its 8 bits leave no room beside a threshold
    z = _gridded(material.inputs["u"], 8192.0)
    threshold = 2.0 ** round(math.log2(material.config.threshold))  # to which they can be added without rounding
    config = msgspec.structs.replace(material.config, threshold=threshold)
    above, below = (answer(bench.session, row, config, {"u": threshold + side}, material.cotangents) for side in (z, -z))
    name = "gradient of u"
    return [compare(name, below[name], above[name], 0.0, rung="property", clauses=row.clauses)]


# --- shifts that cancel ------------------------------------------------------------------------------


def _gridded(values: Values, limit: float) -> Values:
    """Multiples of 1/16 up to a limit: a power of two can be added to them without rounding."""
    return np.asarray(np.clip(np.round(values * 16.0) / 16.0, -limit, limit))


def _shifted_norm(bench: Bench, example: Example) -> list[Finding]:
    """Values far from 0 are normalized as the same values near 0, gradients included: variances don't cancel."""
    row, material, precision = _prepare(bench, example)
    if precision.activations == "bfloat16":
        return []  # its 8 bits leave no room for a shift
    shift = 2.0**24 if precision.storage == "float64" else 2.0**9
    plain = material.inputs | {"x": _gridded(material.inputs["x"], 32.0)}
    moved = plain | {"x": plain["x"] + shift}
    arguments = [(row, precision, material.config, inputs, material.cotangents) for inputs in (plain, moved)]
    near, far = (_bounds(*a) for a in arguments)
    first, second = (answer(bench.session, row, material.config, inputs, material.cotangents) for inputs in (plain, moved))
    names = [k for k in first if k != "mean"]
    return [compare(k, second[k], first[k], near[k] + far[k], rung="bound", clauses=row.clauses) for k in names]


def _shifted_logits(bench: Bench, example: Example) -> list[Finding]:
    """Logits that are all larger by some power of two give the same loss and gradients: no exponential of them overflows.

    An implementation may subtract max + log(sum) at once, so that each log probability is off by the roundings of a
    product and a sum of the shift over the temperature; sums of p log q move by that times 1 + |log q|. So the shift is
    the least that sees an overflow. Where all logits are equal, gradients cancel and rounding is all there is.
    """
    row, material, precision = _prepare(bench, example)
    if precision.activations == "bfloat16" or example.family == "constant":
        return []  # 8 bits leave no room for a shift
    limit, unit, tau = 8.0, roundoff_of(precision), getattr(material.config, "temperature", 1.0)
    overflow = math.log(np.finfo(precision.storage).max)
    shift = 2.0 ** math.ceil(math.log2(limit + tau * overflow))
    names = [k for k, v in material.inputs.items() if v.dtype.kind == "f"]
    plain = material.inputs | {k: _gridded(material.inputs[k], limit) for k in names}
    moved = plain | {k: plain[k] + shift for k in names}
    steep = max(1.0, 1.0 / tau)
    surprise = 2.0 * limit * steep + np.log(plain[names[0]].shape[-1])
    near, far = (_bounds(row, precision, material.config, inputs, material.cotangents) for inputs in (plain, moved))
    own = 4.0 * (PRODUCT + SUM) * unit * shift * steep * (1.0 + surprise) * steep * abs(float(material.cotangents["loss"]))
    first, second = (answer(bench.session, row, material.config, inputs, material.cotangents) for inputs in (plain, moved))
    detached = {k for k, bound in near.items() if not np.any(bound)}
    return [
        compare(k, second[k], first[k], near[k] + far[k] + (0.0 if k in detached else own), rung="bound", clauses=row.clauses)
        for k in first
    ]


def _samples(bench: Bench, example: Example) -> list[Finding]:
    """In evaluation a batch gives what its samples give one by one, gradients included."""
    row, material, precision = _prepare(bench, example)
    x, g = material.inputs["x"], material.cotangents["y"]
    bound = _bounds(row, precision, material.config, material.inputs, material.cotangents)
    whole = answer(bench.session, row, material.config, material.inputs, material.cotangents)
    one = [(material.inputs | {"x": x[:, [i]]}, {"y": g[:, [i]]}) for i in range(x.shape[1])]
    parts = [answer(bench.session, row, material.config, inputs, cotangents) for inputs, cotangents in one]
    return [
        compare(k, np.concatenate([p[k] for p in parts], axis=1), whole[k], 2.0 * bound[k], rung="bound", clauses=row.clauses)
        for k in ("y", "gradient of x")
    ]


# --- decompositions ----------------------------------------------------------------------------------


def _left_out(bench: Bench, example: Example) -> list[Finding]:
    """Factors keep the largest part: squares of sigma and of what is left out add up, and what is left out is the smaller.

    With e = p u |A| the error of each sigma and of the residual, the sum is off by 4 sqrt(r) e |A| (Frobenius)
    and as much again for second order and the products here; the residual's norm by 2 sqrt(r) e.
    """
    row, material, precision = _prepare(bench, example)
    f: Factorization = material.config
    out = answer(bench.session, row, f, material.inputs, {})
    u, sigma, v = (np.asarray(out[k], np.float64) for k in ("U", "sigma", "V"))
    a = fac.matricize(f, material.inputs["kernel"])
    full, rank = min(a.shape[-2:]), sigma.shape[-1]
    e = backward_error(a, roundoff_of(precision)) + TINY[roundoff_of(precision)] * a.shape[-1] * a.shape[-2]
    size = (a**2).sum(axis=(-2, -1))
    rest = a - (u * sigma[..., None, :]) @ v
    kept, slack = (sigma**2).sum(axis=-1), 8.0 * np.sqrt(rank) * e * (np.sqrt(size) + np.sqrt(rank) * e)
    beyond = np.maximum(np.linalg.norm(rest, 2, axis=(-2, -1)) - sigma[..., -1], 0.0)
    steps = np.minimum(np.diff(-sigma, prepend=-np.inf, axis=-1), 0.0)
    found = [
        compare(name, got, want, bound, rung="certificate", clauses=("FAC-3",))
        for name, got, want, bound in (
            ("squares of sigma and of the rest", kept + (rest**2).sum(axis=(-2, -1)), size, slack),
            ("norm of the rest beyond the least sigma", beyond, np.zeros_like(beyond), 4.0 * np.sqrt(rank) * e),
            ("sigma >= 0", np.minimum(sigma, 0.0), np.zeros_like(sigma), 0.0),
            ("sigma descending", steps, np.zeros_like(steps), 0.0),
        )
    ]
    if isinstance(f.rank, float):
        missing = np.maximum(f.rank * size - kept, 0.0)
        spare = np.maximum((kept - sigma[..., -1] ** 2 - f.rank * size), 0.0)
        found.append(compare("energy short of", missing, np.zeros_like(missing), slack, rung="certificate", clauses=("FAC-5",)))
        least = int(np.argmin(spare - slack))
        excess, room = spare.ravel()[least], slack.ravel()[least]
        found.append(compare("energy with a rank less", excess, 0.0, room, rung="certificate", clauses=("FAC-5",)))
    else:
        want = full if f.rank == "full" else min(int(f.rank), full)
        found.append(compare("rank", float(rank), float(want), 0.0, rung="certificate", clauses=("FAC-5",)))
    return found


def _known(bench: Bench, example: Example) -> list[Finding]:
    """Retraction finds Q again in Q S, for S symmetric positive, and in Q R, for R upper triangular, positive diagonal."""
    row, material, precision = _prepare(bench, example)
    config: Retract = material.config
    rng = np.random.Generator(np.random.Philox(example.seed))
    inputs: Named = {}
    want: Named = {}
    for name in ("U", "V"):
        drifted = material.inputs[name] if name == "U" else material.inputs[name].swapaxes(-2, -1)
        left, _, right = np.linalg.svd(drifted, full_matrices=False)
        q = left @ right
        noise = rng.standard_normal((*q.shape[:-2], q.shape[-1], q.shape[-1]))
        square = noise @ noise.swapaxes(-2, -1)
        stretched = np.eye(q.shape[-1]) + 0.5 * square / np.linalg.norm(square, 2, axis=(-2, -1))[..., None, None]
        triangular = np.triu(0.25 * noise, 1) + np.eye(q.shape[-1]) * rng.uniform(0.5, 2.0, (*q.shape[:-1][:-1], 1, q.shape[-1]))
        a = rounded(q @ (stretched if config.by == "polar" else triangular), precision.activations)
        error = np.linalg.norm(a - q @ (stretched if config.by == "polar" else triangular), axis=(-2, -1))
        inputs[name] = a if name == "U" else a.swapaxes(-2, -1)
        want[name] = q if name == "U" else q.swapaxes(-2, -1)
        want[f"bound of {name}"] = moved_by(config.by, a, error, roundoff_of(precision))
    got = answer(bench.session, row, config, inputs, {})
    return [
        compare(k, got[k], want[k], want[f"bound of {k}"], rung="certificate", clauses=("ORT-3",))
        for k in ("U", "V")
    ]  # fmt: skip


_LAWS: tuple[tuple[str, str, Callable[[Bench, Example], list[Finding]], float], ...] = (
    ("even", "spike", _even, 1.0),
    ("rates", "optimizer_step", _rates, 1.0),
    ("rescaled", "batch_norm_train", _scaled_norm, 0.5),
    ("rescaled", "batch_norm_eval", _scaled_norm, 0.5),
    ("rescaled", "optimizer_step", _scaled_optimizer, 1.0),
    ("shifted", "batch_norm_train", _shifted_norm, 0.5),
    ("shifted", "cross_entropy", _shifted_logits, 1.0),
    ("shifted", "distillation", _shifted_logits, 0.5),
    ("samples", "batch_norm_eval", _samples, 0.5),
    ("left_out", "factorize", _left_out, 1.0),
    ("known", "retract", _known, 1.0),
)


def _check(kind: str, operation: str, run: Callable[[Bench, Example], list[Finding]], weight: float) -> Check:
    space = space_of(operation, False)
    if space is None:
        raise AssertionError(f"{operation} has no such lane")
    return Check(
        id=f"{kind}[{operation}]",
        sentence=str(run.__doc__).split("\n\n", maxsplit=1)[0],
        clauses=OPERATIONS[operation].clauses,
        rung="property",
        needs=frozenset({operation}),
        space=space,
        run=run,
        weight=weight,
    )


def _given_check() -> Check:
    """Of the one bucket of one step, with every config that has constants alone."""
    check = _check("given", "lif", _given, 1.0)
    buckets = tuple(sizes for sizes in check.space.buckets if sizes["T"] == 1)
    configs = tuple(c for c in check.space.configs if (c["decay_scope"], c["threshold_scope"]) == ("constant", "constant"))
    return msgspec.structs.replace(check, space=msgspec.structs.replace(check.space, buckets=buckets, configs=configs))


CHECKS: tuple[Check, ...] = (
    *(_check(*law) for law in _LAWS),
    _given_check(),
    large_check("left_out[factorize-large", "factorize", _left_out),
    large_check("known[retract-large", "retract", _known),
)
