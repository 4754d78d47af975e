"""Some entries of a convolution's gradients, from the maps of the whole batch: rows, columns and singular values at one tap.

A kernel's gradient at one of its positions is a product of two matrices, dK = g'x over samples and pixels; rows of it need a
few of the gradient's channels and columns a few of the input's. Rows of U's gradient need rows of dK, columns of V's columns,
and one singular value's is the sum of the products of two maps, U'g and Vx, of one channel each.
A backend may multiply factors and maps in another order (`factored`): with A the product of all absolute values, no order
errs by more than gamma(n) A for n the length of all its sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.config import TWINS, Twin
from twinspike.network import Conv
from twinspike.parameters import is_factored
from twinspike.replicas import share
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.bounds.roundings import TERMS
from twinspike_conformance.bounds.tracked import Tracked, gamma
from twinspike_conformance.judges.networks import OF_PARAMETERS, Taps, added, step_input
from twinspike_conformance.judges.operations import product_of

Values = NDArray[Any]
Choose = Callable[[int], Values]

SUMS = 6
"""Sums that a factor's gradient is made of, each with `TERMS` roundings more than its length."""


def kernel_gradients(t: Taps, layer: Conv, choose: Choose) -> Iterator[Finding]:
    """What the trace says of a convolution's parameters, where it is drawn.

    Args:
        t: taps with gradients, of the whole batch.
        layer: of the network.
        choose: a few of so many.
    """
    tap = t.trace[layer.name]
    size, taps = np.shape(tap["ann"])[1], layer.kernel**2
    into = t.output("ann", layer.input).shape[2]
    rows, columns = choose(size), choose(into)
    at = int(choose(taps)[0])
    if not is_factored(layer, t.method.factorization):
        for twin in TWINS:
            yield from _unfactored(t, layer, twin, rows, columns, at)
        return
    alone = t.method.factorization.matricize == "per_position"
    place: tuple[int, ...] = divmod(at, layer.kernel) if alone else ()
    met = [at] if alone else list(range(taps))
    chosen = choose(np.shape(tap["d_sigma_ann"])[-1])
    totals: dict[str, Tracked] = {}
    for twin in TWINS:
        for part, found in _factored(t, layer, twin, rows, columns, chosen, place, met).items():
            if t.method.loss.isolate_ann and twin == "snn" and part in ("U", "V"):
                continue
            totals[part] = found if part not in totals else added([totals[part], found])
    across = columns if alone else np.concatenate([columns * taps + k for k in met])
    seen = {
        "U": tap["d_U"][place][rows], "V": tap["d_V"][place][:, across],
        **{f"sigma_{twin}": tap[f"d_sigma_{twin}"][place][chosen] for twin in TWINS},
    }  # fmt: skip
    for part, total in totals.items():
        quantity = f"gradient of {layer.name}.{part}, a part"
        yield compare(quantity, seen[part], total.value, total.error, rung="bound", clauses=OF_PARAMETERS[part])


def _maps(t: Taps, layer: Conv, twin: Twin, tap: int) -> tuple[Tracked, Tracked]:
    """The input's pixels that a tap meets, (N, I, P), and the gradient, (N, O, P), as a convolution gets them."""
    g = t.gradient(twin, layer.name)
    x = step_input(t, twin, layer.input, g)
    pad, (i, j) = ((0, 0),) * 3 + ((layer.padding, layer.padding),) * 2, divmod(tap, layer.kernel)
    h, w = g.shape[3:]
    span = (..., slice(i, i + layer.stride * (h - 1) + 1, layer.stride), slice(j, j + layer.stride * (w - 1) + 1, layer.stride))
    met = x._view(np.pad(x.value, pad)[span], np.pad(x.error, pad)[span])
    operand = t.operand_of(g)
    return met.reshape(-1, met.shape[2], h * w), operand.reshape(-1, g.shape[2], h * w)


def _over_pixels(a: Tracked, b: Tracked) -> Tracked:
    """Sum over N and P of a (N, I, P) and b (N, J, P): (I, J)."""
    dot: Any = np.tensordot
    found: Tracked = dot(a, b, ((0, 2), (0, 2)))
    return found


