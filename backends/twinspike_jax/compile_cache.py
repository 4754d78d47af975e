"""What XLA compiled, kept from one process to the next: compiling a joint step takes longer than many steps.

JAX keeps nothing unless it is told a folder. Whoever told it one, or turned the cache off, by JAX's own settings
or JAX_COMPILATION_CACHE_DIR, is left alone. What is kept runs as code, so JAX is told no folder that others can write to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from twinspike import cache


def keep_compiled() -> None:
    """Tell JAX to keep compiled functions in the user's cache folder, if it was told nothing and the folder is the user's own."""
    if not _untold():
        return
    try:
        folder = _folder()
    except OSError:  # `obstacle` says it
        return
    settings: Any = jax.config  # declared at run time
    settings.update("jax_compilation_cache_dir", str(folder))
    compilation_cache.reset_cache()  # had it compiled before, it would not look for a folder again


def obstacle() -> str | None:
    """Why nothing can be kept in the user's cache folder, in half a line; None: it can, or JAX was told something else."""
    if not _untold():
        return None
    try:
        _folder()
    except OSError as error:
        return " ".join(str(error).split())
    return None


def _untold() -> bool:
    settings: Any = jax.config
    return settings.jax_compilation_cache_dir is None and bool(settings.jax_enable_compilation_cache)


def _folder() -> Path:
    return cache.all_own(cache.own(cache.user_folder()) / "jax")
