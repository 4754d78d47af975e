"""The C++ kernels of `native/` for convolutions and for products of factors: which serve, and how they are called.

On two cores XLA's own take up to twice as long: it shares a product badly among threads, and transposes maps, kernels
and factors in memory first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from twinspike_jax.kernel_choice import native, told
from twinspike_jax.native_build import PRODUCTS, Library

CHOICE = "TWINSPIKE_JAX_PRODUCTS"
FORMATS = ("float32", "float64")
"""In which the kernels compute; others are left to XLA."""

Function = Callable[..., Array]


def served() -> dict[str, str]:
    """Platform -> what computes convolutions and kernels out of factors there.

    Raises:
        SpecError: the environment asks for kernels that are not there, or for something unknown.
    """
    return {"cpu": told(native(PRODUCTS, CHOICE, "products"), CHOICE), "gpu": "plain XLA: it calls the vendor's"}


def serve(*arrays: Array) -> Library | None:
    """The kernels, where they are there for the arrays' format."""
    found = native(PRODUCTS, CHOICE, "products")
    fits = all(a.dtype == arrays[0].dtype and a.dtype.name in FORMATS for a in arrays)
    return found if fits and isinstance(found, Library) else None


def library(*arrays: Array) -> Library:
    """What `serve` has found, for who has asked it; TypeError where it found none."""
    found = serve(*arrays)
    if found is None:
        raise TypeError(arrays[0].dtype)
    return found


def on_cpu(kernel: Function, plain: Function, *arrays: Array) -> Array:
    """What the kernel computes on CPUs, and plain XLA elsewhere."""
    found: Array = lax.platform_dependent(*arrays, cpu=kernel, default=plain)
    return found


# --- convolutions: maps (B, H, W, C), kernels (kh, kw, in, out) --------------------------------------------------


def convolution(library: Library, stride: int, padding: int, x: Array, kernel: Array) -> Array:
    """Cross-correlation with zero padding on all sides."""
    kh, kw, _, out = kernel.shape
    sizes = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[1:3], (kh, kw), strict=True)]
    return _call(library, "twinspike_convolution", (x.shape[0], *sizes, out), (x, kernel), stride, padding)


def convolution_map(library: Library, stride: int, padding: int, shape: tuple[int, ...], kernel: Array, g: Array) -> Array:
    """The gradient of the map, of `shape`, out of that of the result."""
    return _call(library, "twinspike_convolution_map", shape, (g, kernel), stride, padding)


def convolution_kernel(library: Library, stride: int, padding: int, shape: tuple[int, ...], x: Array, g: Array) -> Array:
    """The gradient of the kernel, of `shape`, out of that of the result."""
    return _call(library, "twinspike_convolution_kernel", shape, (x, g), stride, padding)


# --- products of matrices, one for each of `*p` positions ---------------------------------------------------------


def product(library: Library, a: Array, b: Array, *, of_terms: Array | None = None, of_columns: Array | None = None) -> Array:
    """A' diag(of_terms) B' diag(of_columns).

    Args:
        library: the kernels.
        a: (*p, k, m).
        b: (*p, n, k).
        of_terms: (*p, k); None: ones.
        of_columns: (*p, n); None: ones. Not both.

    Returns:
        (*p, m, n).
    """
    lead, (k, m), n = a.shape[:-2], a.shape[-2:], b.shape[-2]
    count = math.prod(lead)
    weights = [jnp.zeros((0,), a.dtype) if w is None else w for w in (of_terms, of_columns)]
    arrays = a.reshape(count, k, m), b.reshape(count, n, k), *weights
    return _call(library, "twinspike_product", (count, m, n), arrays).reshape(*lead, m, n)


def _call(library: Library, handler: str, shape: tuple[int, ...], arrays: Sequence[Array], *form: int) -> Array:
    attributes = {name: np.int64(value) for name, value in zip(("stride", "padding"), form, strict=False)}
    result: Any = jax.ShapeDtypeStruct(shape, arrays[0].dtype)  # type: ignore[no-untyped-call]  # JAX leaves it untyped
    call: Any = jax.ffi.ffi_call(library.targets[handler], result, vmap_method="sequential")
    found: Array = call(*arrays, **attributes)
    return found
