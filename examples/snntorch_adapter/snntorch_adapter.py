"""snnTorch's `Leaky` neuron behind the contract of a backend, so that the suite can say where it stands.

Everything is mapped as a user of the library would map it, by its documented arguments; what they can't
express is refused. Nothing is corrected: a deviation that the suite reports is the library's. Needs
`pip install snntorch`; `PYTHONPATH=examples/snntorch_adapter python -m twinspike_conformance snntorch_adapter:backend`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, NamedTuple, final

import numpy as np
import snntorch
import torch
from snntorch import surrogate

import twinspike
from twinspike.checks import check_claim, check_operation
from twinspike.config import Arctan, FastSigmoid, Neuron, Rectangle, Sigmoid, Surrogate, Tanh, Triangle
from twinspike.errors import refuse, require

Tensor = torch.Tensor
Tensors = dict[str, Tensor]

FORMATS = {"f32-ieee": torch.float32, "f64": torch.float64}
OPERATIONS = frozenset({"lif", "spike"})


class _Run(NamedTuple):
    """Outputs by name, and the leaves that their gradients go to."""

    outputs: Tensors
    leaves: Tensors


def _surrogate(form: Surrogate) -> Callable[[Tensor], Tensor]:
    """The library's surrogate of that name where it has one, else a custom one."""
    match form:
        case Arctan(slope=k):
            return surrogate.atan(alpha=k)
        case Sigmoid(slope=k):
            return surrogate.sigmoid(slope=k)
        case FastSigmoid(slope=k):
            return surrogate.fast_sigmoid(slope=k)
        case Triangle(width=w):
            return surrogate.triangular(threshold=1 / w)  # its one parameter is the height
        case Rectangle(width=w):
            return surrogate.custom_surrogate(lambda z, g, s: g * (z.abs() < w / 2) / w)
        case Tanh(slope=k):
            return surrogate.custom_surrogate(lambda z, g, s: g * _tanh_slope(k, z))


def _tanh_slope(k: float, z: Tensor) -> Tensor:
    """Without the cancellation in 1 - tanh^2."""
    q = torch.exp(-2 * k * z.abs())
    return 2 * k * q / (1 + q) ** 2


def _leaky(neuron: Neuron, leaves: Tensors, axes: int) -> Any:
    """The library's neuron; learned quantities are given as tensors that broadcast, as its documentation says."""
    quantities = {
        name: leaves[name].reshape(leaves[name].shape + (1,) * axes) if name in leaves and leaves[name].ndim else leaves.get(name)
        for name in ("decay", "threshold")
    }
    return snntorch.Leaky(
        beta=neuron.decay if quantities["decay"] is None else quantities["decay"],
        threshold=neuron.threshold if quantities["threshold"] is None else quantities["threshold"],
        spike_grad=_surrogate(neuron.surrogate),
        reset_mechanism="zero" if neuron.reset == "hard" else "subtract",
        reset_delay=neuron.detach_reset,  # the delayed reset is the detached one
    )


def _lif(neuron: Neuron, leaves: Tensors) -> _Run:
    require(neuron.v_reset == 0, "neuron.v_reset", expected="0, the only reset value of snnTorch", got=neuron.v_reset)
    x = leaves["x"]
    cell = _leaky(neuron, leaves, x.ndim - 3)
    seen: list[Tensor] = []
    fire = cell.fire
    cell.fire = lambda mem: (seen.append(mem), fire(mem))[1]  # the potential before an immediate reset is returned nowhere
    current = (1 - cell.beta) * x if neuron.decay_input else x
    mem, spikes = leaves.get("v", torch.zeros_like(x[0])), []
    for step in current:
        s, mem = cell(step, mem)
        spikes.append(s)
    return _Run({"s": torch.stack(spikes), "u": torch.stack(seen), "v": mem}, leaves)


@final
class Session:
    """`lif` and `spike` on the CPU."""

    def __init__(self, device: str, precision: str, compiled: bool) -> None:
        self.device, self.precision, self.compiled = device, precision, compiled

    def flags(self) -> dict[str, str]:
        """None that concerns these operations."""
        return {}

    def from_numpy(self, values: Any) -> Tensor:
        """A copy, floats in the session's format."""
        values = np.array(values)
        return torch.from_numpy(values).to(FORMATS[self.precision] if values.dtype.kind == "f" else torch.int64)

    def to_numpy(self, tensor: Tensor) -> Any:
        """A copy."""
        return tensor.detach().numpy().copy()

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Tensor]) -> Tensors:
        """Outputs by name; SpecError for another operation, or what the library can't express."""
        return self._run(operation, config, inputs).outputs

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Tensor], cotangents: Mapping[str, Tensor]
    ) -> tuple[Tensors, Tensors]:
        """Outputs and gradients by autograd; a missing cotangent is 0."""
        run = self._run(operation, config, inputs)
        total = torch.stack([(run.outputs[name] * g).sum() for name, g in cotangents.items()]).sum()
        names = list(run.leaves)
        found = torch.autograd.grad(total, [run.leaves[name] for name in names], allow_unused=True)
        gradients = {n: torch.zeros_like(run.leaves[n]) if g is None else g for n, g in zip(names, found, strict=True)}
        return run.outputs, gradients

    def program(self, network: Any, method: Any, optimizer: Any, *, recompute: bool = False) -> Any:
        """SpecError: whole networks are not offered."""
        raise refuse("program of backend 'snntorch'", expected="operations only", got="a network")

    def _run(self, operation: str, config: Any, inputs: Mapping[str, Tensor]) -> _Run:
        require(operation in OPERATIONS, "operation of backend 'snntorch'", expected="lif or spike", got=operation)
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        check_operation(operation, config, shapes, {name: value.is_floating_point() for name, value in inputs.items()})
        leaves = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
        if operation == "lif":
            return _lif(config, leaves)
        return _Run({"s": _leaky(config, {}, 0).fire(leaves["u"])}, leaves)


@final
class SnnTorch:
    """What the registry loads as `snntorch_adapter:backend`."""

    name = "snntorch_adapter:backend"

    def capabilities(self) -> twinspike.Capabilities:
        """Neuron and spike in float32 and float64 on the CPU."""
        return twinspike.Capabilities(
            operations=OPERATIONS,
            networks=False,
            precisions=frozenset(FORMATS),
            devices=("cpu",),
            compiled=False,
            versions={"snntorch": version("snntorch"), "torch": str(torch.__version__)},
        )

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> Session:
        """SpecError for a device, precision or mode that is not claimed."""
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        return Session(device, precision, compiled)


backend = SnnTorch()
