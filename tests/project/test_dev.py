"""The one-line commands and what they run: what lacks its tool is left out in the open, or refused where all is asked for."""

from __future__ import annotations

import configparser
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import dev
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What would have been run; nothing is installed."""
    found: list[tuple[str, ...]] = []
    monkeypatch.setattr(dev, "install", lambda *what: None)
    monkeypatch.setattr(dev, "run", lambda *command: found.append(command))
    return found


def have(monkeypatch: pytest.MonkeyPatch, python: bool, browser: bool) -> None:
    monkeypatch.setattr(dev, "find_python", lambda version: "/of/its/own/python" if python else None)
    monkeypatch.setattr(dev, "find_browser", lambda: "/of/its/own/browser" if browser else None)


@pytest.mark.parametrize(
    ("python", "browser", "words"),
    [
        (False, True, "Python 3.12: not on this machine"),
        (True, False, "a browser (chromium, chromium-browser, google-chrome): not on this machine"),
        (False, False, "Python 3.12 and a browser (chromium, chromium-browser, google-chrome): not on this machine"),
    ],
)
def test_complete_refuses_what_would_be_left_out(
    python: bool, browser: bool, words: str, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, python, browser)
    with pytest.raises(SystemExit) as refusal:
        dev.test([], complete=True)
    assert str(refusal.value) == f"{words}, and --complete asks for it"
    assert commands == []


@pytest.mark.parametrize(
    ("python", "browser", "skipped"), [(False, True, "py312-.*"), (True, False, "browser"), (False, False, "py312-.*|browser")]
)
def test_what_is_left_out_is_said(
    python: bool,
    browser: bool,
    skipped: str,
    commands: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    have(monkeypatch, python, browser)
    dev.test(["-e", "spec"], complete=False)
    (command,) = commands
    assert command[-4:] == ("--skip-env", skipped, "-e", "spec")
    told = capsys.readouterr().out
    assert ("for want of Python 3.12" in told, "for want of a browser" in told) == (not python, not browser)


def test_nothing_is_left_out_where_nothing_lacks(
    commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    have(monkeypatch, True, True)
    dev.test([], complete=True)
    (command,) = commands
    assert "--skip-env" not in command
    assert command[-2:] == ("--discover", "/of/its/own/python")
    assert capsys.readouterr().out == ""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the virtual environment would be: nothing is there."""
    monkeypatch.setattr(dev, "VENV", tmp_path / "place" / ".venv")
    monkeypatch.setattr(dev, "BIN", tmp_path / "place" / ".venv" / "bin")
    return tmp_path / "place" / ".venv"


