"""The one error family: every refusal of Twinspike is a SpecError of one clear line.

A line says what was wrong, what was expected, what was got and, where it helps, what to do.
"""

from __future__ import annotations

from typing import Any


class SpecError(ValueError):
    """Something was asked that the specification does not allow, or that can't be had here."""


def refuse(what: str, *, expected: object, got: object, do: str | None = None) -> SpecError:
    """Build the error for one refusal; the caller raises it.

    Args:
        what: the thing that is wrong, named as its user names it (`neuron.decay`, `data.path`).
        expected: what would have been accepted.
        got: what came instead; long values are cut.
        do: the next step for the user, if there is one.

    Returns:
        A SpecError whose text is one line.
    """
    shown = got if isinstance(got, str) else repr(got)
    if len(shown) > 120:
        shown = f"{shown[:117]}..."
    line = f"{what}: expected {expected}, got {shown}"
    return SpecError(" ".join(f"{line}; {do}".split()) if do else " ".join(line.split()))


def require(condition: bool, what: str, *, expected: object, got: Any, do: str | None = None) -> None:
    """Raise `refuse(...)` unless the condition holds."""
    if not condition:
        raise refuse(what, expected=expected, got=got, do=do)
