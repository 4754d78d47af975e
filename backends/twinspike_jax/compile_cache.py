"""What XLA compiled, kept from one process to the next: compiling a joint step takes longer than many steps.

JAX keeps nothing unless it is told a folder. Whoever told it one, or turned the cache off, by JAX's own settings
or JAX_COMPILATION_CACHE_DIR, is left alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache


def keep_compiled() -> None:
    """Tell JAX to keep compiled functions in the user's cache folder, if it was told nothing."""
    settings: Any = jax.config  # declared at run time
    if settings.jax_compilation_cache_dir is None and settings.jax_enable_compilation_cache:
        settings.update("jax_compilation_cache_dir", str(user_cache() / "jax"))
        compilation_cache.reset_cache()  # had it compiled before, it would not look for a folder again


def user_cache() -> Path:
    """The package's folder among the user's caches, where the platform has them."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local", "twinspike", "Cache")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "twinspike"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "twinspike")
