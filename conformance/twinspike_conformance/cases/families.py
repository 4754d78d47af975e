"""Value families: named kinds of numbers, each chosen because it sees faults that the others miss.

Hypothesis draws the structure of an example and a seed; the arrays are filled here from that seed, so
that an example is a few words long and its numbers are as many and as varied as they need to be.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from twinspike.errors import refuse
from twinspike_conformance.bounds.budget import SIGNIFICAND

Array = NDArray[np.float64]
Fill = Callable[[np.random.Generator, tuple[int, ...]], Array]


def _dyadic(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.integers(-6, 7, shape) / 4.0


def _boundary(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Multiples of 1/4 near 1/2 and 1: sums land on thresholds and window edges, or one quantum beside."""
    return rng.choice(np.array([0.0, 0.25, 0.5, 0.5, 0.75, 1.0, 1.0, 1.25, -0.25, 1.5]), shape)


def _sparse(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.where(rng.random(shape) < 0.8, 0.0, rng.integers(-4, 5, shape) / 2.0)


def _ties(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.choice(np.array([-1.0, 1.0]), shape)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape)


def _heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.clip(rng.standard_t(1.5, shape), -1e4, 1e4)


def _constant(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.full(shape, rng.standard_normal())


def _near_constant(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return 0.7 + 3e-3 * rng.standard_normal(shape)


def _large_mean(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return 500.0 + rng.standard_normal(shape)


def _cancelling(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Large values whose sums nearly vanish."""
    flat = rng.standard_normal(int(np.prod(shape, dtype=np.int64))) * 1e3
    flat[1::2] = -flat[: flat.size // 2 * 2 : 2] + rng.standard_normal(flat.size // 2)
    return flat.reshape(shape)


def _far(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Values of either sign up to some thousands: exponentials of them overflow every format."""
    return np.ldexp(rng.uniform(-1.0, 1.0, shape), rng.integers(0, 14, shape))


def _wide(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Values of either sign and any size from 2^-60 to 2^40: what is flushed, floored or clipped on the way shows."""
    return np.ldexp(rng.uniform(-1.0, 1.0, shape), rng.integers(-59, 41, shape))


def _tiny(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Values below a millionth, whose variance is below what is added to it by habit."""
    return np.ldexp(rng.standard_normal(shape), -21)


EXACT: dict[str, Fill] = {"dyadic": _dyadic, "boundary": _boundary, "sparse": _sparse, "ties": _ties}
"""Families whose values are dyadic with few bits."""

ROUNDED: dict[str, Fill] = {
    "normal": _normal,
    "heavy": _heavy,
    "constant": _constant,
    "near_constant": _near_constant,
    "large_mean": _large_mean,
    "cancelling": _cancelling,
    "sparse": _sparse,
    "boundary": _boundary,
    "far": _far,
    "wide": _wide,
    "tiny": _tiny,
}
"""Families for bounds and certificates."""


def _graded(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Of every position columns from size 1 down to 1e-7, so that singular values lie far apart."""
    return rng.standard_normal(shape) * np.logspace(0.0, -7.0, shape[1])[:, None, None]


def _low_rank(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Of rank 1 at every position, up to rounding."""
    return rng.standard_normal((shape[0], 1, *shape[2:])) * rng.standard_normal(shape[1])[:, None, None]


def _equal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Of every position a part of one orthogonal matrix: all singular values are 1, up to rounding, but where it is cut."""
    q = np.linalg.qr(rng.standard_normal((max(shape[:2]),) * 2))[0]
    return np.broadcast_to(q[: shape[0], : shape[1], None, None], shape)


def _scaled(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Very small or very large, and nothing at all in the first column of positions."""
    return np.asarray(rng.standard_normal(shape) * np.ldexp(1.0, rng.choice((-50, 40))) * (np.arange(shape[3]) > 0))


MATRICES: dict[str, Fill] = {"graded": _graded, "low_rank": _low_rank, "equal": _equal, "scaled": _scaled}
"""Families of kernels (O, I, kh, kw) that are hard to decompose."""

COMMON = tuple(family for family in ROUNDED if family not in ("far", "tiny"))
"""Those that most operations are given; far values are about what has an exponential in it, tiny ones about variances."""


class Source:
    """Fills the arrays of one example, in the order they are asked for."""

    def __init__(self, seed: int, family: str, exact: bool, form: str) -> None:
        table = EXACT if exact else ROUNDED | MATRICES
        if family not in table:
            raise refuse("family", expected=f"one of {', '.join(table)}", got=family)
        self.rng = np.random.Generator(np.random.Philox(seed))
        self.exact = exact
        self.family = family
        self._fill = table[family]
        self.form = form

    def main(self, *shape: int) -> Array:
        """The array that the family is about."""
        return self._round(self._fill(self.rng, shape))

    def plain(self, *shape: int) -> Array:
        """Any other array: small multiples of 1/4 in the exact lane, normal numbers else."""
        return self._round(_dyadic(self.rng, shape) if self.exact else self.rng.standard_normal(shape))

    def coarse(self, *shape: int) -> Array:
        """A cotangent: small multiples of 1/2 in the exact lane, so that long chains fit the budget."""
        return self._round(self.rng.integers(-2, 3, shape) / 2.0 if self.exact else self.rng.standard_normal(shape))

    def positive(self, *shape: int) -> Array:
        """Values away from 0 and never at a default."""
        values = self.rng.choice(np.array([0.5, 2.0, 4.0]), shape) if self.exact else self.rng.uniform(0.3, 3.0, shape)
        return self._round(values)

    def beside(self, *values: float) -> Array:
        """The nearest number of the format to each value, and those beside it by 1 to 4 and by 12 units in the last place."""
        nearest = self._round(np.asarray(values))
        unit = np.ldexp(self.spacing, np.frexp(nearest)[1] - 1)
        steps = np.array([0, 1, -1, 2, -2, 3, -3, 4, -4, 12, -12])
        return self._round(nearest + steps[:, None] * unit).ravel()

    @property
    def spacing(self) -> float:
        """The distance from 1 to the next number of the format."""
        return 2.0 ** (1 - SIGNIFICAND[self.form])

    def _round(self, values: Array) -> Array:
        """To numbers of the format of activations, so that every backend starts from the same inputs."""
        return rounded(values, self.form)


def rounded(values: Array, form: str) -> Array:
    """The nearest numbers of a format (`float64`, `float32` or `bfloat16`), ties to even, as float64."""
    if form != "bfloat16":
        return np.asarray(values, dtype=form).astype(np.float64)
    bits = np.asarray(values, dtype=np.float32).view(np.uint32).astype(np.uint64)
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.asarray(kept.astype(np.uint32).view(np.float32), dtype=np.float64)
