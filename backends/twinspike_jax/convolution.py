"""Convolutions of channels-last maps (B, H, W, C) with kernels (kh, kw, in, out), which is how XLA's CPU kernels want them.

Where windows do not overlap (a 1 x 1 kernel, or a kernel as large as its stride) a convolution is one matrix
product over patches: XLA's own gradients of such convolutions are many times slower. `conv_mixed` has an adjoint
of its own: JAX would round a kernel's gradient to bfloat16 on the way, where clause PRE-2 wants it in float32.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from twinspike_jax import products

_MAPS = ("NHWC", "HWIO", "NHWC")


class _Form(NamedTuple):
    """What is fixed when a convolution is traced."""

    stride: int
    padding: int
    precision: lax.Precision


def conv(x: Array, kernel: Array, stride: int, padding: int, precision: lax.Precision) -> Array:
    """Cross-correlation with zero padding on all sides (clause LAY-1).

    Args:
        x: (B, H, W, I).
        kernel: (kh, kw, I, O), same dtype.
        stride: in pixels, >= 1.
        padding: zeros on each side, >= 0.
        precision: of the products.

    Returns:
        (B, H', W', O), H' = (H + 2 padding - kh)//stride + 1.
    """
    form = _Form(stride, padding, precision)
    return _plain(form, x, kernel) if products.serve(x, kernel) is None else _conv(form, x, kernel)


def _plain(form: _Form, x: Array, kernel: Array) -> Array:
    stride, padding, precision = form
    if _tiles(kernel, stride, padding):
        return jnp.matmul(_patches(kernel.shape[0], stride, x), kernel.reshape(-1, kernel.shape[-1]), precision=precision)
    pads = [(padding, padding)] * 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_MAPS, precision=precision)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(form: _Form, x: Array, kernel: Array) -> Array:
    kernels = products.library(x, kernel)
    return products.on_cpu(partial(products.convolution, kernels, form.stride, form.padding), partial(_plain, form), x, kernel)


def _conv_forward(form: _Form, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _conv(form, x, kernel), (x, kernel)


def _conv_backward(form: _Form, residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    """Both gradients by themselves, so that a compiled program leaves out the one that nobody wants."""
    x, kernel = residuals
    call = products.library(x, kernel), form.stride, form.padding
    d_x = products.on_cpu(
        partial(products.convolution_map, *call, x.shape),
        lambda k, g: jax.linear_transpose(lambda m: _plain(form, m, k), x)(g)[0],
        kernel,
        g,
    )
    d_kernel = products.on_cpu(
        partial(products.convolution_kernel, *call, kernel.shape),
        lambda m, g: jax.linear_transpose(lambda k: _plain(form, m, k), kernel)(g)[0],
        x,
        g,
    )
    return d_x, d_kernel


_conv.defvjp(_conv_forward, _conv_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_mixed(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`conv` of a bfloat16 map and a float32 kernel that is rounded to bfloat16 on the way in (clause PRE-2).

    Sums are float32, the result and the gradient of `x` bfloat16, the gradient of `kernel` float32.
    """
    return _mixed(x, kernel.astype(x.dtype), stride, padding)


def _mixed(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    if _tiles(kernel, stride, padding):
        matrix = kernel.reshape(-1, kernel.shape[-1])
        return jnp.matmul(_patches(kernel.shape[0], stride, x), matrix, preferred_element_type=jnp.float32).astype(x.dtype)
    pads = [(padding, padding)] * 2
    y = lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_MAPS, preferred_element_type=jnp.float32)
    return y.astype(x.dtype)


def _mixed_forward(x: Array, kernel: Array, stride: int, padding: int) -> tuple[Array, tuple[Array, Array]]:
    rounded = kernel.astype(x.dtype)
    return _mixed(x, rounded, stride, padding), (x, rounded)


def _mixed_backward(stride: int, padding: int, residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    """Both gradients, as products over patches or as convolutions of g, dilated where the forward strode."""
    x, kernel = residuals
    if _tiles(kernel, stride, padding):
        patches, pull = jax.vjp(partial(_patches, kernel.shape[0], stride), x)
        matrix = kernel.reshape(-1, kernel.shape[-1])
        d_patches = jnp.matmul(g, matrix.T, preferred_element_type=jnp.float32).astype(x.dtype)
        d_matrix = jnp.einsum("bhwi,bhwo->io", patches, g, preferred_element_type=jnp.float32)
        return pull(d_patches)[0], d_matrix.reshape(kernel.shape)
    sizes = list(zip(x.shape[1:3], kernel.shape[:2], g.shape[1:3], strict=True))
    extent = [(h_out - 1) * stride + 1 for _, _, h_out in sizes]
    d_x = lax.conv_general_dilated(
        g,
        kernel[::-1, ::-1],
        (1, 1),
        [(k - 1 - padding, h + padding - e) for (h, k, _), e in zip(sizes, extent, strict=True)],
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
        preferred_element_type=jnp.float32,
    )
    d_kernel = lax.conv_general_dilated(
        x,
        g,
        (1, 1),
        [(padding, k - 1 + e - h - padding) for (h, k, _), e in zip(sizes, extent, strict=True)],
        rhs_dilation=(stride, stride),
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        preferred_element_type=jnp.float32,
    )
    return d_x.astype(x.dtype), d_kernel


conv_mixed.defvjp(_mixed_forward, _mixed_backward)


def _tiles(kernel: Array, stride: int, padding: int) -> bool:
    """Whether no two windows overlap, nor any reaches over the edge."""
    kh, kw = kernel.shape[:2]
    return padding == 0 and kh == kw and kh in (1, stride)


def _patches(kernel: int, stride: int, x: Array) -> Array:
    """(B, H', W', kernel kernel C), each window's pixels side by side."""
    if kernel == 1:
        return x[:, ::stride, ::stride]
    b, (h, w), c = x.shape[0], (n // kernel for n in x.shape[1:3]), x.shape[3]
    tiles = x[:, : h * kernel, : w * kernel].reshape(b, h, kernel, w, kernel, c)
    return tiles.transpose(0, 1, 3, 2, 4, 5).reshape(b, h, w, kernel * kernel * c)
