"""The rules that bounds are made of, written out by hand on numbers that need no rounding, and held against perturbed inputs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from twinspike_conformance.bounds.budget import ZERO_LOW, Budget, lowest_bit
from twinspike_conformance.bounds.finding import Finding, compare, holds
from twinspike_conformance.bounds.spectral import backward_error, moved_by
from twinspike_conformance.bounds.tracked import TINY, Tracked, gamma, storage

U = 2.0**-24
E = 2.0**-10
LEAST = TINY[U]


def tracked(value, error=0.0, **options):
    return Tracked(np.array(value, np.float64), error, roundoff=U, **options)


def own(value, error, roundings=2.0):
    """What a rounded result adds to what its operands brought."""
    return error + (roundings * U * (np.abs(value) + error) + LEAST)


def equal(found, value, error):
    assert np.array_equal(found.value, value)
    assert np.array_equal(found.error, np.broadcast_to(error, np.shape(value)))
    assert found.roundoff == U


A, B = tracked([3.0, -0.5, 0.0], [E, 0.0, 0.0]), tracked([0.25, -2.0, 0.0], [0.0, E / 4, 0.0])

# --- tracked arithmetic ----------------------------------------------------------------------------------


def test_formats_of_constants():
    assert [storage(u) for u in (2.0**-53, 2.0**-52, 2.0**-24, 2.0**-8)] == [np.float64, np.float64, np.float32, np.float32]
    third = np.float64(1.0) / 3.0
    lost = abs(float(np.float32(third)) - third)
    assert (A + third).error[2] == own(third, lost)
    assert (Tracked(0.0, roundoff=2.0**-52) + third).error == 2 * 2.0**-52 * third + 2.0**-1022
    assert (third - A).error[2] == (A - third).error[2] == (A + third).error[2]


def test_gamma_is_infinite_where_it_says_nothing():
    assert gamma(4, 2.0**-4) == (4 / 16) / (1 - 4 / 16)
    assert gamma(16, 2.0**-4) == gamma(17, 2.0**-4) == np.inf


def test_sums_products_and_quotients():
    equal(A + B, [3.25, -2.5, 0.0], own(np.array([3.25, -2.5, 0.0]), np.array([E, E / 4, 0.0])))
    equal(A - B, [2.75, 1.5, 0.0], own(np.array([2.75, 1.5, 0.0]), np.array([E, E / 4, 0.0])))
    equal(A * B, [0.75, 1.0, 0.0], own(np.array([0.75, 1.0, 0.0]), np.array([0.25 * E, 0.5 * E / 4, 0.0])))
    both = tracked([2.0], [E]) * tracked([4.0], [E])
    equal(both, [8.0], own(np.array([8.0]), 2 * E + 4 * E + E * E))
    equal(tracked([3.0], [E]) ** 2, [9.0], own(np.array([9.0]), 6 * E + E * E))
    equal(np.square(tracked([3.0], [E])), [9.0], own(np.array([9.0]), 6 * E + E * E))
    quotient = tracked([3.0], [E]) / tracked([2.0], [1.0])  # |b| - error is 1
    equal(quotient, [1.5], own(np.array([1.5]), E + 1.5, 4.0))
    equal(np.reciprocal(tracked([2.0], [1.0])), [0.5], own(np.array([0.5]), 0.5, 4.0))
    equal(8.0 / tracked([4.0], [2.0]), [2.0], own(np.array([2.0]), 2.0, 4.0))
    assert (tracked([3.0]) / tracked([2.0], [2.0])).error == np.inf
    with pytest.raises(TypeError, match=r"^no error analysis for powers other than squares$"):
        A**3


def test_values_and_errors_are_float64_whatever_they_come_in():
    for value, error in ((np.ones(2, np.float32), np.ones(2, np.float32)), (1, 0), ([1, 2], 0), ([1, 2], [3, 4])):
        found = tracked(value, error)
        assert (Tracked(value, error, roundoff=U).value.dtype, found.error.dtype) == (np.float64, np.float64)
        assert Tracked(value, error, roundoff=U).error.dtype == np.float64


def test_reductions_through_ufuncs():
    x = tracked([[1.0, 5.0], [4.0, 0.0]], [[E, 0.0], [0.0, 2 * E]])
    for keep in (True, False):
        equal(np.maximum.reduce(x, axis=1, keepdims=keep), x.value.max(axis=1, keepdims=keep), x.error.max(axis=1, keepdims=keep))
        equal(np.add.reduce(x, axis=0, keepdims=keep), *(getattr(x.sum(axis=0, keepdims=keep), k) for k in ("value", "error")))
    assert np.maximum.reduce(x, axis=1).shape == (2,)


def test_zeros_and_stacks_in_products_and_quotients():
    zero = tracked(np.zeros((2, 3, 4))) @ tracked(np.zeros((2, 4, 5)))
    equal(zero, np.zeros((2, 3, 5)), 4 * LEAST)
    plain = np.tensordot(tracked(np.zeros((2, 3))), np.zeros((3, 2)), axes=((1,), (0,)))
    equal(plain, np.zeros((2, 2)), 3 * LEAST)
    ones = tracked(np.ones((2, 3, 4))) @ np.ones((4, 5))
    equal(ones, np.full((2, 3, 5), 4.0), gamma(4 + 2, U) * 4.0 + 4 * LEAST)
    assert np.isinf((tracked([0.0]) / tracked([2.0], [2.0])).error)
    rounded = tracked([[4.0]], [[1.0]], product=0.5) @ tracked([[1.0]], product=0.5)
    ea, eb = 1.0 + 0.5 * (4.0 + 1.0), 0.5
    equal(rounded, [[4.0]], 4.0 * eb + ea * 1.0 + ea * eb + gamma(3, U) * ((4.0 + ea) * (1.0 + eb)) + LEAST)


def test_plain_numbers_stand_on_either_side():
    half = own(np.array([3.5, 0.0, 0.5]), np.array([E, 0.0, 0.0]))
    equal(0.5 + A, [3.5, 0.0, 0.5], half)
    equal(A + 0.5, [3.5, 0.0, 0.5], half)
    equal(0.5 - A, [-2.5, 1.0, 0.5], own(np.array([-2.5, 1.0, 0.5]), np.array([E, 0.0, 0.0])))
    equal(2.0 * A, [6.0, -1.0, 0.0], own(np.array([6.0, -1.0, 0.0]), np.array([2 * E, 0.0, 0.0])))
    equal(np.where([True, False, False], A, 0.5), [3.0, 0.5, 0.5], [E, 0.0, 0.0])


def test_reductions_keep_to_their_axes():
    x = tracked([[1.0, 5.0, 2.0], [4.0, 0.0, 3.0]], [[E, 0.0, 0.0], [0.0, 2 * E, 0.0]])
    equal(x.max(axis=1), [5.0, 4.0], [E, 2 * E])
    equal(np.max(x, axis=0), [4.0, 5.0, 3.0], [E, 2 * E, 0.0])
    equal(x.max(axis=1, keepdims=True), [[5.0], [4.0]], [[E], [2 * E]])
    assert np.array_equal(x.argmax(axis=1), [1, 0])
    assert np.array_equal(x.argmax(), 1)
    size = np.array([8.0 + E, 7.0 + 2 * E])
    brought = np.array([E, 2 * E]) + gamma(3 - 1 + 2, U) * size + 3 * LEAST
    equal(x.sum(axis=1), [8.0, 7.0], brought)
    equal(x.sum(axis=1, keepdims=True), [[8.0], [7.0]], brought[:, None])
    halves = tracked([[1.0, 5.0, 2.0, 4.0], [4.0, 0.0, 3.0, 1.0]])
    brought = gamma(4 - 1 + 2, U) * np.array([12.0, 8.0]) + 4 * LEAST
    for found in (halves.mean(axis=1), np.mean(halves, axis=1)):
        equal(found, [3.0, 2.0], own(np.array([3.0, 2.0]), brought / 4.0, 4.0))
    assert halves.mean(axis=1, keepdims=True).shape == (2, 1)
    equal(tracked([0.0, 0.0]).sum(), 0.0, 2 * LEAST)
    flat = x.reshape((3, 2), order="F")
    equal(flat, x.value.reshape((3, 2), order="F"), x.error.reshape((3, 2), order="F"))


def test_signs_choices_and_views_round_nothing():
    equal(-A, [-3.0, 0.5, 0.0], [E, 0.0, 0.0])
    equal(abs(A), [3.0, 0.5, 0.0], [E, 0.0, 0.0])
    equal(np.maximum(A, B), [3.0, -0.5, 0.0], [E, 0.0, 0.0])
    equal(np.minimum(A, B), [0.25, -2.0, 0.0], [0.0, E / 4, 0.0])
    near = tracked([1.0], E), tracked([1.0 + E / 4], E / 8)
    equal(np.maximum(*near), [1.0 + E / 4], 3 * E / 4)
    equal(np.minimum(*near), [1.0], E)
    equal(np.where([True, False, True], A, B), [3.0, -2.0, 0.0], [E, E / 4, 0.0])
    equal(np.where([True, False, True], 0.5, B), [0.5, -2.0, 0.5], [0.0, E / 4, 0.0])
    equal(np.clip(A, -0.25, 1.0), [1.0, -0.25, 0.0], [0.0, 0.0, 0.0])
    equal(np.clip(tracked([1.0, 3.0, 0.5], E), 1.0, np.inf), [1.0, 3.0, 1.0], [E, E, 0.0])
    equal(np.clip(tracked([1.0 - E / 4, 0.0], E), 0.0, 1.0), [1.0 - E / 4, 0.0], [E, E])
    lost = abs(float(np.float32(0.1)) - 0.1)
    equal(np.clip(tracked([0.0, 0.1, 1.0], E), 0.1, 2.0), [0.1, 0.1, 1.0], [lost, E, E])
    equal(np.zeros_like(A), np.zeros(3), 0.0)
    equal(np.ones_like(A), np.ones(3), 0.0)
    equal(np.empty_like(A), np.zeros(3), 0.0)
    equal(A.max(), 3.0, E)
    equal(np.max(A, axis=0, keepdims=True), [3.0], [E])
    assert (A.argmax(), B.argmax(axis=0), len(A), A.ndim, A.size, A.shape) == (0, 0, 3, 1, 3, (3,))
    assert (np.shape(A), np.ndim(A), A.dtype) == ((3,), 1, np.float64)


def test_comparisons_are_of_values():
    for found, want in (
        (A < B, [False, False, False]), (A <= B, [False, False, True]),
        (A > B, [True, True, False]), (A >= B, [True, True, True]),
        (A == B, [False, False, True]),
        (A != B, [True, True, False]), (np.isfinite(A), [True] * 3), (np.isnan(A), [False] * 3),
        (np.sign(A), [1.0, -1.0, 0.0]),
        (A < 1.0, [False, True, True]),
    ):  # fmt: skip
        assert np.array_equal(found, want)


def test_moving_elements_moves_their_errors():
    x = tracked(np.arange(12.0).reshape(3, 4), np.arange(12.0).reshape(3, 4) * E)
    for move in (
        lambda a: a.T, lambda a: a.reshape(2, 6), lambda a: a.transpose(1, 0), lambda a: a.swapaxes(0, 1), lambda a: a[1:, ::2],
        lambda a: np.moveaxis(a, 0, 1), lambda a: np.pad(a, ((1, 0), (0, 2))), np.flip, lambda a: np.expand_dims(a, 0),
        lambda a: np.concatenate([a, a], axis=1), lambda a: np.stack([a, a]), lambda a: np.broadcast_to(a, (2, 3, 4)),
        lambda a: sliding_window_view(a, (2, 2)), lambda a: np.take_along_axis(a, np.array([[3], [0], [1]]), axis=1),
        lambda a: a.copy(), lambda a: a.astype(np.float32),
    ):  # fmt: skip
        equal(move(x), move(x.value).astype(np.float64), move(x.error).astype(np.float64))
    mixed = np.stack([x, np.ones((3, 4))])
    equal(mixed, np.stack([x.value, np.ones((3, 4))]), np.stack([x.error, np.zeros((3, 4))]))
    copied = x.copy()
    copied[0, 0], copied[1, 1] = tracked(7.0, E), 8.0
    assert (copied.value[0, 0], copied.error[0, 0], copied.value[1, 1], copied.error[1, 1]) == (7.0, E, 8.0, 0.0)
    assert (x.value[0, 0], x.value[1, 1]) == (0.0, 5.0)


def test_sums_and_products_of_many_terms_allow_any_order():
    x = tracked([[1.0, -2.0, 4.0]], [[E, 0.0, 0.0]])
    size = np.array([7.0 + E])
    for found in (x.sum(axis=1), np.sum(x, axis=1), x.sum(axis=(1,)), np.add.reduce(x, axis=1)):
        equal(found, [3.0], E + gamma(3 - 1 + 2, U) * size + 3 * LEAST)
    equal(x.sum(), 3.0, E + gamma(4, U) * size[0] + 3 * LEAST)
    assert x.sum(axis=1, keepdims=True).shape == (1, 1)
    mean = tracked([[2.0, 6.0]]).mean(axis=1)
    brought = gamma(2 - 1 + 2, U) * 8.0 + 2 * LEAST
    equal(mean, [4.0], own(np.array([4.0]), brought / 2.0, 4.0))
    assert np.mean(tracked([[2.0, 6.0]]), axis=1).error == mean.error
    a, b = tracked([[1.0, -2.0]], [[E, 0.0]]), tracked([[4.0], [8.0]], [[0.0], [E]])
    brought = 1.0 * 0.0 + 2.0 * E + (E * 4.0 + 0.0 * 8.0) + E * 0.0
    error = brought + gamma(2 + 2, U) * ((1.0 + E) * 4.0 + 2.0 * (8.0 + E)) + 2 * LEAST
    equal(a @ b, [[-12.0]], error)
    equal(np.tensordot(a, b, axes=((1,), (0,))), [[-12.0]], error)
    equal(np.ones((1, 2)) @ b, [[12.0]], E + gamma(4, U) * (4.0 + 8.0 + E) + 2 * LEAST)
    assert np.tensordot(np.ones((1, 2)), b, axes=((1,), (0,))).error == (np.ones((1, 2)) @ b).error


def test_operands_of_products_may_be_rounded_where_the_profile_says_so():
    a, b = tracked([[3.0]], product=2.0**-11), tracked([[5.0]], product=2.0**-11)
    ea, eb = 3.0 * 2.0**-11, 5.0 * 2.0**-11
    error = 3.0 * eb + ea * 5.0 + ea * eb + gamma(1 + 2, U) * ((3.0 + ea) * (5.0 + eb)) + LEAST
    for found in (a @ b, np.tensordot(a, b, axes=((1,), (0,)))):
        equal(found, [[15.0]], error)
        assert found.product == 2.0**-11
    equal(a * b, [[15.0]], own(np.array([[15.0]]), 0.0))


@pytest.mark.parametrize("function", [np.exp, np.log, np.log1p, np.sqrt, np.tanh, np.arctan])
def test_functions_move_by_their_slope_and_little_more(function):
    x, e = np.array([0.125, 0.5, 2.0]), 2.0**-12
    found = function(tracked(x, e))
    assert np.array_equal(found.value, function(x))
    roundings = 4 if function is np.sqrt else 8
    rounding = roundings * U * np.abs(function(x)) * (1 + 2.0**-8) + LEAST
    moved = np.maximum(np.abs(function(x + e) - function(x)), np.abs(function(x - e) - function(x)))
    assert (found.error >= moved).all()
    exact = function(tracked(x))
    assert np.array_equal(exact.error, roundings * U * np.abs(function(x)) + LEAST)
    slack = {np.tanh: e, np.arctan: e}.get(function, 1.01 * moved)  # slopes of these are bounded by 1
    assert (found.error <= slack + rounding).all()


def test_functions_at_the_end_of_their_domain():
    assert np.sqrt(tracked([0.0])).error == LEAST
    zero = np.sqrt(tracked([0.0], [E]))
    assert zero.error >= np.sqrt(E)
    assert zero.error <= np.sqrt(E) * (1 + 16 * U)
    assert np.isinf(np.log(tracked([0.5], [0.5])).error)
    assert np.isfinite(np.exp(tracked([800.0], [1.0]) * 0.0).error).all()


def test_no_bound_is_lost_in_silence():
    for refused in (lambda: np.cumsum(A), lambda: np.sinh(A), lambda: np.multiply.reduce(A)):
        with pytest.raises(TypeError, match="no error analysis"):
            refused()
    with pytest.raises(TypeError, match=r"^a tracked number can't become a plain one: its error bound would be lost$"):
        float(tracked(1.0))


# --- budgets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "low"),
    [([0.75, -2.0], -2), ([6.0], 1), ([0.0], ZERO_LOW), ([], ZERO_LOW), ([1.0 + 2.0**-52], -52), ([-3.0 * 2.0**70, 2.0**71], 70)],
)
def test_the_lowest_bit(values, low):
    assert lowest_bit(np.array(values)) == low


def test_budgets_count_bits_of_every_partial_result():
    b = Budget()
    x = b.of([0.75, -2.0])  # multiples of 1/4 up to 2, which is 8 of them: 4 bits
    assert (float(x.high), x.low, b.bits, b.exponent) == (2.0, -2, 4, 2)
    y = x * x  # of 1/16 up to 4
    assert (float(y.high), y.low, b.bits, b.exponent) == (4.0, -4, 7, 4)
    z = y + x
    assert (float(z.high), z.low, b.bits) == (6.0, -4, 7)
    assert float((0.5 - z).high) == float((z - 0.5).high) == 6.5
    assert (2.0 * x).low == -1
    assert float(x.sum(5).high) == 10.0
    small = Budget().of([0.25])
    assert float(small.sum(3).high) == 0.75
    assert float(Budget().each([]).sum(3).high) == 0.0
    many = x.sum(64)  # up to 128: 2^8 > 128, and 10 bits above 1/4
    assert (float(many.high), many.low, b.bits, b.exponent) == (128.0, -2, 10, 8)


def test_budgets_of_single_elements_and_zeros():
    b = Budget()
    each = b.each([1.0, 0.25, 0.0])
    assert np.array_equal(each.high, [1.0, 0.25, 0.0])
    assert float(each.total().high) == 1.25
    zero = b.of([0.0])
    before = b.bits
    assert ((zero * each).low == ZERO_LOW).all()
    assert ((each * zero).low == ZERO_LOW).all()
    assert ((zero + each).low.tolist(), b.bits) == ([0, -2, ZERO_LOW], before)
    assert each.total().low == each.sum(2).low == -2
    apart = Budget()
    assert (apart.each([2.0**40, 2.0**-40]) * apart.each([0.0, 2.0**40])).high.tolist() == [0.0, 1.0]
    assert apart.bits == 1  # 2^40 and 2^-40 never meet: no partial result has bits of both
    nothing = Budget()
    assert float(nothing.of([]).high) == 0.0
    assert (nothing.grid(0.0, 5).budget.bits, nothing.exponent) == (0, 0)
    wide = Budget()
    wide.of([2.0**40])
    wide.of([1.0])
    assert (wide.exponent, wide.bits) == (41, 1)


@pytest.mark.parametrize(("form", "bits"), [("float64", 53), ("float32", 24), ("tf32", 11), ("bfloat16", 8)])
def test_what_fits_a_format(form, bits):
    fits, misfits = Budget(), Budget()
    fits.of([1.0, 2.0 ** (1 - bits)])
    misfits.of([1.0, 2.0**-bits])
    assert fits.fits(form)
    assert not misfits.fits(form)
    least = -1000 if form == "float64" else -120
    inside, outside = Budget(), Budget()
    inside.of([2.0**least])
    outside.of([2.0 ** (least - 1)])
    assert inside.fits(form)
    assert not outside.fits(form)


# --- comparisons and decompositions ----------------------------------------------------------------------


def test_comparisons_find_the_first_wrong_element_or_the_worst():
    options = {"rung": "bound", "clauses": ("LIF-1",)}
    wrong = compare("y", [[1.0, 2.5], [9.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]], 0.25, **options)
    assert (wrong.ok, wrong.ratio, wrong.index, wrong.got, wrong.want, wrong.bound) == (False, 24.0, (0, 1), 2.5, 2.0, 0.25)
    assert wrong.sentence() == (
        "y[0, 1]: expected within 0.25 of 0x1.0000000000000p+1 (2), got 0x1.4000000000000p+1 (2.5), error/bound 24"
    )
    assert wrong.compared is not None
    assert np.array_equal(wrong.compared.got, [[1.0, 2.5], [9.0, 4.0]])
    assert np.array_equal(wrong.compared.want, [[1.0, 2.0], [3.0, 4.0]])
    assert np.array_equal(wrong.compared.bound, np.full((2, 2), 0.25))
    right = compare("y", [1.0, 2.125, 3.0625], [1.0, 2.0, 3.0], [0.0, 0.25, 0.25], **options)
    assert (right.ok, right.ratio, right.index, right.clauses, right.rung) == (True, 0.5, (1,), ("LIF-1",), "bound")
    assert compare("y", 2.25, 2.0, 0.25, **options).ok
    assert not compare("y", np.nextafter(2.25, 3), 2.0, 0.25, **options).ok


@pytest.mark.parametrize(
    ("got", "want", "bound", "ok"),
    [
        (np.nan, 1.0, np.inf, False), (np.inf, 1.0, np.inf, False), (np.inf, np.inf, 0.0, True), (-np.inf, np.inf, 1.0, False),
        (0.0, -0.0, 0.0, True), (1.0, np.nextafter(1.0, 2), 0.0, False), (1.0, np.nan, 1.0, False), (5.0, 1.0, np.inf, True),
    ],
)  # fmt: skip
def test_comparisons_at_the_edge_of_numbers(got, want, bound, ok):
    found = compare("y", got, want, bound, rung="bound", clauses=())
    assert found.ok == ok
    assert ok or found.ratio == np.inf


def test_comparisons_of_shapes_and_of_nothing():
    found = compare("y", np.zeros((2, 3)), np.zeros(6), 1.0, rung="bound", clauses=("LIF-1",))
    assert (found.ok, found.rung, found.ratio, found.clauses) == (False, "property", np.inf, ("LIF-1",))
    assert found.sentence() == "shape of y: expected (6,), got (2, 3)"
    found = compare("s", np.array([True]), np.array([True]), 0, rung="exact", clauses=())
    assert (found.ok, found.got, found.want) == (True, 1.0, 1.0)
    nothing = compare("y", np.zeros(0), np.zeros(0), 1.0, rung="bound", clauses=("LIF-1",))
    assert (nothing.ok, nothing.quantity, nothing.rung, nothing.clauses) == (True, "y", "bound", ("LIF-1",))
    assert nothing.compared is not None


def test_findings_in_words():
    options = {"rung": "exact", "clauses": ()}
    assert compare("y", 1.5, 1.0, 0.0, **options).sentence() == (
        "y: expected exactly 0x1.0000000000000p+0 (1), got 0x1.8000000000000p+0 (1.5), error/bound inf"
    )
    error = Finding(quantity="answer", rung="property", clauses=(), ok=False, got="ValueError: no", want=1.0)
    assert error.sentence() == "answer: expected 1.0, got ValueError: no"
    assert compare("y", 1e308, -1e308, 1.0, **options).ratio == np.inf
    yes, no = (holds("names", ok, got="a", want="b", clauses=("PRE-1",)) for ok in (True, False))
    assert (yes.ok, yes.ratio, no.ok, no.ratio) == (True, 0.0, False, np.inf)
    assert no == Finding(
        quantity="names", rung="property", clauses=("PRE-1",), ok=False, ratio=np.inf, got="a", want="b"
    )  # fmt: skip


def test_decompositions_move_by_their_condition():
    a = np.stack([np.diag([4.0, 1.0]), np.diag([8.0, 8.0])])
    assert np.array_equal(backward_error(a, U), 8.0 * U * np.array([4.0, 8.0]))
    error = np.array([2.0**-8, 1.0])
    for by, factor in (("polar", 2.0), ("qr", np.sqrt(2.0))):
        share = (error + 8.0 * U * np.array([4.0, 8.0])) / np.array([1.0, 8.0])
        assert np.array_equal(moved_by(by, a, error, U)[:, 0, 0], 2.0 * factor * share + 24.0 * U)
    assert moved_by("polar", a, np.array([0.25, 0.0]), U).shape == (2, 1, 1)
    assert np.isinf(moved_by("polar", a, np.array([0.25, 0.0]), U)[0])
    quarter = 0.25 - 8.0 * U * 4.0  # and with the decomposition's own error, share is 1/4 exactly
    assert np.isinf(moved_by("qr", a, np.array([quarter, 0.0]), U)[0])
    assert np.isfinite(moved_by("qr", a, np.array([quarter - 2.0**-20, 0.0]), U)[0])
    assert np.array_equal(
        moved_by("qr", np.diag([4.0, 2.0, 1.0])[None], np.zeros(1), U),
        moved_by("qr", np.diag([4.0, 4.0, 1.0])[None], np.zeros(1), U),
    )


def test_no_bound_saves_what_is_exact_or_no_number():
    exact = compare("y", 1.0, 2.0, 0.0, rung="exact", clauses=())
    missing = compare("y", np.nan, 2.0, 1.0, rung="bound", clauses=())
    words = holds("names", False, got="a", want="b", clauses=())
    assert not any(finding.within(1e300) for finding in (exact, missing, words))
    off = compare("y", 2.5, 2.0, 0.125, rung="bound", clauses=())
    assert (off.within(3.5), off.within(4.0)) == (False, True)
