"""Running statistics after a training step, whose pass over the network need not round as that of the trace did."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Session
from twinspike.config import TWINS, BatchNorm
from twinspike.network import INPUT, Activation, Network, Norm, inputs_of
from twinspike.setting import Setting
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.cases.base import Example
from twinspike_conformance.checks.base import Bench
from twinspike_conformance.checks.programs import opened, taps_of
from twinspike_conformance.judges import networks as taps
from twinspike_conformance.judges.ends import depths, ends_of, path, terms_of
from twinspike_conformance.judges.variant import tracked

Values = NDArray[Any]

CLAUSES = ("BN-2", "BN-3", "BN-4", "BN-6")


def statistics(bench: Bench, example: Example) -> list[Finding]:
    """Running statistics after a training step follow from the backend's own inputs to each norm.

    The step's pass may round otherwise than the trace's, so the inputs are taken as what is computed a second time, by the
    longest path to them. In bfloat16 that is too wide to tell much: there a step whose loss is that of the trace, term by
    term, has handed on the same values but for a few that the loss does not see. Behind neurons a statistic is judged only if
    the step counts as many spikes as the trace, since no bound follows a spike that rounding turns.

    What remains of the statistics from before the step depends on no pass at all: the ends of two steps from different
    statistics, the same in all else, tell it in every precision.
    """
    s, program, state = opened(bench, example)
    t = taps_of(bench, s, program, state, training=True, labels=True)
    state, metrics = program.train_step(state, s.images[0], s.labels[0], 0.125)
    after, elsewhere = program.dump(state), s.state | _elsewhere(s, t.precision.storage)
    state, _ = program.train_step(program.load(elsewhere), s.images[0], s.labels[0], 0.125)
    beside = program.dump(state)
    traced, spikes = _as_traced(t, metrics, s.labels[0], bench.session), _spikes_as_traced(t, bench.session, metrics)
    deep, behind = depths(s.network), _behind_neurons(s.network)
    found = []
    for layer in s.network.layers:
        for twin in TWINS if isinstance(layer, Norm) else ():
            names = [f"{layer.name}.{q}_{twin}" for q in ("gamma", "beta", "mean", "var")]
            x, arrays = t.operand(twin, layer.input), [t.lift(np.asarray(s.state[n], np.float64)) for n in names]
            for name, kept in zip(names[2:], _kept(s.method.batch_norm, x, arrays[2:], elsewhere, names[2:]), strict=True):
                got = np.asarray(after[name], np.float64) - np.asarray(beside[name], np.float64)
                found.append(compare(f"{name}, share kept", got, kept.value, kept.error, rung="bound", clauses=CLAUSES))
            if twin == "snn" and layer.name in behind and not spikes:
                continue
            n = deep[layer.name] + (s.method.time_steps if twin == "snn" else 0)
            near = path(n, t.precision, cast=not traced)
            x = x._view(x.value, x.error + near * np.abs(x.value).max())
            want = tracked()["replicas"].batch_norm_train(s.method.batch_norm, x, *arrays, replicas=bench.replicas)
            turned = _turned(s.method.batch_norm, x.value, near, t.cast) if traced and t.cast else (0.0, 0.0)
            for name, right, more in ((names[2], want.mean, turned[0]), (names[3], want.var, turned[1])):
                found.append(compare(name, after[name], right.value, right.error + more, rung="bound", clauses=CLAUSES))
    return found


def _turned(norm: BatchNorm, x: Values, near: float, half: float) -> tuple[Values, Values]:
    """How far running mean and variance may be off where float32 differences turn the rounding of values to bfloat16.

    A difference of `near` the value carries it over the middle between two numbers, 2 `half` of it apart, with probability
    p = near/half, and a ReLU may hide that from the loss. Of N values no more than pN + 6 sqrt(pN) + 6 are turned
    (Bernstein's inequality, as sure as 6 standard deviations), each by one step: those that count most, at worst.
    """
    mean = var = np.zeros(x.shape[2])
    for part in (x,) if norm.time == "folded" else x[:, None]:
        values = np.moveaxis(part, 2, 0).reshape(x.shape[2], -1)
        count = values.shape[1]
        likely = count * min(1.0, near / half)
        most = min(count, math.ceil(likely + 6 * math.sqrt(likely) + 6))
        step = 2 * half * np.abs(values)
        moved = step * (2 * np.abs(values - values.mean(axis=1, keepdims=True)) + step)
        off_mean, off_var = (np.sort(a, axis=1)[:, -most:].sum(axis=1) / (count - 1) for a in (step, moved))
        mean = (1.0 - norm.momentum) * mean + norm.momentum * off_mean
        var = (1.0 - norm.momentum) * var + norm.momentum * off_var
    return mean, var


def _elsewhere(s: Setting, form: str) -> dict[str, Values]:
    """Other running statistics: means moved by a standard deviation, variances doubled."""
    moved: dict[str, Values] = {}
    for layer in s.network.layers:
        for twin in TWINS if isinstance(layer, Norm) else ():
            mean, var = (f"{layer.name}.{q}_{twin}" for q in ("mean", "var"))
            moved[mean] = np.asarray(s.state[mean] + np.sqrt(s.state[var]), form).astype(np.float64)
            moved[var] = np.asarray(2 * s.state[var], form).astype(np.float64)
    return moved


def _kept(norm: BatchNorm, x: Tracked, before: list[Tracked], elsewhere: Any, names: list[str]) -> list[Tracked]:
    """What is left of the difference of two running means, and variances, after a step (BN-2 to BN-4).

    The batch's own statistics, the same in both, are taken as exact: they are lost in the difference, and their sizes alone
    say how much is rounded.
    """
    steps = [x.value] if norm.time == "folded" else list(x.value[:, None])
    axes = (0, 1, *range(3, x.ndim))
    new = [(part.mean(axis=axes), part.var(axis=axes, ddof=1)) for part in steps]
    found = []
    for i, (start, name) in enumerate(zip(before, names, strict=True)):
        ends = [start, start._view(elsewhere[name], np.zeros_like(start.value))]
        for batch in new:
            moved = norm.momentum * start._view(batch[i], np.zeros_like(start.value))
            ends = [(1.0 - norm.momentum) * end + moved for end in ends]
        found.append(ends[0]._view(ends[0].value - ends[1].value, ends[0].error + ends[1].error))
    return found


def _as_traced(t: taps.Taps, metrics: Any, labels: Values, session: Session) -> bool:
    """Whether the terms of a step's loss are those that follow from the trace."""
    terms = terms_of(t, ends_of(t), labels)
    return all(
        abs(float(session.to_numpy(getattr(metrics, name))) - float(terms[name].value)) <= float(terms[name].error)
        for name in ("cross_entropy_ann", "cross_entropy_snn", "distillation", "feature")
    )


def _spikes_as_traced(t: taps.Taps, session: Session, metrics: Any) -> bool:
    """Whether a step's rate of spikes is that of the trace, to less than half a spike."""
    rate = float(session.to_numpy(metrics.spike_rate))
    spikes = [np.asarray(t.trace[name]["snn"], np.float64) for name in t.network.activations]
    return abs(rate * sum(a.size for a in spikes) - sum(float(a.sum()) for a in spikes)) < 0.5


def _behind_neurons(network: Network) -> set[str]:
    """Layers with an activation between them and the network's input."""
    found: set[str] = set()
    for layer in network.layers:
        if any(name in found or (name != INPUT and isinstance(network.layer(name), Activation)) for name in inputs_of(layer)):
            found.add(layer.name)
    return found
