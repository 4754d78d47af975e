"""What backends compile, kept in the user's cache folder from one process to the next.

What is kept runs as code. It is used only where nobody but this user can have put it, and only whole: the name of a file ends
in the digest of its content, and a file that does not fit its name, as after a loss of power, is removed and made again.

It is here, and free of frameworks, since backends don't import one another and a rule of safety should not be written twice.
Every failure is an OSError: then nothing is kept, and each process makes its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

UNFINISHED = "unfinished-"
"""Names of scratch folders begin so."""


def user_folder() -> Path:
    """The package's folder among the user's caches, where the platform has them; it need not be there.

    Raises:
        OSError: the user has no home.
    """
    try:
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local", "twinspike", "Cache")
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "twinspike"
        told = os.environ.get("XDG_CACHE_HOME", "")
        return Path(told if os.path.isabs(told) else Path.home() / ".cache", "twinspike")  # as the XDG specification says
    except RuntimeError as error:  # pathlib's way to say that there is no home
        raise FileNotFoundError(str(error)) from error


def own(folder: Path) -> Path:
    """The folder that is given, made if it is not there.

    Raises:
        OSError: it can't be made, belongs to another user, can be written by others, or lies where everyone can exchange it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for found in (folder.lstat(), folder.stat()):  # a link, and what it leads to
        if fault := _others(found):
            raise PermissionError(f"{folder} {fault}")
    for above in (*folder.absolute().parents, *folder.resolve().parents):
        mode = above.stat().st_mode
        if sys.platform != "win32" and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PermissionError(f"{above} can be written by others (mode {stat.S_IMODE(mode):o}; chmod o-w), and so exchanged")
    return folder


def all_own(folder: Path) -> Path:
    """The folder, for who reads whatever lies in it, without digests; raises as `own`, also for a file that others can write."""
    entered = own(folder).stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH)
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process may be at work
            found = path.lstat()
            fault = _others(found)
            if fault and (entered or found.st_uid != os.geteuid()):
                raise PermissionError(f"{path} {fault}; remove it")
    return folder


def find(folder: Path, name: str, suffix: str) -> Path | None:
    """What was kept under a name, checked against its digest; what is damaged, or others can write, is removed.

    Args:
        folder: one of this user's own, as `own` gives it; nobody else can exchange a file in it that was checked.
        name: for everything that the content depends on; letters, digits, `-` and `_`.
        suffix: ending of the file, with its dot.

    Raises:
        OSError: what is damaged can't be removed.
    """
    for path in sorted(folder.glob(f"{name}-*{suffix}")):
        if _whole(path, name, suffix):
            return path
        path.unlink(missing_ok=True)  # a process beside this one may have removed it
    return None


@contextlib.contextmanager
def alone(folder: Path, seconds: float) -> Iterator[Path]:
    """Let one process at a time make what is to be kept, in a scratch folder inside; what killed ones left there is removed.

    Where the system has no locks it goes on without: files are replaced as a whole.

    Args:
        folder: as `own` gives it.
        seconds: longest wait for another process.

    Raises:
        OSError: the folder can't be written, or another process took too long.
    """
    with (folder / "lock").open("ab") as file:  # a death frees it too
        if _locked(file.fileno(), folder, seconds):
            for left in folder.glob(f"{UNFINISHED}*"):
                shutil.rmtree(left, ignore_errors=True)
        try:
            with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder, ignore_cleanup_errors=True) as scratch:
                yield Path(scratch)
        finally:
            _unlock(file.fileno())


def keep(scratch: Path, name: str, suffix: str, content: bytes) -> Path:
    """Keep a content for `find`; other processes, and those after a loss of power, see all of it or nothing.

    Args:
        scratch: as `alone` gives it; what is kept goes to the folder around it.
        name: as of `find`, like `suffix`.
        suffix: ending of the file.
        content: of the file.

    Raises:
        OSError: it can't be written.
    """
    made, path = scratch / "whole", scratch.parent / f"{name}-{_digest(content)}{suffix}"
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    made.replace(path)
    if sys.platform != "win32":  # where a folder can't be opened
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return path


def _whole(path: Path, name: str, suffix: str) -> bool:
    try:
        found = path.lstat()
        fitting = stat.S_ISREG(found.st_mode) and not _others(found)
        return fitting and path.name == f"{name}-{_digest(path.read_bytes())}{suffix}"
    except OSError:
        return False


def _others(found: os.stat_result) -> str | None:
    """Why others than this user can have put something here; None: they can't."""
    if sys.platform == "win32":  # owners and modes mean nothing; the user's folders are closed to others by access lists
        return None
    if found.st_uid != os.geteuid():
        return f"belongs to another user (number {found.st_uid})"
    writable = not stat.S_ISLNK(found.st_mode) and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return f"can be written by others (mode {stat.S_IMODE(found.st_mode):o}; chmod go-w)" if writable else None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _locked(file: int, folder: Path, seconds: float) -> bool:
    """Wait for the lock; False: there are none here."""
    if sys.platform == "win32":
        return False
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise TimeoutError(f"another process has been compiling into {folder} for {seconds:g} s") from None
            time.sleep(0.05)
        except OSError:  # the file system has none
            return False
        else:
            return True


def _unlock(file: int) -> None:
    """By itself a close frees no lock that a process forked meanwhile holds too."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
