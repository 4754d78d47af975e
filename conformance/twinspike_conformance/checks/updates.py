"""What a training step makes of parameters and slots, beside gradients that were asked for apart from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.config import SGD, AdamW, Optimizer, Retract
from twinspike.parameters import STEP, Entry, decays, domain, is_factored, layout, slots
from twinspike.precision import PRECISIONS, Precision
from twinspike.setting import Setting
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.checks.base import Bench
from twinspike_conformance.checks.programs import depths, path
from twinspike_conformance.judges.operations import roundoff_of
from twinspike_conformance.judges.variant import tracked

Values = NDArray[Any]
Sizes = Callable[[str], float]
"""Parameter -> how large the terms of its gradient are."""

RATE = 0.125
"""Learning rate of steps."""


def again(s: Setting, value: Values, precision: Precision, size: float = 0.0) -> Tracked:
    """A gradient that a backend computes a second time, perhaps compiled in another way: the path is to a loss and back.

    Args:
        s: the network.
        value: of the first time.
        precision: says how far the two may lead apart.
        size: of the gradient's terms; that of its largest element counts if it is larger.
    """
    g, unit = np.asarray(value, np.float64), roundoff_of(precision)
    room = path(2 * (max(depths(s.network).values()) + s.method.time_steps), precision) * np.abs(g).max(initial=size)
    return Tracked(g, np.full(g.shape, room), roundoff=unit)


def of_its_terms(judged: Callable[[float], list[Finding]], name: str, sizes: Sizes) -> list[Finding]:
    """Findings about a gradient that is computed again, by the size of its sum, or by that of its terms where they cancel."""
    found = judged(0.0)
    return found if all(finding.ok for finding in found) else judged(sizes(name))


def update_found(bench: Bench, s: Setting, gradients: dict[str, Values], after: dict[str, Any], sizes: Sizes) -> list[Finding]:
    """What a step at RATE makes of parameters and slots, beside the gradients at the state before it."""
    found = [compare(STEP, after[STEP], s.state[STEP] + 1, 0.0, rung="exact", clauses=("OPT-3",))]
    precision = PRECISIONS[bench.session.precision]
    step, orthogonality = int(s.state[STEP]) + 1, s.method.factorization.orthogonality
    retracted = isinstance(orthogonality, Retract) and step % orthogonality.every == 0
    for entry in layout(s.network, s.method, s.optimizer):
        if entry.trained:
            g, moves = gradients[entry.name], not (retracted and entry.kind == "factor")

            def judged(size: float, entry: Entry = entry, g: Values = g, moves: bool = moves) -> list[Finding]:
                return _moved(s, entry, again(s, g, precision, size), after, moves=moves)

            found += of_its_terms(judged, entry.name, sizes)
    return found + (_retracted(s, after, roundoff_of(precision)) if retracted else [])


def _moved(s: Setting, entry: Entry, gradient: Tracked, after: dict[str, Any], *, moves: bool) -> list[Finding]:
    """A parameter's slots after a step, and where it only moves the parameter itself.

    The first slot shows the gradient that the step itself has taken: what else there is is held against that.
    """
    unit, step = gradient.roundoff, int(s.state[STEP]) + 1
    names = {slot: f"optimizer/{slot}/{entry.name}" for slot in slots(s.optimizer)}
    kept = {slot: Tracked(s.state[name], roundoff=unit) for slot, name in names.items()}
    p, decayed = Tracked(np.asarray(s.state[entry.name], np.float64), roundoff=unit), decays(entry, s.optimizer)
    lr, within = Tracked(np.float64(RATE), roundoff=unit), domain(entry, s.method)

    def stepped(g: Tracked) -> tuple[Tracked, dict[str, Tracked]]:
        moved: tuple[Tracked, dict[str, Tracked]]
        moved = tracked()["optimizer"].optimizer_step(s.optimizer, p, g, lr, step, kept, decays=decayed)
        return moved

    want, moved = stepped(gradient)
    rows = [(name, moved[slot]) for slot, name in names.items()]
    if kept:
        first = next(iter(names))
        own = Tracked(np.asarray(after[names[first]], np.float64), roundoff=unit)
        want, moved = stepped(_taken(s.optimizer, p, kept[first], own, decayed))
        rows = rows[:1] + [(name, moved[slot]) for slot, name in names.items() if slot != first]
    if moves:
        rows.append((entry.name, tracked()["optimizer"].projected(want, within)))
    clauses = ("OPT-1", "OPT-2", "OPT-4", "OPT-5", "OPT-6", "OPT-7", *(["OPT-8"] if within else []))
    return [compare(name, after[name], right.value, right.error, rung="bound", clauses=clauses) for name, right in rows]


def _taken(optimizer: Optimizer, p: Tracked, before: Tracked, after: Tracked, decayed: bool) -> Tracked:
    """The gradient that a step has put into an optimizer's first slot (OPT-2, OPT-5)."""
    decay = optimizer.weight_decay if decayed and not isinstance(optimizer, AdamW) else 0.0
    kept, share = (optimizer.momentum, 1.0) if isinstance(optimizer, SGD) else (optimizer.beta1, 1.0 - optimizer.beta1)
    taken: Tracked = (after - kept * before) / share - decay * p
    return taken


def _retracted(s: Setting, after: Any, unit: float) -> list[Finding]:
    """ORT-3: factors are orthonormal after the step that retracts."""
    found = []
    for layer in s.network.layers:
        if is_factored(layer, s.method.factorization):
            for name in ("U", "V"):
                q = np.asarray(after[f"{layer.name}.{name}"], np.float64)
                q = q.swapaxes(-2, -1) if name == "V" else q
                gram = q.swapaxes(-2, -1) @ q
                bound = 3 * sum(q.shape[-2:]) ** 1.5 * unit
                eye = np.broadcast_to(np.eye(q.shape[-1]), gram.shape)
                found.append(
                    compare(f"{layer.name}.{name} orthonormal", gram, eye, bound, rung="certificate", clauses=("ORT-3",))
                )
    return found
