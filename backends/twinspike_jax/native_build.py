"""Compiles, loads and registers the C++ kernels of this package, at their first use on a machine.

The sources in `native/` are compiled against the headers that jaxlib ships, for the very processor that runs them, and
kept in the user's cache folder under a name that changes with sources, compiler, processor, options and jaxlib. Where that folder
can't be used, each process compiles its own. There may be no compiler. `Capabilities.kernels` shows the reason of either.
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

from twinspike import cache

SOURCES = Path(__file__).parent / "native"
OPTIONS = (
    "-std=c++17", "-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-fno-math-errno", "-fno-trapping-math", "-fPIC",
    "-shared", "-w",
)  # fmt: skip
"""For g++ and clang++. The compiler's warnings would be about XLA's headers."""
PROCESSOR = ("-march=native",)
SECONDS = 300
"""Longest time that the compiler gets."""
ROOM = 1 << 22
"""Bytes that must be free where a library is kept; the largest has 1.3 MB."""

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
    alone: str
    """Why it serves this process alone, in half a line; empty: it is kept for others."""


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
        loaded, alone = _loaded(unit, compiler, options, key)
        return Library(_register(unit, loaded, key), Path(compiler).name, alone)
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        return Missing(f"{Path(compiler).name} failed: {_said(error)[:200]}")


def _said(error: Exception) -> str:
    """What a compiler's failure was, in a line."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took longer than {SECONDS} s"
    if isinstance(error, subprocess.CalledProcessError):
        said = error.stderr if isinstance(error.stderr, str) else ""
        other = f"signal {-error.returncode}" if error.returncode < 0 else f"exit code {error.returncode}"
        return next((line for line in said.splitlines() if "error" in line), said.strip() or other).strip()
    return " ".join(str(error).split())


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


def _loaded(unit: Unit, compiler: str, options: tuple[str, ...], key: str) -> tuple[ctypes.CDLL, str]:
    """The library, and why it serves this process alone; empty if it is kept for others."""
    try:
        return ctypes.CDLL(str(_kept(unit, compiler, options, key))), ""
    except OSError as error:  # nothing can be kept; or what was, as on another machine with the same home, can't be loaded
        alone = " ".join(str(error).split())
    with tempfile.TemporaryDirectory(prefix="twinspike-", ignore_cleanup_errors=True) as scratch:
        return ctypes.CDLL(str(_built(unit, compiler, options, Path(scratch)))), alone


def _kept(unit: Unit, compiler: str, options: tuple[str, ...], key: str) -> Path:
    """The library in the user's cache; one process builds it, and others wait for it.

    Raises:
        OSError: nothing can be kept there.
    """
    folder, name = cache.own(cache.user_folder()), f"{unit.name}-{key}"
    found = cache.find(folder, name, ".so")
    if found is None:
        with cache.alone(folder, SECONDS) as scratch:
            found = cache.find(folder, name, ".so")  # by the process that was waited for
            if found is None:
                # A compiler that finds the disk full only says that it failed.
                (scratch / "room").write_bytes(bytes(ROOM))
                (scratch / "room").unlink()
                found = cache.keep(scratch, name, ".so", _built(unit, compiler, options, scratch).read_bytes())
    return found


def _built(unit: Unit, compiler: str, options: tuple[str, ...], folder: Path) -> Path:
    """The library, compiled into a folder."""
    made = folder / f"{unit.name}.so"
    command = [compiler, *options, f"-I{jax.ffi.include_dir()}", str(SOURCES / unit.source), "-o", str(made)]
    subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=True)
    return made


def _register(unit: Unit, loaded: ctypes.CDLL, key: str) -> dict[str, str]:
    """Make the handlers known to XLA; their names have the key, since XLA may keep compiled programs for later runs."""
    capsule: Any = jax.ffi.pycapsule
    targets = {handler: f"{handler}_{key}" for handler in unit.handlers}
    for handler, name in targets.items():
        jax.ffi.register_ffi_target(name, capsule(getattr(loaded, handler)), platform="cpu")
    return targets
