"""What the heap keeps: pages of a freed array are there for the next one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from twinspike_training import heap

PROBE = """
import resource
from twinspike_training import heap

kept = {keep}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def fill():
    block = bytearray(b"1") * (8 << 20)
    del block
fill()
before = faults()
for _ in range(8):
    fill()
print(kept, faults() - before)
"""

glibc = pytest.mark.skipif(sys.platform != "linux" or os.confstr("CS_GNU_LIBC_VERSION") is None, reason="glibc alone has mallopt")


def probe(keep: str, **environment: str) -> tuple[str, int]:
    """(what `keep` gives, page faults of filling 8 MiB eight times), in a fresh process."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROBE.format(keep=keep)]
    done = subprocess.run(command, env=own | environment, capture_output=True, text=True, check=True).stdout.split()
    return done[0], int(done[1])


@glibc
def test_a_freed_array_leaves_its_pages_to_the_next() -> None:
    plain, kept = probe("None"), probe("heap.keep()")
    assert kept[0] == "True"
    assert kept[1] * 2 < plain[1]


@glibc
def test_settings_of_the_user_stand() -> None:
    assert probe("heap.keep()", MALLOC_ARENA_MAX="2")[0] == "False"


def test_another_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows can't open the program itself as a library."""

    def refuse(name: str | None) -> None:
        raise TypeError(name)

    monkeypatch.setattr(heap.ctypes, "CDLL", refuse)
    monkeypatch.setattr(heap.sys, "platform", "win32")
    assert heap.keep() is False


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: object())
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    assert heap.keep() is False
