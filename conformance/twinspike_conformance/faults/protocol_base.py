"""What faults of programs share: their table, and a program that remembers what it was asked first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twinspike.backend import Program
from twinspike_conformance.faults.base import Fault
from twinspike_conformance.faults.within import ProgramWithin

PROGRAMS: dict[str, type[ProgramWithin]] = {}
"""Fault -> the program that has it."""
FAULTS: list[Fault] = []


def fault(name: str, clause: str = "PRE-4", origin: str = "") -> Callable[[type[ProgramWithin]], type[ProgramWithin]]:
    """Enter a faulty program, whose docstring says what it does."""

    def enter(kind: type[ProgramWithin]) -> type[ProgramWithin]:
        PROGRAMS[name] = kind
        FAULTS.append(Fault(name, clause, str(kind.__doc__).rstrip("."), origin=origin))
        return kind

    return enter


class First(ProgramWithin):
    """Remembers of what it was asked first."""

    def __init__(self, inner: Program) -> None:
        super().__init__(inner)
        self.seen: dict[Any, Any] = {}

    def first(self, key: Any, value: Any) -> Any:
        """What came first under a key."""
        return self.seen.setdefault(key, value)
