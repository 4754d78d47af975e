"""Faulty backends: a right one, in which what a fault touches is answered by the faulty reference.

`mutant:ID` is the fault over the NumPy backend, `mutant:ID@torch` over torch's. Name, claims, devices
and whatever the fault does not touch are the base's, so that one thing is wrong at a time. The faulty
reference computes in the storage format of the base's session.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeVar, final

import numpy as np
from numpy.typing import NDArray

import twinspike
from twinspike.backend import Backend, Capabilities, Evaluation, Metrics, Program, Session
from twinspike.checks import check_batch, check_images, check_operation
from twinspike.config import Method, Optimizer
from twinspike.errors import refuse, require
from twinspike.network import Network
from twinspike.operations import OPERATIONS
from twinspike.parameters import State, check_state, layout
from twinspike.precision import PRECISIONS
from twinspike_conformance.faults import BY_ID
from twinspike_conformance.faults.base import Fault
from twinspike_conformance.faults.harness import ACCEPTS_ANY_DEVICE, SPOILERS, Spoiled
from twinspike_conformance.faults.options import OVERLOOKED, Overlooking
from twinspike_conformance.faults.protocol_sessions import MISUSED
from twinspike_conformance.faults.reach import reach
from twinspike_conformance.faults.within import Tensors, Within
from twinspike_conformance.judges import variant

Values = NDArray[Any]
Found = TypeVar("Found", Metrics, Evaluation)

PREFIX = "mutant:"


def load_mutant(name: str) -> Backend:
    """Load `mutant:ID` or `mutant:ID@BASE`; the base is `numpy` if none is named.

    Raises:
        SpecError: no such fault, the base can't be loaded, or the fault can't be put into it.
    """
    fault, _, base = name.removeprefix(PREFIX).partition("@")
    if not name.startswith(PREFIX) or fault not in BY_ID:
        raise refuse("mutant", expected=f"'{PREFIX}ID' or '{PREFIX}ID@BASE', ID a fault of the corpus", got=name)
    return mutant(BY_ID[fault], twinspike.load(base or "numpy"))


def mutant(fault: Fault, base: Backend) -> Backend:
    """The base backend with one fault.

    Raises:
        SpecError: the fault writes into its inputs, and the base's arrays are no NumPy arrays.
    """
    wanted = "one whose arrays are NumPy's, which it can write into"
    require(fits(fault, base), f"base of {fault.id}", expected=wanted, got=base.name)
    return Mutant(fault, base)


def modules(fault: Fault) -> dict[str, ModuleType]:
    """The faulty reference, freshly loaded: faults that remember something start without memory."""
    return variant.load(fault.edits)


def _writes(fault: Fault) -> bool:
    return fault.id in ("harness-mutates", "bn-eval-updates", *MISUSED) or (fault.clause == "PRE-4" and bool(fault.edits))


def _writable(base: Backend) -> bool:
    claims = base.capabilities()
    session = base.session(claims.devices[0], sorted(claims.precisions)[0], False)
    return isinstance(session.from_numpy(np.zeros(1)), np.ndarray)


def fits(fault: Fault, base: Backend) -> bool:
    """Whether `mutant` takes the fault for this base."""
    return not _writes(fault) or _writable(base)


@final
class Mutant:
    """A backend with one fault."""

    def __init__(self, fault: Fault, base: Backend) -> None:
        self.name = f"{PREFIX}{fault.id}" + ("" if base.name == "numpy" else f"@{base.name}")
        self.fault, self.base = fault, base

    def capabilities(self) -> Capabilities:
        """The base's claims."""
        return self.base.capabilities()

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> Session:
        """A session of the base with the fault in it; SpecError as the base's."""
        if self.fault.id == ACCEPTS_ANY_DEVICE:
            return _Elsewhere(self.base.session(self.capabilities().devices[0], precision, compiled), device)
        inner = self.base.session(device, precision, compiled)
        if self.fault.id in OVERLOOKED:
            return Overlooking(inner, self.fault.id)
        if self.fault.id in MISUSED:
            return MISUSED[self.fault.id](inner)
        if self.fault.id in SPOILERS:
            return Spoiled(inner, SPOILERS[self.fault.id]())
        return MutantSession(self.fault, inner)


class _Elsewhere(Within):
    """A session that says it is on the device that was asked for."""

    def __init__(self, inner: Session, device: str) -> None:
        super().__init__(inner)
        self.device = device


