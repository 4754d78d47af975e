"""How many roundings a right implementation may take where the reference takes one step, in units of roundoff.

A unit is half an ulp where a number is the least of its binade: a promise of n ulp is one of 2 n units. Each number counts
the reference's own rounding, what the clauses let an implementation write in its place, and what makers of compilers and
libraries promise; docs/conformance.md has the table with its sources. A rewrite that may cost more, such as one that
subtracts what the reference doesn't, is none that the clauses permit.
"""

from __future__ import annotations

SUM = 2.0
"""Of a sum or difference: its own, and one of an operand that is rounded first, where the reference's isn't."""

PRODUCT = 2.0
"""Of a product: its own, and one of a factor that is multiplied out of constants first, or of another order of three factors."""

QUOTIENT = 4.0
"""Of a quotient: 2 ulp of a GPU's full-range division; a product with a rounded reciprocal takes 2."""

ROOT = 4.0
"""Of a square root: 2 ulp of a GPU's reciprocal root; a root by itself takes 1, an approximate one 2."""

FUNCTION = 8.0
"""Of exp, log, log1p, tanh and arctan: the 4 ulp that vector libraries promise."""

TERMS = 2.0
"""Of n terms beyond the n - 1 of their sums, or the n of sums of products: a factor that is taken into the sum or out of it."""
