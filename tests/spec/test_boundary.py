"""The border of a command: one line and 2 for what comes from outside, a traceback and 1 for a bug."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from twinspike import SpecError, boundary


def raising(error: BaseException) -> Callable[[], int]:
    def call() -> int:
        raise error

    return call


def of_system(number: int, *names: str) -> OSError:
    return OSError(number, os.strerror(number), *([names[0], None, names[1]] if len(names) == 2 else names))


OUTSIDE = {
    "refusal": (SpecError("seed: expected 1, got 2"), "seed: expected 1, got 2"),
    "read-only": (of_system(errno.EROFS, "/x"), "/x: Read-only file system; give a folder that can be written"),
    "no inodes": (
        of_system(errno.ENOSPC, "/x"),
        "/x: No space left on device; free some room, or files where their number is limited (df, df -i), or give another folder",
    ),
    "quota": (
        of_system(errno.EDQUOT, "/x"),
        "/x: Disk quota exceeded; your quota is used up: free some room or give another folder",
    ),
    "long name": (of_system(errno.ENAMETOOLONG, "/x"), "/x: File name too long; give a shorter name"),
    "two names": (of_system(errno.EIO, "/x", "/y"), "/x or /y: Input/output error"),
    "no compiler": (
        RuntimeError("No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, '/nonexistent')"),
        "C++ compiler: expected one that works, got none; install g++ or clang++, see CXX, or do without compile",
    ),
    "no name": (of_system(errno.EIO), "a file, or standard output: Input/output error"),
    "no text": (OSError(), "a file, or standard output: OSError"),
    "no UTF-8": (of_system(errno.ENOENT, "caf\udce9"), "caf\\xe9: No such file or directory"),
    "escapes": (of_system(errno.ENOENT, "\x1b[31m\u202e\n"), "\\x1b[31m\\u202e\\n: No such file or directory"),
    "library": (ModuleNotFoundError("No module", name="tensorboard.x"), "package 'tensorboard' is not installed; install it"),
    "undecodable": (
        UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid"),
        "text: expected UTF-8, got what is none ('utf-8' codec can't decode byte 0xe9 in position 0: invalid)",
    ),
    "a library cut off": (
        RuntimeError("InductorError: ImportError: /c/x.main.so: file too short\n\nSet TORCHDYNAMO_VERBOSE=1"),
        "/c/x.main.so: expected a compiled library, got a part of one (file too short); remove it",
    ),
    "memory": (
        MemoryError(),
        "memory: expected enough for these sizes, got too little (no more); make batches or sizes smaller",
    ),
    "a framework's memory": (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory\nmore"),
        "memory: expected enough for these sizes, got too little "
        "([enforce fail] DefaultCPUAllocator: can't allocate memory); make batches or sizes smaller",
    ),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_comes_from_outside_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    error, told = OUTSIDE[name]
    assert boundary.run(raising(error)) == boundary.REFUSED
    assert capsys.readouterr().err == f"error: {told}\n"


@pytest.mark.parametrize(
    "error", [KeyError("x"), RuntimeError("x"), RecursionError("x"), ModuleNotFoundError("x", name="twinspike.x")]
)
def test_everything_else_is_a_bug_and_says_so(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert boundary.run(raising(error)) == boundary.BUG
    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told
    assert told.splitlines()[-1].startswith("error: this is a bug of Twinspike, not of what you gave it; please report it")


def test_an_interrupt_is_nobodys_error() -> None:
    with pytest.raises(KeyboardInterrupt):
        boundary.run(raising(KeyboardInterrupt()))


def test_a_status_is_handed_through() -> None:
    assert [boundary.run(lambda status=status: status) for status in (0, 1, 3)] == [0, 1, 3]


PROGRAM = "import sys; from twinspike import boundary; sys.exit(boundary.run(lambda: print({text}) or 0))"


def run(text: str, shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", PROGRAM.format(text=text)]
    line = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    return subprocess.run(["bash", "-c", line + shell], capture_output=True, text=True, check=False, env=os.environ | environment)


def test_a_full_disk_below_standard_output_is_one_line() -> None:
    done = run('"x"', " > /dev/full")
    assert done.returncode == boundary.REFUSED
    assert done.stderr.startswith("error: a file, or standard output: No space left on device; free some room")
    assert done.stderr.count("\n") == 1


def test_a_reader_who_has_enough_is_no_error() -> None:
    done = run('"x" * 1000000', ' | head -c 1; exit "${PIPESTATUS[0]}"')
    assert (done.returncode, done.stdout, done.stderr) == (boundary.BUG, "x", "")


def test_a_sign_that_the_terminal_lacks_is_shown_otherwise() -> None:
    done = run('"\\u2265"', "", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\u2265\n", "")


def test_a_closed_standard_output_is_no_error_and_no_files_number() -> None:
    done = run('"x"', " >&-")
    assert (done.returncode, done.stderr) == (0, "")
