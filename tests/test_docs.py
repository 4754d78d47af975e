"""What the documentation shows works as shown; its generated pages are tested with the clauses."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import twinspike as ts
from twinspike.operations import Nothing

ROOT = Path(__file__).resolve().parents[1]


def python_of(page: str) -> str:
    """The one Python example of a page."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    return str(example)


def test_the_readme_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    example = python_of("README.md")
    exec(example.replace('"torch"', '"numpy"'), {})
    printed = capsys.readouterr().out.strip()
    assert f"# {printed}:" in example


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
