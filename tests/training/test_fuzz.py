"""Hostile inputs, the same every time: each is an answer or one line. `benchmarks/fuzz.py` makes a million of them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from twinspike import SpecError

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
fuzz = importlib.import_module("fuzz")

EXAMPLES = 250


@pytest.mark.parametrize("part", fuzz.PARTS)
def test_whatever_comes_from_outside_is_an_answer_or_one_line(part: str) -> None:
    counts = fuzz.fuzz(part, EXAMPLES, fixed=True)
    assert counts.inputs >= EXAMPLES
    assert 0 < counts.refused < counts.inputs  # not everything is turned away at the door


@pytest.mark.parametrize("error", [KeyError("x"), SpecError("two\nlines"), SpecError("x" * 3000)])
def test_what_is_no_line_is_found(error: Exception) -> None:
    def call() -> None:
        raise error

    if "\n" in str(error):
        fuzz.Counts().told(call)  # the boundary itself makes one line of it
    else:
        with pytest.raises((KeyError, AssertionError)):
            fuzz.Counts().told(call)
