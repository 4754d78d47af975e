"""Operations of the table on torch tensors: one small function per row, casts at the points of clause PRE-2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from twinspike.checks import check_cotangents, check_differentiable, check_finite, check_operation, shapes_of
from twinspike.config import Method, Optimizer
from twinspike.errors import require
from twinspike.network import Network
from twinspike.operations import OPERATIONS, operation
from twinspike.parameters import slots
from twinspike_torch import convolution, factorization, losses, neuron, norm, weights
from twinspike_torch.arrays import to_device, to_host
from twinspike_torch.compiling import compiled, compiler_warnings_ignored
from twinspike_torch.graphs import by_cuda
from twinspike_torch.lif_kernels import Kernel
from twinspike_torch.optimizer import update_
from twinspike_torch.precision import activations, arithmetic, flags, storage
from twinspike_torch.program import TorchProgram
from twinspike_torch.replicas import Ranks

Tensors = dict[str, Tensor]
Inputs = Mapping[str, Tensor]
Handed = torch.dtype | None
"""Format of what layers hand on, where it is not that of their inputs."""

PROGRAMS = 64
"""How many programs a session keeps, the latest; each holds what was compiled for it."""


@final
class TorchSession:
    """Operations on one device, in one precision, neurons by the kernel asked for."""

    def __init__(self, device: str, precision: str, compiled: bool, kernel: Kernel = "auto", ranks: Ranks | None = None) -> None:
        self.device = device
        self.precision = precision
        self.compiled = compiled
        self._kernel: Kernel = kernel
        self._device = torch.empty(0, device=device).device
        self._ranks = ranks
        self.rank = 0 if ranks is None else ranks.rank
        self.world_size = self.replicas = 1 if ranks is None else ranks.world_size
        self._compiled: dict[Any, Callable[[Inputs], Tensors]] = {}
        self._programs: dict[Any, TorchProgram] = {}

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        """Every process's values, in order of rank along a new first axis."""
        return np.asarray(values)[None].copy() if self._ranks is None else self._ranks.gather(np.asarray(values))

    def close(self) -> None:
        """Leave the other processes."""
        if self._ranks is not None:
            self._ranks.close()

    def flags(self) -> dict[str, str]:
        """torch's switches of reduced products, read back while the profile holds, and its threads."""
        return flags(self.precision)

    def from_numpy(self, values: NDArray[Any]) -> Tensor:
        """A copy on the device: floats in the storage format, integers as int64."""
        with arithmetic(self.precision):
            return to_device(values, self._device, storage(self.precision))

    def to_numpy(self, tensor: Tensor) -> NDArray[Any]:
        """A copy on the host; bfloat16 comes as float32."""
        with arithmetic(self.precision):
            return to_host(tensor)

    def forward(self, operation: str, config: Any, inputs: Inputs) -> Tensors:
        """Outputs by name; SpecError if config or inputs don't fit the operation's row."""
        self._check(operation, config, inputs)
        with arithmetic(self.precision), compiler_warnings_ignored():
            check_finite(operation, lambda key: bool(inputs[key].isfinite().all()))
            return self._function(operation, config, inputs)(inputs)

    def vjp(self, operation: str, config: Any, inputs: Inputs, cotangents: Inputs) -> tuple[Tensors, Tensors]:
        """Outputs, and the gradient of each differentiable input that was given.

        Raises:
            SpecError: config, inputs or cotangents don't fit the row, or it has no gradient.
        """
        self._check(operation, config, inputs)
        row = OPERATIONS[operation]
        check_differentiable(operation)
        asked = [k for k in row.differentiable if k in inputs]
        with arithmetic(self.precision, gradients=True), compiler_warnings_ignored():
            leaves = {k: _own(v).requires_grad_(k in row.differentiable) for k, v in inputs.items()}
            outputs = self._function(operation, config, leaves)(leaves)
            floating = {k: g.is_floating_point() for k, g in cotangents.items()}
            check_cotangents(operation, shapes_of(cotangents), floating, shapes_of(outputs))
            seeds = {k: g for k, g in cotangents.items() if outputs[k].requires_grad}
            found = _gradients(
                [outputs[k] for k in seeds], [leaves[k] for k in asked], [g.to(outputs[k].dtype) for k, g in seeds.items()]
            )
            return {k: v.detach() for k, v in outputs.items()}, dict(zip(asked, found, strict=True))

    def program(
        self, network: Network, method: Method, optimizer: Optimizer, *, recompute: bool = False, graphs: bool = False
    ) -> TorchProgram:
        """The network, ready to train.

        Programs are pure, so that one serves all who ask for the same.

        Args:
            network: the graph of layers.
            method: all options.
            optimizer: its form and constants.
            recompute: whether each block runs again in the backward pass.
            graphs: whether a training step's gradients are recorded as a CUDA graph: the same kernels, started at once.

        Raises:
            SpecError: graphs are asked for where there is no CUDA device, or of ranks.
        """
        alone = self._device.type == "cuda" and self._ranks is None
        require(alone or not graphs, "program.graphs", expected="one CUDA device", got=str(self._device), do="leave graphs out")
        key = network, method, optimizer, recompute, graphs
        if key not in self._programs:
            if len(self._programs) == PROGRAMS:
                del self._programs[next(iter(self._programs))]
            recorder = partial(by_cuda, self._device) if graphs else None
            form = (self._device, self.precision, self.compiled, recompute, self._kernel, self._ranks, recorder)
            with arithmetic(self.precision):
                self._programs[key] = TorchProgram(network, method, optimizer, *form)
        return self._programs[key]

    def _check(self, name: str, config: Any, inputs: Inputs) -> None:
        operation(name)
        for key, value in inputs.items():
            ours = isinstance(value, Tensor) and value.device == self._device
            got = str(value.device) if isinstance(value, Tensor) else type(value).__name__
            require(ours, f"{name}.{key}", expected=f"a tensor on {self._device}", got=got)
        floating = {key: value.is_floating_point() for key, value in inputs.items()}
        check_operation(name, config, shapes_of(inputs), floating)

    def _function(self, name: str, config: Any, inputs: Inputs) -> Callable[[Inputs], Tensors]:
        """The operation on its inputs, compiled for their shapes in a compiled session."""
        body, handed = _BODIES[name], activations(self.precision)
        body = partial(_lif, kernel=self._kernel) if name == "lif" else body

        def run(arrays: Inputs) -> Tensors:
            return body(config, arrays, handed)

        if not self.compiled or name in _ON_HOST:
            return run
        shapes = tuple((k, v.shape, v.dtype, v.requires_grad) for k, v in inputs.items())
        key = (name, config, shapes, torch.is_grad_enabled())
        if key not in self._compiled:
            self._compiled[key] = compiled(run)
        return self._compiled[key]


