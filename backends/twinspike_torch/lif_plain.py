"""The neuron in torch's own operations: the kernel that always works, and that torch's compiler can fuse.

u = decay v + x; s = [u >= threshold]; v reset (clauses LIF-1 to LIF-5). Spikes are numbers here and masks are
products with them, exact as both factors are: on the CPU, torch's operations on booleans take up to ten times as long.
Gradients: d = (g + e r) h + e k, e = decay d (clauses LIF-6 to LIF-10).
"""

from __future__ import annotations

import torch
from torch import Tensor

from twinspike.config import Neuron
from twinspike_torch.compiling import stacked
from twinspike_torch.lif_form import Gradients, Outputs, empty_sequence, potential_dtype, shared_by
from twinspike_torch.surrogate import derivative


def forward(x: Tensor, v: Tensor | None, decay: Tensor | None, threshold: Tensor | None, neuron: Neuron, traced: bool) -> Outputs:
    """Run a sequence; arguments as of `twinspike_torch.lif`, `traced` for potentials."""
    alpha, theta = _over_channels(decay, neuron.decay, x), _over_channels(threshold, neuron.threshold, x)
    spikes, potentials = _Sequence(x, x.dtype), _Sequence(x, potential_dtype(x)) if traced else None
    after = v if v is None else v.to(potential_dtype(x))
    for t in range(x.shape[0]):
        u = _charge(x[t], after, alpha, neuron)
        s = _fire(u, theta)
        spikes.put(t, s)
        if potentials is not None:
            potentials.put(t, u)
        after = _reset(u, s, theta, neuron)
    assert after is not None
    return Outputs(spikes.whole(), after, None if potentials is None else potentials.whole())


def backward(
    x: Tensor,
    v: Tensor | None,
    decay: Tensor | None,
    threshold: Tensor | None,
    g: Tensor | None,
    e: Tensor | None,
    neuron: Neuron,
    wanted: tuple[bool, bool],
) -> Gradients:
    """Gradients of a sequence from those of its spikes and of the state after it; `wanted` of decay and threshold."""
    dtype, steps, hard = potential_dtype(x), x.shape[0], neuron.reset == "hard"
    alpha, theta = _over_channels(decay, neuron.decay, x), _over_channels(threshold, neuron.threshold, x)
    before: list[Tensor | None] = [v if v is None else v.to(dtype)]
    u: list[Tensor] = []
    s: list[Tensor] = []
    for t in range(steps):
        u.append(_charge(x[t], before[t], alpha, neuron))
        s.append(_fire(u[t], theta))
        if t + 1 < steps:
            before.append(_reset(u[t], s[t], theta, neuron))
    d_x = _Sequence(x, x.dtype)
    d_decay: Tensor | None = None
    d_threshold: Tensor | None = None
    e = torch.zeros_like(u[-1]) if e is None else e
    for t in reversed(range(steps)):
        g_t = torch.zeros_like(u[t]) if g is None else g[t].to(dtype)
        if not neuron.detach_reset:
            g_t = g_t + e * (neuron.v_reset - u[t] if hard else -theta)
        through_spike = derivative(neuron.surrogate, u[t] - theta).mul_(g_t)
        d = torch.addcmul(e, e, s[t], value=-1.0).add_(through_spike) if hard else through_spike + e
        if wanted[0]:
            start = torch.zeros_like(d) if (b := before[t]) is None else b
            part = d * (start - x[t] if neuron.decay_input else start)
            d_decay = part if d_decay is None else d_decay + part
        if wanted[1]:
            part = -through_spike if hard else -(through_spike + e * s[t])
            d_threshold = part if d_threshold is None else d_threshold + part
        d_x.put(t, (1.0 - alpha) * d if neuron.decay_input else d)
        e = alpha * d
        u.pop()
        s.pop()
    return Gradients(
        x=d_x.whole(),
        v=None if v is None else e,
        decay=shared_by(decay, d_decay),
        threshold=shared_by(threshold, d_threshold),
    )


class _Sequence:
    """A (T, B, C, ...) output that is filled step by step, in the memory layout of one step of `like`."""

    def __init__(self, like: Tensor, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._steps: list[Tensor] = []
        self._out: Tensor | None = None
        # A compiler plans memory itself, and turns writes into slices into copies of the whole.
        if not torch.compiler.is_compiling():
            self._out = empty_sequence(like, dtype)
        else:
            self._steps = [like[0]] * like.shape[0]

    def put(self, t: int, value: Tensor) -> None:
        if self._out is not None:
            self._out[t].copy_(value)
        else:
            self._steps[t] = value.to(self._dtype)

    def whole(self) -> Tensor:
        return stacked(self._steps) if self._out is None else self._out


def _charge(x: Tensor, v: Tensor | None, alpha: Tensor | float, neuron: Neuron) -> Tensor:
    current = x.to(potential_dtype(x))
    if neuron.decay_input:
        current = (1.0 - alpha) * current
    if v is None:
        return current
    return torch.addcmul(current, alpha, v) if isinstance(alpha, Tensor) else torch.add(current, v, alpha=alpha)


def _fire(u: Tensor, theta: Tensor | float) -> Tensor:
    if torch.compiler.is_compiling():
        return (u >= theta).to(u.dtype)
    return torch.ge(u, theta, out=torch.empty_like(u))


def _reset(u: Tensor, s: Tensor, theta: Tensor | float, neuron: Neuron) -> Tensor:
    if neuron.reset == "hard":
        kept = torch.addcmul(u, u, s, value=-1.0)
        return torch.add(kept, s, alpha=neuron.v_reset) if neuron.v_reset else kept
    return torch.addcmul(u, s, theta, value=-1.0) if isinstance(theta, Tensor) else torch.sub(u, s, alpha=theta)


def _over_channels(learned: Tensor | None, constant: float, x: Tensor) -> Tensor | float:
    """A decay or threshold in a shape that broadcasts against one step, (B, C, ...)."""
    if learned is None:
        return constant
    wide = learned.to(potential_dtype(x))
    return wide if learned.ndim == 0 else wide.reshape(-1, *(1,) * (x.ndim - 3))
