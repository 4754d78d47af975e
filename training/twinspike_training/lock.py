"""One process at a time in a run's folder: two would write over each other's checkpoints and record."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from twinspike.errors import refuse, require

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
"""File in a run's folder that a process holds locked while it writes there; it tells who."""


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder. The lock ends with the process, however that ends; where the system has no locks there is none.

    Raises:
        SpecError: another process holds it, or no plain file lies where the lock is to be.
        OSError: nothing can be written there.
    """
    file = _locked(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()  # before it is let go: whoever waits for nothing finds it gone, or held
        os.close(file)


def _locked(folder: Path) -> int:
    path = folder / LOCK
    while True:
        # In a folder from elsewhere a link may lie there, to be written through, or a pipe, to be waited for.
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
        try:
            plain = stat.S_ISREG(os.fstat(file).st_mode)
            require(plain, str(path), expected="a plain file, or none", got="something else", do="remove it")
            if not _take(file):
                who = os.read(file, 100).decode(errors="replace") or "another process"
                do = "wait for it, or end it"
                raise refuse(str(folder), expected="a run that no other process is at work on", got=who, do=do)
            if _still_there(path, file):
                os.ftruncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # it was removed by who held it, between the opening and the locking


def _take(file: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks
        return True
    return True


def _still_there(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(file))
    except FileNotFoundError:
        return False
