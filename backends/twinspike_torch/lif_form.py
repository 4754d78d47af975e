"""What all kernels of the neuron share: its options as numbers, its formats, and its memory seen as flat runs.

A kernel works on T runs of N numbers in storage order, whatever order of axes that is: a step that is dense in
memory, such as a channels-last one, is read where it lies, and anything else is copied first.
"""

from __future__ import annotations

from typing import NamedTuple, assert_never

import torch
from torch import Tensor

from twinspike.config import Arctan, FastSigmoid, Neuron, Rectangle, Sigmoid, Surrogate, Tanh, Triangle

RECTANGLE, TRIANGLE, SIGMOID, ARCTAN, FAST_SIGMOID, TANH = range(6)
"""Surrogates as kernels number them."""


class Form(NamedTuple):
    """A neuron's options as kernels take them; all are floats, so that an operator's schema can hold the list."""

    decay: float
    """Where no learned one is given, as for `threshold`."""
    threshold: float
    v_reset: float
    hard: float
    detach_reset: float
    decay_input: float
    surrogate: float
    """One of the numbers above."""
    width: float
    """Width or slope of the surrogate."""


class Outputs(NamedTuple):
    """What a kernel's forward pass gives."""

    s: Tensor
    v: Tensor
    u: Tensor | None
    """Where it was asked for."""


class Gradients(NamedTuple):
    """What a kernel's backward pass gives: the current's, the initial state's, and those of learned quantities."""

    x: Tensor
    v: Tensor | None
    """Where there is an initial state; others where they were asked for."""
    decay: Tensor | None
    threshold: Tensor | None


def form(neuron: Neuron) -> Form:
    """The options of a neuron."""
    code, width = _surrogate(neuron.surrogate)
    return Form(
        decay=neuron.decay,
        threshold=neuron.threshold,
        v_reset=neuron.v_reset,
        hard=float(neuron.reset == "hard"),
        detach_reset=float(neuron.detach_reset),
        decay_input=float(neuron.decay_input),
        surrogate=float(code),
        width=width,
    )


def _surrogate(surrogate: Surrogate) -> tuple[int, float]:
    match surrogate:
        case Rectangle():
            return RECTANGLE, surrogate.width
        case Triangle():
            return TRIANGLE, surrogate.width
        case Sigmoid():
            return SIGMOID, surrogate.slope
        case Arctan():
            return ARCTAN, surrogate.slope
        case FastSigmoid():
            return FAST_SIGMOID, surrogate.slope
        case Tanh():
            return TANH, surrogate.slope
        case _:
            assert_never(surrogate)


def potential_dtype(x: Tensor) -> torch.dtype:
    """Potentials are never kept in less than float32."""
    return torch.promote_types(x.dtype, torch.float32)


def empty_sequence(x: Tensor, dtype: torch.dtype) -> Tensor:
    """An unfilled (T, B, C, ...) in the memory layout of one step of x, steps one after the other."""
    step = empty_step(x, dtype)
    return step.new_empty_strided((x.shape[0], *step.shape), (step.numel(), *step.stride()))


def empty_step(x: Tensor, dtype: torch.dtype) -> Tensor:
    """An unfilled (B, C, ...) in the memory layout of one step of x."""
    return torch.empty_like(x[0], dtype=dtype)


def runs(values: Tensor, like: Tensor) -> tuple[Tensor, int]:
    """A sequence as flat memory, and how many numbers its steps lie apart (0 where one step serves all).

    Args:
        values: (T, B, C, ...); copied only if its steps are not dense in memory in the order of `like`.
        like: an output of `empty_step`, (B, C, ...).
    """
    if not _ordered(values.stride()[1:], like):
        own = like.new_empty_strided(values.shape, (like.numel(), *like.stride()), dtype=values.dtype)
        values = own.copy_(values)
    apart = values.stride(0) if values.shape[0] > 1 else 0
    return values.as_strided(((values.shape[0] - 1) * apart + like.numel(),), (1,)), apart


def run(values: Tensor, like: Tensor) -> Tensor:
    """A (B, C, ...) as flat memory of like's format, (N,), copied only if it has to be."""
    if values.dtype != like.dtype or not _ordered(values.stride(), like):
        values = torch.empty_like(like).copy_(values)
    return values.as_strided((like.numel(),), (1,))


def channel_run(like: Tensor) -> int:
    """How many neighbours in memory belong to one channel: entry i is of channel i // run % C."""
    return like.stride(1) if like.shape[1] > 1 else max(like.numel(), 1)


def shared_by(quantity: Tensor | None, gradient: Tensor | None) -> Tensor | None:
    """The sum of a gradient, (B, C, ...), over the entries that share a learned quantity, () or (C,); None without either."""
    if quantity is None or gradient is None:
        return None
    if quantity.ndim == 0:
        return gradient.sum().to(quantity.dtype)
    return gradient.sum(dim=(0, *range(2, gradient.ndim))).to(quantity.dtype)


def _ordered(strides: tuple[int, ...], like: Tensor) -> bool:
    return all(n == 1 or a == b for n, a, b in zip(like.shape, strides, like.stride(), strict=True))
