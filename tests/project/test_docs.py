"""What the documentation shows works as shown; its generated pages are tested with the clauses."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import twinspike as ts
from twinspike.operations import Nothing

ROOT = Path(__file__).resolve().parents[2]


def python_of(page: str) -> str:
    """The one Python example of a page."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    return str(example)


def test_the_readme_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    example = python_of("README.md")
    exec(example.replace('"torch"', '"numpy"'), {})
    printed = capsys.readouterr().out.strip()
    assert f"# {printed}:" in example


def test_contributing_installs_what_tests_and_lint_need_and_names_files_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    (line,) = (line for line in text.splitlines() if line.startswith("pip install"))
    wanted = {re.match(r"[\w-]+", package)[0] for name in ("test", "proofs", "lint", "tox") for package in groups[name]}  # type: ignore[index]
    assert wanted <= set(line.split())
    section = text.partition("## The rooms")[2].partition("## What proof")[0]
    found = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("[!.]*/**/*") if "__pycache__" not in path.parts}
    names = re.findall(r"`([\w/]+(?:\.py|\.h|/))`", section)
    assert len(names) > 30
    assert [name for name in names if not any(f"/{path}".endswith(f"/{name.rstrip('/')}") for path in found)] == []
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in re.findall(r"`(test_\w+)`", section) if f"def {name}(" not in tests] == []


def test_what_the_specification_computes_for_a_backend_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    exec(python_of("docs/whole-backend.md"), {})
    printed = capsys.readouterr().out
    assert "main.head.weight_ann" in printed
    assert "{'ann': (0, 1, 2), 'snn': (0, 1, 2)}" in printed


def test_the_smallest_backend_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ModuleType("small")
    exec(python_of("docs/backends.md"), small.__dict__)
    monkeypatch.setitem(sys.modules, "small", small)
    backend = ts.load("small:backend")
    session = backend.session()
    x, g = (session.from_numpy(np.array([row])) for row in ([-1.0, 0.0, 2.0], [3.0, 4.0, 5.0]))
    outputs, gradients = session.vjp("relu", Nothing(), {"x": x}, {"y": g})
    assert outputs["y"].tolist() == [[0.0, 0.0, 2.0]]
    assert gradients["x"].tolist() == [[0.0, 0.0, 5.0]]
    for refused in (
        lambda: backend.session(device="cuda"),
        lambda: session.forward("lif", ts.Neuron(), {"x": x}),
        lambda: session.forward("relu", Nothing(), {"y": x}),
        lambda: session.program(ts.network("digits_cnn"), ts.Method(), ts.SGD()),
    ):
        with pytest.raises(ts.SpecError):
            refused()
