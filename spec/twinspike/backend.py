"""The contract: what a backend offers, as three small protocols.

`Backend` says what it can do, `Session` runs operations on one device in one precision, and `Program`
is one network with one method and optimizer, ready to train. Arrays are the backend's own; NumPy
arrays go in and come out only where a signature says so. A backend may offer any part of this:
what its `Capabilities` do not name is reported as not supported, and asking for it is a SpecError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.config import Method, Optimizer
from twinspike.errors import require
from twinspike.mark import Mark
from twinspike.network import Network
from twinspike.parameters import State

Tensor = Any
"""An array of the backend's own kind."""

Values = NDArray[np.generic]
"""A NumPy array."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend claims; conformance tests every claim, and that nothing else is answered."""

    operations: frozenset[str]
    """Names of the operations table."""
    networks: bool
    """Whether it offers `Session.program`."""
    precisions: frozenset[str]
    """Names of precision profiles."""
    devices: tuple[str, ...]
    """Devices present now, such as `cpu` and `cuda`."""
    compiled: bool
    """Whether `compiled=True` is offered."""
    prefers_compiled: bool = False
    """Whether that is how to train with it, its other sessions being there to be compared with."""
    replicas: Literal["none", "processes", "devices"] = "none"
    """Whether it trains over many devices (`replicas.ReplicatedBackend`): not, one in each process, or any number in each."""
    versions: dict[str, str]
    """Package -> version, and what else identifies the installation."""
    kernels: dict[str, str] = {}
    """Case, such as `lif on cpu` -> the kernel that serves it here, and for a fallback also why it serves."""
    specification: str = ""
    """Version of the specification that the backend was written for; one that is older than the suite's can't know what came
    since. Empty where it is not said."""
    conformance: tuple[Mark, ...] = ()
    """Marks of official runs of the suite (`mark.read_marks`), each of a precision that is claimed."""

    def __post_init__(self) -> None:
        for mark in self.conformance:
            claimed = ", ".join(sorted(self.precisions))
            fits = mark.precision in self.precisions
            require(fits, "mark.precision", expected=f"one that the backend claims ({claimed})", got=mark.precision)
            told = mark.compiled <= self.compiled
            require(told, "mark.compiled", expected="false, since the backend claims no compiled sessions", got=mark.compiled)


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What one training step reports; fields are 0-d arrays of the backend, not yet waited for.

    Losses are means over the batch as the clauses define them, counts are of samples.
    """

    loss: Tensor
    cross_entropy_ann: Tensor
    """sum_i CE(a_i, y), unweighted."""
    cross_entropy_snn: Tensor
    distillation: Tensor
    """tau^2 sum_pairs KD, unweighted by alpha."""
    feature: Tensor
    """sum_i F(h_i, f_i), unweighted by beta."""
    penalty: Tensor
    """Orthogonality penalty as it enters the loss; 0 without one."""
    correct_ann: Tensor
    """Number of samples that the main exit of the artificial twin classifies correctly."""
    correct_snn: Tensor
    spike_rate: Tensor
    """Spikes per neuron and time step, mean over all neurons of the network, in [0, 1]."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What evaluation of a batch gives; N exits, B samples, K classes, L activation layers."""

    logits_ann: Tensor
    """(N, B, K)."""
    logits_snn: Tensor
    """(N, B, K), reduced over time."""
    spike_rates: Tensor
    """(L,) spikes per neuron and time step of each activation layer, in the network's order."""


class Program(Protocol):
    """One network, method and optimizer on one device. Functions are pure: state in, state out.

    A state given to `train_step` must not be used again: its memory may be reused.
    Images are NumPy float32 or float64, (B, C, H, W) or for event networks (T, B, C, H, W);
    labels NumPy int64 (B,), in [0, K).
    """

    def load(self, values: Mapping[str, Values]) -> Any:
        """Put a state, named as `parameters.layout` says, onto the device; SpecError if it does not fit."""

    def dump(self, state: Any) -> State:
        """The state as NumPy arrays under the specification's names, floats in the storage format."""

    def train_step(self, state: Any, images: Values, labels: Values, learning_rate: float) -> tuple[Any, Metrics]:
        """One optimizer step on one batch (and a retraction where due)."""

    def gradients(self, state: Any, images: Values, labels: Values) -> tuple[dict[str, Values], Metrics]:
        """Gradient of the loss for every trained entry, by name; the state is left as it was."""

    def evaluate(self, state: Any, images: Values) -> Evaluation:
        """Both twins in evaluation mode."""

    def trace(
        self, state: Any, images: Values, *, training: bool = False, labels: Values | None = None
    ) -> dict[str, dict[str, Values]]:
        """Both twins' inner values by layer, NumPy.

        Keys of the inner mapping: `ann` (B, ...) and `snn` (T, B, ...), the layer's outputs; for activation
        layers also `u` (T, B, ...), the potential before reset. `training` uses batch statistics.
        With `labels` also `g_ann` and `g_snn`, the gradients of the loss towards these outputs; where a
        backend computes one value for all steps, `g_snn` may be (1, B, ...), the sum over the steps; and
        for each parameter `LAYER.X` the gradient `d_X`, without that of an orthogonality penalty.
        """


class Session(Protocol):
    """Operations on one device, in one precision, eager or compiled."""

    device: str
    precision: str
    compiled: bool

    def flags(self) -> dict[str, str]:
        """Settings of the framework that decide results, read back after they were set; empty if there are none."""

    def from_numpy(self, values: Values) -> Tensor:
        """Move to the device; floats become the storage format, integers int64 or the backend's widest."""

    def to_numpy(self, tensor: Tensor) -> Values:
        """Wait for the value and move it to the host; bfloat16 comes as float32."""

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run an operation of the table: its outputs by name."""

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Tensor], cotangents: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Outputs, and the gradient of each differentiable input that was given (missing cotangents are 0)."""

    def program(self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False) -> Program:
        """Prepare a network for training and evaluation.

        `recompute` asks for less memory at the price of time: the backward pass runs blocks again instead
        of keeping their inner values. It changes no result, so a backend without such a choice accepts it.
        """


@runtime_checkable
class Backend(Protocol):
    """The object that an entry point of group `twinspike.backends` names."""

    name: str

    def capabilities(self) -> Capabilities:
        """What is claimed on this machine."""

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> Session:
        """Open a device; SpecError if the device, precision or mode is not there."""
