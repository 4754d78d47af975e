"""Convolutions of channels-last maps (B, H, W, C) with kernels (kh, kw, in, out), which is how XLA's CPU kernels want them.

Where windows do not overlap (a 1 x 1 kernel, or a kernel as large as its stride) a convolution is one matrix
product over patches: XLA's own gradients of such convolutions are many times slower. Not so where a kernel of one tap
skips pixels, for any platform but the CPU: XLA 0.11 for sm_90 fuses the skipping with a product of bfloat16 and ends the
process (a failed check in triton_tiling_propagation). `conv_mixed` has an adjoint of its own: JAX would round a kernel's
gradient to bfloat16 on the way, where clause PRE-2 wants it in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from twinspike_jax import products
from twinspike_jax.products import Function

_MAPS = ("NHWC", "HWIO", "NHWC")


class _Form(NamedTuple):
    """What is fixed when a convolution is traced."""

    stride: int
    padding: int
    precision: lax.Precision | None = None
    sums: Any = None
    """Format of the sums and of what is returned; None: that of the map."""


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
    by_us = products.serve(x, kernel) is not None or _skips(kernel.shape, stride, padding)
    return _conv(form, x, kernel) if by_us else _plain(form, x, kernel)


def _plain(form: _Form, x: Array, kernel: Array) -> Array:
    """By XLA."""
    given = {"precision": form.precision, "preferred_element_type": form.sums}

    def by_patches(x: Array, kernel: Array) -> Array:
        return jnp.matmul(_patches(kernel.shape[0], form.stride, x), kernel.reshape(-1, kernel.shape[-1]), **given)

    def by_windows(x: Array, kernel: Array) -> Array:
        pads = [(form.padding, form.padding)] * 2
        return lax.conv_general_dilated(x, kernel, (form.stride, form.stride), pads, dimension_numbers=_MAPS, **given)

    return _chosen(by_patches, by_windows, form, kernel.shape, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(form: _Form, x: Array, kernel: Array) -> Array:
    return _served(partial(_plain, form), products.convolution, (form.stride, form.padding), x, kernel)


def _conv_forward(form: _Form, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _conv(form, x, kernel), (x, kernel)


def _conv_backward(form: _Form, residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    """Both gradients by themselves, so that a compiled program leaves out the one that nobody wants."""
    x, kernel = residuals
    sizes = form.stride, form.padding
    d_x = _served(
        lambda k, g: jax.linear_transpose(lambda m: _plain(form, m, k), x)(g)[0],
        products.convolution_map,
        (*sizes, x.shape),
        kernel,
        g,
    )
    d_kernel = _served(
        lambda m, g: jax.linear_transpose(lambda k: _plain(form, m, k), kernel)(g)[0],
        products.convolution_kernel,
        (*sizes, kernel.shape),
        x,
        g,
    )
    return d_x, d_kernel


def _served(plain: Function, kernel: Function, options: tuple[Any, ...], *arrays: Array) -> Array:
    """What the package's kernel computes where it serves, else plain XLA."""
    found = products.serve(*arrays)
    return plain(*arrays) if found is None else products.on_cpu(partial(kernel, found, *options), plain, *arrays)


_conv.defvjp(_conv_forward, _conv_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_mixed(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`conv` of a bfloat16 map and a float32 kernel that is rounded to bfloat16 on the way in (clause PRE-2).

    Sums are float32, the result and the gradient of `x` bfloat16, the gradient of `kernel` float32.
    """
    return _mixed(x, kernel.astype(x.dtype), stride, padding)


def _mixed(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    return _plain(_Form(stride, padding, sums=jnp.float32), x, kernel).astype(x.dtype)


def _mixed_forward(x: Array, kernel: Array, stride: int, padding: int) -> tuple[Array, tuple[Array, Array]]:
    rounded = kernel.astype(x.dtype)
    return _mixed(x, rounded, stride, padding), (x, rounded)


def _mixed_backward(stride: int, padding: int, residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    """Both gradients, as products over patches or as convolutions of g, dilated where the forward strode."""
    x, kernel = residuals
    sizes = list(zip(x.shape[1:3], kernel.shape[:2], g.shape[1:3], strict=True))
    extent = [(h_out - 1) * stride + 1 for _, _, h_out in sizes]

    def map_by_patches(kernel: Array, g: Array) -> Array:
        _, pull = jax.vjp(partial(_patches, kernel.shape[0], stride), x)
        matrix = kernel.reshape(-1, kernel.shape[-1])
        d_patches = jnp.matmul(g, matrix.T, preferred_element_type=jnp.float32).astype(x.dtype)
        d_x: Array = pull(d_patches)[0]
        return d_x

    def map_by_windows(kernel: Array, g: Array) -> Array:
        d_x = lax.conv_general_dilated(
            g,
            kernel[::-1, ::-1],
            (1, 1),
            [(k - 1 - padding, h + padding - e) for (h, k, _), e in zip(sizes, extent, strict=True)],
            lhs_dilation=(stride, stride),
            dimension_numbers=("NHWC", "HWOI", "NHWC"),
            preferred_element_type=jnp.float32,
        )
        return d_x.astype(x.dtype)

    def kernel_by_patches(x: Array, g: Array) -> Array:
        patches = _patches(kernel.shape[0], stride, x)
        d_matrix = jnp.einsum("bhwi,bhwo->io", patches, g, preferred_element_type=jnp.float32)
        return d_matrix.reshape(kernel.shape)

    def kernel_by_windows(x: Array, g: Array) -> Array:
        return lax.conv_general_dilated(
            x,
            g,
            (1, 1),
            [(padding, k - 1 + e - h - padding) for (h, k, _), e in zip(sizes, extent, strict=True)],
            rhs_dilation=(stride, stride),
            dimension_numbers=("CHWN", "IHWO", "HWNC"),
            preferred_element_type=jnp.float32,
        )

    form = _Form(stride, padding)
    d_x = _chosen(map_by_patches, map_by_windows, form, kernel.shape, kernel, g)
    return d_x, _chosen(kernel_by_patches, kernel_by_windows, form, kernel.shape, x, g)


conv_mixed.defvjp(_mixed_forward, _mixed_backward)


def _chosen(by_patches: Function, by_windows: Function, form: _Form, kernel: tuple[int, ...], *arrays: Array) -> Array:
    """By the way that the module's docstring says, for a kernel of this shape."""
    if not _tiles(kernel, form.stride, form.padding):
        return by_windows(*arrays)
    if _skips(kernel, form.stride, form.padding):
        return products.on_cpu(by_patches, by_windows, *arrays)
    return by_patches(*arrays)


def _tiles(kernel: tuple[int, ...], stride: int, padding: int) -> bool:
    """Whether no two windows overlap, nor any reaches over the edge."""
    kh, kw = kernel[:2]
    return padding == 0 and kh == kw and kh in (1, stride)


def _skips(kernel: tuple[int, ...], stride: int, padding: int) -> bool:
    """Whether the patches are single pixels, and not all of them."""
    return _tiles(kernel, stride, padding) and kernel[0] < stride


def _patches(kernel: int, stride: int, x: Array) -> Array:
    """(B, H', W', kernel kernel C), each window's pixels side by side."""
    if kernel == 1:
        return x[:, ::stride, ::stride]
    b, (h, w), c = x.shape[0], (n // kernel for n in x.shape[1:3]), x.shape[3]
    tiles = x[:, : h * kernel, : w * kernel].reshape(b, h, kernel, w, kernel, c)
    return tiles.transpose(0, 1, 3, 2, 4, 5).reshape(b, h, w, kernel * kernel * c)
