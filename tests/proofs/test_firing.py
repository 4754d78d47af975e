"""What the neuron's clauses say of floating-point numbers, proved by z3 for every number of a format.

Comparisons and sums are proved in half, single and double precision. Products take a solver long, so what has one is
proved in a format of 5 bits of exponent and 6 of significand, which has subnormals, ties and rounding as the others do.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import z3

RNE = z3.RNE()
FORMATS = {"half": z3.Float16(), "single": z3.Float32(), "double": z3.Float64()}
SMALL = z3.FPSort(5, 6)
LIMIT_MS = 120_000
"""A proof that is not found by then is a failure, which is no refutation."""


def numbers(names: str, sort: z3.FPSortRef) -> list[Any]:
    """Variables of a format."""
    return [z3.FP(name, sort) for name in names.split()]


def finite(*values: Any) -> Any:
    """Neither NaN nor infinite."""
    return z3.And(*(z3.Not(z3.Or(z3.fpIsNaN(x), z3.fpIsInf(x))) for x in values))


def at_least(a: Any, b: Any) -> Any:
    """a >= b."""
    return z3.fpGEQ(a, b)


def flushed(x: Any) -> Any:
    """Zero in place of a subnormal number, of either sign."""
    return z3.If(z3.fpIsSubnormal(x), z3.fpZero(x.sort(), False), x)


def found(*assumptions: Any) -> z3.ModelRef | None:
    """A model of the assumptions; None: it is proved that there is none."""
    solver = z3.Solver()
    solver.set("timeout", LIMIT_MS)
    solver.add(*assumptions)
    answer = solver.check()
    assert answer != z3.unknown, f"undecided within {LIMIT_MS} ms"
    return solver.model() if answer == z3.sat else None


def exact(model: z3.ModelRef, x: Any) -> Fraction:
    """A number of a model, as a fraction."""
    real = model.eval(z3.fpToReal(x), model_completion=True)
    return Fraction(real.numerator_as_long(), real.denominator_as_long())


@pytest.mark.parametrize("sort", FORMATS.values(), ids=FORMATS)
def test_a_comparison_and_the_sign_of_a_difference_fire_alike(sort: z3.FPSortRef) -> None:
    """LIF-2: u >= threshold and fl(u - threshold) >= 0, for all finite numbers, subnormal ones and differences included."""
    u, threshold = numbers("u threshold", sort)
    difference = z3.fpSub(RNE, u, threshold)
    zero = z3.fpZero(sort, False)
    assert found(finite(u, threshold), at_least(u, threshold) != at_least(difference, zero)) is None


@pytest.mark.parametrize("sort", FORMATS.values(), ids=FORMATS)
def test_where_subnormals_are_flushed_they_do_for_thresholds_that_are_not_tiny(sort: z3.FPSortRef) -> None:
    """LIF-11: below the least normal number times 2^p, p bits of significand, a flushed difference fires where u is below."""
    u, threshold = numbers("u threshold", sort)
    difference, zero = flushed(z3.fpSub(RNE, flushed(u), threshold)), z3.fpZero(sort, False)
    least = z3.FPVal(2.0 ** (2 - 2 ** (sort.ebits() - 1) + sort.sbits()), sort)  # 2^-102 in single precision
    parted = finite(u, threshold), at_least(flushed(u), threshold) != at_least(difference, zero)
    assert found(*parted, at_least(threshold, least)) is None
    model = found(*parted, z3.fpIsPositive(threshold), z3.fpIsNormal(threshold))
    assert model is not None
    assert exact(model, u) < exact(model, threshold) < exact(model, least)


@pytest.mark.parametrize("sort", FORMATS.values(), ids=FORMATS)
def test_a_reset_written_as_a_sum_of_products_is_a_choice(sort: z3.FPSortRef) -> None:
    """LIF-3: (1 - s) u + s v_reset is u or v_reset, but for the sign of a zero, whichever way its products are summed."""
    u, v_reset = numbers("u v_reset", sort)
    one, zero = z3.FPVal(1.0, sort), z3.fpZero(sort, False)
    for s, chosen in ((zero, u), (one, v_reset)):
        kept = z3.fpMul(RNE, z3.fpSub(RNE, one, s), u)
        assert found(finite(u, v_reset), z3.Not(z3.fpEQ(z3.fpAdd(RNE, kept, z3.fpMul(RNE, s, v_reset)), chosen))) is None
        assert found(finite(u, v_reset), z3.Not(z3.fpEQ(z3.fpFMA(RNE, s, v_reset, kept), chosen))) is None


def charges(decay: Any, v: Any, x: Any) -> tuple[Any, Any]:
    """decay * v + x with one rounding and with two (LIF-11)."""
    return z3.fpFMA(RNE, decay, v, x), z3.fpAdd(RNE, z3.fpMul(RNE, decay, v), x)


@pytest.mark.parametrize("fires", ["fused", "unfused"])
def test_a_fused_and_an_unfused_charge_may_part_at_the_threshold(fires: str) -> None:
    """LIF-11: each form fires where the other does not, somewhere; examples of the suite start neurons there."""
    decay, v, x, threshold = numbers("decay v x threshold", SMALL)
    fused, unfused = charges(decay, v, x)
    above, below = (fused, unfused) if fires == "fused" else (unfused, fused)
    half, one = z3.FPVal(0.5, SMALL), z3.FPVal(1.0, SMALL)
    usual = z3.fpLT(decay, one), at_least(decay, z3.FPVal(0.125, SMALL)), at_least(threshold, half), z3.fpLEQ(threshold, one)
    model = found(finite(v, x), *usual, at_least(above, threshold), z3.fpLT(below, threshold))
    assert model is not None
    charge = exact(model, decay) * exact(model, v) + exact(model, x)
    assert abs(charge - exact(model, threshold)) < Fraction(1, 8), "they part only where the charge is near the threshold"


@pytest.mark.parametrize("decay", [1.0, 0.5, 0.25])
def test_decays_that_are_powers_of_two_part_nothing(decay: float) -> None:
    """LIF-11: a product that needs no subnormal number is exact then, so that data of such decays can't tell the two."""
    v, x = numbers("v x", SMALL)
    alpha = z3.FPVal(decay, SMALL)
    fused, unfused = charges(alpha, v, x)
    normal = z3.Or(z3.fpIsZero(v), at_least(z3.fpAbs(v), z3.FPVal(2.0**-12, SMALL)))  # the least of the format is 2^-14
    assert found(finite(v, x), normal, z3.Not(z3.fpEQ(fused, unfused))) is None
