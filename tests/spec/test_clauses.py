"""The clauses are numbered without gap, cited rightly, and shown in the documentation as they are."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

import twinspike as ts
from twinspike.clauses import BY_ID, CHAPTERS, CLAUSES, Level

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = ROOT / "docs" / "generate.py"
CITATION = re.compile(r"\b([A-Z]{2,3})-(\d+|\*)(?: to (?:[A-Z]{2,3}-)?(\d+))?")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prefixes() -> list[str]:
    return list(dict.fromkeys(clause.id.partition("-")[0] for clause in CLAUSES))


def test_ids_are_unique_and_count_from_one_in_each_chapter() -> None:
    ids = [clause.id for clause in CLAUSES]
    assert len(BY_ID) == len(CLAUSES) == len(set(ids))
    expected = []
    for prefix in prefixes():
        expected += [f"{prefix}-{i}" for i in range(1, sum(id_.startswith(f"{prefix}-") for id_ in ids) + 1)]
    assert ids == expected


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.id)
def test_a_clause_is_one_line_that_ends(clause: ts.Clause) -> None:
    assert clause.level in get_args(Level)
    assert clause.text == " ".join(clause.text.split())
    assert clause.text.endswith(".")


@pytest.mark.parametrize("row", ts.OPERATIONS.values(), ids=lambda row: row.name)
def test_rows_of_the_table_are_whole(row: ts.Operation) -> None:
    assert row.clauses
    assert set(row.clauses) <= set(BY_ID)
    assert all(BY_ID[id_].level != "WITHDRAWN" for id_ in row.clauses)
    assert len(set(row.clauses)) == len(row.clauses)
    assert set(row.differentiable) <= set(row.inputs)
    assert set(row.cotangents) <= set(row.outputs)
    assert (row.adjoint is not None) == bool(row.differentiable) == bool(row.cotangents)
    assert ts.OPERATIONS[row.name] is row


def test_every_clause_cited_in_the_code_exists() -> None:
    """Citations such as LIF-3, FAC-* or OPT-1 to OPT-4, in every room and in these tests."""
    known, wrong = set(prefixes()), []
    for room in ("spec", "backends", "conformance", "training", "tests", "examples"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for prefix, first, last in CITATION.findall(path.read_text(encoding="utf-8")):
                cited = [] if first == "*" else [f"{prefix}-{number}" for number in (first, last) if number]
                wrong += [f"{path.relative_to(ROOT)}: {id_}" for id_ in cited if prefix in known and id_ not in BY_ID]
    assert not wrong


def test_the_documentation_has_every_chapter(generator: ModuleType) -> None:
    assert list(CHAPTERS) == prefixes()


def test_the_documentation_is_up_to_date(generator: ModuleType) -> None:
    stale = [path.name for path, text in generator.pages().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run python docs/generate.py"
