"""What the loss sees of a traced batch and what it sends back, with bounds, from the backend's own logits and features."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.config import Penalty, Twin
from twinspike.network import INPUT, Network, inputs_of
from twinspike.parameters import is_factored
from twinspike.precision import Precision
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.bounds.tracked import Tracked, stack
from twinspike_conformance.judges.networks import Taps
from twinspike_conformance.judges.operations import roundoff_of
from twinspike_conformance.judges.variant import tracked

Values = NDArray[Any]


class Ends(msgspec.Struct):
    """What the loss sees, from the backend's own taps."""

    logits_ann: Tracked
    logits_snn: Tracked
    features_ann: Tracked
    features_snn: Tracked


def ends_of(t: Taps) -> Ends:
    """What the loss sees, with the bounds of the readout's own roundings."""
    readout = tracked()["layers"].readout

    def gather(twin: Twin, end: str) -> list[Tracked]:
        return [t.lift(t.output(twin, getattr(exit_, end))) for exit_ in t.network.exits]

    reduced = [readout(z, t.method.readout) for z in gather("snn", "head")]
    per_step = t.method.loss.per_step
    steps = [stack([z[i] for z in gather("snn", "head")]) for i in range(t.method.time_steps)] if per_step else []
    return Ends(
        logits_ann=stack([a[0] for a in gather("ann", "head")]),
        logits_snn=stack(steps) if per_step else stack(reduced)[None],
        features_ann=stack([f[0] for f in gather("ann", "feature")]),
        features_snn=stack([readout(h, t.method.readout) for h in gather("snn", "feature")]),
    )


def of_another_pass(t: Taps, x: Tracked) -> Tracked:
    """What another right pass may have in the place of a trace's values at the end of a network."""
    near = path(max(depths(t.network).values()) + t.method.time_steps, t.precision)
    return x._view(x.value, x.error + near * np.abs(x.value).max(initial=0.0))


def ends_of_another_pass(t: Taps) -> Ends:
    """What the loss sees in another right pass."""
    traced = ends_of(t)
    return Ends(**{name: of_another_pass(t, getattr(traced, name)) for name in traced.__struct_fields__})


def terms_of(t: Taps, ends: Ends, labels: Values) -> dict[str, Tracked]:
    """The loss without a penalty, and its terms, by their names in the metrics."""
    arrays = (ends.logits_ann, ends.logits_snn, ends.features_ann, ends.features_snn)
    terms: dict[str, Any] = tracked()["losses"].joint_loss(t.method.loss, *arrays, labels)._asdict()
    return {name: term if isinstance(term, Tracked) else t.lift(term) for name, term in terms.items()}  # sums of nothing


def reported_terms(t: Taps, ends: Ends, labels: Values) -> dict[str, Tracked]:
    """The loss with the penalty, its terms, and the penalty, by their names in the metrics."""
    penalty: Any = penalty_of(t)
    terms: dict[str, Any] = terms_of(t, ends, labels)
    return terms | {"loss": terms["loss"] + penalty, "penalty": penalty}


def path(n: int, precision: Precision, *, cast: bool = True) -> float:
    """How far two right ways may lead apart over a path of n values, as a share of the array's largest element.

    Along the longest path, over layers and over time, each value is rounded where it is handed on, and in sums of some dozens
    of terms. n roundings of unit u that know nothing of one another add up to less than min(n, 6 sqrt(n)) u (Higham and Mary,
    SIAM J. Sci. Comput. 41(5), 2019), here of the largest element: of an answer of zeros the error is once that element.

    Without `cast`, what is handed on is known to have been rounded to the same values.
    """
    unit = roundoff_of(precision)
    handed = precision.product_roundoff if cast and precision.product_roundoff > unit else 0.0  # an operand rounded elsewhere
    return min(n, 6 * math.sqrt(n)) * max(64 * unit, handed)


def depths(network: Network) -> dict[str, int]:
    """Layers on the longest path from the network's input to each, itself included."""
    deep = {INPUT: 0}
    for layer in network.layers:
        deep[layer.name] = 1 + max(deep[name] for name in inputs_of(layer))
    return deep


def hits(got: float, twin: Twin, logits: Tracked, labels: Values) -> Finding:
    """OUT-3: hits counted from logits (B, K) with their bounds; where rounding can turn a prediction, either is right.

    Logits that are all exactly 0 come from a head of zeros, whose sums no rounding touches: there the first of equals wins.
    """
    right = logits.value[np.arange(len(labels)), labels]
    rivals = np.where(np.arange(logits.shape[-1]) == labels[:, None], -np.inf, logits.value).max(axis=-1)
    slack = logits.error.max(axis=-1) * 2
    zero = ~logits.value.any(axis=-1)
    sure = np.where(zero, labels == 0, right > rivals + slack).sum()
    unsure = (~zero & (np.abs(right - rivals) <= slack)).sum()
    return compare(f"correct_{twin}", got, sure + unsure / 2, unsure / 2, rung="certificate", clauses=("OUT-3",))


def seeds(t: Taps, labels: Values) -> dict[tuple[Twin, str], Tracked]:
    """What the loss sends into features and heads."""
    ends, modules = ends_of(t), tracked()
    arrays = (ends.logits_ann, ends.logits_snn, ends.features_ann, ends.features_snn)
    d_a, d_z, d_f, d_h = modules["losses"].joint_loss_adjoint(t.method.loss, *arrays, labels)
    back = modules["layers"].readout_adjoint
    found: dict[tuple[Twin, str], Tracked] = {}
    for i, exit_ in enumerate(t.network.exits):
        z, h = (t.lift(t.output("snn", end)) for end in (exit_.head, exit_.feature))
        found["ann", exit_.head], found["ann", exit_.feature] = d_a[i][None], d_f[i][None]
        found["snn", exit_.head] = d_z[:, i] if t.method.loss.per_step else back(z, d_z[0, i], t.method.readout)
        found["snn", exit_.feature] = back(h, d_h[i], t.method.readout)
    return found


def penalty_gradient(t: Taps, layer: str, suffix: str) -> Tracked:
    """What an orthogonality penalty adds to a factor's gradient (ORT-2)."""
    orthogonality = t.method.factorization.orthogonality
    u, v = (t.lift(np.asarray(t.state[f"{layer}.{k}"], np.float64)) for k in ("U", "V"))
    weight = orthogonality.weight if isinstance(orthogonality, Penalty) else 0.0
    both = tracked()["factorization"].penalty_adjoint(u, v)
    return weight * both["UV".index(suffix)]  # type: ignore[no-any-return]


def penalty_of(t: Taps) -> Tracked:
    """The orthogonality penalty of the state (ORT-2)."""
    orthogonality = t.method.factorization.orthogonality
    total = t.lift(np.zeros(()))
    if hasattr(orthogonality, "weight"):
        for layer in t.network.layers:
            if is_factored(layer, t.method.factorization):
                u, v = (t.lift(np.asarray(t.state[f"{layer.name}.{k}"], np.float64)) for k in ("U", "V"))
                total = total + orthogonality.weight * tracked()["factorization"].penalty(u, v)
    return total
