"""A whole training step and evaluation against the reference's own, and predictions class by class.

Where the checks of `networks` start from the backend's inner values, these start from the state alone, and
what they expect is the reference run in error-tracking arithmetic from the images to the last parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from twinspike.backend import Program
from twinspike.config import Retract
from twinspike.parameters import STEP, decays, domain, layout, slots
from twinspike.precision import PRECISIONS
from twinspike.reference import factorization
from twinspike.setting import Setting
from twinspike_conformance.bounds.finding import Finding, Rung, compare
from twinspike_conformance.bounds.spectral import moved_by
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.networks import BUCKETS, CONFIGS, FAMILIES, PINNED
from twinspike_conformance.cases.structures import NARROW
from twinspike_conformance.checks.base import Bench, Check, Space
from twinspike_conformance.checks.networks import RATE
from twinspike_conformance.checks.programs import opened, predicted, taps_of
from twinspike_conformance.judges.ends import ends_of
from twinspike_conformance.judges.operations import roundoff_of
from twinspike_conformance.judges.variant import tracked


def tracked_state(s: Setting, unit: float) -> dict[str, Any]:
    """The state with bounds; learned decays and thresholds stay arrays, which the reference tells from constants by."""
    plain = (".decay", ".threshold")
    return {n: v if v.dtype.kind == "i" or n.endswith(plain) else Tracked(v, roundoff=unit) for n, v in s.state.items()}


def is_decided(s: Setting, state: dict[str, Any], images: Tracked, training: bool) -> bool:
    """Whether rounding can turn no spike and no ReLU of the example: where one may turn, equality can't be asked for."""
    tape = tracked()["network"].forward(s.network, s.method, state, images, training=training)
    for name in s.network.activations:
        x = tape.ann.outputs[s.network.layer(name).input]
        if not _clear(x.value, x.error, 0.0):
            return False
        u = tape.snn.traces[name].u
        threshold = np.asarray(state.get(f"{name}.threshold", s.method.neuron.threshold))
        threshold = threshold.reshape(-1, *(1,) * (u.ndim - 3)) if threshold.ndim else threshold
        if not _clear(u.value, u.error, threshold):
            return False
        width = getattr(s.method.neuron.surrogate, "width", None)
        if width is not None and not _clear(np.abs(u.value - threshold), u.error, width / 2):
            return False
    return True


def _clear(value: Any, error: Any, edge: Any) -> bool:
    """No value comes as near to an edge as its error, but for those without any error."""
    return bool(np.all((np.abs(value - edge) > error) | (error <= np.finfo(np.float64).tiny * 2**20)))


def _step(bench: Bench, example: Example) -> list[Finding]:
    """A narrow network's training step and evaluation equal the reference's, within the reference's own running error."""
    if PRECISIONS[bench.session.precision].storage != "float64":
        return []  # over whole networks the bounds of shorter formats say nothing: networks are judged layer by layer there
    return whole(bench, *opened(bench, example))


def whole(bench: Bench, s: Setting, program: Program, state: Any) -> list[Finding]:
    """Evaluation and training step against the reference's, each where rounding decides nothing."""
    unit = roundoff_of(PRECISIONS[bench.session.precision])
    values, images = tracked_state(s, unit), Tracked(s.images[0], roundoff=unit)
    found: list[Finding] = []
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        if is_decided(s, values, images, training=False):
            found += _evaluation(bench, s, values, images, program.evaluate(state, s.images[0]))
        if is_decided(s, values, images, training=True):
            after, metrics = program.train_step(state, s.images[0], s.labels[0], RATE)
            found += _training(bench, s, values, images, program.dump(after), metrics)
    return found


def _evaluation(bench: Bench, s: Setting, values: dict[str, Any], images: Tracked, got: Any) -> list[Finding]:
    want = tracked()["step"].evaluate(s.network, s.method, values, images)
    clauses = {"logits_ann": ("OUT-1", "BN-5"), "logits_snn": ("OUT-1", "OUT-2", "BN-5"), "spike_rates": ("LIF-2",)}
    return [_near(k, bench.session.to_numpy(getattr(got, k)), getattr(want, k), names) for k, names in clauses.items()]


def _training(bench: Bench, s: Setting, values: dict[str, Any], images: Tracked, after: Any, metrics: Any) -> list[Finding]:
    gradients, statistics, reported = tracked()["step"].gradients(
        s.network, s.method, values, images, s.labels[0], bench.replicas
    )
    terms = ("loss", "cross_entropy_ann", "cross_entropy_snn", "distillation", "feature", "penalty", "spike_rate")
    clauses = ("DIS-1", "DIS-4", "DIS-5", "DIS-8", "ORT-2")
    found = [_near(name, bench.session.to_numpy(getattr(metrics, name)), getattr(reported, name), clauses) for name in terms]
    found += [_near(name, after[name], value, ("BN-2", "BN-3", "BN-4", "BN-6")) for name, value in statistics.items()]
    found.append(compare(STEP, after[STEP], s.state[STEP] + 1, 0.0, rung="exact", clauses=("OPT-3",)))
    return found + list(_parameters(s, gradients, after, values))


