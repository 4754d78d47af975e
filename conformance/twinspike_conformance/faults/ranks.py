"""A right implementation on N ranks, stated as changes of the reference, and faults of what ranks do (clauses DEV-*).

Each rank runs the reference on its own samples in a thread of its own; what it asks of the others goes through `ranks`
(`faults.rank_threads`). RIGHT says where. A fault changes some of these places, or how a batch is dealt out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from twinspike_conformance.judges.variant import Edit

RIGHT: dict[str, Edit] = {
    "mean": Edit("norm", "    m = x.mean(axis=_axes(x))\n", "    m = ranks.norm_mean(x.mean(axis=_axes(x)))\n"),
    "variance": Edit(
        "norm",
        "    return m, ((x - _wide(m, x)) ** 2).mean(axis=_axes(x))",
        "    return m, ranks.norm_mean(((x - _wide(m, x)) ** 2).mean(axis=_axes(x)))",
    ),
    "count": Edit("norm", "x[steps], x[steps].size // x.shape[2]", "x[steps], ranks.norm_size * (x[steps].size // x.shape[2])"),
    "through_mean": Edit("norm", "_wide(scaled.mean(axis=_axes(x)), x)", "_wide(ranks.norm_mean(scaled.mean(axis=_axes(x))), x)"),
    "through_var": Edit(
        "norm", "_wide((scaled * z).mean(axis=_axes(x)), x)", "_wide(ranks.norm_mean((scaled * z).mean(axis=_axes(x))), x)"
    ),
    "shares": Edit(
        "network",
        "    d_a, d_z, d_f, d_h = losses.joint_loss_adjoint(method.loss, *exits(network, method, tape), labels)\n",
        "    d_a, d_z, d_f, d_h = losses.joint_loss_adjoint(method.loss, *exits(network, method, tape), labels)\n"
        "    shared = 1 if method.loss.feature_reduction == 'sum' else ranks.size\n"
        "    d_a, d_z, d_f, d_h = d_a / ranks.size, d_z / ranks.size, d_f / shared, d_h / shared\n",
    ),
    "terms": Edit(
        "network",
        "    terms = losses.joint_loss(method.loss, *exits(network, method, tape), labels)\n",
        "    terms = losses.joint_loss(method.loss, *exits(network, method, tape), labels)\n"
        "    ce_ann, ce_snn, kd = (value / ranks.size for value in terms[1:4])\n"
        "    f = terms.feature / (1 if method.loss.feature_reduction == 'sum' else ranks.size)\n"
        "    total = (1.0 - method.loss.alpha) * (ce_ann + ce_snn) + method.loss.alpha * kd + method.loss.beta * f\n"
        "    terms = Terms(total, ce_ann, ce_snn, kd, f)\n",
    ),
    "penalty": Edit(
        "network",
        "        for u, v in factors(network, method, state).values():\n",
        "        for u, v in factors(network, method, state).values() if ranks.rank == 0 else ():\n",
    ),
    "penalty_gradient": Edit(
        "network",
        "        for name, (u, v) in factors(network, method, state).items():\n            d_u",
        "        for name, (u, v) in factors(network, method, state).items() if ranks.rank == 0 else ():\n            d_u",
    ),
    "gradients": Edit(
        "step",
        "    by_name, _ = backward(network, method, state, tape, labels)\n",
        "    by_name, _ = backward(network, method, state, tape, labels)\n"
        "    by_name = {n: ranks.sum(g) for n, g in by_name.items()}\n",
    ),
    "traced": Edit(
        "step",
        "        for name, g in by_name.items():\n            layer, part",
        "        for name, g in by_name.items():\n            g = ranks.sum(g)\n            layer, part",
    ),
    "statistics": Edit(
        "step",
        "    statistics = tape.ann.statistics | tape.snn.statistics\n",
        "    statistics = tape.ann.statistics | tape.snn.statistics\n"
        "    statistics = {n: ranks.mean(value) if ranks.local else value for n, value in statistics.items()}\n",
    ),
    "correct": Edit(
        "step",
        "    return np.asarray((logits.argmax(axis=-1) == labels).sum())\n",
        "    return ranks.sum(np.asarray((logits.argmax(axis=-1) == labels).sum()))\n",
    ),
    "reported": Edit(
        "step",
        "        **terms._asdict(),\n        penalty=penalty,\n",
        "        **{n: ranks.sum(value) for n, value in terms._asdict().items()},\n        penalty=ranks.sum(penalty),\n",
    ),
    "rate": Edit(
        "step",
        "np.asarray(sum(s.sum() for s in spikes) / max(1, sum(s.size for s in spikes)))",
        "ranks.mean(np.asarray(sum(s.sum() for s in spikes) / max(1, sum(s.size for s in spikes))))",
    ),
}
"""What makes one rank of N of the reference, by place."""

Dealt = Literal["in order", "twice", "by turns", "overlapping", "reversed"]
Evaluated = Literal["once", "padded", "dropped"]


class RankFault(msgspec.Struct, frozen=True, kw_only=True):
    """One deviation of an implementation on N ranks."""

    id: str
    clause: str
    description: str
    places: Mapping[str, tuple[str, str] | None] = {}
    """Place of RIGHT -> what is replaced by what in its new text; None leaves the reference as it is there."""
    more: tuple[Edit, ...] = ()
    """Further changes of the reference."""
    dealt: Dealt = "in order"
    evaluated: Evaluated = "once"

    def edits(self) -> tuple[Edit, ...]:
        """All changes of the reference that make the faulty ranks."""
        found = []
        for place, edit in RIGHT.items():
            change = self.places.get(place, ("", ""))
            if change is None:
                continue
            old, new = change
            if old and edit.new.count(old) != 1:
                raise ValueError(f"{self.id}: {place} has {old!r} {edit.new.count(old)} times")
            found.append(msgspec.structs.replace(edit, new=edit.new.replace(old, new) if old else edit.new))
        return (*found, *self.more)


def _left_out(part: str) -> dict[str, tuple[str, str]]:
    """Gradients of some parameters stay each rank's own, times N: of the size that they should have."""
    kept = f'ranks.size * g if n.endswith("{part}") else ranks.sum(g)'
    return {"gradients": ("n: ranks.sum(g)", f"n: {kept}")}


