"""Which kernel serves, and that it is never chosen in silence."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import twinspike as ts
import twinspike_jax as tj
from twinspike_jax import kernel_choice, native_build, neuron_kernels, products
from twinspike_jax.native_build import PRODUCTS

X = jnp.ones((2, 3, 4))


def lowered():
    """The text of a compiled function's program; a new function each time, since JAX keeps those that it has seen."""
    return jax.jit(lambda x: tj.lif(x, neuron=ts.Neuron())[0]).lower(X).as_text()


def lowered_products():
    """The text of a factored convolution's program with all its gradients, likewise."""
    x, u, sigma, v = (jnp.ones(shape) for shape in ((1, 2, 4, 4), (3, 3, 3, 2), (3, 3, 2), (3, 3, 2, 2)))

    def loss(*arrays):
        x, u, sigma, v = arrays
        kernel = tj.compose(u, sigma, v, factorization=ts.Factorization(), kernel_shape=(3, 2, 3, 3))
        return tj.conv2d(x, kernel, padding=1).sum()

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3))).lower(x, u, sigma, v).as_text()


def without_compiler(monkeypatch):
    monkeypatch.setattr(native_build, "_compiler", lambda: None)
    monkeypatch.setattr(kernel_choice, "library", native_build._library.__wrapped__)


def test_the_kernel_is_compiled_in_and_told(monkeypatch):
    monkeypatch.delenv(neuron_kernels.CHOICE, raising=False)
    assert "twinspike_lif_forward" in lowered()
    assert tj.backend.capabilities().kernels["lif on cpu"].startswith("C++ through XLA's FFI, by ")


def test_plain_on_request(monkeypatch):
    monkeypatch.setenv(neuron_kernels.CHOICE, "plain")
    assert "twinspike_lif" not in lowered()
    told = tj.backend.capabilities().kernels
    assert {told["lif on cpu"], told["lif on gpu"]} == {"plain XLA: TWINSPIKE_JAX_LIF asks for it"}


def test_products_by_our_kernels_or_plain_on_request(monkeypatch):
    """Convolutions and kernels out of factors: none or all four of the kernels, and it is told which."""
    monkeypatch.delenv(products.CHOICE, raising=False)
    found = lowered_products()
    assert all(f"{handler}_" in found for handler in PRODUCTS.handlers)
    assert tj.backend.capabilities().kernels["products on cpu"].startswith("C++ through XLA's FFI, by ")
    monkeypatch.setenv(products.CHOICE, "plain")
    assert "twinspike_" not in lowered_products()
    assert tj.backend.capabilities().kernels["products on cpu"] == "plain XLA: TWINSPIKE_JAX_PRODUCTS asks for it"


def test_products_that_are_asked_for_and_missing_are_refused(monkeypatch):
    without_compiler(monkeypatch)
    monkeypatch.delenv(products.CHOICE, raising=False)
    assert "twinspike_" not in lowered_products()
    monkeypatch.setenv(products.CHOICE, "kernel")
    with pytest.raises(ts.SpecError, match=r"^products on cpu: [^\n]*no C\+\+ compiler[^\n]*$"):
        tj.backend.capabilities()
    with pytest.raises(ts.SpecError, match=r"^products on cpu: [^\n]*no C\+\+ compiler"):
        lowered_products()


@pytest.mark.parametrize(("only", "profile"), [("operation[lif", "ci"), ("operation[co", "ci"), ("network[gradients]", "smoke")])
def test_plain_conforms(only, profile):
    words = ["jax", "--precision", "f32-ieee", "--only", only, "--profile", profile]
    plain = os.environ | {neuron_kernels.CHOICE: "plain", products.CHOICE: "plain"}
    command = [sys.executable, "-m", "twinspike_conformance", *words]
    run = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_without_a_compiler_plain_xla_serves_and_says_so(monkeypatch):
    without_compiler(monkeypatch)
    monkeypatch.setenv(neuron_kernels.CHOICE, "auto")
    assert "twinspike_lif" not in lowered()
    told = tj.backend.capabilities().kernels["lif on cpu"]
    assert told == "plain XLA: no C++ compiler (CXX, g++, clang++ or c++)"


def test_a_kernel_that_is_asked_for_and_missing_is_refused(monkeypatch):
    without_compiler(monkeypatch)
    monkeypatch.setenv(neuron_kernels.CHOICE, "kernel")
    with pytest.raises(ts.SpecError, match=r"^lif on cpu: [^\n]*no C\+\+ compiler[^\n]*$"):
        tj.backend.capabilities()
    with pytest.raises(ts.SpecError, match=r"no C\+\+ compiler"):
        lowered()


def test_an_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv(neuron_kernels.CHOICE, "fast")
    with pytest.raises(ts.SpecError, match=r"^TWINSPIKE_JAX_LIF: expected one of auto, kernel, plain, got fast$"):
        tj.backend.capabilities()
    with pytest.raises(ts.SpecError, match=r"got fast"):
        lowered()
