"""What a comparison found: the worst element, how far it was and how far it might have been."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

Rung = Literal["exact", "accept_set", "bound", "certificate", "property"]
Array = NDArray[np.float64]


class Compared(NamedTuple):
    """The arrays of a comparison, of one shape."""

    got: Array
    want: Array
    bound: Array


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of one quantity of one example."""

    quantity: str
    """What was compared: `s`, `u`, `gradient of x`, ..."""
    rung: Rung
    clauses: tuple[str, ...]
    ok: bool
    ratio: float = 0.0
    """Largest error/bound; 0 or infinity on the exact rung."""
    index: tuple[int, ...] = ()
    """First element that is wrong, or else the worst one."""
    got: float | str = 0.0
    want: float | str = 0.0
    bound: float = 0.0
    raised: bool = False
    """Whether there was an exception in the place of an answer."""
    told: str = ""
    """The finding in words of its own, where it is not about one answer and what was expected."""
    compared: Compared | None = None
    """What was compared; None for a property, and where shapes differ."""

    @property
    def vacuous(self) -> bool:
        """Whether an answer of zeros would pass, though what is wanted is not 0 everywhere: it says nothing then."""
        if self.compared is None:
            return False
        size = np.abs(self.compared.want)
        return bool(size.any() and (size <= self.compared.bound).all())

    def within(self, factor: float) -> bool:
        """Whether it is ok or would be with its bound times `factor`; what is exact or no number has no bound to widen."""
        return self.ok or (not isinstance(self.got, str) and self.ratio <= factor)

    def sentence(self) -> str:
        """The finding in words, numbers in hexadecimal."""
        if self.told:
            return self.told
        if isinstance(self.got, str) or isinstance(self.want, str):
            return f"{self.quantity}: expected {self.want}, got {self.got}"
        place = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        allowed = "exactly" if self.bound == 0 else f"within {self.bound:.3g} of"
        text = f"{self.quantity}{place}: expected {allowed} {float(self.want).hex()} ({self.want:.9g})"
        return f"{text}, got {float(self.got).hex()} ({self.got:.9g}), error/bound {self.ratio:.3g}"


def compare(quantity: str, got: Any, want: Any, bound: Any, *, rung: Rung, clauses: tuple[str, ...]) -> Finding:
    """Compare element by element: |got - want| <= bound, NaN and infinity never pass where want is finite.

    Args:
        quantity: its name.
        got: the implementation's, any shape.
        want: the reference's, of the same shape.
        bound: per element or one for all, >= 0; 0 demands equality (+0 and -0 are equal).
        rung: of the ladder.
        clauses: that the quantity fulfils.
    """
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        return Finding(
            quantity=f"shape of {quantity}", rung="property", clauses=clauses, ok=False, ratio=np.inf,
            got=str(got.shape), want=str(want.shape),
        )  # fmt: skip
    bound = np.broadcast_to(np.asarray(bound, np.float64), want.shape)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        error = np.abs(got - want)
        ratio = np.where(got == want, 0.0, np.where(bound > 0, error / bound, np.inf))
    ratio = np.where(np.isfinite(got) | (got == want), ratio, np.inf)
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    arrays = Compared(got, want, bound)
    if ratio.size == 0:
        return Finding(quantity=quantity, rung=rung, clauses=clauses, ok=True, compared=arrays)
    wrong = np.flatnonzero(ratio.ravel() > 1.0)
    flat = int(wrong[0]) if wrong.size else int(ratio.argmax())
    at = tuple(int(i) for i in np.unravel_index(flat, ratio.shape))
    return Finding(
        quantity=quantity, rung=rung, clauses=clauses, ok=not wrong.size, ratio=float(ratio.max()),
        index=at, got=float(got[at]), want=float(want[at]), bound=float(bound[at]), compared=arrays,
    )  # fmt: skip


def holds(quantity: str, condition: bool, *, got: str, want: str, clauses: tuple[str, ...]) -> Finding:
    """A yes-or-no property."""
    return Finding(
        quantity=quantity, rung="property", clauses=clauses, ok=condition, ratio=0.0 if condition else np.inf, got=got, want=want
    )
