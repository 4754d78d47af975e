"""The leaky integrate-and-fire neuron as one autograd function over the whole sequence (clauses LIF-*).

The backward pass is written by hand and starts from the current alone: potentials are charged again
instead of being kept, so a layer saves one tensor in the format that it was given. Outputs have the
memory layout of a step's input, so channels-last stays channels-last.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twinspike.config import Neuron, Scope
from twinspike.errors import require
from twinspike_torch.surrogate import derivative


class Spikes(NamedTuple):
    """What a sequence gives."""

    s: Tensor
    """Spikes, (T, B, C, ...), exactly 0 or 1, in the current's dtype."""
    v: Tensor
    """Potential after the last step, (B, C, ...), float32 for a current of lower precision."""


class Traced(NamedTuple):
    """What a sequence gives, with its potentials."""

    s: Tensor
    v: Tensor
    u: Tensor
    """Potentials before reset, (T, B, C, ...), outside of the graph."""


def lif(
    x: Tensor,
    v: Tensor | None = None,
    *,
    neuron: Neuron,
    decay: Tensor | None = None,
    threshold: Tensor | None = None,
) -> Spikes:
    """Run leaky integrate-and-fire neurons over a sequence.

    Args:
        x: current, (T, B, C, ...), floating.
        v: potential before the first step, (B, C, ...); 0 if not given.
        neuron: reset, surrogate and input options, and decay and threshold where these are not given.
        decay: learned, () or (C,), in [0, 1].
        threshold: learned, () or (C,), > 0.

    Raises:
        SpecError: a shape does not fit.
    """
    s, after, _ = _run(x, v, neuron, decay, threshold, False)
    return Spikes(s, after)


def lif_traced(
    x: Tensor,
    v: Tensor | None = None,
    *,
    neuron: Neuron,
    decay: Tensor | None = None,
    threshold: Tensor | None = None,
) -> Traced:
    """As `lif`, with the potential before reset of every step."""
    s, after, u = _run(x, v, neuron, decay, threshold, True)
    assert u is not None
    return Traced(s, after, u)


def spike(u: Tensor, neuron: Neuron) -> Tensor:
    """s = [u >= threshold], with ds/du = h(u - threshold) (clause LIF-2).

    Args:
        u: potential, any shape, floating.
        neuron: its threshold and surrogate count.
    """
    s: Tensor = _Spike.apply(u, neuron)  # type: ignore[no-untyped-call]  # torch types no apply
    return s


