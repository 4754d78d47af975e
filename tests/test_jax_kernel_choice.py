"""Which kernel serves, how it is built, and that neither is ever decided in silence."""

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
from twinspike_jax.native_build import LIF, PRODUCTS, Missing

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


def script(folder, text):
    """A program that stands for the compiler."""
    program = folder / "compiler"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return program


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    program = script(tmp_path, 'case "$*" in *-E*) exit 0;; esac; echo "note" >&2; echo "x.cpp:1: error: no luck" >&2; exit 1')
    monkeypatch.setenv("CXX", str(program))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = native_build._library.__wrapped__(LIF)
    assert found == Missing("compiler failed: x.cpp:1: error: no luck")


def test_what_is_no_library_is_refused_with_its_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", str(script(tmp_path, 'while [ $# -gt 1 ]; do shift; done; [ -c "$1" ] || echo text > "$1"')))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = native_build._library.__wrapped__(LIF)
    assert isinstance(found, Missing)
    assert found.reason.startswith("compiler failed: ")


def test_a_library_is_compiled_once_and_kept_whole(monkeypatch, tmp_path):
    """The second call finds the file; a change of options is another file; nothing else stays in the folder."""
    log = tmp_path / "log"
    program = script(tmp_path, f'echo run >> {log}; while [ $# -gt 1 ]; do shift; done; echo text > "$1"')
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = native_build._built(LIF, str(program), ("-O2",), "one")
    assert native_build._built(LIF, str(program), ("-O2",), "one") == first
    assert log.read_text().count("run") == 1
    other = native_build._built(LIF, str(program), ("-O2",), "two")
    assert sorted((tmp_path / "cache" / "twinspike").iterdir()) == sorted([first, other])


def test_the_key_changes_with_compiler_and_options(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    keys = set()
    for folder, text in ((one, "echo macros"), (two, "echo others")):
        folder.mkdir()
        keys |= {native_build._key(str(script(folder, text)), options) for options in (("-O2",), ("-O3",))}
    assert len(keys) == 4


def test_a_cache_that_can_not_be_written_is_replaced(monkeypatch, tmp_path):
    (tmp_path / "twinspike").write_text("a file in the folder's place")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = native_build._cache()
    assert folder.is_dir()
    assert folder.parent != tmp_path
    folder.rmdir()
