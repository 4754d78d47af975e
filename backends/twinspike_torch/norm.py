"""Batch normalization of both twins, all time steps at once (clauses BN-*).

Arrays are (T, B, C, ...). Per step the statistics are (T, C), computed over the time slices without a
loop; the hand-written backward keeps the input and the statistics alone. Statistics and parameters
stay float32 for inputs of lower precision. On the CPU each step goes through torch's own fused kernels, by `norm_cpu`, on
CUDA devices through Triton's, by `norm_triton`, where these are there; what is compiled is left to the compiler.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from twinspike.config import TWINS, BatchNorm, Twin
from twinspike.errors import require
from twinspike_torch import norm_cpu
from twinspike_torch.norm_ranks import synchronized
from twinspike_torch.replicas import Ranks


class Normalized(NamedTuple):
    """Output of a training step and the running statistics after it."""

    y: Tensor
    """(T, B, C, ...), in the input's dtype."""
    mean: Tensor
    """(C,)."""
    var: Tensor
    """(C,)."""


def batch_norm_train(
    norm: BatchNorm,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    repeats: int = 1,
    ranks: Ranks | None = None,
) -> Normalized:
    """Normalize by the batch's own statistics and move the running ones (clauses BN-1 to BN-4).

    Args:
        norm: whether each time step is normalized by itself, the momentum and eps.
        x: (T, B, C, ...).
        gamma: scale, (C,).
        beta: shift, (C,).
        mean: running mean before the step, (C,).
        var: running variance before the step, (C,).
        repeats: how many times the sequence x stands for: T where one step is presented T times, whose
            outputs are equal and whose equal updates have the closed form 1 - (1 - momentum)^T.
        ranks: those with which statistics are shared (clause DEV-3).

    Raises:
        SpecError: there is a single value per channel.
    """
    together = _together(norm, x)
    n = together[0].numel() // x.shape[2]
    if norm.time == "folded":
        n *= repeats
    if ranks is None:
        y, new_mean, new_var = _Normalize.apply(together, gamma, beta, norm.eps)  # type: ignore[no-untyped-call]  # untyped in torch
    else:
        n *= ranks.world_size
        y, new_mean, new_var = synchronized(together, gamma, beta, norm.eps, ranks)
    require(n > 1, "batch norm in training", expected="more than one value per channel", got=n)
    weight = norm.momentum if norm.time == "folded" else 1.0 - (1.0 - norm.momentum) ** repeats
    with torch.no_grad():
        for m, v in zip(new_mean, new_var * (n / (n - 1)), strict=True):
            mean, var = _moved(mean, m, weight), _moved(var, v, weight)
    return Normalized(y.view(x.shape), mean, var)


def _moved(running: Tensor, new: Tensor, weight: float) -> Tensor:
    """(1 - weight) running + weight new; `lerp` takes 1 - weight in the tensors' format, off by 4 roundings at 0.9."""
    return torch.add(running * (1.0 - weight), new, alpha=weight)


