"""Cells: every option of the method and the optimizer beside every other, in every precision."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from twinspike.backend import Program
from twinspike.network import Norm
from twinspike.precision import PRECISIONS, Precision
from twinspike.setting import Setting
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.networks import setting
from twinspike_conformance.cases.options import CELLS, pairs_met
from twinspike_conformance.checks.base import Bench, Check, Space
from twinspike_conformance.checks.networks import RATE, evaluation_found, gradients_found, loss_found, terms_found, update_found
from twinspike_conformance.checks.programs import opened, predicted, taps_of
from twinspike_conformance.checks.steps import is_decided, tracked_state, whole
from twinspike_conformance.judges import networks as taps
from twinspike_conformance.judges.ends import ends_of_another_pass, of_another_pass
from twinspike_conformance.judges.operations import roundoff_of
from twinspike_conformance.judges.summands import Summands
from twinspike_conformance.judges.variant import tracked

SEEDS = 20
"""Seeds of which one must give a cell in which rounding turns no spike."""


def _options(bench: Bench, example: Example) -> list[Finding]:
    """Every option is read beside every other: a cell's training step and evaluation follow from its config.

    In f64 and f32-ieee they equal the reference's within its running error, which over two layers is small. Where products
    round their operands to fewer digits, every value is judged from the backend's own inputs to it.
    """
    precision = PRECISIONS[bench.session.precision]
    whole_bounds = precision.product_roundoff == precision.roundoff
    return judged(bench, *opened(bench, decided(example, precision) if whole_bounds else example))


def judged(bench: Bench, s: Setting, program: Program, state: Any) -> list[Finding]:
    """A step and an evaluation of a cell: against the reference's where its bounds say something, else layer by layer."""
    precision = PRECISIONS[bench.session.precision]
    judge = whole if precision.product_roundoff == precision.roundoff else _by_layers
    return judge(bench, s, program, state)


def decided(example: Example, precision: Precision) -> Setting:
    """The example, or the first one of the same config in which rounding turns no spike and no ReLU."""
    unit = roundoff_of(precision)
    for seed in range(example.seed, example.seed + SEEDS):
        s = setting(msgspec.structs.replace(example, seed=seed), precision.storage)
        values, images = tracked_state(s, unit), Tracked(s.images[0], roundoff=unit)
        if all(is_decided(s, values, images, training=training) for training in (True, False)):
            return s
    raise AssertionError(f"rounding decides {example.words()} and {SEEDS - 1} more")


def _by_layers(bench: Bench, s: Setting, program: Program, state: Any) -> list[Finding]:
    """Every value of a step and of an evaluation from the backend's own inputs to it."""
    batch = s.images[0], s.labels[0]
    trained = taps_of(bench, s, program, state, training=True, labels=True)
    evaluated = taps_of(bench, s, program, state, training=False)
    found = [*taps.forward(trained), *taps.forward(evaluated)]
    found += evaluation_found(bench, s, evaluated, program.evaluate(state, s.images[0]), program.dump(state))
    gradients, metrics = program.gradients(state, *batch)
    found += gradients_found(s, trained, gradients)
    found += loss_found(bench, trained, gradients, metrics, s.labels[0])
    state, _ = program.train_step(state, *batch, RATE)
    return found + update_found(bench, s, gradients, program.dump(state), Summands(lambda: trained))


_MILD = tuple(c for c in CELLS if c["method"]["loss"]["temperature"] == 2.0 and c["method"]["loss"]["form"] == "ce")
"""Cells whose loss is no small difference, nor that of sharpened logits: an answer of zeros is far off in bf16-mixed too."""


def _metrics(bench: Bench, example: Example) -> list[Finding]:
    """What a training step reports follows from the trace of the same batch, on a state in which rounding turns no spike."""
    s = settled(setting(example, PRECISIONS[bench.session.precision].storage, batches=2))
    other = msgspec.structs.replace(s.method, loss=msgspec.structs.replace(s.method.loss, alpha=0.9))
    bench.session.program(s.network, other, s.optimizer)
    return metrics_found(bench, *opened(bench, s))


def metrics_found(bench: Bench, s: Setting, program: Program, state: Any) -> list[Finding]:
    """What a step reports, after another one, beside the trace; of a settled setting of two batches."""
    t = taps_of(bench, s, program, state, training=True, labels=True)
    program.train_step(program.load(s.state), s.images[1], s.labels[1], RATE)
    _, metrics = program.train_step(program.load(s.state), s.images[0], s.labels[0], RATE)
    ends = ends_of_another_pass(t)
    found = terms_found(bench, t, metrics, ends, s.labels[0])
    reduced = of_another_pass(t, tracked()["layers"].readout(t.lift(t.output("snn", s.network.exits[-1].head)), s.method.readout))
    found.append(predicted(bench, metrics, "ann", ends.logits_ann[-1], s.labels[0]))
    found.append(predicted(bench, metrics, "snn", reduced, s.labels[0]))
    spikes = np.concatenate([np.asarray(t.trace[name]["snn"], np.float64).ravel() for name in s.network.activations])
    rate = bench.session.to_numpy(metrics.spike_rate)
    found.append(compare("spike_rate", rate, spikes.mean(), 0.5 / spikes.size, rung="bound", clauses=("LIF-2",)))
    return found


def settled(s: Setting) -> Setting:
    """The setting with norms before neurons that make every channel fire at each step, or at none, far from the threshold."""
    neuron, state = s.method.neuron, dict(s.state)
    current = 3 * neuron.threshold / (1.0 - neuron.decay if neuron.decay_input else 1.0)
    for layer in s.network.layers:
        if isinstance(layer, Norm):
            gamma, beta = (f"{layer.name}.{quantity}_snn" for quantity in ("gamma", "beta"))
            state[gamma] = np.full_like(state[gamma], 2.0**-6)
            state[beta] = np.where(np.arange(state[beta].size) % 2, -current, current).astype(np.float32).astype(np.float64)
    return msgspec.structs.replace(s, state=state)


CHECKS: tuple[Check, ...] = (
    Check(
        id="network[metrics]",
        sentence=str(_metrics.__doc__),
        clauses=("DIS-1", "DIS-4", "DIS-5", "DIS-8", "DIS-9", "DIS-10", "DIS-11", "DIS-12", "DIS-13", "ORT-2", "OUT-3", "LIF-2"),
        rung="bound",
        needs=frozenset({"networks"}),
        space=Space("network", _MILD[:4], ({"B": 3},), ("normal",), False),
        run=_metrics,
        weight=0.1,
        whole=True,
        eager=True,
    ),
    Check(
        id="network[options]",
        sentence=str(_options.__doc__).split("\n\n", maxsplit=1)[0],
        clauses=(
            *(f"LIF-{n}" for n in (1, 2, 3, 4, 6, 7, 8, 9, 10)),
            *(f"DIS-{n}" for n in range(1, 14)),
            *(f"BN-{n}" for n in range(1, 7)),
            *(f"OPT-{n}" for n in range(1, 8)),
            *("FAC-1", "FAC-2", "FAC-5", "FAC-6", "FAC-7", "FAC-8", "INP-1", "INP-2", "LAY-1", "LAY-2", "LAY-3", "LAY-4"),
            *("OUT-1", "OUT-2", "OUT-3", "ORT-2", "ORT-3"),
        ),
        rung="bound",
        needs=frozenset({"networks"}),
        space=Space("network", CELLS, ({"B": 3},), ("normal",), False),
        run=_options,
        weight=0.1,
        whole=True,
        eager=True,
        counts=pairs_met,
    ),
)
