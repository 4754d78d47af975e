"""JAX's convolutions: which way each takes on which platform, and that every way gives the same."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_networks import SMALL, batch
from jax_rows import dyadic, opened, reference_row

import twinspike as ts
from twinspike.operations import OPERATIONS, Convolution
from twinspike_jax import convolution, products
from twinspike_jax.layers import channels_last

FORMS = ("f32-ieee", "bf16-mixed")
SHAPES = [(1, 1, 6), (1, 2, 6), (1, 2, 7), (1, 3, 7), (2, 2, 7), (3, 3, 7), (3, 2, 7)]
"""Kernel, stride and height."""
SKIPPING = re.compile(r"stablehlo\.slice[^\n]*\[[^\]]*:\d+:([2-9])")
"""A slice that leaves out pixels."""


def both(form, stride):
    """A convolution with both gradients, of channels-last arrays."""

    def function(x, kernel, g):
        def conv(x, kernel):
            if form == "bf16-mixed":
                return convolution.conv_mixed(x, kernel, stride, 0)
            return convolution.conv(x, kernel, stride, 0, jax.lax.Precision.HIGHEST)

        y, pull = jax.vjp(conv, x, kernel)
        return y, *pull(g.astype(y.dtype))

    return function


def ways(form, kernel, stride, platform, size=7):
    """(convolutions, products, slices that skip, calls of the package's kernels) in a program for the platform."""
    shapes = [(2, size, size, 4), (kernel, kernel, 4, 3), (2, (size - kernel) // stride + 1, (size - kernel) // stride + 1, 3)]
    dtypes = ("bfloat16" if form == "bf16-mixed" else "float32", "float32", "float32")
    arrays = [jnp.zeros(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    text = jax.jit(both(form, stride)).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()
    words = ("stablehlo.convolution", "stablehlo.dot_general")
    return (*(text.count(word) for word in words), len(SKIPPING.findall(text)), text.count("@twinspike_convolution"))


@pytest.mark.parametrize("choice", ["auto", "plain"])
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_one_tap_that_skips_pixels_is_a_convolution_on_a_gpu(monkeypatch, form, stride, choice):
    """Forward and towards both arguments: XLA ends the process over a skipping slice that it fuses with a product."""
    monkeypatch.setenv(products.CHOICE, choice)
    assert ways(form, 1, stride, "cuda") == (3, 0, 0, 0)


@pytest.mark.parametrize("form", FORMS)
def test_one_tap_that_skips_pixels_stays_a_product_on_a_cpu(monkeypatch, form):
    monkeypatch.setenv(products.CHOICE, "plain")
    found = ways(form, 1, 2, "cpu")
    assert found[:2] == (0, 3)
    assert found[2] >= 2  # of the map, forward and for the kernel's gradient


@pytest.mark.parametrize("kernel", [1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_windows_that_tile_the_map_stay_products_on_a_gpu(form, kernel):
    assert ways(form, kernel, kernel, "cuda") == (0, 3, 0, 0)


@pytest.mark.parametrize("precision", FORMS)
def test_a_training_step_for_a_gpu_skips_no_pixels(monkeypatch, precision):
    """Of a network with a shortcut of one tap and stride 2; for a CPU it does."""
    monkeypatch.setenv(products.CHOICE, "plain")
    method = ts.Method(time_steps=2)
    program = opened("cpu", precision, True).program(SMALL, method, ts.SGD())
    state = program.load(ts.initial_state(SMALL, method, ts.SGD()))
    images, labels = batch(SMALL, method)
    arrays = images.astype(np.float32), labels.astype(np.int32), np.float32(0.1)
    traced = program._update.trace(*state[:3], *arrays)
    texts = {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda")}
    assert SKIPPING.search(texts["cpu"])
    assert not SKIPPING.search(texts["cuda"])


@pytest.mark.parametrize("elsewhere", [False, True], ids=["cpu", "elsewhere"])
@pytest.mark.parametrize("choice", ["auto", "plain"])
@pytest.mark.parametrize(("kernel", "stride", "size"), SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_every_way_is_the_reference_bit_for_bit(monkeypatch, form, kernel, stride, size, choice, elsewhere):
    """Few bits, so that neither order nor format of sums matters; also what other platforms run, on this one."""
    monkeypatch.setenv(products.CHOICE, choice)
    if elsewhere:
        monkeypatch.setattr(products, "on_cpu", lambda _, plain, *arrays: plain(*arrays))
    rng = np.random.default_rng(0)
    config = Convolution(stride=stride, padding=0)
    inputs = {"x": dyadic(rng, (3, 2, size, size + 1), 1, 1), "kernel": dyadic(rng, (4, 2, kernel, kernel), 1, 1)}
    g = dyadic(rng, OPERATIONS["conv2d"].forward(config, inputs)["y"].shape, 1, 1)
    outputs, gradients = reference_row("conv2d", config, inputs, {"y": g})
    x = channels_last(jnp.asarray(inputs["x"], "bfloat16" if form == "bf16-mixed" else "float32"))
    weight = jnp.asarray(inputs["kernel"].transpose(2, 3, 1, 0), "float32")
    y, d_x, d_kernel = both(form, stride)(x, weight, channels_last(jnp.asarray(g, "float32")))
    assert (d_x.dtype, d_kernel.dtype) == (x.dtype, jnp.float32)
    for got, wanted in ((y, outputs["y"]), (d_x, gradients["x"])):
        np.testing.assert_array_equal(np.moveaxis(np.asarray(got, np.float64), -1, -3), wanted)
    np.testing.assert_array_equal(np.asarray(d_kernel).transpose(3, 2, 0, 1), gradients["kernel"])
