"""What is kept is used only where nobody else can have put it, and only whole; one process makes it, and may be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from twinspike import cache

NAME, SUFFIX = "kernel-1", ".so"


def kept(folder: Path, content: bytes = b"code") -> Path:
    with cache.alone(folder, 10) as scratch:
        return cache.keep(scratch, NAME, SUFFIX, content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return cache.own(tmp_path / "a" / "cache")


# --- whose it is -----------------------------------------------------------------------------------------


def test_a_folder_is_made_for_its_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = cache.own(tmp_path / "cache")
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o700
    assert cache.own(made) == made


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o707, 0o702, 0o1777])
def test_a_folder_that_others_can_write_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(OSError, match=rf"cache can be written by others \(mode {mode:o}; chmod go-w\)$"):
        cache.own(folder)


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o500])
def test_a_folder_that_others_can_only_read_is_used(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    assert cache.own(folder) == folder


def test_a_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from another user, which needs no rights: this user's folder is one of another."""
    here = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: here + 1)
    with pytest.raises(OSError, match=rf"cache belongs to another user \(number {here}\)$"):
        cache.own(folder)


@pytest.mark.parametrize("up", [1, 2])
def test_a_folder_that_everyone_can_exchange_is_refused(tmp_path: Path, up: int) -> None:
    folder = cache.own(tmp_path / "a" / "b" / "cache")
    above = folder.parents[up - 1]
    above.chmod(0o777)
    with pytest.raises(OSError, match=rf"{above} can be written by others \(mode 777; chmod o-w\), and so exchanged$"):
        cache.own(folder)
    above.chmod(0o1777)  # as /tmp is: there nobody can move what is another's
    assert cache.own(folder) == folder


def test_where_nothing_has_a_digest_each_file_is_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "anything"
    file.touch()
    file.chmod(0o666)
    assert cache.all_own(folder) == folder, "nobody else can enter it"
    folder.chmod(0o755)
    with pytest.raises(OSError, match=rf"{file} can be written by others \(mode 666; chmod go-w\); remove it$"):
        cache.all_own(folder)
    folder.chmod(0o700)
    here, lstat = os.geteuid(), Path.lstat

    def of_another(path: Path) -> os.stat_result:
        found = list(lstat(path))
        found[4] += path == file  # the owner's number
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", of_another)
    with pytest.raises(OSError, match=rf"{file} belongs to another user \(number {here + 1}\); remove it$"):
        cache.all_own(folder)


def test_a_relative_place_for_caches_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache.user_folder() == Path.home() / ".cache" / "twinspike"


def test_a_process_forked_meanwhile_keeps_no_lock(folder: Path) -> None:
    with cache.alone(folder, 10):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        with cache.alone(folder, 0):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_link_is_as_good_as_what_it_leads_to(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert cache.own(link) == link
    folder.chmod(0o777)
    with pytest.raises(OSError, match="can be written by others"):
        cache.own(link)


def test_a_link_of_another_user_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leads to a folder of this user's, who did not choose it."""
    link, plain = tmp_path / "link", Path.lstat
    link.symlink_to(folder)

    def lstat(path: Path) -> os.stat_result:
        found = plain(path)
        return os.stat_result((*found[:4], found.st_uid + 1, *found[5:])) if path == link else found

    monkeypatch.setattr(Path, "lstat", lstat)
    with pytest.raises(OSError, match="link belongs to another user"):
        cache.own(link)


def test_what_is_no_folder_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the folder's place")
    for path in (tmp_path / "file", tmp_path / "file" / "cache", tmp_path / ("long" * 100)):
        with pytest.raises(OSError, match=r"file|long"):
            cache.own(path)


def test_no_home_is_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # a user of whom the system knows nothing
    with pytest.raises(OSError, match="home"):
        cache.user_folder()


# --- whole or not at all ---------------------------------------------------------------------------------


def test_what_was_kept_is_found(folder: Path) -> None:
    assert cache.find(folder, NAME, SUFFIX) is None
    path = kept(folder)
    assert cache.find(folder, NAME, SUFFIX) == path
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"code", 0o600)
    assert cache.find(folder, "kernel-2", SUFFIX) is None
    assert cache.find(folder, NAME, ".nbc") is None
    assert sorted(folder.iterdir()) == sorted([path, folder / "lock"])


