"""Covering arrays: few configs in which every two options of every two fields meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np


def pairwise(options: Mapping[str, Sequence[Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Greedy covering array of strength two.

    Args:
        options: field -> values it can take.
        seed: of the order in which equal choices are tried.

    Returns:
        Assignments such that for any two fields every pair of their values occurs in one of them.
    """
    fields = list(options)
    rng = np.random.Generator(np.random.Philox(seed))
    missing = {
        ((a, i), (b, j))
        for a, b in combinations(fields, 2)
        for i in range(len(options[a]))
        for j in range(len(options[b]))
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    while missing:
        (a, i), (b, j) = min(missing)
        chosen = {a: i, b: j}
        for field in fields:
            if field in chosen:
                continue
            gains = [_gain(chosen, field, k, fields, missing) for k in range(len(options[field]))]
            best = np.flatnonzero(np.array(gains) == max(gains))
            chosen[field] = int(rng.choice(best))
        covered = {((f, chosen[f]), (g, chosen[g])) for f, g in combinations(fields, 2)}
        missing -= covered
        rows.append({field: options[field][chosen[field]] for field in fields})
    return rows


def _gain(chosen: dict[str, int], field: str, value: int, fields: list[str], missing: set[Any]) -> int:
    """How many missing pairs the value would cover with what is already chosen."""
    order = {f: n for n, f in enumerate(fields)}
    pairs = (tuple(sorted([(field, value), (f, v)], key=lambda p: order[p[0]])) for f, v in chosen.items())
    return sum(pair in missing for pair in pairs)
