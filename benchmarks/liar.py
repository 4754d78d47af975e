"""Backends that claim f32-ieee and compute in less: what the conformance suite must catch.

    python -m twinspike_conformance liar:torch_tf32 --device cuda --precision f32-ieee --only operation[conv2d

with this folder on PYTHONPATH. A framework that may round products to TF32 without being asked does the same.
"""

from __future__ import annotations

from typing import Any

import twinspike
from twinspike.backend import Capabilities


class _Session:
    """A session of another precision than it says."""

    def __init__(self, inner: Any, precision: str) -> None:
        self._inner = inner
        self.device, self.precision, self.compiled = inner.device, precision, inner.compiled
        self.flags, self.from_numpy, self.to_numpy = inner.flags, inner.from_numpy, inner.to_numpy
        self.forward, self.vjp, self.program = inner.forward, inner.vjp, inner.program


class Liar:
    """A backend whose sessions compute in `computes`, whatever is asked for."""

    def __init__(self, base: str, computes: str) -> None:
        self.name = f"{base} in {computes}"
        self._base, self._computes = base, computes

    def capabilities(self) -> Capabilities:
        """Those of the backend."""
        return twinspike.load(self._base).capabilities()

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> Any:
        """A session that says `precision`."""
        return _Session(twinspike.load(self._base).session(device, self._computes, compiled), precision)


torch_tf32, jax_tf32 = Liar("torch", "tf32"), Liar("jax", "tf32")
torch_bf16, jax_bf16 = Liar("torch", "bf16-mixed"), Liar("jax", "bf16-mixed")
