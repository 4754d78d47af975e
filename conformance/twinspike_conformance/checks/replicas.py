"""Examples of networks whose batches can be split among ranks."""

from __future__ import annotations

import msgspec

from twinspike_conformance.checks.base import Space

FEWEST = 4
"""Samples of a batch at least, so that two ranks differ in what they have."""


def over(space: Space, replicas: int) -> Space:
    """The space with batches that `replicas` divides; as it is for one device."""
    if replicas == 1:
        return space
    each = -(-FEWEST // replicas)
    buckets = tuple({"B": replicas * n} for n in (each, each + 1))
    return msgspec.structs.replace(space, buckets=buckets)
