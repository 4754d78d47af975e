"""A mark: what an official run of the conformance suite leaves for a backend to carry, so that its users can see it.

It is a claim about one session, with the digest of the report that proves it. Nothing in it is signed: who doubts it asks for
the report, whose digest it must have, or runs the suite.
"""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import msgspec

from twinspike import plain
from twinspike.errors import refuse, require


class Mark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That a backend conformed, once, in one session."""

    backend: str
    """Its name."""
    specification: str
    """Version of the specification that it was judged by."""
    profile: str
    """`ci` or `deep`."""
    precision: str
    device: str
    compiled: bool
    date: str
    """Day of the run in UTC, ISO 8601."""
    passed: int
    """Checks that passed; the others are not supported, or have no example in this precision and on this device."""
    unsupported: int
    """Checks of what the backend does not claim."""
    report: str
    """SHA-256 of `report.json`, 64 hexadecimal digits."""

    def __post_init__(self) -> None:
        require(bool(re.fullmatch("[0-9a-f]{64}", self.report)), "mark.report", expected="64 hexadecimal digits", got=self.report)
        require(self.passed >= 1, "mark.passed", expected="a whole number >= 1", got=self.passed)
        require(self.unsupported >= 0, "mark.unsupported", expected="a whole number >= 0", got=self.unsupported)
        try:
            date.fromisoformat(self.date)
        except ValueError:
            raise refuse("mark.date", expected="a day as 2026-01-31", got=self.date) from None

    def sentence(self) -> str:
        """What it says, in one line."""
        mode = ", compiled" if self.compiled else ""
        rest = f", {self.unsupported} not supported" if self.unsupported else ""
        return (
            f"conformed to {self.specification} in {self.precision} on {self.device}{mode}, profile {self.profile}, {self.date}: "
            f"{self.passed} checks{rest}; report {self.report[:12]}"
        )


def read_mark(path: Path) -> Mark:
    """The mark in a file.

    Raises:
        SpecError: it can't be read, or is none.
    """
    try:
        return msgspec.convert(plain.read_table(path), Mark)
    except msgspec.ValidationError as error:
        raise refuse(str(path), expected="a mark of an official run", got=str(error)) from None


def read_marks(folder: Path) -> tuple[Mark, ...]:
    """The marks that lie in a folder as `*.json`, by name; none if there is no such folder.

    Raises:
        SpecError: a file in it is no mark.
    """
    return tuple(read_mark(path) for path in sorted(folder.glob("*.json")))
