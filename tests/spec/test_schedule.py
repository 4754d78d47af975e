"""Learning rates, against their closed forms in exact or extended arithmetic (clauses SCH-*)."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest

import twinspike as ts
from twinspike import Constant, Cosine, learning_rate

U = 2.0**-53


def test_cosine_goes_from_the_peak_towards_the_floor_once_per_epoch() -> None:
    """SCH-1."""
    rates = [[learning_rate(Cosine(), 0.1, e, s, 4, 5) for s in range(5)] for e in range(4)]
    assert all(len(set(epoch)) == 1 for epoch in rates)
    assert rates[0][0] == 0.1
    # cos, a sum, a product and a division, of numbers at most 0.2
    for epoch, expected in enumerate([0.1, 0.05 * (1 + math.sqrt(0.5)), 0.05, 0.05 * (1 - math.sqrt(0.5))]):
        assert abs(rates[epoch][0] - expected) <= 8 * U * 0.2


def test_cosine_by_step_moves_with_every_step() -> None:
    """SCH-1: fractions of an epoch."""
    rates = [learning_rate(Cosine(unit="step"), 0.1, e, s, 3, 7) for e in range(3) for s in range(7)]
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))
    for n, rate in enumerate(rates):
        assert abs(rate - 0.05 * (1 + math.cos(math.pi * n / 21))) <= 16 * U * 0.2


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_floor_is_absolute_and_never_crossed(unit: str) -> None:
    schedule = Cosine(floor=0.02, unit=unit)  # type: ignore[arg-type]  # parametrized
    rates = [learning_rate(schedule, 0.1, e, s, 50, 3) for e in range(50) for s in range(3)]
    assert rates[0] == 0.1
    assert all(0.02 <= rate <= 0.1 for rate in rates)
    assert abs(rates[75] - 0.06) <= 8 * U * 0.2


@pytest.mark.parametrize(
    "schedule", [Constant(warmup_epochs=1.5), Cosine(warmup_epochs=1.5), Cosine(warmup_epochs=1.5, unit="step")]
)
def test_warmup_counts_steps_from_one_up_to_the_peak(schedule: ts.Schedule) -> None:
    """SCH-2."""
    epochs, per_epoch = 6, 4
    positions = [(e, s) for e in range(epochs) for s in range(per_epoch)]
    rates = [learning_rate(schedule, 0.1, e, s, epochs, per_epoch) for e, s in positions]
    for n in range(1, 7):
        assert abs(rates[n - 1] - float(Fraction(1, 10) * n / 6)) <= 4 * U * 0.1
    assert rates[5] == 0.1
    assert rates[6] == 0.1
    assert max(rates) == 0.1


def test_cosine_after_warmup_spans_what_is_left() -> None:
    schedule = Cosine(warmup_epochs=2.0)
    rates = [learning_rate(schedule, 0.1, e, 0, 6, 1) for e in range(6)]
    for k, rate in enumerate(rates[2:]):
        assert abs(rate - 0.05 * (1 + math.cos(math.pi * k / 4))) <= 8 * U * 0.2


def test_constant_stays() -> None:
    assert {learning_rate(Constant(), 0.3, e, s, 3, 2) for e in range(3) for s in range(2)} == {0.3}


def test_a_run_that_is_all_warmup_never_passes_the_peak() -> None:
    rates = [learning_rate(Cosine(warmup_epochs=5.0), 0.1, e, s, 2, 3) for e in range(2) for s in range(3)]
    assert all(abs(rate - 0.1 * n / 15) <= 4 * U * 0.1 for n, rate in enumerate(rates, start=1))


@pytest.mark.parametrize(("epoch", "step"), [(-1, 0), (3, 0), (0, -1), (0, 4)])
def test_positions_outside_the_run_are_refused(epoch: int, step: int) -> None:
    with pytest.raises(ts.SpecError, match="expected 0 to"):
        learning_rate(Cosine(), 0.1, epoch, step, 3, 4)
