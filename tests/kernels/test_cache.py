"""Compiled loops of torch's CPU neuron are kept by the content of their sources, and run only whole, from the user's folder."""

from __future__ import annotations

import ast
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest

import twinspike_torch as tt
from twinspike import cache
from twinspike_torch import lif_numba_cache

SIGNATURE = numba.types.int64(numba.types.int64)


def times(factor: int) -> Callable[[int], int]:
    def product(n: int) -> int:
        return factor * n

    return product


def loaded(factor: int) -> bool:
    """Whether the function comes from the cache; right it is in any case."""
    entry = lif_numba_cache.compiled(SIGNATURE, times(factor))
    assert entry.ctypes(21) == 21 * factor
    return bool(entry.cache_hits)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.nbc"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(lif_numba_cache, "_trouble", [])
    return tmp_path / "twinspike"


def test_what_is_closed_over_is_part_of_what_is_kept(folder: Path) -> None:
    assert [loaded(factor) for factor in (2, 3, 2, 3)] == [False, False, True, True]
    assert set(folder.iterdir()) == {*files(folder), folder / "lock"}
    assert len(files(folder)) == 2
    assert lif_numba_cache.obstacle() is None


def test_without_a_folder_of_numba_s_it_is_in_the_user_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(cache, "user_folder", lambda: tmp_path / "user")
    assert [loaded(2), loaded(2)] == [False, True]
    assert len(files(tmp_path / "user" / "numba")) == 1


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:1000],
    "one byte short": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "garbled": lambda content: content[::-1],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_compiled_again(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    loaded(2)
    (path,) = files(folder)
    path.write_bytes(damage(path.read_bytes()))
    assert [loaded(2), loaded(2)] == [False, True]
    assert len(files(folder)) == 1


@pytest.mark.parametrize("content", [b"no pickle", b"", pickle.dumps(None), pickle.dumps((1, 2, 3)), b"cno.such.module\nname\n."])
def test_what_is_whole_and_of_no_use_is_compiled_again(folder: Path, content: bytes) -> None:
    """As from another build of Numba with the same number."""
    loaded(2)
    (path,) = files(folder)
    name, _, _ = path.stem.rpartition("-")
    path.unlink()
    with cache.alone(folder, 0) as scratch:
        cache.keep(scratch, name, ".nbc", content)
    assert [loaded(2), loaded(2)] == [False, True]
    assert len(files(folder)) == 1


class Planted:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._mark),)


@pytest.mark.parametrize(("mode", "runs"), [(0o700, True), (0o777, False), (0o770, False)])
def test_what_others_could_have_planted_is_not_run(folder: Path, tmp_path: Path, mode: int, runs: bool) -> None:
    loaded(2)
    (path,) = files(folder)
    name, _, _ = path.stem.rpartition("-")
    path.unlink()
    with cache.alone(folder, 0) as scratch:
        cache.keep(scratch, name, ".nbc", pickle.dumps(Planted(tmp_path / "mark")))
    folder.chmod(mode)
    assert not loaded(2)
    assert (tmp_path / "mark").exists() == runs
    fault = f"{folder} can be written by others (mode {mode:o}; chmod go-w)"
    assert lif_numba_cache.obstacle() == (None if runs else fault)
    said = "" if runs else f", compiled anew by each process: {fault}"
    assert tt.backend.capabilities().kernels["lif on cpu"] == f"numba {numba.__version__}{said}"


def test_a_full_disk_costs_no_kernel_and_is_said(folder: Path) -> None:
    """Files may have no more than 100 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        found = [loaded(2), loaded(2)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found == [False, False]
    assert "File too large" in str(lif_numba_cache.obstacle())
    assert list(folder.iterdir()) == [folder / "lock"]


@pytest.mark.parametrize("error", [AttributeError, TypeError])
def test_a_numba_that_takes_no_other_cache_compiles_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuses(*arguments: object, **options: object) -> None:
        raise error("no such thing")

    monkeypatch.setattr(lif_numba_cache, "CFunc", refuses)
    assert not loaded(2)
    assert lif_numba_cache.obstacle() == f"numba {numba.__version__} takes no other cache (no such thing)"


# --- sources ---------------------------------------------------------------------------------------------

PACKAGE = Path(tt.__file__).parent
GRADIENT = """
import torch, twinspike as ts, twinspike_torch as tt
x = torch.tensor([[[0.5]]], requires_grad=True)
tt.lif(x, neuron=ts.Neuron(threshold=0.5, surrogate=ts.Triangle(width=0.5)), kernel="numba").s.sum().backward()
print(tt.__file__, x.grad.item())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "line", "edited"),
    [
        ("lif_numba_numbers", "return max(zero, one - abs(z) / a) / a", "return max(zero, one - abs(z) / a) / a + a"),
        ("lif_numba_loops", "rows[GAIN + i] * d, d_x)", "(rows[GAIN + i] + numbers[3]) * d, d_x)"),
    ],
)
def test_an_edit_of_what_is_inlined_is_computed_at_once(tmp_path: Path, name: str, line: str, edited: str) -> None:
    """h is 2 at the threshold; both edits make it 2.5 or 3, and undone they cost no compiling."""
    copy = tmp_path / "twinspike_torch"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    source = (copy / f"{name}.py").read_text()
    assert source.count(line) == 1
    paths = [str(tmp_path), *(os.environ.get("PYTHONPATH") or "").split(os.pathsep)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    found, kept = [], []
    for text in (source, source.replace(line, edited), source):
        (copy / f"{name}.py").write_text(text)
        run = subprocess.run([sys.executable, "-c", GRADIENT], env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        where, value = run.stdout.split()
        assert Path(where).parent == copy
        found.append(float(value))
        kept.append(len(files(tmp_path / "kept" / "twinspike")))
    assert found == [2.0, {"lif_numba_numbers": 2.5, "lif_numba_loops": 3.0}[name], 2.0]
    assert kept == [2, 4, 4]


def test_loops_are_made_of_the_sources_that_are_looked_at() -> None:
    """What a loop inlines comes from the package's files `lif_*.py`, all of which its name in the cache depends on."""
    for path in PACKAGE.glob("lif_numba*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("twinspike_torch"):
                parts = node.module.split(".")[1:] or [alias.name for alias in node.names]
                assert all(part.startswith("lif_") for part in parts), f"{path.name}: {parts}"
