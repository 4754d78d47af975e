"""Finding backends: by name or by place, with one line for everything that can go wrong and no fallback."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import twinspike as ts
from twinspike import registry


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path; modules imported from it are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> dict[str, EntryPoint]:
    """The registered backends, to be filled by the test."""
    found: dict[str, EntryPoint] = {}
    monkeypatch.setattr(registry, "_entries", lambda: found)
    return found


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=registry.GROUP)


def test_own_backends_are_registered() -> None:
    assert {"numpy", "torch", "jax"} <= set(ts.names())
    assert list(ts.names()) == sorted(ts.names())


def test_a_backend_is_found_by_name_and_by_place() -> None:
    assert ts.load("numpy") is ts.load("twinspike_numpy:backend")
    assert ts.load("numpy").name == "numpy"
    assert isinstance(ts.load("numpy"), ts.Backend)


def test_a_backend_of_ones_own_needs_no_registration(place: Path) -> None:
    (place / "own_backend.py").write_text(
        "class Own:\n"
        "    name = 'own'\n"
        "    def capabilities(self): ...\n"
        "    def session(self, device='cpu', precision='f32-ieee', compiled=False): ...\n"
        "class Shelf:\n"
        "    backend = Own()\n"
    )
    assert ts.load("own_backend:Shelf.backend").name == "own"


def test_a_backend_may_hand_through_what_another_has(place: Path) -> None:
    """Which Python 3.12's isinstance does not see."""
    (place / "through_backend.py").write_text(
        "import twinspike\n"
        "class Through:\n"
        "    def __getattr__(self, name): return getattr(twinspike.load('numpy'), name)\n"
        "backend = Through()\n"
    )
    assert ts.load("through_backend:backend").capabilities() == ts.load("numpy").capabilities()


@pytest.mark.parametrize("name", ["", "tensorflow", "numpy:", ":backend", ".backend:it", "twinspike_numpy"])
def test_unknown_names_list_what_there_is(name: str) -> None:
    with pytest.raises(ts.SpecError, match=r"^backend: expected one of .*numpy.* or 'module:object', got") as refused:
        ts.load(name)
    assert "\n" not in str(refused.value)


def test_a_missing_framework_names_the_extra(place: Path, entries: dict[str, EntryPoint]) -> None:
    (place / "needy_backend.py").write_text("import framework_that_is_not_there.nn\n")
    entries["needy"] = point("needy", "needy_backend:backend")
    line = "package 'framework_that_is_not_there' is not installed"
    with pytest.raises(ts.SpecError) as refused:
        ts.load("needy")
    assert str(refused.value) == f"backend 'needy' can't be loaded: {line}; install it with: pip install 'twinspike[needy]'"
    with pytest.raises(ts.SpecError) as refused:
        ts.load("needy_backend:backend")
    assert str(refused.value) == f"backend 'needy_backend:backend' can't be loaded: {line}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "module 'broken_backend' has no attribute 'backend'"),
        ("raise ImportError('its library\\n  is of another version')", "its library is of another version"),
        ("raise OSError('libsomething.so: no such file')", "libsomething.so: no such file"),
        ("raise ValueError('\\nA setting\\nis none')", "ValueError: A setting (HERE/broken_backend.py, line 1)"),
        ("\n1 / 0", "ZeroDivisionError: division by zero (HERE/broken_backend.py, line 2)"),
    ],
)
def test_a_broken_backend_is_one_line(place: Path, text: str, line: str) -> None:
    (place / "broken_backend.py").write_text(text)
    line = line.replace("HERE", str(place))
    with pytest.raises(ts.SpecError) as refused:
        ts.load("broken_backend:backend")
    assert str(refused.value) == f"backend 'broken_backend:backend' can't be loaded: {line}"


def test_what_is_no_backend_is_refused() -> None:
    with pytest.raises(ts.SpecError, match="expected an object with name, capabilities and session, got module"):
        ts.load("os:path")


def test_survey_tells_what_can_be_had_and_why_the_rest_can_not(place: Path, entries: dict[str, EntryPoint]) -> None:
    (place / "needy_backend.py").write_text("import framework_that_is_not_there\n")
    entries["numpy"] = point("numpy", "twinspike_numpy:backend")
    entries["needy"] = point("needy", "needy_backend:backend")
    needy, numpy = ts.survey()
    assert (needy.name, needy.capabilities) == ("needy", None)
    assert needy.problem is not None
    assert "framework_that_is_not_there" in needy.problem
    assert (numpy.name, numpy.problem) == ("numpy", None)
    assert numpy.capabilities == ts.load("numpy").capabilities()
