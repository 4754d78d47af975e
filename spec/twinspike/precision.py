"""Precision profiles: a name for the roundoff of each kind of arithmetic and the points where values are cast."""

from __future__ import annotations

from typing import Literal

import msgspec

PrecisionName = Literal["f64", "f32-ieee", "tf32", "bf16-mixed"]


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """One profile (clauses PRE-*)."""

    name: PrecisionName
    storage: Literal["float64", "float32"]
    """Parameters, gradients, optimizer state, statistics, potentials, losses."""
    activations: Literal["float64", "float32", "bfloat16"]
    """What layers hand to one another: inputs, convolution and norm outputs, sums, spikes."""
    product_roundoff: float
    """Unit roundoff of the operands of convolutions and matrix products."""
    roundoff: float
    """Unit roundoff of all other arithmetic."""

    @property
    def cast(self) -> float:
        """Unit roundoff of what layers hand to one another, where its format is shorter than that of storage; else 0."""
        return 2.0**-8 if self.activations == "bfloat16" else 0.0


PRECISIONS: dict[str, Precision] = {
    p.name: p
    for p in (
        Precision(name="f64", storage="float64", activations="float64", product_roundoff=2.0**-53, roundoff=2.0**-53),
        Precision(name="f32-ieee", storage="float32", activations="float32", product_roundoff=2.0**-24, roundoff=2.0**-24),
        Precision(name="tf32", storage="float32", activations="float32", product_roundoff=2.0**-11, roundoff=2.0**-24),
        Precision(name="bf16-mixed", storage="float32", activations="bfloat16", product_roundoff=2.0**-8, roundoff=2.0**-24),
    )
}