@torch.no_grad()
def batch_norm_again(norm: BatchNorm, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """The output of `batch_norm_train`, bit for bit, outside of the graph; arguments as there."""
    y = _normalize(_together(norm, x), gamma, beta, norm.eps)[0]
    return y.view(x.shape)


def batch_norm_eval(norm: BatchNorm, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Normalize by the running statistics, the same at every step (clause BN-5); arguments as in training."""
    scale = gamma * torch.rsqrt(var + norm.eps)
    y = torch.addcmul(_wide(beta, x), x - _wide(mean, x), _wide(scale, x))
    return y.to(x.dtype)


class TwinBatchNorm(nn.Module):
    """Batch normalization with separate parameters and running statistics for each twin (clause BN-6)."""

    gamma_ann: nn.Parameter
    beta_ann: nn.Parameter
    mean_ann: Tensor
    var_ann: Tensor
    gamma_snn: nn.Parameter
    beta_snn: nn.Parameter
    mean_snn: Tensor
    var_snn: Tensor

    def __init__(
        self,
        channels: int,
        norm: BatchNorm | None = None,
        *,
        gamma_snn: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set up a layer.

        Args:
            channels: C.
            norm: all options but `gamma_init`, which a layer by itself can't know the threshold for.
            gamma_snn: initial scale of the spiking twin.
            device: of parameters and statistics.
            dtype: of parameters and statistics.
        """
        super().__init__()
        self.norm = BatchNorm() if norm is None else norm
        for twin in TWINS:
            start = gamma_snn if twin == "snn" else 1.0
            setattr(self, f"gamma_{twin}", nn.Parameter(torch.full((channels,), start, device=device, dtype=dtype)))
            setattr(self, f"beta_{twin}", nn.Parameter(torch.zeros(channels, device=device, dtype=dtype)))
            self.register_buffer(f"mean_{twin}", torch.zeros(channels, device=device, dtype=dtype))
            self.register_buffer(f"var_{twin}", torch.ones(channels, device=device, dtype=dtype))

    def extra_repr(self) -> str:
        """Channels and options, for `print`."""
        return f"{len(self.gamma_ann)} channels, one for each twin, {self.norm}"

    def forward(self, x: Tensor, twin: Twin, *, repeats: int | None = None) -> Tensor:
        """Normalize one twin's values; in training mode its running statistics move.

        Args:
            x: (B, C, ...) of the artificial twin, (T, B, C, ...) of the spiking twin, or with `repeats`
                (B, C, ...) of the spiking twin.
            twin: whose parameters and statistics.
            repeats: T, where the spiking twin is shown the same x at every step; the result is that of
                one step, and the running statistics are those after T of them.
        """
        gamma, beta, mean, var = self.of(twin)
        single = twin == "ann" or repeats is not None
        sequence = x.unsqueeze(0) if single else x
        if self.training:
            y, *moved = batch_norm_train(self.norm, sequence, gamma, beta, mean, var, repeats=repeats or 1)
            self.move(twin, *moved)
        else:
            y = batch_norm_eval(self.norm, sequence, gamma, beta, mean, var)
        return y.squeeze(0) if single else y

    def of(self, twin: Twin) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A twin's gamma, beta, running mean and running variance."""
        if twin == "ann":
            return self.gamma_ann, self.beta_ann, self.mean_ann, self.var_ann
        return self.gamma_snn, self.beta_snn, self.mean_snn, self.var_snn

    @torch.no_grad()
    def move(self, twin: Twin, mean: Tensor, var: Tensor) -> None:
        """Take over a twin's running statistics, (C,) each."""
        _, _, old_mean, old_var = self.of(twin)
        old_mean.copy_(mean)
        old_var.copy_(var)


class _Normalize(torch.autograd.Function):
    """y = gamma z + beta, z = (x - mean)/sqrt(var + eps), with statistics for each first index of x (S, n, C, ...).

    dL/dx = (g' - mean(g') - z mean(g' z))/sqrt(var + eps), g' = gamma g.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        ctx.eps = eps
        y, mean, var, inverse = _normalize(x, gamma, beta, eps)
        ctx.save_for_backward(x, gamma, mean, inverse)
        mean = mean.clone()
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, gamma, mean, inverse = ctx.saved_tensors
        fused = _fused(x)
        if fused is not None:
            d_x, d_gamma, d_beta = fused.gradients(g, x, gamma, mean, inverse, ctx.eps)
            return d_x, d_gamma.sum(0), d_beta.sum(0), None
        wide_g, wide_mean, wide_inverse = g.to(inverse.dtype), _over_steps(mean, x), _over_steps(inverse, x)
        z = (x - wide_mean) * wide_inverse
        sum_g, sum_gz = _sum(wide_g), _sum(wide_g * z)
        n = x[0].numel() // x.shape[2]
        inner = wide_g - sum_g / n - z * (sum_gz / n)
        d_x = (inner * (wide_inverse * _wide(gamma, x))).to(x.dtype)
        return d_x, sum_gz.reshape(mean.shape).sum(0), sum_g.reshape(mean.shape).sum(0), None


def _normalize(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, and for each first index of x the mean, the biased variance and 1/sqrt(variance + eps), (S, C)."""
    fused = _fused(x)
    if fused is not None:
        found: tuple[Tensor, Tensor, Tensor, Tensor] = fused.normalize(x, gamma, beta, eps)
        return found
    wide = x.to(torch.promote_types(x.dtype, gamma.dtype))
    if x.device.type == "cpu":  # where `var_mean` updates both value by value, in one chain
        n = x[0].numel() // x.shape[2]
        mean = _sum(wide) / n
        var = _sum((wide - mean).square()) / n
    else:
        var, mean = torch.var_mean(wide, _axes(x), correction=0, keepdim=True)
    inverse = torch.rsqrt(var + eps)
    y = torch.addcmul(_wide(beta, x), wide - mean, inverse * _wide(gamma, x)).to(x.dtype)
    mean, var, inverse = (q.reshape(x.shape[0], x.shape[2]) for q in (mean, var, inverse))
    return y, mean, var, inverse


def served(devices: tuple[str, ...]) -> dict[str, str]:
    """Case -> who computes it, on devices of CUDA, as `twinspike.Capabilities.kernels`."""
    if "cuda" not in devices:
        return {}
    missing = _missing()
    text = f"triton {importlib.import_module('triton').__version__}" if missing is None else f"plain torch: {missing}"
    return {"batch norm on cuda": text}


def _fused(x: Tensor) -> ModuleType | None:
    """The module whose passes serve x, (S, n, C, ...); None: torch's operations one by one."""
    if norm_cpu.serves(x):
        return norm_cpu
    if x.device.type != "cuda" or torch.compiler.is_compiling() or _missing() is not None:
        return None
    by_triton = importlib.import_module("twinspike_torch.norm_triton")
    return by_triton if by_triton.fits(x) else None


@cache
def _missing() -> str | None:
    """Why Triton's kernels can't be had; None if they can."""
    if find_spec("triton") is None:
        return "triton is not installed"
    try:
        importlib.import_module("twinspike_torch.norm_triton")
    except ImportError as error:
        return f"triton can't be imported ({error})"
    return None


def _over_steps(statistic: Tensor, x: Tensor) -> Tensor:
    """(S, C) in a shape that broadcasts against x (S, n, C, ...)."""
    return statistic.reshape(x.shape[0], 1, x.shape[2], *(1,) * (x.ndim - 3))


def _together(norm: BatchNorm, x: Tensor) -> Tensor:
    """(S, n, C, ...), statistics being taken for each first index."""
    return x.flatten(0, 1).unsqueeze(0) if norm.time == "folded" else x


def _axes(x: Tensor) -> tuple[int, ...]:
    return (1, *range(3, x.ndim))


def _sum(values: Tensor) -> Tensor:
    """Over all axes but the first and that of C, kept; on a CPU one after another: a compiler adds up each in one chain."""
    if values.device.type != "cpu":
        return values.sum(_axes(values), keepdim=True)
    for axis in reversed(_axes(values)):
        values = values.sum(axis, keepdim=True)
    return values


def _wide(c: Tensor, x: Tensor) -> Tensor:
    """(C,) in a shape that broadcasts against (T, B, C, ...)."""
    return c.reshape(-1, *(1,) * (x.ndim - 3))
