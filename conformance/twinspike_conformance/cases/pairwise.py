"""Covering arrays: few configs in which every two options of every two fields meet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

Inert = Callable[[str, Any], Collection[str]]
"""(field, value) -> fields that have no meaning beside this value."""
Pair = tuple[tuple[str, int], tuple[str, int]]
"""Two fields in their order, each with the index of a value."""


def pairwise(options: Mapping[str, Sequence[Any]], seed: int = 0, inert: Inert = lambda field, value: ()) -> list[dict[str, Any]]:
    """Greedy covering array of strength two.

    Args:
        options: field -> values it can take.
        seed: of the order in which equal choices are tried.
        inert: what has no meaning beside what; fewer rows come of it if such values are in fields that come first.

    Returns:
        Assignments such that for any two fields every pair of their values occurs in one of them in which both have a meaning,
        but for pairs of which one takes the other's away.
    """
    fields = list(options)
    rng = np.random.Generator(np.random.Philox(seed))
    silences = {(f, i): frozenset(inert(f, value)) for f in fields for i, value in enumerate(options[f])}
    missing = set(_pairs(options, silences))
    rows: list[dict[str, Any]] = []
    while missing:
        (a, i), (b, j) = min(missing)
        chosen = {a: i, b: j}
        for field in fields:
            if field in chosen:
                continue
            values = [k for k in range(len(options[field])) if not silences[field, k] & {a, b}]
            gains = np.array([_gain(chosen, field, k, fields, missing, silences) for k in values])
            chosen[field] = values[int(rng.choice(np.flatnonzero(gains == gains.max())))]
        missing -= set(_met(chosen, fields, silences))
        rows.append({field: options[field][chosen[field]] for field in fields})
    return rows


def met(options: Mapping[str, Sequence[Any]], rows: Collection[Mapping[str, Any]], inert: Inert) -> tuple[int, int]:
    """How many pairs of values occur in rows in which both have a meaning, and how many can."""
    fields = list(options)
    silences = {(f, i): frozenset(inert(f, value)) for f in fields for i, value in enumerate(options[f])}
    found: set[Pair] = set()
    for row in rows:
        found.update(_met({f: list(options[f]).index(row[f]) for f in fields}, fields, silences))
    return len(found), sum(1 for _ in _pairs(options, silences))


def _pairs(options: Mapping[str, Sequence[Any]], silences: Mapping[tuple[str, int], frozenset[str]]) -> Iterator[Pair]:
    """Every pair of values that have a meaning beside one another."""
    for a, b in combinations(options, 2):
        for i in range(len(options[a])):
            for j in range(len(options[b])):
                if b not in silences[a, i] and a not in silences[b, j]:
                    yield (a, i), (b, j)


def _met(row: Mapping[str, int], fields: Sequence[str], silences: Mapping[tuple[str, int], frozenset[str]]) -> Iterator[Pair]:
    silent = frozenset().union(*(silences[field, row[field]] for field in fields))
    for f, g in combinations([field for field in fields if field not in silent], 2):
        yield (f, row[f]), (g, row[g])


def _gain(
    chosen: Mapping[str, int],
    field: str,
    value: int,
    fields: Sequence[str],
    missing: Collection[Pair],
    silences: Mapping[tuple[str, int], frozenset[str]],
) -> int:
    """How many missing pairs the value would cover with what is already chosen."""
    silent = silences[field, value].union(*(silences[pair] for pair in chosen.items()))
    if field in silent:
        return 0
    before = fields[: fields.index(field)]
    own = (field, value)
    return sum(
        (((f, v), own) if f in before else (own, (f, v))) in missing for f, v in chosen.items() if f not in silent
    )  # fmt: skip