_EACH = ("ranks.sum(g)", "ranks.mean(g)")
_STEP = "    step = int(state[STEP]) + 1\n"
_MOVED = "        after[entry.name] = projected(p, domain(entry, method))\n"
_DUE = "    if isinstance(orthogonality, Retract) and step % orthogonality.every == 0:\n"
_GRADIENTS = "metrics = gradients(network, method, state, images, labels, replicas)\n"
_D_GAMMA = "        d_gamma += (g_part * z).sum(axis=_axes(x))\n"
_SUMMED = "        d_gamma += ranks.sum((g_part * z).sum(axis=_axes(x)))\n"
_ALWAYS = (" if ranks.local else value", "")


def _fault(name: str, clause: str, description: str, **changes: object) -> RankFault:
    return RankFault(id=f"dev-{name}", clause=f"DEV-{clause}", description=description, **changes)  # type: ignore[arg-type]


FAULTS: tuple[RankFault, ...] = (
    _fault("batch-twice", "1", "every rank has the samples of rank 0", dealt="twice"),
    _fault("batch-by-turns", "1", "samples are dealt out by turns", dealt="by turns"),
    _fault("batch-overlapping", "1", "ranks begin one sample early: one is seen twice, the last by none", dealt="overlapping"),
    _fault("batch-reversed", "1", "the last rank has the first samples", dealt="reversed"),
    _fault("gradients-averaged", "2", "gradients are averaged that were to be added up", places={"gradients": _EACH}),
    _fault(
        "gradients-summed", "2", "gradients of each rank's mean loss are added up, N times too large",
        places={"shares": ("d_a / ranks.size, d_z / ranks.size", "d_a, d_z")},
    ),
    _fault("gradients-own", "2", "every rank steps by its own gradients", places={"gradients": None}),
    _fault(
        "feature-averaged", "2", "the feature term, a sum, is averaged over the ranks",
        places={"shares": ("1 if method.loss.feature_reduction == 'sum' else ranks.size", "ranks.size")},
    ),
    _fault(
        "feature-summed", "2", "the feature term's mean is added up over the ranks",
        places={"shares": ("1 if method.loss.feature_reduction == 'sum' else ranks.size", "1")},
    ),
    _fault("bias-left-out", "2", "shared biases are left out of the reduction", places=_left_out(".bias")),
    _fault("sigma-left-out", "2", "sigma of the spiking twin is left out of the reduction", places=_left_out(".sigma_snn")),
    _fault("factor-left-out", "2", "V, which both twins share, is left out of the reduction", places=_left_out(".V")),
    _fault("gamma-left-out", "2", "gamma of the artificial twin is left out of the reduction", places=_left_out(".gamma_ann")),
    _fault(
        "bias-of-one-twin", "2", "of a shared bias the artificial twin's gradient alone is reduced",
        more=(Edit("network", "        _add(gradients, name, np.zeros_like(g) if isolated else g)\n",
                   '        g = ranks.size * g * (ranks.rank == 0) if name.endswith(".bias") else g\n'
                   "        _add(gradients, name, np.zeros_like(g) if isolated else g)\n"),),
    ),
    _fault(
        "unused-skipped", "2", "a parameter without a gradient on rank 0 is taken for unused on all",
        places={"gradients": ("n: ranks.sum(g)", "n: ranks.sum(g) if ranks.gather(g)[0].any() else 0.0 * g")},
    ),
    _fault(
        "unused-not-counted", "2", "ranks without a gradient are left out of the mean",
        places={"gradients": ("n: ranks.sum(g)", "n: ranks.sum(g) * ranks.size / max(1, sum(x.any() for x in ranks.gather(g)))")},
    ),
    _fault(
        "penalty-on-all", "2", "the orthogonality penalty's gradient is added up over the ranks",
        places={"penalty_gradient": None},
    ),
    _fault("penalty-reported-on-all", "2", "the penalty that is reported is added up over the ranks", places={"penalty": None}),
    _fault("loss-of-rank", "2", "every rank reports its own loss",
           places={"reported": ("ranks.sum(value)", "ranks.size * value")}),
    _fault("loss-averaged", "2", "the feature term is averaged in what is reported",
           places={"terms": ("(1 if method.loss.feature_reduction == 'sum' else ranks.size)", "ranks.size")}),
    _fault("correct-of-rank", "2", "every rank reports its own correct samples", places={"correct": None}),
    _fault("correct-averaged", "2", "correct samples are averaged", places={"correct": ("ranks.sum", "ranks.mean")}),
    _fault("rate-summed", "2", "spike rates are added up", places={"rate": ("ranks.mean", "ranks.sum")}),
    _fault(
        "norm-local", "3", "norms use the statistics of each rank, asked or not",
        places={**dict.fromkeys(("mean", "variance", "count", "through_mean", "through_var")), "statistics": _ALWAYS},
    ),
    _fault(
        "norm-backward-local", "3", "gradients pass through each rank's own mean and variance",
        places=dict.fromkeys(("through_mean", "through_var")),
    ),
    _fault("norm-backward-mean-local", "3", "the gradient through the mean is each rank's", places={"through_mean": None}),
    _fault(
        "norm-variance-local", "3", "the variance is each rank's about the global mean",
        places={"variance": None, "statistics": _ALWAYS},
    ),
    _fault(
        "norm-variance-within", "3", "the variance is the mean of the ranks', each about its own mean",
        places={"variance": ("(x - _wide(m, x))", "(x - _wide(x.mean(axis=_axes(x)), x))")},
    ),
    _fault("norm-count-of-rank", "3", "n of the unbiased variance is a rank's", places={"count": None}),
    _fault(
        "norm-gamma-twice", "3", "the gradient of gamma is reduced twice",
        more=(Edit("norm", _D_GAMMA, _SUMMED),),
        places={"traced": None},
    ),
    _fault("local-ignored", "4", "local norms share their statistics",
           places=dict.fromkeys(("mean", "variance", "through_mean", "through_var"), ("ranks.norm_mean", "ranks.mean"))
           | {"count": ("ranks.norm_size", "ranks.size")}),
    _fault("local-running-own", "4", "running statistics of local norms stay each rank's", places={"statistics": None}),
    _fault(
        "local-running-first", "4", "running statistics of local norms are those of rank 0",
        places={"statistics": ("ranks.mean(value)", "ranks.gather(value)[0]")},
    ),
    _fault(
        "local-running-summed", "4", "running statistics of local norms are added up",
        places={"statistics": ("ranks.mean(value)", "ranks.sum(value)")},
    ),
    _fault(
        "local-backward-shared", "4", "gradients of local norms pass through global means",
        places=dict.fromkeys(("through_mean", "through_var"), ("ranks.norm_mean", "ranks.mean")),
    ),
    _fault(
        "retract-first-alone", "5", "rank 0 alone retracts",
        more=(Edit("step", _DUE, _DUE.replace("step %", "ranks.rank == 0 and step %")),),
    ),
    _fault(
        "update-first-alone", "5", "rank 0 alone moves its parameters",
        more=(Edit("step", _MOVED, _MOVED.replace("method))", "method)) if ranks.rank == 0 else state[entry.name]")),),
    ),
    _fault("steps-of-all", "5", "the counter counts a step of each rank",
           more=(Edit("step", _STEP, _STEP.replace("+ 1", "+ ranks.size")),)),
    _fault(
        "rate-scaled", "5", "the learning rate is scaled by the number of ranks",
        more=(Edit("step", _GRADIENTS, f"{_GRADIENTS}    learning_rate = learning_rate * ranks.size\n"),),
    ),
    _fault("evaluation-padded", "7", "samples that fill the last rank's part are evaluated too", evaluated="padded"),
    _fault("evaluation-dropped", "7", "samples that N does not divide are not evaluated", evaluated="dropped"),
)  # fmt: skip
"""Faults of ranks."""
