"""Writing files so that a reader, or a run that was killed, sees the old content or the new and never a part."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file in one step that also survives a loss of power.

    Args:
        path: the file; its folder must exist.
        write: writes the new content to the path that it is given, in the same folder.
    """
    # One name per target, not a random one: what a killed process leaves is overwritten by the next write.
    temporary = path.with_name(f".{path.name}.part")
    write(temporary)
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def is_part(path: Path) -> bool:
    """Whether a file is what a write that was killed left behind."""
    return path.name.startswith(".") and path.name.endswith(".part")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