def _parameters(s: Setting, gradients: dict[str, Any], after: Any, values: dict[str, Any]) -> Iterator[Finding]:
    """Every trained entry and its slots after the step, retracted where due."""
    step = int(s.state[STEP]) + 1
    orthogonality = s.method.factorization.orthogonality
    due = isinstance(orthogonality, Retract) and step % orthogonality.every == 0
    for entry in layout(s.network, s.method, s.optimizer):
        if not entry.trained:
            continue
        unit = gradients[entry.name].roundoff
        p = Tracked(s.state[entry.name], roundoff=unit)
        kept = {slot: values[f"optimizer/{slot}/{entry.name}"] for slot in slots(s.optimizer)}
        rate = Tracked(np.float64(RATE), roundoff=unit)
        decay = decays(entry, s.optimizer)
        moved, slots_after = tracked()["optimizer"].optimizer_step(
            s.optimizer, p, gradients[entry.name], rate, step, kept, decays=decay
        )
        moved = tracked()["optimizer"].projected(moved, domain(entry, s.method))
        if due and isinstance(orthogonality, Retract) and entry.kind == "factor":
            moved = _retracted(orthogonality.by, moved, entry.part == "V")
        clauses = ("OPT-1", "OPT-2", "OPT-4", "OPT-5", "OPT-6", "OPT-7", "OPT-8", "DIS-6", "DIS-7", "FAC-7", "ORT-3")
        yield _near(entry.name, after[entry.name], moved, clauses)
        for slot, value in slots_after.items():
            yield _near(f"optimizer/{slot}/{entry.name}", after[f"optimizer/{slot}/{entry.name}"], value, clauses)


def _retracted(by: str, factor: Tracked, rows: bool) -> Tracked:
    """A factor after its retraction, whose error is that of the factor times the condition of the retraction."""
    a = factor.value
    u, v = (np.zeros((*a.shape[:-2], a.shape[-1], a.shape[-2])), a) if rows else (a, np.zeros_like(a.swapaxes(-2, -1)))
    eye = np.eye(*(u.shape[-2:] if rows else v.shape[-2:]))
    u, v = (u + eye, v) if rows else (u, v + eye)
    want = factorization.retract(by, u, v)[1 if rows else 0]
    columns = a.swapaxes(-2, -1) if rows else a
    error = np.linalg.norm(factor.error, axis=(-2, -1))
    return Tracked(want, np.broadcast_to(moved_by(by, columns, error, factor.roundoff), want.shape), roundoff=factor.roundoff)


def _near(name: str, got: Any, want: Any, clauses: tuple[str, ...]) -> Finding:
    value, error = (want.value, want.error) if isinstance(want, Tracked) else (np.asarray(want, np.float64), 0.0)
    return compare(name, got, value, error, rung="bound", clauses=clauses)


def _predictions(bench: Bench, example: Example) -> list[Finding]:
    """Each class is predicted for as many samples as its logits are the largest of, counted with all labels equal to it."""
    s, program, state = opened(bench, example)
    t = taps_of(bench, s, program, state, training=True, labels=True)
    ends = ends_of(t)
    readout = tracked()["layers"].readout
    logits = {"ann": ends.logits_ann[-1], "snn": readout(t.lift(t.output("snn", s.network.exits[-1].head)), s.method.readout)}
    found = []
    for label in range(s.network.classes):
        labels = np.full_like(s.labels[0], label)
        _, metrics = program.gradients(state, s.images[0], labels)
        found.append(predicted(bench, metrics, "ann", logits["ann"], labels))
        found.append(predicted(bench, metrics, "snn", logits["snn"], labels))
    return found


_NARROW = tuple(i for i, config in enumerate(CONFIGS) if config["network"] in NARROW)
_SPACE = Space("network", tuple(CONFIGS[i] for i in _NARROW), BUCKETS, FAMILIES, False, tuple(PINNED[i] for i in _NARROW))
_RUNS: tuple[tuple[str, Callable[[Bench, Example], list[Finding]], Rung, tuple[str, ...], float], ...] = (
    (
        "step",
        _step,
        "bound",
        (
            *(f"DIS-{n}" for n in (1, 4, 5, 6, 7, 8)),
            *(f"BN-{n}" for n in (2, 3, 4, 5, 6)),
            *(f"OPT-{n}" for n in range(1, 9)),
            *("FAC-6", "FAC-7", "INP-1", "INP-2", "LAY-4", "LIF-9", "LIF-10", "OUT-1", "OUT-2", "ORT-2", "ORT-3"),
        ),
        0.25,
    ),
    ("predictions", _predictions, "certificate", ("OUT-3",), 0.2),
)

CHECKS: tuple[Check, ...] = tuple(
    Check(
        id=f"network[{name}]",
        sentence=str(run.__doc__),
        clauses=clauses,
        rung=rung,
        needs=frozenset({"networks"}),
        space=_SPACE,
        run=run,
        weight=weight,
        whole=True,
    )
    for name, run, rung, clauses, weight in _RUNS
)
