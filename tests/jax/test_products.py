"""The C++ kernels for convolutions and products of factors, against XLA's own and against their definition.

Small whole numbers, in which no order of sums rounds: what is computed must be equal bit for bit. Sizes are chosen around those
of tiles and blocks, so that each is met with and without remainders.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twinspike as ts
import twinspike_jax as tj
from twinspike_jax import convolution, factorization, products
from twinspike_jax.native_build import PRODUCTS, Library, library
from twinspike_jax.precision import formats

HIGHEST = jax.lax.Precision.HIGHEST
FORMATS = ("float32", "float64")
CONVOLUTIONS = [  # batch, (height, width), in, out, (kernel), stride, padding
    (2, (5, 7), 3, 5, (3, 3), 2, 1),
    (3, (9, 4), 17, 33, (3, 3), 3, 0),
    (3, (6, 6), 130, 20, (5, 5), 2, 2),
    (2, (7, 7), 600, 9, (2, 2), 1, 0),
    (1, (8, 8), 5, 600, (3, 3), 1, 1),
    (2, (3, 3), 4, 4, (3, 3), 4, 3),
    (2, (12, 12), 4, 4, (1, 1), 1, 2),
    (1, (2, 300), 3, 4, (3, 3), 1, 1),
    (9, (4, 4), 64, 64, (3, 3), 1, 1),
    (5, (16, 16), 8, 130, (4, 4), 4, 0),
    (9, (9, 9), 16, 24, (1, 3), 2, 1),
    (40, (1, 1), 40, 8, (1, 1), 1, 0),
]


@pytest.fixture(autouse=True)
def _by_the_kernels(monkeypatch):
    monkeypatch.setenv(products.CHOICE, "kernel")


def whole(rng, dtype, *shape):
    return jnp.asarray(rng.integers(-2, 3, shape), dtype)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_a_convolution_and_its_gradients_are_xlas_bit_for_bit(case, dtype):
    batch, size, channels, out, kernel, stride, padding = case
    rng = np.random.default_rng(0)
    with formats(dtype):
        x, weight = whole(rng, dtype, batch, *size, channels), whole(rng, dtype, *kernel, channels, out)
        form = convolution._Form(stride, padding, HIGHEST)
        y, pull = jax.vjp(lambda x, k: convolution.conv(x, k, stride, padding, HIGHEST), x, weight)
        expected, pull_expected = jax.vjp(lambda x, k: convolution._plain(form, x, k), x, weight)
        np.testing.assert_array_equal(y, expected)
        g = whole(rng, dtype, *y.shape)
        for ours, xlas in zip(pull(g), pull_expected(g), strict=True):
            np.testing.assert_array_equal(ours, xlas)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 2), (33, 31, 9), (130, 140, 520), (8, 32, 16)], ids=str)
def test_a_product_is_its_definition_with_and_without_weights(sizes, dtype):
    m, n, k = sizes
    rng = np.random.default_rng(0)
    built = library(PRODUCTS)
    assert isinstance(built, Library), f"these tests need a C++ compiler: {built}"
    with formats(dtype):
        a, b = whole(rng, dtype, 2, 3, k, m), whole(rng, dtype, 2, 3, n, k)
        of_terms, of_columns = whole(rng, dtype, 2, 3, k), whole(rng, dtype, 2, 3, n)
        plain = np.einsum("...km,...nk->...mn", a, b)
        np.testing.assert_array_equal(products.product(built, a, b), plain)
        weighed = np.einsum("...km,...nk,...k->...mn", a, b, of_terms)
        np.testing.assert_array_equal(products.product(built, a, b, of_terms=of_terms), weighed)
        columns = plain * np.asarray(of_columns)[..., None, :]
        np.testing.assert_array_equal(products.product(built, a, b, of_columns=of_columns), columns)


@pytest.mark.parametrize(
    ("factorization_", "lead", "shape"),
    [
        (ts.Factorization(), (3, 2), (6, 5, 3, 2)),
        (ts.Factorization(matricize="out_by_rest"), (), (6, 5, 3, 2)),
        (ts.Factorization(scope="with_heads"), (), (6, 5)),
    ],
    ids=["positions", "rest", "head"],
)
def test_a_kernel_out_of_factors_and_its_gradients_are_plain_xlas(factorization_, lead, shape, monkeypatch):
    """Towards each of the three factors alone too."""
    rng = np.random.default_rng(0)
    columns = int(np.prod(shape)) // shape[0] // int(np.prod(lead))
    u, sigma, v = (whole(rng, "float32", *lead, *rest) for rest in ((shape[0], 4), (4,), (4, columns)))
    g = whole(rng, "float32", *shape)

    def gradients(which):
        def loss(*factors):
            return (g * factorization.compose(*factors, factorization=factorization_, kernel_shape=shape)).sum()

        return jax.value_and_grad(loss, argnums=which)(u, sigma, v)

    wanted = [(0,), (1,), (2,), (0, 1, 2)]
    found = [gradients(which) for which in wanted]
    monkeypatch.setenv(products.CHOICE, "plain")
    for which, (value, parts) in zip(wanted, found, strict=True):
        expected, expected_parts = gradients(which)
        assert value == expected
        for ours, xlas in zip(parts, expected_parts, strict=True):
            np.testing.assert_array_equal(ours, xlas)


def test_a_batch_of_convolutions_by_vmap_is_each_by_itself():
    rng = np.random.default_rng(0)
    x, kernels = whole(rng, "float32", 3, 2, 4, 6, 6), whole(rng, "float32", 3, 5, 4, 3, 3)
    together = jax.vmap(lambda x, k: tj.conv2d(x, k, padding=1))(x, kernels)
    np.testing.assert_array_equal(together, jnp.stack([tj.conv2d(x[i], kernels[i], padding=1) for i in range(3)]))


def test_results_do_not_depend_on_the_batch_nor_on_the_call():
    """Sums are added up in an order that shapes alone decide: equal samples have equal results, and every call has the same."""
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.standard_normal(s), "float32") for s in ((6, 30, 4, 4), (40, 30, 3, 3)))
    run = jax.jit(lambda x: tj.conv2d(x, kernel, padding=1))
    whole_batch = run(x)
    for _ in range(3):
        np.testing.assert_array_equal(run(x), whole_batch)
    for first, last in itertools.pairwise((0, 1, 3, 6)):
        np.testing.assert_array_equal(run(x[first:last]), whole_batch[first:last])


def test_no_gradient_is_computed_that_nobody_wants():
    """In a compiled program: the gradient of the first layer's images, say."""
    x, kernel = jnp.ones((1, 3, 4, 4)), jnp.ones((2, 3, 3, 3))
    text = jax.jit(jax.grad(lambda k: tj.conv2d(x, k).sum())).lower(kernel).compile().as_text()
    assert "twinspike_convolution_kernel" in text
    assert "twinspike_convolution_map" not in text


def test_gradients_do_not_depend_on_which_were_asked_for_before():
    """One jitted function, differentiated towards one operand, then towards both, then under recomputation."""
    rng = np.random.default_rng(0)
    x, kernel = whole(rng, "float32", 2, 3, 4, 4), whole(rng, "float32", 5, 3, 3, 3)
    run = jax.jit(lambda x, k: (tj.conv2d(x, k, padding=1) ** 2).sum())
    (alone,) = jax.grad(run, argnums=(1,))(x, kernel)
    _, both = jax.grad(run, argnums=(0, 1))(x, kernel)
    d_x, again = jax.grad(jax.checkpoint(run), argnums=(0, 1))(x, kernel)
    np.testing.assert_array_equal(both, alone)
    np.testing.assert_array_equal(again, alone)
    np.testing.assert_array_equal(jax.grad(run)(x, kernel), d_x)
    assert np.any(alone)
    assert np.any(d_x)