class LIF(nn.Module):
    """A layer of neurons: `s, v = layer(x)` on (T, B, C, ...), with its learned quantities as parameters."""

    decay: nn.Parameter | None
    threshold: nn.Parameter | None

    def __init__(
        self,
        neuron: Neuron | None = None,
        channels: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set up a layer.

        Args:
            neuron: all options; the default is the paper's neuron.
            channels: C, needed where a quantity is learned per channel.
            device: of the parameters.
            dtype: of the parameters.

        Raises:
            SpecError: a quantity is per channel and `channels` is missing.
        """
        super().__init__()
        self.neuron = Neuron() if neuron is None else neuron

        def quantity(name: str, scope: Scope, start: float) -> nn.Parameter | None:
            if scope == "constant":
                return None
            require(scope == "layer" or channels is not None, "channels", expected=f"their number for a {name}", got=channels)
            shape = (channels,) if scope == "channel" and channels is not None else ()
            return nn.Parameter(torch.full(shape, start, device=device, dtype=dtype))

        self.decay = quantity("decay", self.neuron.decay_scope, self.neuron.decay)
        self.threshold = quantity("threshold", self.neuron.threshold_scope, self.neuron.threshold)

    def forward(self, x: Tensor, v: Tensor | None = None) -> Spikes:
        """Spikes of a sequence and the potential after it; arguments as of `lif`."""
        return lif(x, v, neuron=self.neuron, decay=self.decay, threshold=self.threshold)

    def traced(self, x: Tensor, v: Tensor | None = None) -> Traced:
        """As calling the layer, with the potentials."""
        return lif_traced(x, v, neuron=self.neuron, decay=self.decay, threshold=self.threshold)

    def extra_repr(self) -> str:
        """The neuron's options, for `print`."""
        return repr(self.neuron)


def _run(
    x: Tensor, v: Tensor | None, neuron: Neuron, decay: Tensor | None, threshold: Tensor | None, traced: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    require(x.ndim >= 3 and x.is_floating_point(), "lif.x", expected="a floating (T, B, C, ...)", got=tuple(x.shape))
    require(v is None or v.shape == x.shape[1:], "lif.v", expected=f"shape {tuple(x.shape[1:])}", got=v)
    for name, value in (("decay", decay), ("threshold", threshold)):
        fits = value is None or value.shape in ((), x.shape[2:3])
        require(fits, f"lif.{name}", expected=f"shape () or {tuple(x.shape[2:3])}", got=value)
    out: tuple[Tensor, Tensor, Tensor | None]
    out = _LIF.apply(x, v, decay, threshold, neuron, traced)  # type: ignore[no-untyped-call]  # torch types no apply
    return out


class _LIF(torch.autograd.Function):
    """u = decay v + x; s = [u >= threshold]; v reset. Gradients: d = (g + e r) h + e k, e = decay d."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, v: Tensor | None, decay: Tensor | None, threshold: Tensor | None, neuron: Neuron, traced: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.save_for_backward(x, v, decay, threshold)
        ctx.neuron = neuron
        alpha, theta = _over_channels(decay, neuron.decay, x), _over_channels(threshold, neuron.threshold, x)
        spikes, potentials = _Sequence(x, x.dtype), _Sequence(x, _potential_dtype(x)) if traced else None
        after = v if v is None else v.to(_potential_dtype(x))
        for t in range(x.shape[0]):
            u = _charge(x[t], after, alpha, neuron)
            fired = u >= theta
            spikes.put(t, fired)
            if potentials is not None:
                potentials.put(t, u)
            after = _reset(u, fired, theta, neuron)
        assert after is not None
        if potentials is None:
            return spikes.whole(), after, None
        all_u = potentials.whole()
        ctx.mark_non_differentiable(all_u)
        return spikes.whole(), after, all_u

    @staticmethod
    def backward(ctx: Any, g: Tensor, e: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        x, v, decay, threshold = ctx.saved_tensors
        neuron: Neuron = ctx.neuron
        dtype = _potential_dtype(x)
        alpha, theta = _over_channels(decay, neuron.decay, x), _over_channels(threshold, neuron.threshold, x)
        steps = x.shape[0]
        before: list[Tensor | None] = [v if v is None else v.to(dtype)]
        u: list[Tensor] = []
        for t in range(steps):
            u.append(_charge(x[t], before[t], alpha, neuron))
            if t + 1 < steps:
                before.append(_reset(u[t], u[t] >= theta, theta, neuron))
        d_x, hard = _Sequence(x, x.dtype), neuron.reset == "hard"
        d_decay: Tensor | None = None
        d_threshold: Tensor | None = None
        for t in reversed(range(steps)):
            fired = u[t] >= theta
            g_t = g[t].to(dtype)
            if not neuron.detach_reset:
                g_t = g_t + e * (neuron.v_reset - u[t] if hard else -theta)
            through_spike = g_t * derivative(neuron.surrogate, u[t] - theta)
            d = through_spike + (e.masked_fill(fired, 0.0) if hard else e)
            if ctx.needs_input_grad[2]:
                start = torch.zeros_like(d) if (b := before[t]) is None else b
                part = _shared_by(decay, d * (start - x[t] if neuron.decay_input else start))
                d_decay = part if d_decay is None else d_decay + part
            if ctx.needs_input_grad[3]:
                part = _shared_by(threshold, -through_spike if hard else -(through_spike + e * fired))
                d_threshold = part if d_threshold is None else d_threshold + part
            d_x.put(t, (1.0 - alpha) * d if neuron.decay_input else d)
            e = alpha * d
            u.pop()
        return d_x.whole(), None if v is None else e.to(v.dtype), d_decay, d_threshold, None, None


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, neuron: Neuron) -> Tensor:
        ctx.save_for_backward(u)
        ctx.neuron = neuron
        return (u >= neuron.threshold).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return g * derivative(ctx.neuron.surrogate, u - ctx.neuron.threshold), None


class _Sequence:
    """A (T, B, C, ...) output that is filled step by step, in the memory layout of one step of `like`."""

    def __init__(self, like: Tensor, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._steps: list[Tensor] = []
        self._out: Tensor | None = None
        # A compiler plans memory itself, and turns writes into slices into copies of the whole.
        if not torch.compiler.is_compiling():
            step = torch.empty_like(like[0], dtype=dtype)
            self._out = step.new_empty_strided((like.shape[0], *step.shape), (step.numel(), *step.stride()))
        else:
            self._steps = [like[0]] * like.shape[0]

    def put(self, t: int, value: Tensor) -> None:
        if self._out is not None:
            self._out[t].copy_(value)
        else:
            self._steps[t] = value.to(self._dtype)

    def whole(self) -> Tensor:
        return torch.stack(self._steps) if self._out is None else self._out


def _potential_dtype(x: Tensor) -> torch.dtype:
    """Potentials are never kept in less than float32."""
    return torch.promote_types(x.dtype, torch.float32)


def _charge(x: Tensor, v: Tensor | None, alpha: Tensor | float, neuron: Neuron) -> Tensor:
    current = x.to(_potential_dtype(x))
    if neuron.decay_input:
        current = (1.0 - alpha) * current
    if v is None:
        return current
    return torch.addcmul(current, alpha, v) if isinstance(alpha, Tensor) else torch.add(current, v, alpha=alpha)


def _reset(u: Tensor, fired: Tensor, theta: Tensor | float, neuron: Neuron) -> Tensor:
    return u.masked_fill(fired, neuron.v_reset) if neuron.reset == "hard" else u - fired.to(u.dtype) * theta


def _over_channels(learned: Tensor | None, constant: float, x: Tensor) -> Tensor | float:
    """A decay or threshold in a shape that broadcasts against one step, (B, C, ...)."""
    if learned is None:
        return constant
    wide = learned.to(_potential_dtype(x))
    return wide if learned.ndim == 0 else wide.reshape(-1, *(1,) * (x.ndim - 3))


def _shared_by(quantity: Tensor, gradient: Tensor) -> Tensor:
    """Sum over the entries that share a quantity."""
    if quantity.ndim == 0:
        return gradient.sum().to(quantity.dtype)
    return gradient.sum(dim=(0, *range(2, gradient.ndim))).to(quantity.dtype)
