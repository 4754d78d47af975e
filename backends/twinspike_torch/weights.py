"""Convolutions and linear layers of two twins: factored with shared U and V, or one kernel each.

A convolution takes any number of leading axes, (B, ...) or (T, B, ...), and folds them into one batch.
Factored kernels are composed in the parameters' own dtype; operands are cast only where `operands`
says so, or by autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from twinspike.config import TWINS, Factorization, Twin
from twinspike_torch.convolution import convolve
from twinspike_torch.factorization import Factors, compose, compose_each, factorize


class _Factored(nn.Module):
    """Holds U, sigma_ann, sigma_snn and V of one kernel (clause FAC-7)."""

    U: nn.Parameter
    sigma_ann: nn.Parameter
    sigma_snn: nn.Parameter
    V: nn.Parameter

    def __init__(self, factors: Factors, kernel_shape: tuple[int, ...], factorization: Factorization | None) -> None:
        super().__init__()
        self.factorization = Factorization() if factorization is None else factorization
        self.kernel_shape = tuple(kernel_shape)
        u, sigma, v = (part.detach() for part in factors)
        self.U, self.V = nn.Parameter(u.clone()), nn.Parameter(v.clone())
        self.sigma_ann, self.sigma_snn = nn.Parameter(sigma.clone()), nn.Parameter(sigma.clone())

    def extra_repr(self) -> str:
        """The kernel's shape, the rank of its factors and what is trained, for `print`."""
        size = sum(value.numel() for value in self.parameters())
        return f"{'x'.join(map(str, self.kernel_shape))}, rank {self.U.shape[-1]}, {size:,} parameters"

    def kernel(self, twin: Twin, *, isolate: bool = False) -> Tensor:
        """The twin's kernel; with `isolate` no gradient reaches U and V (clause DIS-7)."""
        u, v = (self.U.detach(), self.V.detach()) if isolate else (self.U, self.V)
        sigma = self.sigma_ann if twin == "ann" else self.sigma_snn
        return compose(u, sigma, v, factorization=self.factorization, kernel_shape=self.kernel_shape)

    def kernels(
        self, *, isolate: bool = False, composed: tuple[bool, bool] = (True, True)
    ) -> tuple[Tensor | Factors, Tensor | Factors]:
        """Both twins' kernels, the artificial one's first, or its factors where it is not to be `composed`.

        `isolate` holds for the spiking twin.
        """
        sigmas, isolated = (self.sigma_ann, self.sigma_snn), (False, isolate)
        u, v, wanted = self.U, self.V, [i for i in range(2) if composed[i]]
        found: list[Tensor | Factors] = [
            Factors(u.detach(), sigma, v.detach()) if alone else Factors(u, sigma, v)
            for sigma, alone in zip(sigmas, isolated, strict=True)
        ]
        if wanted:
            which = [sigmas[i] for i in wanted]
            kernels = compose_each(self.factorization, u, v, self.kernel_shape, which, isolated=[isolated[i] for i in wanted])
            for i, kernel in zip(wanted, kernels, strict=True):
                found[i] = kernel
        return found[0], found[1]


class _Separate(nn.Module):
    """Holds one kernel per twin (clause FAC-8)."""

    weight_ann: nn.Parameter
    weight_snn: nn.Parameter

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        for twin in TWINS:
            setattr(self, f"weight_{twin}", nn.Parameter(kernel.detach().clone()))

    def extra_repr(self) -> str:
        """The kernel's shape and what is trained, for `print`."""
        size = sum(value.numel() for value in self.parameters())
        return f"{'x'.join(map(str, self.weight_ann.shape))}, one for each twin, {size:,} parameters"

    def kernel(self, twin: Twin, *, isolate: bool = False) -> Tensor:
        """The twin's kernel; nothing is shared, so `isolate` changes nothing."""
        return self.weight_ann if twin == "ann" else self.weight_snn

    def kernels(self, *, isolate: bool = False) -> tuple[Tensor, Tensor]:
        """Both twins' kernels, the artificial one's first."""
        return self.weight_ann, self.weight_snn


