"""What checks of whole networks share: a program opened on an example, its taps, what the loss sees, predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Program
from twinspike.config import Twin
from twinspike.network import INPUT, Network, inputs_of
from twinspike.parameters import STEP
from twinspike.precision import PRECISIONS, Precision
from twinspike.setting import Setting
from twinspike_conformance.bounds.finding import Finding, compare, holds
from twinspike_conformance.bounds.tracked import Tracked, stack
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.networks import setting
from twinspike_conformance.checks.base import Bench
from twinspike_conformance.judges import networks as taps
from twinspike_conformance.judges.operations import roundoff_of
from twinspike_conformance.judges.variant import tracked

Values = NDArray[Any]


def opened(bench: Bench, example: Example | Setting, batches: int = 1) -> tuple[Setting, Program, Any]:
    """The example's numbers, unless they are given themselves, a program for it, and its loaded state."""
    form = PRECISIONS[bench.session.precision].storage
    s = example if isinstance(example, Setting) else setting(example, form, batches)
    program = bench.session.program(s.network, s.method, s.optimizer)
    return s, program, program.load(s.state)


def taps_of(bench: Bench, s: Setting, program: Program, state: Any, *, training: bool, labels: bool = False) -> taps.Taps:
    """The program's trace of the first batch, with gradients if asked for.

    Checks that ask the program for gradients besides take those of the trace too, though they read none: a compiler then
    has one trace less to translate.
    """
    precision = PRECISIONS[bench.session.precision]
    trace = program.trace(state, s.images[0], training=training, labels=s.labels[0] if labels else None)
    return taps.Taps(
        s.network, s.method, precision, roundoff_of(precision), s.state, s.images[0], training, trace, bench.replicas
    )


class Ends(msgspec.Struct):
    """What the loss sees, from the backend's own taps."""

    logits_ann: Tracked
    logits_snn: Tracked
    features_ann: Tracked
    features_snn: Tracked


def ends_of(t: taps.Taps) -> Ends:
    """What the loss sees, with the bounds of the readout's own roundings."""
    readout = tracked()["layers"].readout

    def gather(twin: Twin, end: str) -> list[Tracked]:
        return [t.lift(t.output(twin, getattr(exit_, end))) for exit_ in t.network.exits]

    reduced = [readout(z, t.method.readout) for z in gather("snn", "head")]
    per_step = t.method.loss.per_step
    steps = [stack([z[i] for z in gather("snn", "head")]) for i in range(t.method.time_steps)] if per_step else []
    return Ends(
        logits_ann=stack([a[0] for a in gather("ann", "head")]),
        logits_snn=stack(steps) if per_step else stack(reduced)[None],
        features_ann=stack([f[0] for f in gather("ann", "feature")]),
        features_snn=stack([readout(h, t.method.readout) for h in gather("snn", "feature")]),
    )


def counts(bench: Bench, t: taps.Taps, metrics: Any, ends: Ends, labels: Values) -> list[Finding]:
    """OUT-3, each prediction that rounding can't turn, and the rate of spikes."""
    found = []
    reduced = tracked()["layers"].readout(t.lift(t.output("snn", t.network.exits[-1].head)), t.method.readout)
    found.append(predicted(bench, metrics, "ann", ends.logits_ann[-1], labels))
    found.append(predicted(bench, metrics, "snn", reduced, labels))
    spikes = [t.trace[name]["snn"] for name in t.network.activations]
    size = sum(a.size for a in spikes)
    rate = sum(float(np.asarray(a, np.float64).sum()) for a in spikes) / size
    share = bench.session.to_numpy(metrics.spike_rate)
    bound = 4 * len(spikes) * PRECISIONS[bench.session.precision].roundoff * rate
    found.append(compare("spike_rate", share, rate, bound, rung="bound", clauses=("LIF-2",)))
    return found


def predicted(bench: Bench, metrics: Any, twin: Twin, logits: Tracked, labels: Values) -> Finding:
    """OUT-3: hits counted from logits (B, K) with their bounds; where rounding can turn a prediction, either is right.

    Logits that are all exactly 0 come from a head of zeros, whose sums no rounding touches: there the first of equals wins.
    """
    right = logits.value[np.arange(len(labels)), labels]
    rivals = np.where(np.arange(logits.shape[-1]) == labels[:, None], -np.inf, logits.value).max(axis=-1)
    slack = logits.error.max(axis=-1) * 2
    zero = ~logits.value.any(axis=-1)
    sure = np.where(zero, labels == 0, right > rivals + slack).sum()
    unsure = (~zero & (np.abs(right - rivals) <= slack)).sum()
    got = float(bench.session.to_numpy(getattr(metrics, f"correct_{twin}")))
    return compare(f"correct_{twin}", got, sure + unsure / 2, unsure / 2, rung="certificate", clauses=("OUT-3",))


def terms_of(t: taps.Taps, ends: Ends, labels: Values) -> dict[str, Tracked]:
    """The loss without a penalty, and its terms, by their names in the metrics."""
    arrays = (ends.logits_ann, ends.logits_snn, ends.features_ann, ends.features_snn)
    terms: dict[str, Any] = tracked()["losses"].joint_loss(t.method.loss, *arrays, labels)._asdict()
    return {name: term if isinstance(term, Tracked) else t.lift(term) for name, term in terms.items()}  # sums of nothing


def path(n: int, precision: Precision, *, cast: bool = True) -> float:
    """How far two right ways may lead apart over a path of n values, as a share of the array's largest element.

    Along the longest path, over layers and over time, each value is rounded where it is handed on, and in sums of some dozens
    of terms. n roundings of unit u that know nothing of one another add up to less than min(n, 6 sqrt(n)) u (Higham and Mary,
    SIAM J. Sci. Comput. 41(5), 2019), here of the largest element: of an answer of zeros the error is once that element.

    Without `cast`, what is handed on is known to have been rounded to the same values.
    """
    unit = roundoff_of(precision)
    handed = precision.product_roundoff if cast and precision.product_roundoff > unit else 0.0  # an operand rounded elsewhere
    return min(n, 6 * math.sqrt(n)) * max(64 * unit, handed)


def depths(network: Network) -> dict[str, int]:
    """Layers on the longest path from the network's input to each, itself included."""
    deep = {INPUT: 0}
    for layer in network.layers:
        deep[layer.name] = 1 + max(deep[name] for name in inputs_of(layer))
    return deep


def dumped_formats(bench: Bench, s: Setting, dumped: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether a dump is of the formats that the protocol says, in the byte order of the machine."""
    for name in s.state:
        want = "int64" if name == STEP else PRECISIONS[bench.session.precision].storage
        got = dumped[name].dtype if isinstance(dumped[name], np.ndarray) else type(dumped[name])
        yield holds(f"format of {name}, dumped", got == np.dtype(want), got=str(got), want=want, clauses=("PRE-1", "OPT-3"))
