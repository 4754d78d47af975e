"""The leaky integrate-and-fire neuron as one autograd function over the whole sequence (clauses LIF-*).

The backward pass is written by hand and starts from the current alone: potentials are charged again
instead of being kept, so a layer saves one tensor in the format that it was given. Outputs have the
memory layout of a step's input, so channels-last stays channels-last. `lif_kernels` says who computes;
the gradient itself can't be differentiated again. Within torch.func `lif_func` computes.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from twinspike.config import Neuron, Scope
from twinspike.errors import refuse, require
from twinspike_torch import lif_func, lif_kernels, lif_plain
from twinspike_torch.lif_form import form
from twinspike_torch.lif_kernels import Kernel
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
    u: Tensor
    """Potentials before reset, (T, B, C, ...), outside of the graph."""
    v: Tensor


def lif(
    x: Tensor,
    v: Tensor | None = None,
    *,
    neuron: Neuron,
    decay: Tensor | None = None,
    threshold: Tensor | None = None,
    kernel: Kernel = "auto",
) -> Spikes:
    """Run leaky integrate-and-fire neurons over a sequence.

    Args:
        x: current, (T, B, C, ...), floating, T >= 1.
        v: potential before the first step, (B, C, ...); 0 if not given.
        neuron: reset, surrogate and input options, and decay and threshold where these are not given.
        decay: learned, () or (C,), in [0, 1].
        threshold: learned, () or (C,), > 0.
        kernel: who computes: `auto` for the device's fused kernel where it is installed, `plain` for torch's own
            operations, or one by name.

    Raises:
        SpecError: a shape does not fit, or the kernel is not there.
    """
    s, after, _ = _run(x, v, neuron, decay, threshold, kernel, False)
    return Spikes(s, after)


def lif_traced(
    x: Tensor,
    v: Tensor | None = None,
    *,
    neuron: Neuron,
    decay: Tensor | None = None,
    threshold: Tensor | None = None,
    kernel: Kernel = "auto",
) -> Traced:
    """As `lif`, with the potential before reset of every step."""
    s, after, u = _run(x, v, neuron, decay, threshold, kernel, True)
    assert u is not None
    return Traced(s, u, after)


def spike(u: Tensor, *, neuron: Neuron) -> Tensor:
    """s = [u >= threshold], with ds/du = h(u - threshold) (clause LIF-2).

    Args:
        u: potential, any shape, floating.
        neuron: its threshold and surrogate count.
    """
    if lif_func.transforming():
        return lif_func.fire(u, neuron.threshold, neuron)
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
        kernel: Kernel = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set up a layer.

        Args:
            neuron: all options; the default is the paper's neuron.
            channels: C, needed where a quantity is learned per channel.
            kernel: who computes, as of `lif`.
            device: of the parameters.
            dtype: of the parameters.

        Raises:
            SpecError: a quantity is per channel and `channels` is missing.
        """
        super().__init__()
        self.neuron = Neuron() if neuron is None else neuron
        self.kernel: Kernel = kernel

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
        return lif(x, v, neuron=self.neuron, decay=self.decay, threshold=self.threshold, kernel=self.kernel)

    def traced(self, x: Tensor, v: Tensor | None = None) -> Traced:
        """As calling the layer, with the potentials."""
        return lif_traced(x, v, neuron=self.neuron, decay=self.decay, threshold=self.threshold, kernel=self.kernel)

    def extra_repr(self) -> str:
        """The neuron's options, for `print`."""
        return repr(self.neuron)


def _run(
    x: Tensor,
    v: Tensor | None,
    neuron: Neuron,
    decay: Tensor | None,
    threshold: Tensor | None,
    kernel: Kernel,
    traced: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    shape = x.shape
    fits = len(shape) >= 3 and x.is_floating_point() and shape[0] > 0
    if not fits:
        raise refuse("lif.x", expected="a floating (T, B, C, ...) with T >= 1", got=tuple(shape))
    if v is not None and v.shape != shape[1:]:
        raise refuse("lif.v", expected=f"shape {tuple(shape[1:])}", got=v)
    for name, value in (("decay", decay), ("threshold", threshold)):
        if value is not None and value.shape not in ((), shape[2:3]):
            raise refuse(f"lif.{name}", expected=f"shape () or {tuple(shape[2:3])}", got=value)
    out: tuple[Tensor, Tensor, Tensor | None]
    if lif_func.transforming():
        require(kernel in ("auto", "plain"), "lif.kernel", expected="auto or plain within torch.func", got=kernel)
        return lif_func.sequence(x, v, decay, threshold, neuron, traced)
    length: Literal["short", "long"] = "short" if shape[0] <= lif_kernels.UNROLLED else "long"
    chosen = lif_kernels.choose(kernel, x.device.type, torch.compiler.is_compiling(), length)
    out = _LIF.apply(x, v, decay, threshold, neuron, chosen, traced)  # type: ignore[no-untyped-call]  # torch types no apply
    return out


class _LIF(torch.autograd.Function):
    """Spikes, last potential and, where traced, potentials; a kernel computes both directions from the current alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        v: Tensor | None,
        decay: Tensor | None,
        threshold: Tensor | None,
        neuron: Neuron,
        kernel: Kernel,
        traced: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.save_for_backward(x, v, decay, threshold)
        ctx.set_materialize_grads(False)
        ctx.neuron, ctx.kernel = neuron, kernel
        if kernel == "plain":
            s, after, u = lif_plain.forward(x, v, decay, threshold, neuron, traced)
        else:
            ctx.form = form(neuron)
            s, after, u = lif_kernels.forward(kernel, x, v, decay, threshold, ctx.form, traced)
        if u is not None:
            ctx.mark_non_differentiable(u)
        return s, after, u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, e: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        x, v, decay, threshold = ctx.saved_tensors
        # is_grads_batched and autograd.functional's vectorize run a whole backward pass under vmap.
        lif_func.refuse_transforms(
            "gradient of lif", "take the whole function through torch.func, or one gradient at a time", g, e
        )
        wanted = (ctx.needs_input_grad[2], ctx.needs_input_grad[3])
        if ctx.kernel == "plain":
            found = lif_plain.backward(x, v, decay, threshold, g, e, ctx.neuron, wanted)
        else:
            found = lif_kernels.backward(ctx.kernel, x, v, decay, threshold, g, e, ctx.form, wanted)
        d_v = None if v is None or found.v is None else found.v.to(v.dtype)
        return found.x, d_v, found.decay, found.threshold, None, None, None


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
