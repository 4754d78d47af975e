"""Certificates: checks of a backend's own answer, step by step, where comparing answers would be wrong.

A spike is a decision: two correct implementations may part at one that is nearly even, and everything
after it differs. So each step is checked from the backend's OWN state before it. No error accumulates,
no bound grows with T, no flip is masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twinspike.config import Factorization, Neuron, Rectangle, Retract
from twinspike.reference import factorization as fac
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.bounds.roundings import PRODUCT
from twinspike_conformance.bounds.tracked import TINY, Tracked, gamma, stack, storage
from twinspike_conformance.judges.variant import tracked

Values = NDArray[np.float64]
Named = Mapping[str, Any]


def _wide(quantity: Any, x: Values) -> Any:
    """() or (C,) in a shape that broadcasts against (B, C, *d)."""
    q = np.asarray(quantity, np.float64)
    return q.reshape(-1, *(1,) * (x.ndim - 3)) if q.ndim else q


def quantities_of(neuron: Neuron, inputs: Named, roundoff: float) -> tuple[Tracked, Tracked]:
    """decay and threshold, exact where given, rounded to the format where they are constants of the config."""
    x = inputs["x"]
    found = []
    for name in ("decay", "threshold"):
        given = name in inputs
        value = _wide(inputs[name] if given else getattr(neuron, name), x)
        lifted = Tracked(value, roundoff=roundoff)
        found.append(lifted if given else lifted._lift(value))
    return found[0], found[1]


def lif_forward(neuron: Neuron, inputs: Named, out: Named, roundoff: float) -> list[Finding]:
    """LIF-1 to LIF-5 for every step from the backend's own u and s.

    Args:
        neuron: the config.
        inputs: x (T, B, C, *d), and v, decay, threshold if given.
        out: the backend's s, u (T, B, C, *d) and, unless it is kept to itself, final v (B, C, *d).
        roundoff: of the potential's format.
    """
    x, s, u = inputs["x"], np.asarray(out["s"], np.float64), np.asarray(out["u"], np.float64)
    decay, theta = quantities_of(neuron, inputs, roundoff)
    findings = [compare("s is 0 or 1", s, (s == 1.0) * 1.0, 0.0, rung="certificate", clauses=("LIF-2",))]
    before = inputs.get("v", np.zeros_like(x[0]))
    start = Tracked(before, roundoff=roundoff)
    after, charge, states = start, [], []
    for t in range(len(x)):
        charge.append(_charge(neuron, decay, after, Tracked(x[t], roundoff=roundoff)))
        own = Tracked(u[t], roundoff=roundoff)
        after = _reset(neuron, own, s[t], theta)
        states.append(after)
    want, error = np.stack([c.value for c in charge]), np.stack([c.error for c in charge])
    findings.append(compare("u", u, want, error, rung="certificate", clauses=("LIF-1", "LIF-3", "LIF-4", "LIF-5")))
    # a constant threshold may be rounded to the format: equality decides only where it is representable
    margin = np.broadcast_to(theta.error, u.shape)
    sure = (np.abs(u - theta.value) > margin) | (margin == 0)
    fired = np.where(sure, (u >= theta.value) * 1.0, s)
    findings.append(compare("s", s, fired, 0.0, rung="certificate", clauses=("LIF-2",)))
    if "v" not in out:
        return findings
    final = states[-1]
    findings.append(compare("v", out["v"], final.value, final.error, rung="certificate", clauses=("LIF-3", "LIF-4", "LIF-5")))
    return findings


def followed(neuron: Neuron, inputs: Named, s: Values, roundoff: float) -> Tracked:
    """Potentials before reset of the sequence that fires as `s` says, with the running bound of all its steps.

    As long as the spikes are an implementation's own, its potentials are within the bound, whatever they were decided by.

    Args:
        neuron: the config.
        inputs: as in `lif_forward`.
        s: spikes (T, B, C, *d).
        roundoff: of the potential's format.
    """
    x = inputs["x"]
    decay, theta = quantities_of(neuron, inputs, roundoff)
    after, potentials = Tracked(inputs.get("v", np.zeros_like(x[0])), roundoff=roundoff), []
    for current, fired in zip(x, s, strict=True):
        potentials.append(_charge(neuron, decay, after, Tracked(current, roundoff=roundoff)))
        after = _reset(neuron, potentials[-1], fired, theta)
    return stack(potentials)


def _charge(neuron: Neuron, decay: Any, after: Any, current: Any) -> Tracked:
    """LIF-1: u[t] from v[t-1] and x[t]."""
    return decay * after + ((1.0 - decay) * current if neuron.decay_input else current)  # type: ignore[no-any-return]


def _reset(neuron: Neuron, u: Tracked, s: Values, theta: Tracked) -> Tracked:
    """v from the step's own u and s; a hard reset is a choice between two numbers and rounds nothing."""
    if neuron.reset == "soft":
        return _either(s, u - theta, u)
    return _either(s, u._lift(np.full(u.shape, neuron.v_reset)), u)


