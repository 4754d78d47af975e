"""Faults that overlook one option: whatever a config says there, the default is used.

One per option of every config that reaches a backend, made from the configs themselves, so that an option
added to the specification without a check that sees it shows as a survivor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from twinspike import config as configs
from twinspike import operations
from twinspike.backend import Program, Session
from twinspike.config import Config, Method, Optimizer
from twinspike.network import Network
from twinspike.operations import TABLE
from twinspike_conformance.cases.alternatives import ALTERNATIVES, PARTS, defaults, without
from twinspike_conformance.faults.base import Fault
from twinspike_conformance.faults.within import Tensors, Within

_CLAUSES: dict[str, str] = {
    "Rectangle.width": "SUR-2",
    "Triangle.width": "SUR-3",
    "Sigmoid.slope": "SUR-4",
    "Arctan.slope": "SUR-5",
    "FastSigmoid.slope": "SUR-6",
    "Tanh.slope": "SUR-7",
    "Neuron.decay": "LIF-1",
    "Neuron.threshold": "LIF-2",
    "Neuron.surrogate": "LIF-6",
    "Neuron.reset": "LIF-4",
    "Neuron.v_reset": "LIF-3",
    "Neuron.detach_reset": "LIF-7",
    "Neuron.decay_input": "LIF-1",
    "Neuron.decay_scope": "LIF-9",
    "Neuron.threshold_scope": "LIF-10",
    "Penalty.weight": "ORT-2",
    "Retract.every": "ORT-3",
    "Retract.by": "ORT-3",
    "Factorization.scope": "FAC-1",
    "Factorization.matricize": "FAC-2",
    "Factorization.rank": "FAC-5",
    "Factorization.orthogonality": "ORT-2",
    "BatchNorm.time": "BN-3",
    "BatchNorm.momentum": "BN-4",
    "BatchNorm.eps": "BN-1",
    "BatchNorm.gamma_init": "BN-7",
    "BatchNorm.replicas": "DEV-4",
    "Loss.alpha": "DIS-1",
    "Loss.beta": "DIS-1",
    "Loss.temperature": "DIS-3",
    "Loss.form": "DIS-3",
    "Loss.pairs": "DIS-4",
    "Loss.supervised": "DIS-9",
    "Loss.feature_reduction": "DIS-5",
    "Loss.detach_teacher": "DIS-6",
    "Loss.isolate_ann": "DIS-7",
    "Loss.per_step": "DIS-8",
    "Loss.label_smoothing": "DIS-10",
    "Loss.teacher_time": "DIS-12",
    "Loss.mse_weight": "DIS-13",
    "Loss.mse_target": "DIS-13",
    "Method.time_steps": "INP-1",
    "Method.readout": "OUT-2",
    "Method.linear_init": "INI-6",
    "SGD.momentum": "OPT-1",
    "SGD.nesterov": "OPT-1",
    "SGD.weight_decay": "OPT-1",
    "SGD.decay_scope": "OPT-4",
    "Adam.beta1": "OPT-5",
    "Adam.beta2": "OPT-5",
    "Adam.eps": "OPT-5",
    "Adam.weight_decay": "OPT-6",
    "Adam.decay_scope": "OPT-4",
    "AdamW.beta1": "OPT-5",
    "AdamW.beta2": "OPT-5",
    "AdamW.eps": "OPT-5",
    "AdamW.weight_decay": "OPT-7",
    "AdamW.decay_scope": "OPT-4",
    "Convolution.stride": "LAY-1",
    "Convolution.padding": "LAY-1",
    "Readout.reduction": "OUT-2",
}
"""Option -> the clause that says what it does. Every option with a default is here."""

_EQUIVALENT = {
    "BatchNorm.replicas": "one device computes the same either way; of many the faults of ranks have it (dev-local-*)",
    "BatchNorm.gamma_init": "gammas start where the specification's initial values start them; no backend reads the option",
    "Method.linear_init": "weights start where the specification's initial values start them; no backend reads the option",
}

OVERLOOKED: dict[str, tuple[type[Config], str]] = {
    f"option-{kind.__name__.lower()}-{name.replace('_', '-')}": (kind, name)
    for kind, others in ALTERNATIVES.items()
    for name in others
    if name in defaults(kind)
}
"""Fault -> config and option."""

FAULTS: tuple[Fault, ...] = tuple(
    Fault(
        fault,
        _CLAUSES[f"{kind.__name__}.{name}"],
        f"{kind.__name__}.{name} is overlooked: its default, {defaults(kind)[name]!r}, holds",
        equivalent=_EQUIVALENT.get(f"{kind.__name__}.{name}", ""),
    )
    for fault, (kind, name) in OVERLOOKED.items()
)


def touched(fault: str) -> frozenset[str]:
    """Operations whose configs have the option, and `networks` where programs are given it."""
    kind = OVERLOOKED[fault][0]
    found = {row.name for row in TABLE if any(kind in _kinds(given) for given in _members(row.config))}
    program = any(kind in _kinds(given) for given in (Method, *_members(Optimizer)))
    return frozenset(found | ({"networks"} if program else set()))


def _members(given: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    return getattr(given, "__args__", (given,))


def _kinds(kind: type[Config]) -> Iterator[type[Config]]:
    """A config's own type and the types of the configs in it."""
    yield kind
    for other in ALTERNATIVES:
        if other is not kind and any(isinstance(value, other) for value in _values(kind)):
            yield from _kinds(other)


def _values(kind: type[Config]) -> Iterator[Any]:
    own = defaults(kind)
    for name, others in ALTERNATIVES[kind].items():
        yield from (*others, *((own[name],) if name in own else ()))
    if kind is configs.Neuron:  # a surrogate may be any of its kinds
        yield from (configs.Sigmoid(), configs.Arctan(), configs.FastSigmoid(), configs.Tanh())
    yield from (own[name] for name in PARTS.get(kind, ()) if name in own)
    if kind is operations.Composition:
        yield configs.Factorization()


class Overlooking(Within):
    """A session that reads every config without one option."""

    def __init__(self, inner: Session, fault: str) -> None:
        super().__init__(inner)
        self._kind, self._name = OVERLOOKED[fault]

    def _read(self, config: Any) -> Any:
        return without(config, self._kind, self._name, defaults(self._kind)[self._name])

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Any]) -> Tensors:
        """Outputs without the option."""
        return super().forward(operation, self._read(config), inputs)

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Any], cotangents: Mapping[str, Any]
    ) -> tuple[Tensors, Tensors]:
        """Outputs and gradients without the option."""
        return super().vjp(operation, self._read(config), inputs, cotangents)

    def program(self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False) -> Program:
        """A program without the option."""
        return super().program(network, self._read(method), self._read(optimizer), recompute=recompute)
