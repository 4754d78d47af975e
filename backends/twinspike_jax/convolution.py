"""Convolutions of channels-last maps (B, H, W, C) with kernels (kh, kw, in, out), which is how XLA's CPU kernels want them.

Where windows do not overlap (a 1 x 1 kernel, or a kernel as large as its stride) a convolution is one matrix
product over patches: XLA's own gradients of such convolutions are many times slower. Not so where a kernel of one tap
skips pixels, for any platform but the CPU: XLA 0.11 for sm_90 fuses the skipping with a product of bfloat16 and ends the
process (a failed check in triton_tiling_propagation). `conv_mixed` has an adjoint of its own, which on the CPU gives a
kernel's gradient in float32. Elsewhere it is what the vendor's convolutions of bfloat16 give, whose sums are float32 too:
asked for a result in float32, XLA for CUDA would convert the operands and convolve in float32.
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
    by_us = products.serve(x, kernel) is not None or _skips(kernel.shape, stride, padding)
    return _conv(form, x, kernel) if by_us else _plain(form, x, kernel)


def _plain(form: _Form, x: Array, kernel: Array) -> Array:
    """By XLA."""
    by_windows = partial(_by_windows, form.stride, form.padding, precision=form.precision)
    ways = _Ways(partial(_by_patches, form.stride, precision=form.precision), by_windows, by_windows)
    return _chosen(ways, form.stride, form.padding, kernel.shape, x, kernel)


def _by_patches(stride: int, x: Array, kernel: Array, *, precision: lax.Precision | None = None, sums: Any = None) -> Array:
    """A product over patches; `sums` is the format of the sums and of what is returned, by default that of the map."""
    patches = _patches(kernel.shape[0], stride, x)
    return jnp.matmul(patches, kernel.reshape(-1, kernel.shape[-1]), precision=precision, preferred_element_type=sums)


def _by_windows(
    stride: int, padding: int, x: Array, kernel: Array, *, precision: lax.Precision | None = None, sums: Any = None
) -> Array:
    """XLA's convolution; `sums` as in `_by_patches`."""
    given = {"dimension_numbers": _MAPS, "precision": precision, "preferred_element_type": sums}
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(padding, padding)] * 2, **given)


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

    Sums are float32, the result and the gradient of `x` bfloat16, the gradient of `kernel` float32, which off the CPU holds
    a value of bfloat16 where windows overlap.
    """
    return _mixed(x, kernel.astype(x.dtype), stride, padding)


def _mixed(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    def summed(way: Function) -> Function:
        return lambda *operands: way(*operands, sums=jnp.float32).astype(x.dtype)

    ways = _Ways(
        summed(partial(_by_patches, stride)), summed(partial(_by_windows, stride, padding)), partial(_by_windows, stride, padding)
    )
    return _chosen(ways, stride, padding, kernel.shape, x, kernel)


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

    def map_by_vendor(kernel: Array, g: Array) -> Array:
        d_x: Array = jax.linear_transpose(lambda m: _by_windows(stride, padding, m, kernel), x)(g)[0]
        return d_x

    def kernel_by_vendor(x: Array, g: Array) -> Array:
        d_kernel: Array = jax.linear_transpose(lambda k: _by_windows(stride, padding, x, k), kernel)(g)[0]
        return d_kernel.astype(jnp.float32)

    of_map = _Ways(map_by_patches, map_by_windows, map_by_vendor)
    of_kernel = _Ways(kernel_by_patches, kernel_by_windows, kernel_by_vendor)
    d_x = _chosen(of_map, stride, padding, kernel.shape, kernel, g)
    return d_x, _chosen(of_kernel, stride, padding, kernel.shape, x, g)


conv_mixed.defvjp(_mixed_forward, _mixed_backward)


class _Ways(NamedTuple):
    """How one value may be computed."""

    by_patches: Function
    by_windows: Function
    """On the CPU."""
    by_vendor: Function
    """Elsewhere."""


def _chosen(ways: _Ways, stride: int, padding: int, kernel: tuple[int, ...], *arrays: Array) -> Array:
    """By the way that the module's docstring says, for a kernel of this shape."""
    tiles = _tiles(kernel, stride, padding)
    if tiles and not _skips(kernel, stride, padding):
        return ways.by_patches(*arrays)
    on_cpu = ways.by_patches if tiles else ways.by_windows
    return on_cpu(*arrays) if on_cpu is ways.by_vendor else products.on_cpu(on_cpu, ways.by_vendor, *arrays)


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
