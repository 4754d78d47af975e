"""The schema of `field.json`: what was asked of which library, what came of it, and what is known of why."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from twinspike.errors import SpecError, refuse

SCHEMA = 1
"""Grows with every change that a reader of an older version can't read."""

Outcome = Literal["agrees", "differs", "cannot"]
Kind = Literal["choice", "fault"]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One clause in one precision."""

    clause: str
    precision: str
    outcome: Outcome
    """cannot: the library's documented arguments don't express it, or nothing of it can be judged."""
    asked: int
    """Examples that are about the clause."""
    refused: int
    """Of these, those that can't be expressed."""
    compared: int
    wrong: int
    """Of the comparisons, those that break the suite's bound."""
    worst: float
    """Largest error over bound; -1 for infinity."""
    refusals: tuple[str, ...] = ()
    first: str = ""
    """The first comparison that was wrong."""
    example: str = ""
    """That of the first."""


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a library's source."""

    file: str
    """Relative to its package."""
    line: int
    digest: str
    """The first 12 digits of the SHA-256 of the line without the blanks around it."""


class Deviation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a library differs from the clauses, or from its own documentation, and what shows it."""

    id: str
    kind: Kind
    title: str
    clauses: tuple[str, ...] = ()
    """Those whose cells it explains; empty where no operation of the specification is concerned."""
    precisions: tuple[str, ...] = ()
    """Those in which it does; empty for all."""
    expected: str
    """By the clause for a choice, by the library's own documentation for a fault."""
    got: str
    documented: str = ""
    """Where the library says what is expected."""
    where: tuple[Place, ...]
    setting: str = ""
    """The documented setting that agrees, where there is one."""
    code: str
    """At most five lines of the library's public interface beside imports."""
    prints: str
    """What they print."""

    def explains(self, cell: Cell) -> bool:
        """Whether a cell that differs may do so by this."""
        return cell.clause in self.clauses and (not self.precisions or cell.precision in self.precisions)


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One library."""

    name: str
    title: str
    version: str
    versions: dict[str, str]
    python: str
    machine: str
    cells: tuple[Cell, ...]
    deviations: tuple[Deviation, ...]

    def kind(self, cell: Cell) -> Kind | None:
        """Why a cell differs; None where it doesn't, or nothing is known of why."""
        kinds = {deviation.kind for deviation in self.deviations if deviation.explains(cell)}
        if cell.outcome != "differs" or not kinds:
            return None
        return "fault" if "fault" in kinds else "choice"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    schema: int = SCHEMA
    specification: str
    """Version of the specification and of the suite."""
    libraries: tuple[Judged, ...]


def read(path: Path) -> Field:
    """Read what `write` wrote.

    Raises:
        SpecError: there is no such file, or it is of another schema.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Field)
    except (OSError, msgspec.DecodeError) as error:
        raise SpecError(f"{path}: expected the results of the field, schema {SCHEMA}: {' '.join(str(error).split())}") from None
    if found.schema != SCHEMA:
        raise refuse(f"{path}: schema", expected=SCHEMA, got=found.schema)
    return found


def write(field: Field, path: Path) -> None:
    """Write as JSON, a value a line so that a change shows as such."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(field), indent=1) + b"\n")