@final
class MutantSession(Within):
    """Operations of the base, but for those that the fault touches."""

    def __init__(self, fault: Fault, inner: Session) -> None:
        super().__init__(inner)
        self._reach = reach(fault.edits)
        self._modules = modules(fault)
        self._storage = np.dtype(PRECISIONS[inner.precision].storage)

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Any]) -> Tensors:
        """Outputs by the faulty reference, or the base's."""
        if operation not in self._reach.operations:
            return self.inner.forward(operation, config, inputs)
        outputs = self._run(operation, config, self._checked(operation, config, inputs))
        return {name: self._tensor(value) for name, value in outputs.items()}

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Any], cotangents: Mapping[str, Any]
    ) -> tuple[Tensors, Tensors]:
        """Outputs and gradients by the faulty reference, or the base's."""
        row = OPERATIONS.get(operation)
        if row is None or row.adjoint is None or operation not in self._reach.operations:
            return self.inner.vjp(operation, config, inputs, cotangents)
        values = self._checked(operation, config, inputs)
        outputs = self._run(operation, config, values)
        gradients = self._run(f"{operation}_adjoint", config, values, {k: self._value(v) for k, v in cotangents.items()})
        return tuple({k: self._tensor(v) for k, v in found.items()} for found in (outputs, gradients))  # type: ignore[return-value]  # two

    def program(self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False) -> Program:
        """The faulty reference's, or the base's."""
        if not self._reach.program:
            return self.inner.program(network, method, optimizer, recompute=recompute)
        return MutantProgram(self._modules["step"], self, self._storage, network, method, optimizer)

    def _run(self, function: str, config: Any, *arguments: Any) -> dict[str, Values]:
        with np.errstate(all="ignore"):
            found: dict[str, Values] = getattr(self._modules["rows"], function)(config, *arguments)
        return found

    def _checked(self, operation: str, config: Any, inputs: Mapping[str, Any]) -> dict[str, Values]:
        """Inputs as NumPy arrays; a base whose arrays are NumPy's lends them, so that faults can write into them."""
        values = {name: self._value(value) for name, value in inputs.items()}
        floating = {name: value.dtype.kind == "f" for name, value in values.items()}
        check_operation(operation, config, {name: value.shape for name, value in values.items()}, floating)
        return values

    def _value(self, tensor: Any) -> Values:
        return tensor if isinstance(tensor, np.ndarray) else np.array(self.inner.to_numpy(tensor))

    def _tensor(self, value: Values) -> Any:
        """The result in the base's kind of array; a NumPy base is handed what came, its format included."""
        if isinstance(self.inner.from_numpy(np.zeros(1)), np.ndarray):
            return np.asarray(value)
        return self.inner.from_numpy(np.asarray(value))


@final
class MutantProgram:
    """The faulty reference's program; its state is a dict of NumPy arrays in the storage format."""

    def __init__(
        self, step: ModuleType, session: Session, storage: np.dtype[Any], network: Network, method: Method, optimizer: Optimizer
    ) -> None:
        self._step, self._session, self._storage = step, session, storage
        self._network, self._method, self._optimizer = network, method, optimizer
        self._layout = layout(network, method, optimizer)

    def load(self, values: Mapping[str, NDArray[np.generic]]) -> State:
        """A checked copy; SpecError if it does not fit."""
        check_state(values, self._layout)
        kinds = {"slot": np.float64, "counter": np.int64}
        return {
            e.name: np.array(values[e.name], np.int64 if kinds.get(e.kind) is np.int64 else self._storage) for e in self._layout
        }

    def dump(self, state: State) -> State:
        """A copy."""
        return {name: np.array(value, np.int64 if value.dtype.kind == "i" else self._storage) for name, value in state.items()}

    def train_step(self, state: State, images: Values, labels: Values, learning_rate: float) -> tuple[State, Metrics]:
        """One step; SpecError if the batch does not fit."""
        check_batch(self._network, self._method, images, labels)
        fits = bool(np.isfinite(learning_rate)) and learning_rate >= 0
        require(fits, "learning_rate", expected="a finite number >= 0", got=learning_rate)
        with np.errstate(all="ignore"):
            after, metrics = self._step.train_step(
                self._network, self._method, self._optimizer, state, images, labels, learning_rate
            )
        return self.dump(after), self._tensors(metrics)

    def gradients(self, state: State, images: Values, labels: Values) -> tuple[dict[str, Values], Metrics]:
        """Gradients by name; SpecError if the batch does not fit."""
        check_batch(self._network, self._method, images, labels)
        with np.errstate(all="ignore"):
            by_name, _, metrics = self._step.gradients(self._network, self._method, state, images, labels)
        return {e.name: np.asarray(by_name[e.name], self._storage) for e in self._layout if e.trained}, self._tensors(metrics)

    def evaluate(self, state: State, images: Values) -> Evaluation:
        """Both twins in evaluation mode; SpecError if the images don't fit."""
        check_images(self._network, self._method, images)
        with np.errstate(all="ignore"):
            found: Evaluation = self._step.evaluate(self._network, self._method, state, images)
        return self._tensors(found)

    def trace(
        self, state: State, images: Values, *, training: bool = False, labels: Values | None = None
    ) -> dict[str, dict[str, Values]]:
        """Inner values by layer, and gradients towards them; SpecError if the batch does not fit."""
        if labels is None:
            check_images(self._network, self._method, images)
        else:
            check_batch(self._network, self._method, images, labels)
        with np.errstate(all="ignore"):
            taps = self._step.trace(self._network, self._method, state, images, training=training, labels=labels)
        return {layer: {k: np.asarray(v, self._storage) for k, v in tap.items()} for layer, tap in taps.items()}

    def _tensors(self, found: Found) -> Found:
        """Metrics or an evaluation with its fields as the base's arrays."""
        fields = {field: self._session.from_numpy(np.asarray(getattr(found, field))) for field in found.__struct_fields__}
        return type(found)(**fields)
