"""Large examples and odd values: that they are there, that long sequences can be exact, that memory is really moved."""

from __future__ import annotations

import numpy as np
import pytest

import twinspike as ts
from twinspike.operations import OPERATIONS
from twinspike.precision import PRECISIONS
from twinspike_conformance.cases import CASES, materialize
from twinspike_conformance.cases.families import Source
from twinspike_conformance.checks import CHECKS
from twinspike_conformance.checks.relations import _elsewhere
from twinspike_conformance.judges.certificates import lif_forward
from twinspike_conformance.judges.operations import proved_exact


def test_every_operation_is_tried_in_large():
    assert {name for name in OPERATIONS if CASES[name].large} == set(OPERATIONS)
    longest = {letter: max(shape.get(letter, 0) for case in CASES.values() for shape in case.large) for letter in "TBCKWIO"}
    assert {letter for letter, size in longest.items() if size > 64} == set("TBCKWIO")
    assert (longest["T"] > 128, longest["K"] > 1000, longest["C"] > 4096) == (True, True, True)
    assert max(shape["step"] for shape in CASES["optimizer_step"].large) == 10_000


@pytest.mark.parametrize(("precision", "how_many"), [("f64", all), ("f32-ieee", any)])
def test_long_sequences_of_a_hard_reset_are_exact(precision, how_many):
    form = PRECISIONS[precision]
    examples = [e for e in CHECKS["sizes[lif-exact]"].space.cover() if e.config["reset"] == "hard" and e.sizes["T"] > 64]
    proved = [proved_exact(e, materialize(CASES["lif"], e, form.activations), form) for e in examples]
    assert len(proved) >= 3
    assert how_many(proved)


def test_a_threshold_between_two_numbers_decides_neither():
    neuron = ts.Neuron(threshold=0.7)
    near = np.float64(np.float32(0.7))  # just below 0.7: fires where the threshold is rounded, not where it is not
    below = np.float64(np.nextafter(np.float32(0.7), np.float32(0.0)))
    for u, s, right in ((near, 0.0, True), (near, 1.0, True), (below, 1.0, False), (below, 0.0, True)):
        out = {"s": np.full((1, 1, 1), s), "u": np.full((1, 1, 1), u)}
        assert all(f.ok for f in lif_forward(neuron, {"x": out["u"]}, out, 2.0**-24)) == right


@pytest.mark.parametrize("form", ["float64", "float32", "bfloat16"])
def test_numbers_beside_a_value_are_neighbours_of_the_format(form):
    source = Source(0, "normal", False, form)
    found = source.beside(0.7)
    assert len(set(found)) == 11
    assert np.array_equal(source._round(found), found)
    below, above = found[found < found[0]].max(), found[found > found[0]].min()
    assert np.array_equal(source._round(np.array([(below + found[0]) / 2 + (found[0] - below) / 8])), [found[0]])
    assert above - found[0] == found[0] - below


def test_memory_is_moved_and_values_are_not():
    values, rng = np.arange(24.0).reshape(2, 3, 4), np.random.default_rng(0)
    strides = set()
    for kind in range(4):
        for _ in range(6):
            moved = _elsewhere(values, rng.permutation(3), kind)
            assert np.array_equal(moved, values)
            strides.add(moved.strides)
    assert len(strides) > 12
    assert any(step < 0 for found in strides for step in found)
