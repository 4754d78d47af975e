"""What an optimizer step makes of a state: parameters, slots and the counter, from the gradients at the state before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.config import SGD, AdamW, Method, Optimizer, Retract
from twinspike.network import Network
from twinspike.parameters import STEP, State, decays, domain, is_factored, layout, slots
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.judges.variant import tracked

Values = NDArray[Any]

CLAUSES = ("OPT-1", "OPT-2", "OPT-4", "OPT-5", "OPT-6", "OPT-7")


def update(
    network: Network,
    method: Method,
    optimizer: Optimizer,
    before: State,
    after: Mapping[str, Any],
    learning_rate: float,
    gradients: Mapping[str, Tracked],
) -> Iterator[Finding]:
    """Every parameter moves once; slots and counter follow.

    Slots show the gradient that the step itself has taken: they are held against the gradients given, and the parameter,
    which moves by no more than a few roundings otherwise, against the slots. A parameter without a gradient among those
    given is judged by its slots alone, and not at all without slots.

    Args:
        network: of the state.
        method: of the step.
        optimizer: of the step.
        before: state that the step started from.
        after: state that it made.
        learning_rate: of the step.
        gradients: by name of the parameter, at the state before, with what the step's own may be off by.
    """
    yield compare(STEP, after[STEP], before[STEP] + 1, 0.0, rung="exact", clauses=("OPT-3",))
    unit = next(iter(gradients.values())).roundoff
    step = int(before[STEP]) + 1
    orthogonality = method.factorization.orthogonality
    retracted = isinstance(orthogonality, Retract) and step % orthogonality.every == 0
    lr = Tracked(np.float64(learning_rate), roundoff=unit)
    for entry in layout(network, method, optimizer):
        if not entry.trained:
            continue
        names = {slot: f"optimizer/{slot}/{entry.name}" for slot in slots(optimizer)}
        kept = {slot: Tracked(before[name], roundoff=unit) for slot, name in names.items()}
        p, decayed = Tracked(np.asarray(before[entry.name], np.float64), roundoff=unit), decays(entry, optimizer)

        def stepped(g: Tracked, p: Tracked = p, kept: Any = kept, decayed: bool = decayed) -> tuple[Tracked, dict[str, Tracked]]:
            moved: tuple[Tracked, dict[str, Tracked]]
            moved = tracked()["optimizer"].optimizer_step(optimizer, p, g, lr, step, kept, decays=decayed)
            return moved

        within = domain(entry, method)
        rows: list[tuple[str, Tracked]] = []
        want: Tracked | None = None
        if entry.name in gradients:
            want, moved = stepped(gradients[entry.name])
            rows += [(name, moved[slot]) for slot, name in names.items()]
        if kept:
            first = next(iter(names))
            own = Tracked(np.asarray(after[names[first]], np.float64), roundoff=unit)
            want, moved = stepped(_taken(optimizer, p, kept[first], own, decayed))
            rows += [(name, moved[slot]) for slot, name in names.items() if slot != first]
        if want is not None and not (retracted and entry.kind == "factor"):
            rows.append((entry.name, tracked()["optimizer"].projected(want, within)))
        for name, right in rows:
            clauses = (*CLAUSES, *(["OPT-8"] if within else []))
            yield compare(name, after[name], right.value, right.error, rung="bound", clauses=clauses)
    if retracted:
        yield from _retracted(network, method, after, unit)


def _taken(optimizer: Optimizer, p: Tracked, before: Tracked, after: Tracked, decayed: bool) -> Tracked:
    """The gradient that a step has put into an optimizer's first slot (OPT-2, OPT-5)."""
    decay = optimizer.weight_decay if decayed and not isinstance(optimizer, AdamW) else 0.0
    kept, share = (optimizer.momentum, 1.0) if isinstance(optimizer, SGD) else (optimizer.beta1, 1.0 - optimizer.beta1)
    taken: Tracked = (after - kept * before) / share - decay * p
    return taken


def _retracted(network: Network, method: Method, after: Mapping[str, Any], unit: float) -> Iterator[Finding]:
    """ORT-3: factors are orthonormal after the step that retracts."""
    for layer in network.layers:
        if is_factored(layer, method.factorization):
            for name in ("U", "V"):
                q = np.asarray(after[f"{layer.name}.{name}"], np.float64)
                q = q.swapaxes(-2, -1) if name == "V" else q
                gram = q.swapaxes(-2, -1) @ q
                bound = 3 * sum(q.shape[-2:]) ** 1.5 * unit
                eye = np.broadcast_to(np.eye(q.shape[-1]), gram.shape)
                yield compare(f"{layer.name}.{name} orthonormal", gram, eye, bound, rung="certificate", clauses=("ORT-3",))