def refusal() -> str:
    """The one line with which installing ends."""
    with pytest.raises(SystemExit) as refused:
        dev.install("tox")
    line = str(refused.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("lacking", [("ensurepip",), ("venv",), ("venv", "ensurepip")])
def test_a_python_that_cannot_make_environments_is_told_what_to_install(
    lacking: tuple[str, ...], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "find_spec", lambda name: None if name in lacking else object())
    line = refusal()
    assert f"lacks {' and '.join(lacking)} and so" in line
    assert line.endswith("apt install python{}.{}-venv".format(*sys.version_info))
    assert not place.exists()


@pytest.mark.parametrize("failure", [subprocess.CalledProcessError(1, ["python", "-m", "ensurepip"]), SystemExit(1)])
def test_an_environment_that_cannot_be_made_leaves_one_line_and_nothing_else(
    failure: BaseException, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.parent.write_text("a file, where a folder would have to be")
    assert refusal().startswith(f"{place} can't be made: ")

    def fails(folder: Path, with_pip: bool) -> None:
        folder.mkdir(parents=True)
        raise failure

    place.parent.unlink()
    monkeypatch.setattr(venv, "create", fails)
    assert f"`{sys.executable} -m venv {place}`, which says more" in refusal()
    assert not place.exists()


def test_an_environment_that_is_half_made_or_of_another_python_is_refused(place: Path) -> None:
    venv.create(place, with_pip=False)
    assert refusal() == f"{place} has no working Python with pip: remove it, and run this again"
    (place / "bin" / "python").unlink()
    (place / "bin" / "python").symlink_to("/of/a/python/that/went")
    assert refusal() == f"{place} has no working Python with pip: remove it, and run this again"
    (place / "bin" / "python").unlink()
    (place / "bin" / "python").write_text("#!/bin/sh\necho 3.9.1\n")
    (place / "bin" / "python").chmod(0o755)
    assert refusal().startswith(f"{place} is of Python 3.9.1, and this is {sys.version.split()[0]}: remove it")


def test_an_environment_is_made_once_and_used_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed: list[tuple[str, ...]] = []
    monkeypatch.setattr(dev, "run", lambda *command: installed.append(command))
    dev.install("tox")
    assert capsys.readouterr().out == f"making {place}\n"
    dev.install("hatchling")
    assert capsys.readouterr().out == ""
    assert [(command[0], command[-1]) for command in installed] == [
        (str(place / "bin" / "python"), w) for w in ("tox", "hatchling")
    ]


def test_a_browser_is_found_by_any_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dev.find_browser() is None
    program = tmp_path / dev.BROWSERS[-1]
    program.touch(mode=0o755)
    assert dev.find_browser() == str(program)


def test_this_python_is_found_without_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert dev.find_python(sys.version_info[:2]) == sys.executable
    assert dev.find_python((3, 5)) is None


def test_the_ci_script_looks_for_the_same_browsers() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert f"command -v {' '.join(dev.BROWSERS)} >" in script
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


def environments() -> dict[str, dict[str, str]]:
    """The sections of tox.ini by environment."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.read(ROOT / "tox.ini", encoding="utf-8")
    found = {}
    for section in parser.sections():
        for name in section.removeprefix("testenv:").strip("{}").split(","):
            found[name] = dict(parser[section])
    return found


def test_tox_names_every_environment_and_those_of_a_gpu_ask_for_it() -> None:
    found = environments()
    listed = {name.strip() for name in found["tox"]["env_list"].split(",")}
    named = {
        "numpy",
        "torch",
        "jax",
        "cross",
        "mutants",
        "false-alarms",
        "torch-full",
        "jax-full",
        "traffic",
        "torch-cuda",
        "jax-cuda",
        "browser",
    }
    assert listed | named <= set(found)
    assert not listed & {"mutants", "false-alarms", "torch-full", "jax-full", "traffic", "torch-cuda", "jax-cuda"}
    for name in ("torch-cuda", "jax-cuda"):
        assert found[name]["constraints"] == ""
        suites = [line for line in found[name]["commands"].splitlines() if "suite" in line]
        assert all("--device cuda" in line for line in suites)
        assert {line.partition("--precision ")[2].split()[0] for line in suites} == {"f32-ieee", "tf32", "bf16-mixed"}
    for name in ("torch", "jax"):
        suites = [line for line in found[name]["commands"].splitlines() if "suite" in line]
        assert {line.partition("--precision ")[2].split()[0] for line in suites} == {"f64", "f32-ieee", "bf16-mixed"}
        whole = {line.partition("--precision ")[2].split()[0] for line in suites if "--profile ci --report" in line}
        assert whole == ({"f32-ieee"} if name == "jax" else {"f64", "f32-ieee", "bf16-mixed"})
        assert all("--report" in line for line in suites)


def test_pins_are_held_against_all_that_can_be_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = environments()
    assert "python constraints.py --check" in found["lint"]["commands"]
    for name in ("lint", "constraints"):
        assert found[name]["extras"] == "all"
        assert {group.strip() for group in found[name]["dependency_groups"].split(",")} == set(project["dependency-groups"])
        assert {"hatchling", "editables"} <= set(found[name]["deps"].split())
    assert found["constraints"]["constraints"] == ""
