"""Faults of the session itself: null backends, which test that the suite can fail, and one that must pass.

None of them changes the reference. Each wraps the session of a right backend and spoils what passes
through: a result, an input, or what the session says about itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Session
from twinspike_conformance.cases.families import rounded
from twinspike_conformance.faults.base import Fault
from twinspike_conformance.faults.within import Tensors, Within

Values = NDArray[Any]


class Spoiled(Within):
    """A session of which every result goes through `spoil`."""

    def __init__(self, inner: Session, spoil: Spoil) -> None:
        super().__init__(inner)
        self._spoil = spoil

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Any]) -> Tensors:
        """Spoiled outputs."""
        key = ("forward", operation)
        return self._spoil(self.inner, key, inputs, lambda: self.inner.forward(operation, config, inputs))

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Any], cotangents: Mapping[str, Any]
    ) -> tuple[Tensors, Tensors]:
        """Spoiled outputs and gradients."""
        both: list[Tensors] = []

        def outputs() -> Tensors:
            both.extend(self.inner.vjp(operation, config, inputs, cotangents))
            return both[0]

        found = self._spoil(self.inner, ("outputs", operation), inputs, outputs)
        gradients = self._spoil(
            self.inner,
            ("gradients", operation),
            inputs,
            lambda: both[1] if both else self.inner.vjp(operation, config, inputs, cotangents)[1],
        )
        return found, gradients


Spoil = Callable[[Session, tuple[str, str], Mapping[str, Any], Callable[[], Tensors]], Tensors]
"""(session, kind and operation, inputs, right results) -> results."""


def _each(change: Callable[[Values], Values]) -> Callable[[], Spoil]:
    """Change every floating result."""

    def spoil(session: Session, key: tuple[str, str], inputs: Mapping[str, Any], right: Callable[[], Tensors]) -> Tensors:
        found = {name: np.array(session.to_numpy(value)) for name, value in right().items()}
        return {name: session.from_numpy(change(value) if value.dtype.kind == "f" else value) for name, value in found.items()}

    return lambda: spoil


def _lower(values: Values) -> Values:
    """To the next format below: float32 for float64, 11 bits for float32."""
    if values.dtype == np.float64:
        return values.astype(np.float32)
    return (values.view(np.uint32) + 0x1000 & np.uint32(0xFFFFE000)).view(np.float32)


def _cached() -> Spoil:
    """The first result of an operation and shape answers all later calls."""
    first: dict[Any, Tensors] = {}

    def spoil(session: Session, key: tuple[str, str], inputs: Mapping[str, Any], right: Callable[[], Tensors]) -> Tensors:
        shapes = tuple((name, np.shape(session.to_numpy(value))) for name, value in sorted(inputs.items()))
        if (key, shapes) not in first:
            first[key, shapes] = right()
        return first[key, shapes]

    return spoil


def _unsteady() -> Spoil:
    """Every other call is one unit in the last place off."""
    calls = [0]

    def change(values: Values) -> Values:
        calls[0] += 1
        return np.asarray(np.nextafter(values, np.inf, dtype=values.dtype) if calls[0] % 2 else values)

    return _each(change)()


def _mutating() -> Spoil:
    """Every floating input is doubled after use."""

    def spoil(session: Session, key: tuple[str, str], inputs: Mapping[str, Any], right: Callable[[], Tensors]) -> Tensors:
        found = right()
        for value in inputs.values():
            if "float" in str(value.dtype):
                value[...] = value + value + 1.0
        return found

    return spoil


def _right() -> Spoil:
    return lambda session, key, inputs, right: right()


def _nameless() -> Spoil:
    """The last result is left out."""

    def spoil(session: Session, key: tuple[str, str], inputs: Mapping[str, Any], right: Callable[[], Tensors]) -> Tensors:
        found = right()
        return dict(list(found.items())[:-1])

    return spoil


_FAULTS: tuple[tuple[Fault, Callable[[], Spoil]], ...] = (
    (Fault("harness-zeros", "PRE-1", "every result is zero"), _each(np.zeros_like)),
    (Fault("harness-nan", "PRE-1", "every result is NaN"), _each(lambda values: values * np.nan)),
    (
        Fault(
            "harness-alias", "PRE-1", "another name for a right backend", equivalent="it hands on every call and every answer"
        ),
        _right,
    ),
    (Fault("harness-mutates", "PRE-4", "inputs are overwritten after use"), _mutating),
    (
        Fault(
            "harness-precision",
            "PRE-1",
            "the precision is ignored: results have the next format's digits",
            origin="jax without jax_enable_x64 computes float64 in float32",
        ),
        _each(_lower),
    ),
    (
        Fault("harness-all-bfloat16", "PRE-2", "every result is rounded to bfloat16, what must keep float32 included"),
        _each(lambda values: rounded(values, "bfloat16").astype(values.dtype)),
    ),
    (Fault("harness-device", "PRE-4", "any device is accepted and answered from the one that is there"), _right),
    (
        Fault(
            "harness-cached", "PRE-4", "the first result of each shape is returned for ever, as if captured when traced",
            origin="values captured by torch.compile, jax.jit and CUDA graphs",
        ),
        _cached,
    ),
    (Fault("harness-unsteady", "PRE-1", "every other call differs in the last place"), _unsteady),
    (Fault("harness-nameless", "PRE-1", "the last of several results is left out"), _nameless),
)  # fmt: skip

FAULTS: tuple[Fault, ...] = tuple(fault for fault, _ in _FAULTS)

SPOILERS: dict[str, Callable[[], Spoil]] = {fault.id: spoiler for fault, spoiler in _FAULTS}
"""Fault -> maker of what spoils one session."""

ACCEPTS_ANY_DEVICE = "harness-device"
