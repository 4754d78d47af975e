"""The neuron within torch.func: grad, vmap, jvp and what is made of them transform each operation by itself.

Fused kernels and hand-written passes over time take whole tensors, so within a transform the sequence is composed of
differentiable operations, of which the step alone has a rule of its own: h(u - threshold) forward and backward. Values are
those of the plain kernel, gradients those of the clauses (LIF-6 to LIF-10), rounded in another order, and slower. The clauses
know no second derivatives; a second transform gives those of h.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from twinspike.config import Neuron, Rectangle, Surrogate
from twinspike.errors import SpecError
from twinspike_torch.lif_form import potential_dtype
from twinspike_torch.surrogate import derivative


def transforming() -> bool:
    """Whether a transform of torch.func is at work here."""
    return not torch.compiler.is_compiling() and bool(torch._C._are_functorch_transforms_active())


def refuse_transforms(what: str, do: str, *tensors: Tensor | None) -> None:
    """Refuse in one line what a transform would take apart, or tensors that vmap has made of many."""
    # Gradients batched by autograd itself come by another way than torch.func's.
    batched = torch._C._functorch.is_legacy_batchedtensor
    if transforming() or (not torch.compiler.is_compiling() and any(batched(t) for t in tensors if t is not None)):
        raise SpecError(f"{what}: expected a call outside of torch.func and vmap, got one within; {do}")


class _Fire(torch.autograd.Function):
    """(z, fires) -> fires as numbers, whose derivative is h(z)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, fires: Tensor, neuron: Neuron) -> Tensor:
        return fires.to(z.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Neuron], output: Tensor) -> None:
        z, _, ctx.neuron = inputs
        ctx.save_for_backward(z)
        ctx.save_for_forward(z)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        return g * _h(ctx.neuron.surrogate, z), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        (z,) = ctx.saved_tensors
        return tangent * _h(ctx.neuron.surrogate, z)


def _h(surrogate: Surrogate, z: Tensor) -> Tensor:
    """h(z); the rectangle's without what vmap has no rule for (clause SUR-2)."""
    if isinstance(surrogate, Rectangle):
        return (z.abs() < surrogate.width / 2).to(z.dtype) * (1.0 / surrogate.width)
    return derivative(surrogate, z)


def fire(u: Tensor, theta: Tensor | float, neuron: Neuron) -> Tensor:
    """[u >= threshold], with ds/du = h(u - threshold) and ds/dtheta its negative (clauses LIF-2, LIF-6, LIF-10)."""
    s: Tensor = _Fire.apply(u - theta, u >= theta, neuron)  # type: ignore[no-untyped-call]  # torch types no apply
    return s


def sequence(
    x: Tensor, v: Tensor | None, decay: Tensor | None, threshold: Tensor | None, neuron: Neuron, traced: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Spikes, last potential and, where traced, potentials; arguments as of `twinspike_torch.lif`."""
    dtype = potential_dtype(x)
    alpha, theta = _wide(decay, neuron.decay, x), _wide(threshold, neuron.threshold, x)
    current = (1.0 - alpha) * x.to(dtype) if neuron.decay_input else x.to(dtype)
    after = None if v is None else v.to(dtype)
    spikes, potentials = [], []
    for x_t in current.unbind(0):
        u = x_t if after is None else alpha * after + x_t
        s = fire(u, theta, neuron)
        kept = s.detach() if neuron.detach_reset else s
        after = u - kept * theta if neuron.reset == "soft" else u - kept * u + kept * neuron.v_reset
        spikes.append(s.to(x.dtype))
        potentials.append(u)
    assert after is not None
    return torch.stack(spikes), after, torch.stack(potentials).detach() if traced else None


def _wide(learned: Tensor | None, constant: float, x: Tensor) -> Tensor | float:
    if learned is None:
        return constant
    wide = learned.to(potential_dtype(x))
    return wide if learned.ndim == 0 else wide.reshape(-1, *(1,) * (x.ndim - 3))