def _cast(t: Taps, g: Tracked, x: Tracked) -> Tracked:
    """A kernel's gradient, which the composed kernel's cast may round on its way back, that of each rank (PRE-5)."""
    found = _over_pixels(g, x)
    if not t.cast:
        return found
    samples = t.images.shape[int(t.network.event)]
    at = np.arange(len(g.value)).reshape(-1, samples)
    parts = (at[:, share(samples, t.replicas, rank)].ravel() for rank in range(t.replicas))
    size = sum(np.abs(_over_pixels(g[part], x[part]).value) for part in parts) if t.replicas > 1 else np.abs(found.value)
    return found._view(found.value, found.error + 2 * t.cast * size)


def _unfactored(t: Taps, layer: Conv, twin: Twin, rows: Values, columns: Values, tap: int) -> Iterator[Finding]:
    x, g = _maps(t, layer, twin, tap)
    i, j = divmod(tap, layer.kernel)
    got = t.trace[layer.name][f"d_weight_{twin}"][:, :, i, j]
    for what, seen, want in (
        ("rows", got[rows], _cast(t, g[:, rows], x)),
        ("columns", got[:, columns], _cast(t, g, x[:, columns])),
    ):
        quantity = f"gradient of {layer.name}.weight_{twin}, {what}"
        yield compare(quantity, seen, want.value, want.error, rung="bound", clauses=OF_PARAMETERS[f"weight_{twin}"])


def _factored(
    t: Taps, layer: Conv, twin: Twin, rows: Values, columns: Values, chosen: Values, place: tuple[int, ...], met: list[int]
) -> dict[str, Tracked]:
    """What one twin sends to some rows of U, columns of V and entries of sigma."""
    state = {part: np.asarray(t.state[f"{layer.name}.{part}"], np.float64)[place] for part in ("U", f"sigma_{twin}", "V")}
    u, sigma, v = state.values()
    across, down, products, sizes, length = [], [], [], [], 0
    for tap in met:
        x, g = _maps(t, layer, twin, tap)
        length = x.shape[0] * x.shape[2]
        across.append((_over_pixels(g[:, rows], x), _sizes(g[:, rows], x)))
        down.append((_over_pixels(g, x[:, columns]), _sizes(g, x[:, columns])))
        meets = v[chosen] if len(met) == 1 else v[chosen][:, tap :: len(met)]  # columns of out_by_rest are (in, tap)
        h, z = _through(g, u[:, chosen]), _through(x, meets.T)
        products.append((h.value * z.value).sum(axis=(0, 2)))
        sizes.append((_magnitude(g, u[:, chosen]) * _magnitude(x, meets.T)).sum(axis=(0, 2)))
    terms = sum(u.shape) + v.shape[1] + len(met) * length + SUMS * TERMS
    relative = gamma(terms, t.roundoff) + 6 * max(t.cast, product_of(t.precision))
    v_rows = (sigma[:, None] * v).T if len(met) == 1 else _by_tap(sigma[:, None] * v, len(met))
    found = {}
    row_value, row_size = (np.concatenate([getattr(part[k], "value", part[k]) for part in across], axis=1) for k in (0, 1))
    found["U"] = t.lift(row_value @ v_rows)._view(row_value @ v_rows, relative * (row_size @ np.abs(v_rows)))
    left = u * sigma
    value, size = (np.concatenate([getattr(part[k], "value", part[k]) for part in down], axis=1) for k in (0, 1))
    found["V"] = t.lift(left.T @ value)._view(left.T @ value, relative * (np.abs(left).T @ size))
    total, bound = np.sum(products, axis=0), np.sum(sizes, axis=0)
    found[f"sigma_{twin}"] = t.lift(total)._view(total, relative * bound)
    return found


def _by_tap(rows: Values, taps: int) -> Values:
    """(r, in * tap) as (tap * in, r), in the order in which the taps' products stand beside one another."""
    return np.asarray(rows.reshape(len(rows), -1, taps).transpose(2, 1, 0).reshape(-1, len(rows)))


def _sizes(a: Tracked, b: Tracked) -> Values:
    """The product of absolute values, with what the operands may be off by."""
    return np.asarray(np.tensordot(np.abs(a.value) + a.error, np.abs(b.value) + b.error, ((0, 2), (0, 2))))


def _through(maps: Tracked, factor: Values) -> Tracked:
    """Maps (N, C, P) seen through columns of a factor, (C, r): (N, r, P)."""
    value = np.einsum("ncp,cr->nrp", maps.value, factor, optimize=True)
    return maps._view(value, np.zeros_like(value))


def _magnitude(maps: Tracked, factor: Values) -> Values:
    return np.asarray(np.einsum("ncp,cr->nrp", np.abs(maps.value) + maps.error, np.abs(factor), optimize=True))
