"""Cells: every option of the method and the optimizer beside every other, in every precision."""

from __future__ import annotations

import msgspec

from twinspike.precision import PRECISIONS, Precision
from twinspike.setting import Setting
from twinspike_conformance.bounds.finding import Finding
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.networks import setting
from twinspike_conformance.cases.options import CELLS, pairs_met
from twinspike_conformance.checks.base import Bench, Check, Space
from twinspike_conformance.checks.networks import RATE, evaluation_found, gradients_found, loss_found, update_found
from twinspike_conformance.checks.programs import opened, taps_of
from twinspike_conformance.checks.steps import is_decided, tracked_state, whole
from twinspike_conformance.judges import networks as taps
from twinspike_conformance.judges.operations import roundoff_of

SEEDS = 20
"""Seeds of which one must give a cell in which rounding turns no spike."""


def _options(bench: Bench, example: Example) -> list[Finding]:
    """Every option is read beside every other: a cell's training step and evaluation follow from its config.

    In f64 and f32-ieee they equal the reference's within its running error, which over two layers is small. Where products
    round their operands to fewer digits, every value is judged from the backend's own inputs to it.
    """
    precision = PRECISIONS[bench.session.precision]
    if precision.product_roundoff == precision.roundoff:
        return whole(bench, *opened(bench, decided(example, precision)))
    return _by_layers(bench, example)


def decided(example: Example, precision: Precision) -> Setting:
    """The example, or the first one of the same config in which rounding turns no spike and no ReLU."""
    unit = roundoff_of(precision)
    for seed in range(example.seed, example.seed + SEEDS):
        s = setting(msgspec.structs.replace(example, seed=seed), precision.storage)
        values, images = tracked_state(s, unit), Tracked(s.images[0], roundoff=unit)
        if all(is_decided(s, values, images, training=training) for training in (True, False)):
            return s
    raise AssertionError(f"rounding decides {example.words()} and {SEEDS - 1} more")


def _by_layers(bench: Bench, example: Example) -> list[Finding]:
    """Every value of a step and of an evaluation from the backend's own inputs to it."""
    s, program, state = opened(bench, example)
    batch = s.images[0], s.labels[0]
    trained = taps_of(bench, s, program, state, training=True, labels=True)
    evaluated = taps_of(bench, s, program, state, training=False)
    found = [*taps.forward(trained), *taps.forward(evaluated)]
    found += evaluation_found(bench, s, evaluated, program.evaluate(state, s.images[0]), program.dump(state))
    gradients, metrics = program.gradients(state, *batch)
    found += gradients_found(s, trained, gradients)
    found += loss_found(bench, trained, metrics, s.labels[0])
    state, _ = program.train_step(state, *batch, RATE)
    return found + update_found(bench, s, gradients, program.dump(state))


CHECKS: tuple[Check, ...] = (
    Check(
        id="network[options]",
        sentence=str(_options.__doc__).split("\n\n", maxsplit=1)[0],
        clauses=(
            *(f"LIF-{n}" for n in (1, 2, 3, 4, 6, 7, 8, 9, 10)),
            *(f"DIS-{n}" for n in range(1, 10)),
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