class FactorizedConv2d(_Factored):
    """A convolution whose kernel is U diag(sigma of the twin) V: `layer(x, "snn")`."""

    def __init__(
        self,
        factors: Factors,
        kernel_shape: tuple[int, ...],
        factorization: Factorization | None = None,
        *,
        stride: int = 1,
        padding: int = 0,
        operands: torch.dtype | None = None,
    ) -> None:
        """Hold factors as parameters; `from_kernel` starts from a kernel instead.

        Args:
            factors: U, sigma (for both twins) and V.
            kernel_shape: (out, in, kh, kw) of what they compose to.
            factorization: how matrices become the kernel.
            stride: in pixels, >= 1.
            padding: zeros on all sides, >= 0.
            operands: dtype of input and kernel at the convolution; None leaves them as they are.
        """
        super().__init__(factors, kernel_shape, factorization)
        self.stride, self.padding, self.operands = stride, padding, operands

    @classmethod
    def from_kernel(
        cls, kernel: Tensor, factorization: Factorization | None = None, *, stride: int = 1, padding: int = 0
    ) -> FactorizedConv2d:
        """Factor a kernel (out, in, kh, kw), pretrained or drawn: `nn.Conv2d(3, 16, 3).weight`, say."""
        factors = factorize(kernel, factorization=factorization or Factorization())
        return cls(factors, tuple(kernel.shape), factorization, stride=stride, padding=padding)

    def forward(self, x: Tensor, twin: Twin, *, isolate: bool = False) -> Tensor:
        """Convolve (..., in, H, W), any leading axes, with the twin's kernel."""
        return convolve(x, self.kernel(twin, isolate=isolate), self.stride, self.padding, self.operands)


class TwinConv2d(_Separate):
    """A convolution with one kernel per twin."""

    def __init__(self, kernel: Tensor, *, stride: int = 1, padding: int = 0, operands: torch.dtype | None = None) -> None:
        """Both twins start from `kernel` (out, in, kh, kw); other arguments as of `FactorizedConv2d`."""
        super().__init__(kernel)
        self.stride, self.padding, self.operands = stride, padding, operands

    def forward(self, x: Tensor, twin: Twin, *, isolate: bool = False) -> Tensor:
        """Convolve (..., in, H, W), any leading axes, with the twin's kernel."""
        return convolve(x, self.kernel(twin), self.stride, self.padding, self.operands)


class FactorizedLinear(_Factored):
    """A linear layer whose weight is U diag(sigma of the twin) V, with a bias that the twins share."""

    bias: nn.Parameter

    def __init__(
        self, factors: Factors, kernel_shape: tuple[int, ...], bias: Tensor, factorization: Factorization | None = None
    ) -> None:
        """Hold factors of a weight of shape (out, in), and the bias (out,)."""
        super().__init__(factors, kernel_shape, factorization)
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor, twin: Twin, *, isolate: bool = False, times: int = 1) -> Tensor:
        """Weight x + times * bias for x (..., in); `times` is T where x is a sum over T steps."""
        return project(x, self.kernel(twin, isolate=isolate), self.bias.detach() if isolate else self.bias, times)


class TwinLinear(_Separate):
    """A linear layer with one weight per twin and a bias that the twins share (clause LAY-3)."""

    bias: nn.Parameter

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """Both twins start from `weight` (out, in); the bias is (out,)."""
        super().__init__(weight)
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor, twin: Twin, *, isolate: bool = False, times: int = 1) -> Tensor:
        """Weight x + times * bias for x (..., in); `times` is T where x is a sum over T steps."""
        return project(x, self.kernel(twin), self.bias.detach() if isolate else self.bias, times)


def project(x: Tensor, weight: Tensor, bias: Tensor, times: int = 1) -> Tensor:
    """Weight x + times * bias, in the weight's dtype (clauses LAY-3, OUT-1)."""
    return functional.linear(x.to(weight.dtype), weight, bias if times == 1 else times * bias)


def readout(x: Tensor, reduction: str) -> Tensor:
    """Sum or mean over the first axis (clauses OUT-1, OUT-2)."""
    return x.sum(0) if reduction == "sum" else x.mean(0)