def _either(s: Values, fired: Tracked, silent: Tracked) -> Tracked:
    return Tracked(
        np.where(s == 1.0, fired.value, silent.value), np.where(s == 1.0, fired.error, silent.error), roundoff=fired.roundoff
    )


def surrogate_at(neuron: Neuron, u: Values, theta: Tracked, roundoff: float) -> Tracked:
    """h(u - threshold) with its bound; at a window's edge both sides are admissible within the rounding of u - threshold."""
    z = Tracked(u, roundoff=roundoff) - theta
    h = tracked()["surrogate"].derivative(neuron.surrogate, z)
    if not isinstance(neuron.surrogate, Rectangle):
        return h  # type: ignore[no-any-return]  # the variant's modules are untyped
    edge = neuron.surrogate.width / 2
    exact = np.abs(z.value)
    # subtraction of nearby floats is exact (Sterbenz), so an edge that is representable stays decided
    slack = np.where(_subtracts_exactly(u, theta.value, z.value, roundoff), theta.error, z.error)
    open_ = np.abs(exact - edge) < slack
    height = 1.0 / neuron.surrogate.width
    value = (exact < edge) * height
    return Tracked(value, np.where(open_, height, gamma(PRODUCT, roundoff) * value), roundoff=roundoff)


def _subtracts_exactly(u: Values, theta: Values, z: Values, roundoff: float) -> Values:
    return np.asarray(z.astype(storage(roundoff)).astype(np.float64) == u - theta)


class AdjointTrace(NamedTuple):
    """The adjoint of a sequence from a backend's own u and s, step by step in order of time."""

    d: list[Tracked]
    """dL/du[t]."""
    through_spike: list[Tracked]
    entering: list[Tracked]
    """e[t] = dL/dv[t]."""
    e: Tracked
    """dL/dv before the first step."""


def adjoint_trace(
    neuron: Neuron,
    u: Values,
    s: Values,
    g: Values,
    e: Tracked,
    quantities: tuple[Tracked, Tracked],
    own_d: Tracked | None = None,
) -> AdjointTrace:
    """LIF-6 and LIF-7, each step from its own successor where `own_d` gives the backend's, else from the step before here."""
    decay, theta = quantities
    roundoff = e.roundoff
    soft = neuron.reset == "soft"
    trace = AdjointTrace([], [], [], e)
    for t in reversed(range(len(u))):
        ut = Tracked(u[t], roundoff=roundoff)
        h = surrogate_at(neuron, u[t], theta, roundoff)
        r = -theta if soft else neuron.v_reset - ut
        k = 1.0 if soft else Tracked(1.0 - s[t], roundoff=roundoff)
        gt = Tracked(g[t], roundoff=roundoff)
        spike = (gt if neuron.detach_reset else gt + e * r) * h
        d = spike + e * k
        trace.d.insert(0, d)
        trace.through_spike.insert(0, spike)
        trace.entering.insert(0, e)
        e = decay * (d if own_d is None else own_d[t])
    return trace._replace(e=e)


