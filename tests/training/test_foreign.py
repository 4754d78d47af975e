"""A run's folder may come from elsewhere: it names no code that runs here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import msgspec
import pytest
from matplotlib.figure import Figure
from training_runs import TINY, quiet, train
from typer.testing import CliRunner, Result

import twinspike as ts
from twinspike_training import checkpoint, loop
from twinspike_training.commands import app
from twinspike_training.config import load_config
from twinspike_training.run import RunFolder, open_run, prepare, read_config, stored_config

MODULE = "planted_backend"
FOREIGN = f"{MODULE}:backend"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(tmp_path_factory.mktemp("foreign"), "training.epochs=1").folder


@pytest.fixture
def folder(trained: RunFolder, tmp_path: Path) -> RunFolder:
    """A run whose folder, config and checkpoints name a module as their backend."""
    path = tmp_path / "run"
    shutil.copytree(trained.path, path)
    copied = open_run(path)
    name_backend(copied, FOREIGN)
    for which in ("last", "best"):
        found = checkpoint.load(copied.checkpoint(which))
        header = msgspec.structs.replace(found.header, backend=FOREIGN, config=stored_config(copied))
        checkpoint.save(copied.checkpoint(which), header, found.state)
    return copied


def name_backend(folder: RunFolder, name: str) -> None:
    data = json.loads(folder.config.read_text())
    folder.config.write_text(json.dumps({**data, "backend": name}))


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that an importable module leaves when it is imported; the module holds a backend."""
    trace = tmp_path / "imported"
    (tmp_path / "modules").mkdir()
    source = f"from twinspike_numpy import backend\nopen({str(trace)!r}, 'w').close()\n__all__ = ['backend']\n"
    (tmp_path / "modules" / f"{MODULE}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    return trace


COMMANDS = {
    "evaluate": ("evaluate", "RUN"),
    "evaluate last": ("evaluate", "RUN", "--checkpoint", "last", "--precision", "f64", "--device", "cpu"),
    "plot": ("plot", "RUN", "--out", "OUT"),
    "resume": ("train", "--resume", "RUN"),
    "resume with changes": ("train", "--resume", "RUN", "--set", "training.epochs=2", "--device", "cpu"),
}


def words(command: str, folder: RunFolder, planted: Path) -> list[str]:
    places = {"RUN": str(folder.path), "OUT": str(planted.parent / "out")}
    return [places.get(word, word) for word in COMMANDS[command]]


@pytest.mark.parametrize("name", [FOREIGN, "planted_backend", "nope", "twinspike_numpy:backend", ""])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_names_a_registered_backend_or_none(folder: RunFolder, planted: Path, command: str, name: str) -> None:
    name_backend(folder, name)
    before = {file: file.read_bytes() for file in folder.path.iterdir()}
    result = run(
        *(part.replace("RUN", str(folder.path)).replace("OUT", str(planted.parent / "out")) for part in COMMANDS[command])
    )
    assert result.exit_code == 2
    if name:
        assert result.stderr == (
            f"error: backend in {folder.config}: expected a registered one ({', '.join(ts.names())}), since a folder may come "
            f"from elsewhere, got {name!r}; name one yourself with --backend, which also takes module:object\n"
        )
    assert result.stderr.count("\n") == 1
    assert not planted.exists()
    assert {file: file.read_bytes() for file in folder.path.iterdir()} == before


@pytest.mark.parametrize("command", COMMANDS)
def test_the_user_may_name_it(folder: RunFolder, planted: Path, command: str) -> None:
    result = run(*words(command, folder, planted), "--backend", FOREIGN)
    assert result.exit_code == 0, result.output
    assert planted.exists()


def test_the_user_may_name_it_as_a_key(folder: RunFolder, planted: Path) -> None:
    result = run("train", "--resume", str(folder.path), "--set", f"backend={FOREIGN}", "--set", "training.epochs=2")
    assert result.exit_code == 0, result.output
    assert planted.exists()


def test_the_user_may_name_another(folder: RunFolder, planted: Path) -> None:
    assert run("evaluate", str(folder.path), "--backend", "numpy").exit_code == 0
    assert run("train", "--resume", str(folder.path), "--backend", "numpy", "--set", "training.epochs=2").exit_code == 0
    assert stored_config(folder).backend == "numpy"
    assert not planted.exists()


def test_runs_are_compared_without_their_backends(folder: RunFolder, trained: RunFolder, planted: Path) -> None:
    result = run("compare", str(trained.path), str(folder.path), "--out", str(planted.parent / "c.png"))
    assert result.exit_code == 0, result.output
    assert f"({FOREIGN})" in result.stdout
    assert not planted.exists()


def test_settings_of_matplotlib_start_no_program(trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a `matplotlibrc` in the working folder would set them."""
    program, trace = tmp_path / "bin" / "latex", tmp_path / "started"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho >> {trace}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    with matplotlib.rc_context({"text.usetex": True}):
        assert run("plot", str(trained.path), "--out", str(tmp_path / "p")).exit_code == 0
        assert run("compare", str(trained.path), str(trained.path), "--out", str(tmp_path / "c.png")).exit_code == 0
        assert Figure().text(0, 0, "a").get_usetex()  # so the setting reaches what is drawn otherwise
    assert not trace.exists()


@pytest.mark.parametrize("how", ["variable", "file"])
def test_settings_that_matplotlib_does_not_know_are_one_line(trained: RunFolder, tmp_path: Path, how: str) -> None:
    """In a process of its own, since Matplotlib reads them once."""
    (tmp_path / "matplotlibrc").write_bytes(b"" if how == "variable" else b"\xff\xfe")
    environment = os.environ | ({"MPLBACKEND": "nonsense"} if how == "variable" else {})
    words = [sys.executable, "-m", "twinspike_training.cli", "plot", str(trained.path)]
    done = subprocess.run(words, check=False, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    *before, line = done.stderr.splitlines()
    assert line.startswith("error: Matplotlib: expected settings that it knows, got ")
    assert len(before) == (how == "file")  # Matplotlib's own


def test_python_is_as_careful(folder: RunFolder, planted: Path) -> None:
    with pytest.raises(ts.SpecError, match=r"^backend in \S+config\.json: expected a registered one"):
        loop.resume(folder, None, quiet())
    assert not planted.exists()
    assert prepare(read_config(folder, [f"backend={FOREIGN}"])).config.backend == FOREIGN
    assert planted.exists()


def test_a_file_that_the_user_names_may_name_it(tmp_path: Path, planted: Path) -> None:
    (tmp_path / "own.toml").write_text(f'backend = "{FOREIGN}"\n')
    changes = [part for change in TINY[1:] for part in ("--set", change)]
    result = run("train", str(tmp_path / "own.toml"), *changes, "--out", str(tmp_path / "runs"))
    assert result.exit_code == 0, result.output
    assert planted.exists()


def test_a_file_called_like_an_embedded_config_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").write_text("seed = 7\n")
    monkeypatch.chdir(tmp_path)
    assert [load_config(source).seed for source in (None, "digits", "./digits")] == [0, 0, 7]
