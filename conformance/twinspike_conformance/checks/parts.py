"""What a large whole is made of: losses of exits and steps, steps of a norm, samples said twice, steps of an optimizer.

No reference is needed to know how parts make a whole; it lends the bounds alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.config import (
    SGD,
    Adam,
    BatchNorm,
    Exit,
    Optimizer,
    distillation_pairs,
    pair_weights,
    supervised,
    supervised_weights,
)
from twinspike.operations import OPERATIONS, Nothing
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.cases import Example
from twinspike_conformance.cases.families import rounded
from twinspike_conformance.checks.base import Bench, Check, answer
from twinspike_conformance.checks.sizes import large_check, prepare
from twinspike_conformance.judges.operations import allowed

Values = NDArray[Any]


# --- sums of parts -----------------------------------------------------------------------------------


def _shares(bench: Bench, example: Example) -> list[Finding]:
    """The parts of the joint loss are weighted sums of cross entropies, squares, distillations and feature terms.

    Each is of a single exit and step.
    """
    row, material, precision = prepare(bench, example)
    loss, x = material.config, material.inputs
    whole = answer(bench.session, row, loss, x, material.cotangents)
    right = allowed(row, loss, x, material.cotangents, precision)
    slices, exits = x["logits_snn"].shape[:2]

    learning, weights = supervised(loss, exits), supervised_weights(loss, exits)

    def one(operation: str, config: Any, **inputs: Values) -> tuple[float, float]:
        part = OPERATIONS[operation]
        given = {name: bench.session.from_numpy(value) for name, value in inputs.items()}
        value = bench.session.to_numpy(bench.session.forward(operation, config, given)["loss"])
        return float(value), float(allowed(part, config, inputs, {"loss": np.ones(())}, precision)["loss"].bound)

    def logits(end: Exit, s: int) -> Values:
        values: Values = x["logits_ann"][end.number - 1] if end.twin == "ann" else x["logits_snn"][s, end.number - 1]
        return values

    def taught(end: Exit, s: int) -> Values:
        if end.twin == "ann" or loss.teacher_time == "step":
            return logits(end, s)
        every: Values = x["logits_snn"][:, end.number - 1]
        return np.asarray(every.sum(axis=0) if loss.teacher_time == "sum" else every.mean(axis=0))

    def times(factor: float, terms: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(factor * value, factor * bound) for value, bound in terms]

    def entropies(logits: Values) -> list[tuple[float, float]]:
        """The cross entropy of an exit; with smoothed labels a share of it, and of those of every class as the label."""
        spread, classes, label = loss.label_smoothing, logits.shape[-1], x["labels"]
        sharp = one("cross_entropy", Nothing(), logits=logits, labels=label)
        if spread == 0:
            return [sharp]
        each = [one("cross_entropy", Nothing(), logits=logits, labels=np.full_like(label, k)) for k in range(classes)]
        return times(1.0 - spread, [sharp]) + times(spread / classes, each)

    def spiking(logits: Values) -> list[tuple[float, float]]:
        """What labels say of the spiking twin: a share of it draws logits to a constant."""
        share = loss.mse_weight
        square = float(((logits - loss.mse_target) ** 2).mean())
        return times(1.0 - share, entropies(logits)) + ([(share * square, 0.0)] if share else [])

    parts = {
        "cross_entropy_ann": [
            part
            for i, weight in zip(learning["ann"], weights["ann"], strict=True)
            for part in times(weight, entropies(x["logits_ann"][i]))
        ],
        "cross_entropy_snn": [
            part
            for z in x["logits_snn"]
            for i, weight in zip(learning["snn"], weights["snn"], strict=True)
            for part in times(weight, spiking(z[i]))
        ],
        "distillation": [
            part
            for (student, teacher), weight in zip(distillation_pairs(loss, exits), pair_weights(loss, exits), strict=True)
            for s in range(slices)
            for part in times(weight, [one("distillation", loss, student=logits(student, s), teacher=taught(teacher, s))])
        ],
        "feature": [one("feature_loss", loss, snn=h, ann=f) for h, f in zip(x["features_snn"], x["features_ann"], strict=True)],
    }
    scales = {"cross_entropy_snn": 1.0 / slices, "distillation": loss.temperature**2 / slices}
    # squares and teachers of all steps are made here, where they round no worse than the whole may
    own = 2.0 if loss.mse_weight or loss.teacher_time != "step" else 1.0
    found = []
    for name, terms in parts.items():
        value, bound = (scales.get(name, 1.0) * sum(term[i] for term in terms) for i in range(2))
        found.append(compare(name, whole[name], value, bound + own * right[name].bound, rung="bound", clauses=row.clauses))
    return found


def _steps(bench: Bench, example: Example) -> list[Finding]:
    """Steps that are normalized by themselves give together what they give one after the other, running statistics included."""
    row, material, precision = prepare(bench, example)
    x, g = material.inputs["x"], material.cotangents["y"]
    whole = answer(bench.session, row, material.config, material.inputs, material.cotangents)
    right = allowed(row, material.config, material.inputs, material.cotangents, precision)
    inputs, parts = dict(material.inputs), []
    for t in range(len(x)):
        parts.append(answer(bench.session, row, material.config, inputs | {"x": x[t : t + 1]}, {"y": g[t : t + 1]}))
        inputs |= {name: parts[-1][name] for name in ("mean", "var")}
    want = {name: np.concatenate([part[name] for part in parts]) for name in ("y", "gradient of x")}
    want |= {name: parts[-1][name] for name in ("mean", "var")}
    want |= {name: np.sum([part[name] for part in parts], axis=0) for name in ("gradient of gamma", "gradient of beta")}
    return [compare(k, whole[k], want[k], 2.0 * right[k].bound, rung="bound", clauses=row.clauses) for k in want]


def _twice(bench: Bench, example: Example) -> list[Finding]:
    """A batch that holds every sample twice is normalized as the batch; its running variance alone knows how many there are."""
    row, material, precision = prepare(bench, example)
    config, x = material.config, material.inputs["x"]
    inputs = material.inputs | {"x": np.concatenate([x, x], axis=1)}
    cotangents = {"y": np.concatenate([material.cotangents["y"]] * 2, axis=1)}
    once = answer(bench.session, row, config, material.inputs, material.cotangents)
    both = answer(bench.session, row, config, inputs, cotangents)
    near, far = (
        allowed(row, config, given, g, precision) for given, g in ((material.inputs, material.cotangents), (inputs, cotangents))
    )
    updates = len(x) if config.time == "per_step" else 1
    n = x.size // x.shape[2] // updates
    kept = (1.0 - config.momentum) ** updates * material.inputs["var"]
    share = (2 * n) * (n - 1) / ((2 * n - 1) * n)  # of the two corrections, n/(n - 1) each
    found = []
    for k, first in once.items():
        want, bound = first.astype(np.float64), near[k].bound
        if k in ("y", "gradient of x"):
            want, bound = (np.concatenate([a, a], axis=1) for a in (want, bound))
        elif k in ("gradient of gamma", "gradient of beta"):
            want, bound = 2.0 * want, 2.0 * bound
        elif k == "var":
            want = kept + (want - kept) * share
        found.append(compare(f"{k} of a doubled batch", both[k], want, bound + far[k].bound, rung="bound", clauses=row.clauses))
    return found


def _mean(bench: Bench, example: Example) -> list[Finding]:
    """A loss is a mean over the batch: of every sample twice it is the same, and each of the two has half the gradient."""
    row, material, precision = prepare(bench, example)
    inputs = {name: np.concatenate([value, value]) for name, value in material.inputs.items()}
    once, both = (answer(bench.session, row, material.config, x, material.cotangents) for x in (material.inputs, inputs))
    near, far = (allowed(row, material.config, x, material.cotangents, precision) for x in (material.inputs, inputs))
    found = []
    for k, first in once.items():
        want, bound = first.astype(np.float64), near[k].bound
        if k != "loss":
            want, bound = (np.concatenate([a, a]) / 2.0 for a in (want, bound))
        found.append(compare(f"{k} of a doubled batch", both[k], want, bound + far[k].bound, rung="bound", clauses=row.clauses))
    return found


# --- steps that are all alike ------------------------------------------------------------------------


def _steady(bench: Bench, example: Example) -> list[Finding]:
    """Under one gradient at all steps a corrected moment is that gradient, so that a step moves as the first one does.

    Its moments are rounded on the way in: m by a unit of the move, the root of v by half of one.
    """
    row, material, precision = prepare(bench, example)
    config, given = material.config, material.inputs
    before = int(given["step"]) - 1
    g = given["g"] + (config.weight_decay if isinstance(config, Adam) else 0.0) * given["p"]
    moments = {"m": (1.0 - config.beta1**before) * g, "v": (1.0 - config.beta2**before) * g**2}
    late = given | {name: rounded(value, precision.storage) for name, value in moments.items()}
    first = given | {"m": np.zeros_like(g), "v": np.zeros_like(g), "step": np.asarray(1)}
    ends = [answer(bench.session, row, config, inputs, {})["p"] for inputs in (late, first)]
    bounds = [allowed(row, config, inputs, {}, precision)["p"].bound for inputs in (late, first)]
    move = given["lr"] * np.abs(g) / (np.abs(g) + config.eps)
    bound = sum(bounds) + 2.0 * precision.roundoff * move
    return [compare("p under a steady gradient", ends[0], ends[1], bound, rung="bound", clauses=("OPT-5", "OPT-6", "OPT-7"))]


def _by_steps(config: BatchNorm) -> bool:
    return config.time == "per_step"


def _by_moments(config: Optimizer) -> bool:
    return not isinstance(config, SGD)


CHECKS: tuple[Check, ...] = (
    large_check("shares", "joint_loss", _shares, needs="cross_entropy distillation feature_loss", weight=0.5),
    large_check(
        "steps", "batch_norm_train", _steps, weight=0.75, families=("normal", "heavy", "near_constant"), wanted=_by_steps
    ),
    large_check("twice", "batch_norm_train", _twice, weight=0.5),
    large_check("twice", "cross_entropy", _mean),
    large_check("twice", "distillation", _mean),
    large_check("steady", "optimizer_step", _steady, wanted=_by_moments),
)
