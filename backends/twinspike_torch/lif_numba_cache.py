"""Machine code of the neuron's loops on the CPU, kept in the user's cache from one process to the next.

Numba's own cache knows a function by the file that defines it, so that it serves old code after an edit of what is inlined from
other files, and it runs what it finds. Here a name changes with all sources, with Numba, its compiler, NumPy, Python and the
processor, and `twinspike.cache` says what may be run. Numba's settings are left alone; where it was told a folder
(NUMBA_CACHE_DIR), code is kept below that.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from twinspike import cache

SUFFIX = ".nbc"
SECONDS = 10
"""Longest wait for another process, which only writes."""


def _sources() -> str:
    """Digest of everything that loops may be made of: they take what they inline from these files alone."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("lif_*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


VERSIONS = (numba.__version__, llvmlite.__version__, np.__version__, sys.implementation.cache_tag)
SOURCES = _sources()  # now, as they are imported: an edit while this process runs changes no code of its own

_trouble: list[str] = []
"""Why something was not kept."""


def compiled(signature: Any, function: Callable[..., Any]) -> Any:
    """A function as a C function of a signature, from the cache where it is there; calls don't hold Python's lock.

    Args:
        signature: of Numba's.
        function: what it closes over is part of the code: types and numbers.
    """
    options = {"error_model": "numpy"}  # division without a branch for zero
    try:
        entry: Any = CFunc(function, (signature.args, signature.return_type), locals={}, options=options)
        entry._cache = _Kept(function)  # where its own would be
        entry.compile()
    except (AttributeError, TypeError) as error:  # this is no promise of Numba's: another version may do it otherwise
        _trouble.append(f"numba {numba.__version__} takes no other cache ({error})")
        entry = numba.cfunc(signature, **options)(function)
    return entry


def obstacle() -> str | None:
    """Why nothing is kept for other processes, in half a line; None: it is."""
    try:
        _folder()
    except OSError as error:
        return " ".join(str(error).split())
    return _trouble[-1] if _trouble else None


def _folder() -> Path:
    told = numba.config.CACHE_DIR
    return cache.own(Path(told, "twinspike")) if told else cache.own(cache.own(cache.user_folder()) / "numba")


class _Kept:
    """The place of one function, as Numba asks for it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        values = [cell.cell_contents for cell in function.__closure__ or ()]
        self._function, self._parts = function.__name__, (function.__qualname__, values, VERSIONS, SOURCES)

    def _name(self, signature: Any, context: Any) -> str:
        parts = (*self._parts, signature, context.codegen().magic_tuple())
        return f"{self._function}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"

    def load_overload(self, signature: Any, context: Any) -> Any:
        """What was compiled for a signature, or None."""
        context.refresh()  # what code refers to must be there before it is loaded
        try:
            path = cache.find(_folder(), self._name(signature, context), SUFFIX)
            return None if path is None else _read(path, context)
        except OSError:  # `obstacle` says it
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what was compiled."""
        if result.library.has_dynamic_globals:  # addresses of this process
            return
        name, content = self._name(signature, result.target_context), dumps(result._reduce())
        try:
            with cache.alone(_folder(), SECONDS) as scratch:
                cache.keep(scratch, name, SUFFIX, content)
        except OSError as error:
            _trouble.append(" ".join(str(error).split()))


def _read(path: Path, context: Any) -> Any:
    try:
        return CompileResult._rebuild(context, *pickle.loads(path.read_bytes()))
    except Exception:  # whole, and yet of no use: whatever unpickling raises, it is compiled again
        path.unlink(missing_ok=True)
        return None