def lif_backward(
    neuron: Neuron, inputs: Named, out: Named, cotangents: Named, gradients: Named, roundoff: float
) -> list[Finding]:
    """LIF-6 to LIF-10: dL/dx[t] is the adjoint trace itself, so each step is checked from its own successor."""
    s, u = np.asarray(out["s"], np.float64), np.asarray(out["u"], np.float64)
    decay, theta = quantities_of(neuron, inputs, roundoff)
    gx = np.asarray(gradients["x"], np.float64)
    share = 1.0 - decay if neuron.decay_input else None
    own_d = Tracked(gx, roundoff=roundoff) / share if share is not None else Tracked(gx, roundoff=roundoff)
    end = Tracked(cotangents["v"], roundoff=roundoff)
    trace = adjoint_trace(neuron, u, s, cotangents["s"], end, (decay, theta), own_d)
    want = stack([d * share if share is not None else d for d in trace.d])
    found = [compare("gradient of x", gx, want.value, want.error, rung="certificate", clauses=("LIF-6", "LIF-7", "LIF-8"))]
    if "v" in inputs:
        e = trace.e
        found.append(compare("gradient of v", gradients["v"], e.value, e.error, rung="certificate", clauses=("LIF-5", "LIF-8")))
    clauses = {"decay": "LIF-9", "threshold": "LIF-10"}
    for name, total in learned_terms(neuron, inputs, u, s, own_d, trace, (decay, theta)).items():
        quantity = f"gradient of {name}"
        found.append(compare(quantity, gradients[name], total.value, total.error, rung="certificate", clauses=(clauses[name],)))
    return found


def learned_terms(
    neuron: Neuron, inputs: Named, u: Values, s: Values, d: Tracked, trace: AdjointTrace, quantities: tuple[Tracked, Tracked]
) -> dict[str, Tracked]:
    """LIF-9 and LIF-10: the gradient of each learned quantity among the inputs."""
    found = {}
    if "decay" in inputs:
        before = _states_before(neuron, inputs, u, s, quantities[1], d.roundoff)
        seen = before - Tracked(inputs["x"], roundoff=d.roundoff) if neuron.decay_input else before
        found["decay"] = _shared(d * seen, inputs["decay"])
    if "threshold" in inputs:
        soft = neuron.reset == "soft"
        pairs = zip(trace.through_spike, trace.entering, s, strict=True)
        found["threshold"] = _shared(
            stack([-1.0 * (spike + e * fired if soft else spike) for spike, e, fired in pairs]), inputs["threshold"]
        )
    return found


def _states_before(neuron: Neuron, inputs: Named, u: Values, s: Values, theta: Tracked, roundoff: float) -> Tracked:
    """v[t-1] for every t from the backend's own u and s."""
    start = np.asarray(inputs.get("v", np.zeros_like(u[0])), np.float64)
    after = [_reset(neuron, Tracked(a, roundoff=roundoff), b, theta) for a, b in zip(u[:-1], s[:-1], strict=True)]
    values, errors = [start, *(v.value for v in after)], [np.zeros_like(start), *(v.error for v in after)]
    return Tracked(np.stack(values), np.stack(errors), roundoff=roundoff)


def _shared(terms: Tracked, quantity: Any) -> Tracked:
    """The sum of the terms (T, B, C, *d) of all entries that share a quantity."""
    axes = tuple(range(terms.ndim)) if np.ndim(quantity) == 0 else (0, 1, *range(3, terms.ndim))
    return terms.sum(axis=axes)


def spike_backward(neuron: Neuron, inputs: Named, cotangents: Named, gradients: Named, roundoff: float) -> list[Finding]:
    """SUR-2 to SUR-7 on the potential as given."""
    theta = Tracked(0.0, roundoff=roundoff)._lift(neuron.threshold)
    want = Tracked(cotangents["s"], roundoff=roundoff) * surrogate_at(neuron, inputs["u"], theta, roundoff)
    clauses = ("SUR-2", "SUR-3", "SUR-4", "SUR-5", "SUR-6", "SUR-7")
    return [compare("gradient of u", gradients["u"], want.value, want.error, rung="certificate", clauses=clauses)]


def _norm(a: Values) -> Values:
    return np.asarray(np.sqrt((a**2).sum(axis=(-2, -1))))


