"""What a fault is: one deviation from one clause, stated as changes of the reference's own text."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from twinspike_conformance.judges.variant import Edit


class Fault(msgspec.Struct, frozen=True):
    """One fault of the corpus."""

    id: str
    """Chapter and subject, such as `lif-fire-strict`."""
    clause: str
    """The clause that it breaks."""
    description: str
    """One line: what the faulty implementation does."""
    edits: tuple[Edit, ...] = ()
    """Changes of the reference; none for faults of the harness, which are sessions that misbehave."""
    origin: str = ""
    """The real software that does or did this, or empty."""
    equivalent: str = ""
    """Proof that it computes what the clauses ask for, where it does; nothing may kill it then."""
    storage: str = ""
    """The only storage format in which it is one, if there is but one: what it rounds to is no loss in the others."""


def edits_of(module: str) -> Callable[[str, str], Edit]:
    """`edit(old, new)` for one module of the reference."""

    def edit(old: str, new: str) -> Edit:
        return Edit(module, old, new)

    return edit
