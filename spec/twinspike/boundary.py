"""The border of a command: what a file, a disk, a name, the environment or the user's input can cause is one line there.

Everything else is a bug, and says so below its traceback. Both command lines run inside `run`, and nothing else decides which
of the two an exception is. It is here, and free of libraries, since training and conformance don't import one another.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import sys
import traceback
from collections.abc import Callable
from io import TextIOWrapper

import twinspike
from twinspike.errors import SpecError

REFUSED = 2
"""Exit status of what can't be done, told in one line."""

BUG = 1
"""Exit status of a bug; also where whoever reads standard output has had enough, which is no error and is not told."""

_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|RESOURCE_EXHAUSTED", re.IGNORECASE)
"""What frameworks say, in exceptions of their own, where memory does not suffice."""

_CUT = re.compile(r"(\S+\.so): (file too short|invalid ELF header)")
"""What the loader says of a library over which a compiler was killed; torch keeps it, under an error of its own."""

_NO_COMPILER = re.compile(r"No working C\+\+ compiler found|^Compiler: .* is not found", re.MULTILINE)
"""What torch's compiler says where there is none to translate its C++."""

_WAYS = {
    errno.ENOSPC: "free some room, or files where their number is limited (df, df -i), or give another folder",
    errno.EDQUOT: "your quota is used up: free some room or give another folder",
    errno.EROFS: "give a folder that can be written",
    errno.EACCES: "ask for permission or give another place",
    errno.EPERM: "ask for permission or give another place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
"""What to do, by the number of the system's error."""


def run(call: Callable[[], int]) -> int:
    """Call; what it raises is told on standard error.

    Args:
        call: gives the exit status, as does this function.
    """
    _open_streams()
    try:
        status = call()
        sys.stdout.flush()
    except BrokenPipeError:
        silence()
        return BUG
    except Exception as error:
        told = line(error)
        with contextlib.suppress(OSError):  # standard error may be what failed
            sys.stdout.flush()
        silence()
        with contextlib.suppress(OSError):
            if told is None:
                traceback.print_exc()
            print(f"error: {told or _bug()}", file=sys.stderr, flush=True)
        return BUG if told is None else REFUSED
    return status


def line(error: BaseException) -> str | None:
    """The line for what comes from outside the program; None: a bug."""
    match error:
        case SpecError():
            told = str(error)
        case OSError():
            told = _of_system(error)
        case ModuleNotFoundError() if error.name is not None and not error.name.startswith("twinspike"):
            told = f"package {error.name.partition('.')[0]!r} is not installed; install it"
        case UnicodeError():
            told = f"text: expected UTF-8, got what is none ({error})"
        case MemoryError() | RuntimeError() if isinstance(error, MemoryError) or _MEMORY.search(str(error)):
            said = str(error).strip().partition("\n")[0][:200] or "no more"
            told = f"memory: expected enough for these sizes, got too little ({said}); make batches or sizes smaller"
        case RuntimeError() if _NO_COMPILER.search(str(error)):
            told = "C++ compiler: expected one that works, got none; install g++ or clang++, see CXX, or do without compile"
        case Exception() if cut := _CUT.search(str(error)):
            told = f"{cut[1]}: expected a compiled library, got a part of one ({cut[2]}); remove it"
        case _:
            return None
    return legible(told)


def legible(text: str) -> str:
    """A line in which names, which may be anyone's, hold nothing that a terminal would obey or an encoding refuse."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def silence() -> None:
    """Let nothing more be written, or flushed at the end, into a standard output that takes nothing; one that does is left."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _escaped(c: str) -> str:
    undecoded = "\udc80" <= c <= "\udcff"  # a byte of a file's name that is no UTF-8
    return f"\\x{ord(c) - 0xDC00:02x}" if undecoded else ascii(c)[1:-1]


def _open_streams() -> None:
    """A sign that the terminal lacks costs nobody the output, and a closed stream's number goes to no file that is opened."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - it is to stay open
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _of_system(error: OSError) -> str:
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    what = " or ".join(dict.fromkeys(names)) or "a file, or standard output"
    do = _WAYS.get(error.errno or 0)
    return f"{what}: {error.strerror or str(error) or type(error).__name__}{f'; {do}' if do else ''}"


def _bug() -> str:
    where = f"Twinspike {twinspike.__version__}, Python {platform.python_version()}"
    return f"this is a bug of Twinspike, not of what you gave it; please report it with the lines above ({where})"
