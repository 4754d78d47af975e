"""A norm in training, what is added to it, and the activation that alone reads them, as one function where Triton serves.

`norm_activation_triton` says how. It is for CUDA devices, in training without ranks; whatever else there is (learned
quantities, many steps, other layouts, traces, what is compiled) goes layer by layer.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from twinspike.config import BatchNorm, Method
from twinspike.errors import require
from twinspike_torch import lif_kernels
from twinspike_torch.lif_form import Form, form
from twinspike_torch.lif_kernels import Kernel


class Source(NamedTuple):
    """A norm that is not computed yet."""

    x: Tensor
    """(T, B, C, ...), or (1, B, C, ...) where it is the same at every step."""
    gamma: Tensor
    beta: Tensor
    mean: Tensor
    """Running, (C,), as `var`."""
    var: Tensor
    repeats: int
    """As of `norm.batch_norm_train`."""


class Activated(NamedTuple):
    """What comes of it."""

    y: Tensor
    """(T, B, C, ...), spikes or rectified values."""
    moved: tuple[tuple[Tensor, Tensor], ...]
    """Running mean and variance of each norm after the step."""


def serves(method: Method, kernel: Kernel, device: torch.device) -> bool:
    """Whether layers may be left to `activated` at all; arguments as of a network and of its device."""
    constant = method.neuron.decay_scope == method.neuron.threshold_scope == "constant"
    if not constant or torch.compiler.is_compiling():
        return False
    if lif_kernels.choose(kernel, device.type, False, "short") != "triton":
        return False
    return bool(method.time_steps <= _by_triton().STEPS)


def fits(source: Source, other: Source | Tensor | None, steps: int) -> bool:
    """Whether kernels can read the tensors: channels last, what is added as the norm's input."""
    x = source.x
    like = [value.x if isinstance(value, Source) else value for value in (other,) if value is not None]
    if not importlib.import_module("twinspike_torch.norm_triton").fits(x) or x.shape[0] not in (1, steps):
        return False
    return all(x.shape[0] == steps and y.shape == x.shape and y.stride() == x.stride() and y.dtype == x.dtype for y in like)


def activated(
    config: BatchNorm, neurons: Method | None, steps: int, source: Source, other: Source | Tensor | None, spikes: Tensor | None
) -> Activated:
    """Compute what `fits`.

    Args:
        config: of the norms.
        neurons: whose method's; None rectifies.
        steps: T.
        source: the norm.
        other: what is added, another norm or a value, (T, B, C, ...).
        spikes: a scalar of float64 that their number is added to; None counts none.

    Raises:
        SpecError: a norm has a single value per channel.
    """
    for norm in (source, other):
        if isinstance(norm, Source):
            n = norm.x.numel() // norm.x.shape[2] // (norm.x.shape[0] if config.time == "per_step" else 1)
            n *= norm.repeats if config.time == "folded" else 1
            require(n > 1, "batch norm in training", expected="more than one value per channel", got=n)
    more = (other, *(None,) * 5) if not isinstance(other, Source) else other
    own = None if neurons is None else form(neurons.neuron)
    y, *moved = _Activated.apply(config, own, steps, spikes, *source, *more)  # type: ignore[no-untyped-call]  # torch types no apply
    pairs = tuple(zip(moved[::2], moved[1::2], strict=True))
    return Activated(y, pairs)


class _Activated(torch.autograd.Function):
    """Kept for the backward pass are the norms' inputs and statistics, and what is added."""

    @staticmethod
    def forward(
        ctx: Any, config: BatchNorm, own: Form | None, steps: int, spikes: Tensor | None, *given: Any
    ) -> tuple[Tensor, ...]:
        by, norm = _by_triton(), Source(*given[:6])
        other = Source(*given[6:]) if given[7] is not None else given[6]
        ctx.config, ctx.shape = config, by.shape(config, own, steps, norm.x, other)
        known, *moved = by.statistics(config, norm)
        added: tuple[Tensor, ...]
        if isinstance(other, Source):
            added, *of_other = by.statistics(config, other)
            moved += of_other
        else:
            added = () if other is None else (other,)
        y: Tensor = by.activate(ctx.shape, known, added, spikes)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*known, *added)
        ctx.mark_non_differentiable(*moved)
        return y, *moved

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if g is None:
            return (None,) * 16
        by, kept = _by_triton(), ctx.saved_tensors
        found = by.gradients(ctx.config, ctx.shape, by.Known(*kept[:5]), kept[5:], g)
        nothing = (None,) * 3
        return None, *nothing, *found[:3], *nothing, *found[3:], *nothing


def _by_triton() -> Any:
    # Triton takes a second to import: not before it is used.
    return importlib.import_module("twinspike_torch.norm_activation_triton")
