"""Writing files so that a reader, or a run that was killed, sees the old content or the new and never a part."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from twinspike.errors import refuse

FILE = "a file"
"""What `found` says of a plain file."""

MISSING = "no such file"
"""What it says where nothing is."""

DEVICE = "no plain file"
"""What it says of a device or a socket."""


def found(path: Path, *, follow: bool = True) -> str:
    """What lies at a path: `FILE`, or in a few words what else, or why that can't be told.

    Args:
        path: of anything.
        follow: whether a link to a file is one; what is written to must not lead elsewhere.
    """
    try:
        mode = (path.stat() if follow else path.lstat()).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "a link to nothing" if os.path.lexists(path) else MISSING
    except (OSError, ValueError) as error:  # no permission on the way to it, a name too long or with a NUL, a device that fails
        return getattr(error, "strerror", None) or str(error)
    kinds = {stat.S_IFREG: FILE, stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe"}
    return kinds.get(stat.S_IFMT(mode), DEVICE)


def expand(path: str | Path) -> Path:
    """The path with `~` and `~user` in front put in full; SpecError where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise refuse("~", expected="a home folder", got=f"none, in {path}", do="give the path in full") from None


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file in one step that also survives a loss of power.

    Args:
        path: the file; its folder must exist.
        write: writes the new content to the path that it is given, of an empty file in the same folder.

    Raises:
        SpecError: a device lies there, which root would lose.
        OSError: it can't be written; what was there is still there, and nothing else.
    """
    if found(path, follow=False) == DEVICE:
        raise refuse(str(path), expected="a file, or a name that is free", got=DEVICE, do="give another name")
    # One name per target, not a random one: what a killed process leaves is overwritten by the next write.
    temporary = path.with_name(f".{path.name}.part")
    # In a folder from elsewhere a link or a pipe may lie there, to be written through or waited for.
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        write(temporary)
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
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
