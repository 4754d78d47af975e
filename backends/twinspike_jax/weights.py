"""Kernels and weights as one twin sees them: composed from shared factors, or its own."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from jax import Array, lax

from twinspike.config import Method, Twin
from twinspike.network import Linear
from twinspike_jax import factorization, layers
from twinspike_jax.precision import Policy

Params = Mapping[str, Array]
"""Trained arrays by the specification's names."""

_compose = jax.jit(factorization.compose, static_argnames=("factorization", "kernel_shape", "precision"))


def kernel_of(name: str, twin: Twin, params: Params, shape: tuple[int, ...], method: Method, casts: Policy) -> Array:
    """A layer's kernel as one twin sees it; `isolate_ann` cuts the spiking twin's gradient into what is shared."""
    if f"{name}.U" not in params:
        return params[f"{name}.weight_{twin}"]
    kernel: Array = _compose(
        _shared(params[f"{name}.U"], twin, method),
        params[f"{name}.sigma_{twin}"],
        _shared(params[f"{name}.V"], twin, method),
        factorization=method.factorization,
        kernel_shape=shape,
        precision=casts.product,
    )
    return kernel


def _shared(value: Array, twin: Twin, method: Method) -> Array:
    return lax.stop_gradient(value) if twin == "snn" and method.loss.isolate_ann else value


def linear(layer: Linear, twin: Twin, params: Params, x: Array, method: Method, casts: Policy, bias_times: int = 1) -> Array:
    """A linear layer in the storage format; after a sum over time its bias counts T times."""
    shape = (layer.out_features, x.shape[-1])
    weight = kernel_of(layer.name, twin, params, shape, method, casts)
    bias = _shared(params[f"{layer.name}.bias"], twin, method)
    bias = bias_times * bias if bias_times != 1 else bias
    return layers.linear(x.astype(casts.storage), weight, bias, precision=casts.product)
