"""Faults of sessions that answer each call rightly by itself, and sessions whose programs have the faults of `protocol`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Program, Session
from twinspike.config import Method, Optimizer
from twinspike.errors import refuse
from twinspike.network import Network
from twinspike.operations import OPERATIONS
from twinspike.parameters import layout
from twinspike_conformance.faults import protocol  # noqa: F401  # whose faults enter the table
from twinspike_conformance.faults.base import Fault
from twinspike_conformance.faults.protocol_base import FAULTS as OF_PROGRAMS
from twinspike_conformance.faults.protocol_base import PROGRAMS
from twinspike_conformance.faults.protocol_forms import RECOMPUTED
from twinspike_conformance.faults.within import ProgramWithin, Tensors, Within

Values = NDArray[Any]


class Misprogrammed(Within):
    """A session whose programs have one fault."""

    def __init__(self, inner: Session, fault: str) -> None:
        super().__init__(inner)
        self._fault = fault

    def program(self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False) -> Program:
        """A right program with the fault around it, where it has it."""
        program = super().program(network, method, optimizer, recompute=recompute)
        if self._fault in RECOMPUTED and not recompute:
            return program
        faulty = PROGRAMS[self._fault](program)
        faulty.entries = layout(network, method, optimizer)
        return faulty


class _Overwriting(Within):
    """Outputs lie where the next outputs of the operation will."""

    def __init__(self, inner: Session) -> None:
        super().__init__(inner)
        self._memory: dict[Any, Values] = {}

    def _kept(self, operation: str, found: Tensors) -> Tensors:
        for name, value in found.items():
            place = self._memory.setdefault((operation, name, value.shape, value.dtype.str), np.array(value))
            place[...] = value
            found[name] = place
        return found

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Any]) -> Tensors:
        return self._kept(operation, super().forward(operation, config, inputs))


class _OverwritingGradients(_Overwriting):
    """Gradients lie where the next gradients of the operation will."""

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Any]) -> Tensors:
        return self.inner.forward(operation, config, inputs)

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Any], cotangents: Mapping[str, Any]
    ) -> tuple[Tensors, Tensors]:
        outputs, gradients = super().vjp(operation, config, inputs, cotangents)
        return outputs, self._kept(operation, gradients)


class _Borrowing(Within):
    """from_numpy() borrows the memory that it is given: who writes into it later changes the tensor."""

    def from_numpy(self, values: Values) -> Any:
        found = super().from_numpy(values)
        return values if found.dtype == values.dtype else found


class _Lending(Within):
    """to_numpy() lends the tensor's memory: who writes into it changes the tensor."""

    def to_numpy(self, tensor: Any) -> Values:
        return np.asarray(tensor)


class _Ones(Within):
    """Cotangents that are missing count as ones."""

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Any], cotangents: Mapping[str, Any]
    ) -> tuple[Tensors, Tensors]:
        row = OPERATIONS.get(operation)
        if row is None or row.adjoint is None:
            return super().vjp(operation, config, inputs, cotangents)
        outputs = self.inner.forward(operation, config, inputs)
        more = {name: np.ones_like(outputs[name]) for name in row.cotangents if name not in cotangents}
        return super().vjp(operation, config, inputs, {**cotangents, **more})


class _Demanding(Within):
    """Cotangents that are missing are asked for."""

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Any], cotangents: Mapping[str, Any]
    ) -> tuple[Tensors, Tensors]:
        missing = sorted(set(OPERATIONS[operation].cotangents) - set(cotangents)) if operation in OPERATIONS else []
        if missing:
            raise refuse("cotangents", expected=missing[0], got="nothing")
        return super().vjp(operation, config, inputs, cotangents)


class _LastOpened(Within):
    """A setting of the session that was opened last holds for all: earlier ones then answer in float32."""

    _latest: list[_LastOpened] = []  # noqa: RUF012  # what all share is the fault

    def __init__(self, inner: Session) -> None:
        super().__init__(inner)
        self._latest[:] = [self]

    def _rounded(self, found: Tensors) -> Tensors:
        if self._latest[0] is self:
            return found
        return {k: v.astype(np.float32).astype(v.dtype) if v.dtype.kind == "f" else v for k, v in found.items()}

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Any]) -> Tensors:
        return self._rounded(super().forward(operation, config, inputs))

    def program(self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False) -> Program:
        session, program = self, super().program(network, method, optimizer, recompute=recompute)

        class Rounded(ProgramWithin):
            def gradients(self, state: Any, images: Values, labels: Values) -> Any:
                found, metrics = program.gradients(state, images, labels)
                return session._rounded(found), metrics

        return Rounded(program)


class _ByName(Within):
    """Programs are kept by the network's name and the state's arrays, so that another loss or rate gets the first one's."""

    def __init__(self, inner: Session) -> None:
        super().__init__(inner)
        self._programs: dict[Any, Program] = {}

    def program(self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False) -> Program:
        key = network.name, layout(network, method, optimizer), recompute
        if key not in self._programs:
            self._programs[key] = super().program(network, method, optimizer, recompute=recompute)
        return self._programs[key]


_SESSIONS: dict[str, tuple[Callable[[Session], Session], str]] = {
    "proto-outputs-overwritten": (_Overwriting, "static output buffers of CUDA graphs"),
    "proto-vjp-overwritten": (_OverwritingGradients, "static output buffers of CUDA graphs"),
    "proto-from-numpy-borrows": (_Borrowing, "torch.from_numpy"),
    "proto-to-numpy-lends": (_Lending, "Tensor.numpy()"),
    "proto-cotangent-ones": (_Ones, ""),
    "proto-cotangent-demanded": (_Demanding, ""),
    "proto-last-opened": (_LastOpened, "torch.set_float32_matmul_precision, jax_default_matmul_precision"),
    "proto-programs-by-name": (_ByName, ""),
}

FAULTS: tuple[Fault, ...] = (
    *OF_PROGRAMS,
    *(Fault(name, "PRE-4", str(kind.__doc__).rstrip("."), origin=origin) for name, (kind, origin) in _SESSIONS.items()),
)

MISUSED: dict[str, Callable[[Session], Session]] = {
    **{name: (lambda inner, name=name: Misprogrammed(inner, name)) for name in PROGRAMS},  # type: ignore[misc]  # a default
    **{name: kind for name, (kind, _) in _SESSIONS.items()},
}
"""Fault -> the session that has it."""


def touched(fault: str) -> frozenset[str]:
    """What a check of the fault must need: networks, or any operation where sessions themselves are faulty."""
    return frozenset({"networks"}) if fault in PROGRAMS else frozenset({"networks", *OPERATIONS})
