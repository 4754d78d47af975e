"""The pinned versions can be had by every Python that is named, and a pin that can't is found."""

from __future__ import annotations

import tomllib
from importlib.metadata import Distribution, distributions
from pathlib import Path

import constraints
import pytest
from constraints import FILE, Pin, applying, differing, installed, refused, written

ROOT = Path(__file__).resolve().parents[2]
TEXT = FILE.read_text(encoding="utf-8")
THREE = ["3.11", "3.12", "3.13"]


def test_every_named_python_can_have_every_pin_from_its_first_release_on() -> None:
    assert list(refused(TEXT, constraints.pythons())) == []


def test_the_first_python_is_the_one_that_is_required() -> None:
    first = constraints.pythons()[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == f">={first}"
    assert f"Python ({first} or newer)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_python_has_the_same_packages_pinned() -> None:
    pinned = [set(applying(TEXT, f"{python}.0")) for python in constraints.pythons()]
    assert all(names == pinned[0] for names in pinned)
    assert {"numpy", "torch", "jax", "mkdocs-material", "tox", "hatchling", "setuptools"} <= pinned[0]


def test_the_file_is_in_the_form_in_which_it_is_written() -> None:
    head = "".join(f"{line}\n" for line in TEXT.splitlines() if line.startswith("#"))
    assert written(head, {python: applying(TEXT, f"{python}.0") for python in constraints.pythons()}) == TEXT


@pytest.mark.parametrize(
    ("text", "releases"),
    [
        ("a==13.1  # Python >=3.11.5", ["3.11.0"]),
        ("a==2 # Python >=3.12", ["3.11.0", "3.11.99"]),
        ("a==1 # Python <3.13", ["3.13.0", "3.13.99"]),
        ('a==1 ; python_version < "3.13" # Python <3.13\na==2 ; python_version >= "3.13" # Python >=3.13.1', ["3.13.0"]),
        ('a==2 ; python_full_version >= "3.11.5" # Python >=3.11.5\na==1 ; python_full_version < "3.11.5" # Python >=3.11', []),
        ("a==1 # Python >=3.9,!=3.12.0", ["3.12.0"]),
        ("a==1", []),
    ],
)
def test_a_pin_that_a_python_cannot_have_is_found(text: str, releases: list[str]) -> None:
    lines = list(refused(text, THREE))
    assert len(lines) == len(releases)
    for line, release in zip(lines, releases, strict=True):
        assert line.startswith("a ")
        assert f"which {release} is not" in line


@pytest.mark.parametrize(
    "text",
    [
        "a==1\na==2",
        "b==1\nA_b==1\na-b==1",
        'a==1\na==2 ; python_version >= "3.12"',
        'a==1\na==2 ; python_full_version >= "3.11.5"',
    ],
)
def test_two_pins_for_one_python_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"has two pins for Python 3\.1"):
        list(refused(text, THREE))


def test_what_pythons_share_is_one_line_and_what_is_read_back_is_what_was_written() -> None:
    one, two, three = (Pin("A_b", version, f">=3.{minor}") for version, minor in (("1", 9), ("2", 12), ("3", 13)))
    same, early = Pin("c", "7", ""), Pin("d", "5", ">=3.8")
    table = {
        "3.11": {"a-b": one, "c": same, "d": early},
        "3.12": {"a-b": two, "c": same, "d": early},
        "3.13": {"a-b": three, "c": same},
    }
    text = written("# head\n", table)
    assert text.splitlines() == [
        "# head",
        'A_b==1 ; python_version < "3.12"  # Python >=3.9',
        'A_b==2 ; python_version >= "3.12" and python_version < "3.13"  # Python >=3.12',
        'A_b==3 ; python_version >= "3.13"  # Python >=3.13',
        "c==7",
        'd==5 ; python_version < "3.13"  # Python >=3.8',
    ]
    assert {python: applying(text, f"{python}.0") for python in table} == table
    assert applying(text, "3.14.2") == table["3.13"]


def distribution(folder: Path, name: str, version: str, needs: str) -> None:
    metadata = folder / f"{name}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (f"Requires-Python: {needs}\n" if needs else "")
    )


def found(folder: Path) -> list[Distribution]:
    return list(distributions(path=[str(folder)]))


def test_what_is_installed_in_another_way_than_pinned_is_found(tmp_path: Path) -> None:
    for name, version, needs in (
        ("A_b", "1.0", ">=3.9, <4"),
        ("torch", "2.0+cpu", ">=3.10"),
        ("other", "3", ">=3.11.5"),
        ("new", "1", ""),
        ("silent", "4", ">=3.11.5"),
        *((name, "1", "") for name in ("pip", "twinspike", "triton", "nvidia-cudnn", "cuda-bindings")),
    ):
        distribution(tmp_path, name, version, needs)
    pins = applying(
        "a-b==1.0 # Python >=3.9,<4\ntorch==2.0 # Python >=3.10\nother==2 # Python >=3.9\nsilent==4\nabsent==1", "3.11.7"
    )
    assert list(differing(pins, installed(found(tmp_path)))) == [
        "new: nothing in constraints.txt, 1, Python any installed",
        "other: 2, Python >=3.9 in constraints.txt, 3, Python >=3.11.5 installed",
        "silent: 4, Python any in constraints.txt, 4, Python >=3.11.5 installed",
    ]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A constraints file of its own, for an environment in which `a` 2 is installed, for Python 3.12 and newer on this one."""
    path = tmp_path / "constraints.txt"
    path.write_text("# head\na==1  # Python >=3.9\n")
    monkeypatch.setattr(constraints, "FILE", path)
    monkeypatch.setattr(constraints.sys, "version_info", (3, 12, 1))
    return path


def run(monkeypatch: pytest.MonkeyPatch, needs: str, *options: str) -> None:
    monkeypatch.setattr(constraints, "installed", lambda: {"a": Pin("a", "2", needs)})
    monkeypatch.setattr(constraints.sys, "argv", ["constraints.py", *options])
    constraints.main()


def test_what_is_installed_is_written_for_this_python_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^a: 1, Python >=3\.9 in constraints\.txt, 2, Python >=3\.12 installed$"):
        run(monkeypatch, ">=3.12", "--check")
    run(monkeypatch, ">=3.12")
    assert file.read_text().splitlines() == [
        "# head",
        'a==1 ; python_version < "3.12"  # Python >=3.9',
        'a==2 ; python_version >= "3.12" and python_version < "3.13"  # Python >=3.12',
        'a==1 ; python_version >= "3.13"  # Python >=3.9',
    ]
    run(monkeypatch, ">=3.12", "--check")


def test_what_a_first_release_cannot_have_is_not_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_text()
    with pytest.raises(SystemExit, match=r"^a 2 is for Python >=3\.12\.1, which 3\.12\.0 is not: take an older release$"):
        run(monkeypatch, ">=3.12.1")
    monkeypatch.setattr(constraints.sys, "version_info", (3, 14, 0))
    with pytest.raises(SystemExit, match=r"^pyproject\.toml does not name Python 3\.14$"):
        run(monkeypatch, "")
    assert file.read_text() == before