def factorize(f: Factorization, inputs: Named, out: Named, roundoff: float) -> list[Finding]:
    """FAC-3 and FAC-5 by what the factors must be: residual, orthonormality, order, sign, least error.

    Bounds are those of a backward stable decomposition, p(m, n) u |A|, with p = (m + n)^1.5
    (Golub and Van Loan, Matrix Computations, 4th ed., section 8.6.6; LAPACK promises less than that).
    """
    matrices = fac.matricize(f, inputs["kernel"])
    u, sigma, v = (np.asarray(out[k], np.float64) for k in ("U", "sigma", "V"))
    rows, columns = matrices.shape[-2:]
    exact = np.linalg.svd(matrices, compute_uv=False)
    rank = fac.rank_of(f, inputs["kernel"])
    found = [compare("rank", np.float64(sigma.shape[-1]), np.float64(rank), 0.0, rung="certificate", clauses=("FAC-5",))]
    if not found[0].ok:
        return found
    unit = (rows + columns) ** 1.5 * roundoff
    scale = unit * exact[..., 0] + TINY[roundoff] * rows * columns
    eye = np.eye(rank)
    tail = np.sqrt((exact[..., rank:] ** 2).sum(axis=-1))
    residual = _norm((u * sigma[..., None, :]) @ v - matrices)
    clauses = ("FAC-2", "FAC-3")
    checks = (
        ("U'U - I", u.swapaxes(-2, -1) @ u, np.broadcast_to(eye, (*u.shape[:-2], rank, rank)), unit),
        ("VV' - I", v @ v.swapaxes(-2, -1), np.broadcast_to(eye, (*u.shape[:-2], rank, rank)), unit),
        ("sigma", sigma, exact[..., :rank], scale[..., None]),
        ("truncation error", residual, tail, scale * np.sqrt(rank)),
        ("sigma >= 0", np.minimum(sigma, 0.0), np.zeros_like(sigma), 0.0),
        ("sigma descending", np.minimum(sigma[..., :-1] - sigma[..., 1:], 0.0), np.zeros_like(sigma[..., 1:]), 0.0),
    )
    return found + [compare(name, got, want, bound, rung="certificate", clauses=clauses) for name, got, want, bound in checks]


def retract(config: Retract, inputs: Named, out: Named, roundoff: float) -> list[Finding]:
    """ORT-3: orthonormal factors A = Q R, with R symmetric positive (polar) or upper triangular, positive diagonal (qr).

    With p u |A| the backward error of the decomposition and p u the deviation of its factors from
    orthonormality, Q = X Y' deviates by the two and its own product, 3 p u; A = Q R by 3 p u |A|; and
    R - R' by twice the deviation of X and twice the backward error, and the product here, 5 p u |A|.
    """
    found = []
    for name in ("U", "V"):
        a = np.asarray(inputs[name], np.float64)
        q = np.asarray(out[name], np.float64)
        if name == "V":
            a, q = a.swapaxes(-2, -1), q.swapaxes(-2, -1)
        r = q.swapaxes(-2, -1) @ a
        rows, rank = a.shape[-2:]
        unit = (rows + rank) ** 1.5 * roundoff
        norm = np.linalg.norm(a, 2, axis=(-2, -1))[..., None, None]
        eye = np.broadcast_to(np.eye(rank), r.shape)
        shape = (r - r.swapaxes(-2, -1)) if config.by == "polar" else np.tril(r, -1)
        positive = (
            np.linalg.eigvalsh((r + r.swapaxes(-2, -1)) / 2) if config.by == "polar" else np.diagonal(r, axis1=-2, axis2=-1)
        )
        checks = (
            (f"{name}: Q'Q - I", q.swapaxes(-2, -1) @ q, eye, 3 * unit),
            (f"{name}: Q R - A", q @ r, a, 3 * unit * norm),
            (f"{name}: form of R", shape, np.zeros_like(shape), 5 * unit * norm),
            (f"{name}: sign of R", np.minimum(positive, 0.0), np.zeros_like(positive), 0.0),
        )
        found += [compare(n, got, want, bound, rung="certificate", clauses=("ORT-3",)) for n, got, want, bound in checks]
    return found
