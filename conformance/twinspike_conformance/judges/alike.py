"""What ranks give, as one: what must be the same on all is compared to the bit, and parts of a batch stand one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike import replicas

Values = NDArray[Any]
Trace = Mapping[str, Mapping[str, Values]]


class DifferError(Exception):
    """Ranks disagree about what must be the same on all; the text says about what."""


def same(what: str, found: Sequence[Any]) -> Any:
    """What every rank gives, if it is the same to the bit (clauses DEV-2, DEV-5).

    Raises:
        DifferError: naming the first rank that gives something else than rank 0.
    """
    for rank, other in enumerate(found[1:], 1):
        wrong = _apart(found[0], other)
        if wrong is not None:
            raise DifferError(f"{what}{wrong} is not the same on rank {rank} as on rank 0")
    return found[0]


def joined(found: Sequence[Trace]) -> dict[str, dict[str, Values]]:
    """The ranks' traces: outputs and the gradients towards them one after another, and the gradients of parameters."""
    return {layer: {key: _joined(layer, key, [t[layer][key] for t in found]) for key in tap} for layer, tap in found[0].items()}


def _joined(layer: str, key: str, parts: list[Values]) -> Values:
    if key.startswith("d_"):
        found: Values = same(f"{layer}: {key}", parts)
        return found
    return replicas.joined(key, parts)


def _apart(one: Any, other: Any) -> str | None:
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return ", names,"
        wrong = (name for name in one if _apart(one[name], other[name]) is not None)
        return next((f" {name}" for name in wrong), None)
    a, b = np.asarray(one), np.asarray(other)
    return None if a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() else ""
