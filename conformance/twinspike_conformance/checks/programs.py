"""What checks of whole networks share: a program opened on an example, its taps, what the loss sees, predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Program
from twinspike.config import Twin
from twinspike.parameters import STEP
from twinspike.precision import PRECISIONS
from twinspike.setting import Setting
from twinspike_conformance.bounds.finding import Finding, compare, holds
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.networks import setting
from twinspike_conformance.checks.base import Bench
from twinspike_conformance.judges import networks as taps
from twinspike_conformance.judges.ends import Ends, hits
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
    """OUT-3 of what a program reports."""
    return hits(float(bench.session.to_numpy(getattr(metrics, f"correct_{twin}"))), twin, logits, labels)


def dumped_formats(bench: Bench, s: Setting, dumped: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether a dump is of the formats that the protocol says, in the byte order of the machine."""
    for name in s.state:
        want = "int64" if name == STEP else PRECISIONS[bench.session.precision].storage
        got = dumped[name].dtype if isinstance(dumped[name], np.ndarray) else type(dumped[name])
        yield holds(f"format of {name}, dumped", got == np.dtype(want), got=str(got), want=want, clauses=("PRE-1", "OPT-3"))
