"""A real training step against the clauses: the trace of its batch layer by layer, then the step against its trace.

Every layer, gradient and parameter's gradient of the trace is judged from the backend's own values beside it (`networks`),
so no bound grows with depth. What the step reported and made is judged from the trace: the two are two passes, which may
round apart by `again.room`. Where that has turned a spike, what depends on the spiking twin's pass is left open and counted.
Nothing here needs more than NumPy and msgspec beside the specification.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.config import TWINS
from twinspike.judge import Step, Verdict
from twinspike.network import Norm
from twinspike.parameters import layer_and_part, layout
from twinspike.precision import PRECISIONS
from twinspike_conformance.bounds.finding import Finding, compare, holds
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.judges import again, networks, sampled
from twinspike_conformance.judges.ends import (
    depths,
    ends_of_another_pass,
    hits,
    of_another_pass,
    path,
    penalty_gradient,
    reported_terms,
    seeds,
)
from twinspike_conformance.judges.operations import roundoff_of
from twinspike_conformance.judges.updates import update
from twinspike_conformance.judges.variant import tracked

Values = NDArray[Any]

LARGE = 2**22
"""Numbers in a trace beyond which a sample of it is judged."""


def judge(step: Step, *, sample: int, seed: int) -> Verdict:
    """As `twinspike.judge.Judge` says."""
    precision = PRECISIONS[step.precision]
    unit, trace = roundoff_of(precision), {name: dict(tap) for name, tap in step.trace.items()}
    t = networks.Taps(step.network, step.method, precision, unit, step.before, step.images, True, trace, step.replicas)
    tally = _Tally()
    with np.errstate(all="ignore"):  # what overflows is told by the comparison that it spoils
        tally.take(_judged(step, t, sample, seed))
    return tally.verdict()


class _Tally:
    """Counts findings until one is wrong."""

    def __init__(self) -> None:
        self.comparisons, self.worst, self.at, self.open = 0, 0.0, "nothing", 0
        self.failure: str | None = None

    def take(self, findings: Iterable[Finding | None]) -> None:
        """Findings in the order of the data; None for one that is left open."""
        for finding in findings:
            if finding is None:
                self.open += 1
                continue
            self.comparisons += 1
            if finding.rung not in ("accept_set", "property") and finding.ratio > self.worst:
                self.worst, self.at = float(finding.ratio), finding.quantity
            if not finding.ok:
                self.failure = f"{finding.sentence()}; clauses {', '.join(finding.clauses)}"
                return

    def verdict(self) -> Verdict:
        """What was counted."""
        return Verdict(comparisons=self.comparisons, worst=self.worst, at=self.at, open=self.open, failure=self.failure)


def _judged(step: Step, t: networks.Taps, sample: int, seed: int) -> Iterator[Finding | None]:
    yield from _names(step)
    size = sum(np.size(value) for tap in step.trace.values() for value in tap.values())
    if sample == 0 or size <= LARGE:
        yield from networks.forward(t)
        yield from networks.backward(t, seeds(t, step.labels))
        channels = None
    else:
        channels = sampled.Draw(np.random.default_rng(seed), sample)
        yield from sampled.forward(t, channels)
        yield from sampled.backward(t, seeds(t, step.labels), channels)
    turned = yield from _spikes(step, t)
    yield from _reported(step, t, turned)
    yield from _statistics(step, t, turned, channels)
    yield from update(
        step.network, step.method, step.optimizer, step.before, step.after, step.learning_rate, _gradients(t, turned)
    )  # fmt: skip


def _names(step: Step) -> Iterator[Finding]:
    """Every trained entry has a gradient in the trace, and the state keeps its names."""
    wanted = {entry.name for entry in layout(step.network, step.method, step.optimizer) if entry.trained}
    traced = {f"{layer}.{key[2:]}" for layer, tap in step.trace.items() for key in tap if key.startswith("d_")}
    for what, names, right in (("gradients", traced, wanted), ("entries of the state", set(step.after), set(step.before))):
        yield holds(
            f"names of {what}", names == right, got=str(sorted(names ^ right)), want="none amiss", clauses=("FAC-7", "PRE-4")
        )


def _spikes(step: Step, t: networks.Taps) -> Generator[Finding, None, bool]:
    """The step's rate of spikes is that of its trace, but for neurons so near to firing that a pass may turn them.

    Returns whether any was turned.
    """
    taps = [step.trace[name] for name in step.network.activations]
    size = sum(np.size(tap["snn"]) for tap in taps)
    count = sum(np.count_nonzero(tap["snn"]) for tap in taps)
    rounding = (4 * len(taps) + 1) * PRECISIONS[step.precision].roundoff * count
    got = step.metrics["spike_rate"] * size
    turned = bool(abs(got - count) > rounding + 0.5)
    room = 0
    if turned:
        near = again.room(t)
        for name, tap in zip(step.network.activations, taps, strict=True):
            u = np.asarray(tap["u"], np.float64)
            threshold = np.asarray(step.before.get(f"{name}.threshold", step.method.neuron.threshold), np.float64)
            threshold = threshold.reshape(-1, *(1,) * (u.ndim - 3)) if threshold.ndim else threshold
            room += int((np.abs(u - threshold) <= near * np.abs(u).max(initial=0.0)).sum())
    yield compare("spikes of the step", got, count, rounding + 0.5 + room, rung="accept_set", clauses=("LIF-2",))
    return turned


def _reported(step: Step, t: networks.Taps, turned: bool) -> Iterator[Finding | None]:
    """Loss, its terms and the hits that the step reported."""
    ends = ends_of_another_pass(t)
    for name, right in reported_terms(t, ends, step.labels).items():
        if turned and name not in ("cross_entropy_ann", "penalty"):
            yield None
            continue
        clauses = ("DIS-1", "DIS-4", "DIS-8", "ORT-2")
        yield compare(f"{name} of the step", step.metrics[name], right.value, right.error, rung="bound", clauses=clauses)
    reduced = tracked()["layers"].readout(t.lift(t.output("snn", t.network.exits[-1].head)), t.method.readout)
    main = {"ann": ends.logits_ann[-1], "snn": of_another_pass(t, reduced)}
    for twin in TWINS:
        if turned and twin == "snn":
            yield None
            continue
        counted = hits(step.metrics[f"correct_{twin}"], twin, main[twin], step.labels)
        yield msgspec.structs.replace(counted, rung="accept_set")  # whole numbers: how near says nothing


def _statistics(step: Step, t: networks.Taps, turned: bool, draw: sampled.Draw | None) -> Iterator[Finding | None]:
    """Running statistics after the step, from the inputs that the trace has of each norm."""
    deep = depths(t.network)
    for layer in t.network.layers:
        for twin in TWINS if isinstance(layer, Norm) else ():
            if turned and twin == "snn":
                yield None
                continue
            names = [f"{layer.name}.{quantity}_{twin}" for quantity in ("gamma", "beta", "mean", "var")]
            near = path(deep[layer.name] + (t.method.time_steps if twin == "snn" else 0), t.precision)
            size = len(step.before[names[0]])
            kept = np.arange(size) if draw is None else draw.channels(size)
            own = t if draw is None else sampled.of_channels(t, layer, kept)
            x = own.operand(twin, layer.input)
            largest = np.abs(x.value).max(initial=0.0)
            x = x._view(x.value, x.error + near * largest)
            arrays = [t.lift(np.asarray(step.before[name], np.float64)[kept]) for name in names]
            want = tracked()["replicas"].batch_norm_train(t.method.batch_norm, x, *arrays, replicas=t.replicas)
            for name, right in ((names[2], want.mean), (names[3], want.var)):
                got, clauses = step.after[name][kept], ("BN-2", "BN-3", "BN-4", "BN-6")
                yield compare(name, got, right.value, right.error, rung="bound", clauses=clauses)


def _gradients(t: networks.Taps, turned: bool) -> dict[str, Tracked]:
    """The gradients that the step may have taken: the trace's, with what another pass may be off by; the ones it may not
    be held against are left out."""
    spread, found = again.spread(t), {}
    for layer, tap in t.trace.items():
        for part in (key[2:] for key in tap if key.startswith("d_")):
            if turned and not part.endswith("_ann"):
                continue
            name = f"{layer}.{part}"
            own = t.lift(np.asarray(tap[f"d_{part}"], np.float64))
            own = own._view(own.value, np.zeros_like(own.value) + spread.get(name, 0.0))
            if layer_and_part(name)[1] in ("U", "V"):
                own = own + penalty_gradient(t, layer, part)
            found[name] = own
    return found
