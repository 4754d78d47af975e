"""Sums that stay accurate however long they are (clause PRE-7): of blocks, then of what blocks give."""

from __future__ import annotations

import mlx.core as mx

BLOCK = 64
"""Terms that are added one after another."""


def per_channel(x: mx.array, *, folded: bool) -> mx.array:
    """Sums over batch and space, and where folded over time.

    Args:
        x: (T, B, C, *d).
        folded: whether time is summed over too.

    Returns:
        (T, C), or folded (1, C).
    """
    lead = (2, 0, 1) if folded else (0, 2, 1)
    terms = x.transpose(*lead, *range(3, x.ndim))
    terms = terms.reshape(1, x.shape[2], -1) if folded else terms.reshape(x.shape[0], x.shape[2], -1)
    while terms.shape[-1] > 1:
        n = terms.shape[-1]
        terms = mx.pad(terms, [(0, 0), (0, 0), (0, -n % BLOCK)]) if n > BLOCK else terms
        terms = terms.reshape(*terms.shape[:2], -1, min(n, BLOCK)).sum(axis=-1)
    return terms[..., 0]
