"""Compiles, loads and registers the C++ kernels of this package, at their first use on a machine.

The sources in `native/` are compiled against the headers that jaxlib ships, for the very processor that runs them, and
kept in the user's cache folder under a name that changes with sources, compiler, processor, options and jaxlib. There may be
no compiler: then `library` gives the reason, which `Capabilities.kernels` shows.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax

from twinspike_jax.compile_cache import user_cache

SOURCES = Path(__file__).parent / "native"
OPTIONS = (
    "-std=c++17", "-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-fno-math-errno", "-fno-trapping-math", "-fPIC",
    "-shared", "-w",
)  # fmt: skip
"""For g++ and clang++. The compiler's warnings would be about XLA's headers."""
PROCESSOR = ("-march=native",)
SECONDS = 300
"""Longest time that the compiler gets."""

_lock = threading.Lock()


class Unit(NamedTuple):
    """What is compiled into one library."""

    name: str
    source: str
    handlers: tuple[str, ...]
    contract: str
    """Whether multiply and add may be fused, `off` or `fast`; the sources say why."""


LIF = Unit("lif", "lif_ffi.cpp", ("twinspike_lif_forward", "twinspike_lif_backward"), "off")
PRODUCTS = Unit(
    "products",
    "products_ffi.cpp",
    ("twinspike_convolution", "twinspike_convolution_map", "twinspike_convolution_kernel", "twinspike_product"),
    "fast",
)


class Library(NamedTuple):
    """Kernels that are registered with XLA for CPUs."""

    targets: Mapping[str, str]
    """Handler -> the name by which XLA calls it."""
    compiler: str
    """Name of the compiler's program."""


class Missing(NamedTuple):
    """There are no such kernels."""

    reason: str
    """In half a line."""


def library(unit: Unit) -> Library | Missing:
    """The kernels, compiled if this machine has not compiled them yet; always the same answer within a process."""
    with _lock:
        return _library(unit)


@functools.cache
def _library(unit: Unit) -> Library | Missing:
    compiler = _compiler()
    if compiler is None:
        return Missing("no C++ compiler (CXX, g++, clang++ or c++)")
    try:
        options = (*_options(compiler), f"-ffp-contract={unit.contract}")
        key = _key(compiler, options)
        return _register(unit, _built(unit, compiler, options, key), key, compiler)
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        said = getattr(error, "stderr", None) or str(error)
        first = next((line for line in said.splitlines() if "error" in line), said).strip()
        return Missing(f"{Path(compiler).name} failed: {first[:200]}")


def _compiler() -> str | None:
    names = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _options(compiler: str) -> tuple[str, ...]:
    """All options; the processor's own instructions only where the compiler can tell them."""
    native = subprocess.run(
        [compiler, *PROCESSOR, "-E", "-x", "c++", os.devnull], capture_output=True, timeout=SECONDS, check=False
    )
    return (*OPTIONS, *PROCESSOR) if native.returncode == 0 else OPTIONS


def _key(compiler: str, options: tuple[str, ...]) -> str:
    """A name for everything that the compiled code depends on; the macros tell the compiler and the processor."""
    command = [compiler, *options, "-dM", "-E", "-x", "c++", os.devnull]
    macros = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True).stdout
    digest = hashlib.sha256(macros + repr((options, version("jaxlib"))).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _cache() -> Path:
    """A folder that can be written to: the user's cache, or one for this process."""
    folder = user_cache()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="twinspike-"))
    return folder


def _built(unit: Unit, compiler: str, options: tuple[str, ...], key: str) -> Path:
    """Path of the library; several processes may build it at once, and each replaces it as a whole."""
    folder = _cache()
    path = folder / f"{unit.name}-{key}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / path.name
            command = [compiler, *options, f"-I{jax.ffi.include_dir()}", str(SOURCES / unit.source), "-o", str(made)]
            subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
            made.replace(path)
    return path


def _register(unit: Unit, path: Path, key: str, compiler: str) -> Library:
    """Make the handlers known to XLA; their names have the key, since XLA may keep compiled programs for later runs."""
    loaded = ctypes.CDLL(str(path))
    capsule: Any = jax.ffi.pycapsule
    targets = {handler: f"{handler}_{key}" for handler in unit.handlers}
    for handler, name in targets.items():
        jax.ffi.register_ffi_target(name, capsule(getattr(loaded, handler)), platform="cpu")
    return Library(targets, Path(compiler).name)