@pytest.mark.parametrize("content", [b"", b"c", b"cod", b"code ", b"\0ode", b"\0\0\0\0"])
def test_what_is_damaged_is_removed_and_can_be_kept_again(folder: Path, content: bytes) -> None:
    path = kept(folder)
    path.write_bytes(content)
    assert cache.find(folder, NAME, SUFFIX) is None
    assert not path.exists()
    assert kept(folder) == path == cache.find(folder, NAME, SUFFIX)


def test_a_damaged_file_does_not_hide_a_whole_one(folder: Path) -> None:
    paths = sorted((kept(folder, b"one"), kept(folder, b"two")))
    paths[0].write_bytes(b"")
    assert cache.find(folder, NAME, SUFFIX) == paths[1]


def test_a_file_that_others_can_write_is_removed(folder: Path) -> None:
    path = kept(folder)
    path.chmod(0o666)
    assert cache.find(folder, NAME, SUFFIX) is None
    assert not path.exists()


def test_what_is_no_file_is_removed_and_not_followed(folder: Path, tmp_path: Path) -> None:
    path = kept(folder)
    elsewhere = path.rename(tmp_path / path.name)
    path.symlink_to(elsewhere)
    assert cache.find(folder, NAME, SUFFIX) is None
    os.mkfifo(path)  # to open it would be to wait for ever
    assert cache.find(folder, NAME, SUFFIX) is None
    path.mkdir()
    with pytest.raises(OSError, match=path.name):
        cache.find(folder, NAME, SUFFIX)


# --- one process at a time -------------------------------------------------------------------------------

MAKES = """
import sys, time
from pathlib import Path
from twinspike import cache
folder, log = map(Path, sys.argv[1:])
if cache.find(folder, "kernel-1", ".so") is None:
    with cache.alone(folder, 60) as scratch:
        if cache.find(folder, "kernel-1", ".so") is None:
            with log.open("a") as file:
                file.write(f"made in {scratch}\\n")
            time.sleep(SECONDS)
            cache.keep(scratch, "kernel-1", ".so", b"code")
"""


def start(folder: Path, log: Path, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", MAKES.replace("SECONDS", str(seconds)), str(folder), str(log)])


def test_processes_that_start_together_make_it_once(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [start(folder, log, 1) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert log.read_text().count("made") == 1
    assert cache.find(folder, NAME, SUFFIX) is not None


def test_a_killed_process_leaves_no_lock_and_its_scratch_is_removed(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(folder, log, 600)
    while not (log.exists() and log.read_text().endswith("\n")):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    left = Path(log.read_text().removeprefix("made in ").strip())
    assert left.parent == folder
    assert left.is_dir()
    path = kept(folder)
    assert sorted(folder.iterdir()) == sorted([path, folder / "lock"])


def test_a_failure_leaves_no_lock_and_no_scratch(folder: Path) -> None:
    with pytest.raises(ValueError, match="no luck"), cache.alone(folder, 0):
        raise ValueError("no luck")
    with cache.alone(folder, 0) as scratch:
        assert list(folder.glob(f"{cache.UNFINISHED}*")) == [scratch]


def test_a_wait_that_is_too_long_is_an_oserror_and_takes_nothing_from_the_other(folder: Path) -> None:
    with cache.alone(folder, 0) as scratch:
        with pytest.raises(OSError, match=r"another process has been compiling into .* for 0 s$"), cache.alone(folder, 0):
            pass
        assert scratch.is_dir()


def test_without_locks_it_goes_on_and_removes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems that have none: another process may be at work."""

    def none(*arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(cache.fcntl, "flock", none)
    with cache.alone(folder, 0) as other:
        path = kept(folder)
        assert other.is_dir()
    assert cache.find(folder, NAME, SUFFIX) == path
