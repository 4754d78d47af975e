"""How the C++ kernels are built and kept: once, whole, for nobody else, and where that fails for one process or with a reason.

The compiler is a script, which copies the library that was really built for this machine where one is needed.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from twinspike import cache
from twinspike_jax import kernel_choice, native_build
from twinspike_jax.native_build import LIF, Library, Missing

LOADS = "from twinspike_jax import native_build as n; print(n.library(n.LIF))"


def script(folder, text):
    """A program that stands for the compiler; asked for macros, it says nothing and succeeds."""
    program = folder / "compiler"
    program.write_text(f'#!/bin/sh\ncase "$*" in *-E*) exit 0;; esac\n{text}\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def real():
    compiler = native_build._compiler()
    options = (*native_build._options(compiler), f"-ffp-contract={LIF.contract}")
    return native_build._kept(LIF, compiler, options, native_build._key(compiler, options))


@pytest.fixture
def log(monkeypatch, tmp_path, real):
    """Where a compiler that takes a while says that it ran; the user's caches are in `tmp_path`."""
    text = f'echo run >> {tmp_path}/log; sleep 0.5; while [ $# -gt 1 ]; do shift; done; cp {real} "$1"'
    monkeypatch.setenv("CXX", str(script(tmp_path, text)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "log"


def start():
    return subprocess.Popen([sys.executable, "-c", LOADS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def loads():
    process = start()
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out.startswith("Library(")) == (0, True), out + err


def loaded_here():
    """The library and why it is not kept; XLA isn't told of it, since it takes no second one of a name."""
    return native_build._loaded(LIF, os.environ["CXX"], (), "key")


def libraries(folder):
    return sorted((folder / "twinspike").glob("*.so"))


def test_a_library_is_compiled_once_and_kept_whole(log, tmp_path):
    """By processes that start together, too; nothing but the library and its lock stays in the folder."""
    for process in [start() for _ in range(2)]:
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out.startswith("Library(")) == (0, True), out + err
    loads()
    assert log.read_text().count("run") == 1
    assert sorted((tmp_path / "twinspike").iterdir()) == [*libraries(tmp_path), tmp_path / "twinspike" / "lock"]
    assert len(libraries(tmp_path)) == 1


@pytest.mark.parametrize("left", [0, 1000, 600_000, -1])
def test_a_damaged_library_is_built_again(log, tmp_path, left):
    """Cut, it would end the process by a bus error, and empty or garbled be lost; -1: all is there, but one byte is another."""
    loads()
    (path,) = libraries(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:left] if left >= 0 else content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    loads()
    assert path.read_bytes() == content
    assert log.read_text().count("run") == 2


def test_a_library_that_others_could_have_planted_is_not_loaded(log, tmp_path):
    loads()
    (tmp_path / "twinspike").chmod(0o777)
    loaded, alone = loaded_here()
    assert not loaded._name.startswith(f"{tmp_path}/twinspike/")
    assert alone == f"{tmp_path}/twinspike can be written by others (mode 777; chmod go-w)"
    assert log.read_text().count("run") == 2
    out, err = start().communicate(timeout=300)
    assert f"alone='{alone}'" in out, err
    told = kernel_choice.told(Library({}, "compiler", alone), "X")
    assert told == f"C++ through XLA's FFI, by compiler, for this process alone: {alone}"


def test_a_library_of_another_user_is_not_loaded(log, tmp_path, monkeypatch):
    loads()
    here = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: here + 1)
    loaded, alone = loaded_here()
    assert not loaded._name.startswith(f"{tmp_path}/twinspike/")
    assert alone == f"{tmp_path}/twinspike belongs to another user (number {here})"
    assert log.read_text().count("run") == 2


def test_a_cache_that_can_not_be_written_costs_no_kernel(log, tmp_path):
    (tmp_path / "twinspike").write_text("a file in the folder's place")
    loaded, alone = loaded_here()
    assert loaded.twinspike_lif_forward
    assert "File exists" in alone


def test_a_full_disk_costs_no_kernel(log, tmp_path):
    """Files may not grow as large as the room that is asked for, as where a quota ends; the library is smaller."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (native_build.ROOM // 2, before[1]))
    try:
        loaded, alone = loaded_here()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert loaded.twinspike_lif_forward
    assert "File too large" in alone
    assert libraries(tmp_path) == []
    assert list((tmp_path / "twinspike").glob(f"{cache.UNFINISHED}*")) == []


def test_what_is_kept_but_can_not_be_loaded_here_is_built_for_this_process(log, tmp_path, real):
    """As by a machine with the same home and older system libraries."""
    name = f"{LIF.name}-key"
    with cache.alone(cache.own(tmp_path / "twinspike"), 0) as scratch:
        cache.keep(scratch, name, ".so", b"of another system")
    loaded, alone = loaded_here()
    assert loaded.twinspike_lif_forward
    assert name in alone


def test_the_key_changes_with_compiler_and_options(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    keys = set()
    for folder, text in ((one, "echo macros"), (two, "echo others")):
        folder.mkdir()
        program = script(folder, "")
        program.write_text(f"#!/bin/sh\n{text}\n")
        keys |= {native_build._key(str(program), options) for options in (("-O2",), ("-O3",))}
    assert len(keys) == 4


# --- there is no library ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('echo "note" >&2; echo "x.cpp:1: error: no luck" >&2; exit 1', "x.cpp:1: error: no luck"),
        ("exit 3", "exit code 3"),
        ("kill -9 $$", "signal 9"),
        (r"printf 'erreur \351: error\n' >&2; exit 1", "erreur \N{REPLACEMENT CHARACTER}: error"),
        ("exec sleep 60", "it took longer than 1 s"),
    ],
)
def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path, text, reason):
    monkeypatch.setenv("CXX", str(script(tmp_path, text)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native_build, "SECONDS", 1)
    assert native_build._library.__wrapped__(LIF) == Missing(f"compiler failed: {reason}")
    assert [path.name for path in (tmp_path / "twinspike").iterdir()] == ["lock"]


@pytest.mark.parametrize("text", ['while [ $# -gt 1 ]; do shift; done; echo text > "$1"', "exit 0"])
def test_what_is_no_library_is_refused_with_its_reason(monkeypatch, tmp_path, text):
    monkeypatch.setenv("CXX", str(script(tmp_path, text)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = native_build._library.__wrapped__(LIF)
    assert isinstance(found, Missing)
    assert found.reason.startswith("compiler failed: ")
    assert "\n" not in found.reason