def _own(tensor: Tensor) -> Tensor:
    """The tensor cut off from what made it; one that was made in inference mode can only be copied."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _gradients(outputs: list[Tensor], inputs: list[Tensor], seeds: list[Tensor]) -> list[Tensor]:
    """Gradients of inputs, zero where nothing arrives."""
    if not outputs or not inputs:
        return [torch.zeros_like(x) for x in inputs]
    found = torch.autograd.grad(outputs, inputs, seeds, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def _hand(x: Tensor, handed: Handed) -> Tensor:
    return x if handed is None else x.to(handed)


def _lif(config: Any, a: Inputs, handed: Handed, kernel: Kernel = "auto") -> Tensors:
    learned = {"decay": a.get("decay"), "threshold": a.get("threshold")}
    s, u, v = neuron.lif_traced(a["x"], a.get("v"), neuron=config, **learned, kernel=kernel)
    return {"s": _hand(s, handed), "u": u, "v": v}


def _spike(config: Any, a: Inputs, handed: Handed) -> Tensors:
    return {"s": _hand(neuron.spike(a["u"], neuron=config), handed)}


def _relu(config: Any, a: Inputs, handed: Handed) -> Tensors:
    return {"y": functional.relu(a["x"])}


def _factorize(config: Any, a: Inputs, handed: Handed) -> Tensors:
    return factorization.factorize(a["kernel"], factorization=config)._asdict()


def _compose(config: Any, a: Inputs, handed: Handed) -> Tensors:
    form = {"factorization": config.factorization, "kernel_shape": config.kernel_shape}
    return {"kernel": factorization.compose(a["U"], a["sigma"], a["V"], **form)}


def _penalty(config: Any, a: Inputs, handed: Handed) -> Tensors:
    return {"loss": factorization.penalty(a["U"], a["V"])}


def _retract(config: Any, a: Inputs, handed: Handed) -> Tensors:
    u, v = factorization.retract(a["U"], a["V"], by=config.by)
    return {"U": u, "V": v}


def _conv2d(config: Any, a: Inputs, handed: Handed) -> Tensors:
    return {"y": convolution.convolve(a["x"], a["kernel"], config.stride, config.padding, handed)}


def _avg_pool(config: Any, a: Inputs, handed: Handed) -> Tensors:
    return {"y": functional.avg_pool2d(a["x"], config.kernel, config.stride)}


def _global_pool(config: Any, a: Inputs, handed: Handed) -> Tensors:
    return {"y": a["x"].mean((2, 3))}


def _linear(config: Any, a: Inputs, handed: Handed) -> Tensors:
    return {"y": weights.project(a["x"], a["weight"], a["bias"])}


_NORM = ("x", "gamma", "beta", "mean", "var")


def _batch_norm_train(config: Any, a: Inputs, handed: Handed) -> Tensors:
    y, mean, var = norm.batch_norm_train(config, *(a[name] for name in _NORM))
    return {"y": y.to(a["x"].dtype), "mean": mean, "var": var}


def _batch_norm_eval(config: Any, a: Inputs, handed: Handed) -> Tensors:
    return {"y": norm.batch_norm_eval(config, *(a[name] for name in _NORM)).to(a["x"].dtype)}


def _readout(config: Any, a: Inputs, handed: Handed) -> Tensors:
    return {"y": weights.readout(a["x"].to(torch.promote_types(a["x"].dtype, torch.float32)), config.reduction)}


def _cross_entropy(config: Any, a: Inputs, handed: Handed) -> Tensors:
    return {"loss": losses.cross_entropy(a["logits"], a["labels"])}


def _distillation(config: Any, a: Inputs, handed: Handed) -> Tensors:
    return {"loss": losses.distillation(a["student"], a["teacher"], config=config)}


def _feature_loss(config: Any, a: Inputs, handed: Handed) -> Tensors:
    return {"loss": losses.feature_loss(a["snn"], a["ann"], config=config)}


def _joint_loss(config: Any, a: Inputs, handed: Handed) -> Tensors:
    names = ("logits_ann", "logits_snn", "features_ann", "features_snn", "labels")
    return losses.joint_loss(*(a[name] for name in names), config=config)._asdict()


def _optimizer_step(config: Any, a: Inputs, handed: Handed) -> Tensors:
    p = a["p"].clone()
    kept = {name: a[name].clone() if name in a else torch.zeros_like(p) for name in slots(config)}
    rate, step = float(a["lr"]), int(a["step"])
    update_(config, [p], [a["g"]], {k: [v] for k, v in kept.items()}, decays=True, learning_rate=rate, step=step)
    return {"p": p, **kept}


_BODIES: dict[str, Callable[[Any, Inputs, Handed], Tensors]] = {
    "lif": _lif,
    "spike": _spike,
    "relu": _relu,
    "factorize": _factorize,
    "compose": _compose,
    "penalty": _penalty,
    "retract": _retract,
    "conv2d": _conv2d,
    "avg_pool": _avg_pool,
    "global_pool": _global_pool,
    "linear": _linear,
    "batch_norm_train": _batch_norm_train,
    "batch_norm_eval": _batch_norm_eval,
    "readout": _readout,
    "cross_entropy": _cross_entropy,
    "distillation": _distillation,
    "feature_loss": _feature_loss,
    "joint_loss": _joint_loss,
    "optimizer_step": _optimizer_step,
}

OPERATIONS_HERE = frozenset(_BODIES)
"""What is claimed."""

_ON_HOST = {"factorize", "retract", "optimizer_step"}
"""Decompositions, and what is steered by numbers of the host: nothing there for a compiler to do."""
