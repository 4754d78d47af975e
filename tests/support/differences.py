"""What tests of the reference share: numbers to feed it, and slopes by finite differences with their bounds."""

from __future__ import annotations

import numpy as np

import twinspike as ts

U = 2.0**-53
SURROGATES = [ts.Rectangle(width=0.8), ts.Triangle(width=0.6), ts.Sigmoid(slope=4.0), ts.Arctan(slope=3.0)]
SURROGATES += [ts.FastSigmoid(slope=5.0), ts.Tanh(slope=1.5)]
by_kind = {"argvalues": SURROGATES, "ids": lambda s: type(s).__name__}


def normal(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def dyadic(*shape, seed=0, bits=3):
    return np.random.default_rng((seed, *shape)).integers(-15, 16, shape) / 2.0**bits


def slope_at_zero(f, scale, operations=1e3, h=2.0**-11):
    """df/dt at 0 and a bound on the error of that; `scale` bounds the magnitudes summed in f."""
    coarse = (f(h) - f(-h)) / (2 * h)
    fine = (f(h / 2) - f(-h / 2)) / h
    return fine, abs(fine - coarse) + 2 * operations * U * scale / h
