"""Which operations and programs a fault touches, read off the reference's own calls.

A function reaches what it names: its module's functions and constants, and those that it imports from
other modules of the reference. An edit touches the definition that it stands in, and all that reach it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache

import msgspec

from twinspike.operations import OPERATIONS
from twinspike_conformance.judges.variant import MODULES, Edit, source

Place = tuple[str, str]
"""Module of the reference and the name that it defines."""

PROGRAM = ("gradients", "train_step", "evaluate", "trace")
"""What `reference.step` offers to a program."""


class Reach(msgspec.Struct, frozen=True):
    """What answers differently."""

    operations: frozenset[str]
    """Rows of the operations table."""
    program: bool
    """Whether whole networks do."""


@cache
def reach(edits: tuple[Edit, ...]) -> Reach:
    """What the edits touch."""
    touched = {place for edit in edits for place in _places(edit)}
    operations = {
        name for name in OPERATIONS for row in (name, f"{name}_adjoint") if _behind(("rows", row)) & touched
    }  # fmt: skip
    return Reach(frozenset(operations), any(_behind(("step", name)) & touched for name in PROGRAM))


def _places(edit: Edit) -> Iterator[Place]:
    """Definitions whose text an edit changes; one that only adds definitions changes none."""
    text = source(edit.module)
    start = text.index(edit.old)
    first, last = text.count("\n", 0, start) + 1, text.count("\n", 0, start + len(edit.old.rstrip())) + 1
    for name, node in _definitions(edit.module).items():
        if node.lineno <= last and first <= (node.end_lineno or node.lineno):
            yield edit.module, name


@cache
def _definitions(module: str) -> dict[str, ast.stmt]:
    """Name -> statement at the top of a module."""
    found: dict[str, ast.stmt] = {}
    for node in ast.parse(source(module)).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
            case ast.ImportFrom(names=names):
                found |= {alias.asname or alias.name: node for alias in names}
    return found


@cache
def _names(place: Place) -> tuple[Place, ...]:
    """What a definition names: its own module's, and through imports other modules'."""
    module, name = place
    node = _definitions(module)[name]
    if isinstance(node, ast.ImportFrom):
        return tuple(_imported(node, name))
    found: list[Place] = []
    for part in ast.walk(node):
        match part:
            case ast.Attribute(value=ast.Name(id=alias), attr=attribute) if alias in MODULES and alias in _definitions(module):
                found.append((alias, attribute))
            case ast.Name(id=other) if other != name or not isinstance(node, ast.FunctionDef):
                found.append((module, other))
    return tuple(p for p in found if p[1] in _definitions(p[0]))


def _imported(node: ast.ImportFrom, name: str) -> Sequence[Place]:
    module = (node.module or "").rpartition(".")[2]
    original = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
    return [(module, original)] if module in MODULES and original in _definitions(module) else []


@cache
def _behind(place: Place) -> frozenset[Place]:
    """A definition and all that it reaches."""
    found, todo = {place}, [place]
    if place[1] not in _definitions(place[0]):
        return frozenset()
    while todo:
        for other in _names(todo.pop()):
            if other not in found:
                found.add(other)
                todo.append(other)
    return frozenset(found)
