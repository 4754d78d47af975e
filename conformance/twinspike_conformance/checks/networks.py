"""Whole networks: layers and gradients from the backend's own neighbours, the loss, the training step, and the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.config import TWINS
from twinspike.parameters import STEP, check_state, layer_and_part, layout
from twinspike.precision import PRECISIONS, Precision
from twinspike.setting import Setting
from twinspike_conformance.bounds.finding import Finding, Rung, compare, holds
from twinspike_conformance.bounds.tracked import Tracked, stack
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.networks import BUCKETS, CONFIGS, FAMILIES, PINNED
from twinspike_conformance.checks.base import Bench, Check, Space, refusal
from twinspike_conformance.checks.programs import counts, dumped_formats, opened, taps_of
from twinspike_conformance.checks.statistics import statistics
from twinspike_conformance.judges import networks as taps
from twinspike_conformance.judges import updates
from twinspike_conformance.judges.ends import (
    Ends,
    depths,
    ends_of,
    ends_of_another_pass,
    path,
    penalty_gradient,
    reported_terms,
    seeds,
)
from twinspike_conformance.judges.operations import roundoff_of
from twinspike_conformance.judges.summands import Summands
from twinspike_conformance.judges.variant import tracked

Values = NDArray[Any]

RATE = 0.125
"""Learning rate of steps."""


def _layers(bench: Bench, example: Example) -> list[Finding]:
    """Every layer of both twins, in training and in evaluation, follows from the backend's own inputs to it."""
    s, program, state = opened(bench, example)
    found: list[Finding] = []
    for training in (True, False):
        found += taps.forward(taps_of(bench, s, program, state, training=training))
    return found


def _gradients(bench: Bench, example: Example) -> list[Finding]:
    """Every gradient, towards each layer's output and each parameter, follows from the backend's own gradients behind it."""
    s, program, state = opened(bench, example)
    t = taps_of(bench, s, program, state, training=True, labels=True)
    return gradients_found(s, t, program.gradients(state, s.images[0], s.labels[0])[0])


def gradients_found(s: Setting, t: taps.Taps, gradients: dict[str, Values]) -> list[Finding]:
    """What the gradients are that a program reports, beside those of its trace."""
    wanted = {entry.name for entry in layout(s.network, s.method, s.optimizer) if entry.trained}
    traced = {f"{layer}.{key[2:]}" for layer, tap in t.trace.items() for key in tap if key.startswith("d_")}
    found = [
        holds(
            f"names of gradients, {what}", names == wanted, got=str(sorted(names ^ wanted)), want="none amiss", clauses=("FAC-7",)
        )
        for what, names in (("reported", set(gradients)), ("traced", traced))
    ]
    if not all(finding.ok for finding in found):
        return found
    found += taps.backward(t, seeds(t, s.labels[0]))
    sizes = Summands(lambda: t)
    for name, got in gradients.items():
        reported = _reported(s, t, name, got, 0.0)
        found.append(reported if reported.ok else _reported(s, t, name, got, sizes(name)))
    return found


def _reported(s: Setting, t: taps.Taps, name: str, got: Values, size: float) -> Finding:
    """A reported gradient beside the trace's; `size` as in `_again`."""
    layer, part = layer_and_part(name)
    own = _again(s, t.trace[layer][f"d_{part}"], t.precision, size)
    if part in ("U", "V"):
        own = own + penalty_gradient(t, layer, part)
    return compare(f"gradient of {name}, reported", got, own.value, own.error, rung="bound", clauses=("FAC-7", "ORT-2"))


def _again(s: Setting, value: Values, precision: Precision, size: float = 0.0) -> Tracked:
    """A gradient that a backend computes a second time, perhaps compiled in another way: the path is to a loss and back.

    Args:
        s: the network.
        value: of the first time.
        precision: says how far the two may lead apart.
        size: of the gradient's terms, where they cancel: it counts if it is larger than the gradient's largest element.
    """
    g, unit = np.asarray(value, np.float64), roundoff_of(precision)
    room = path(2 * (max(depths(s.network).values()) + s.method.time_steps), precision) * np.abs(g).max(initial=size)
    return Tracked(g, np.full(g.shape, room), roundoff=unit)


def _loss(bench: Bench, example: Example) -> list[Finding]:
    """Loss, its parts, correct predictions and spike rate follow from the backend's own logits, features and spikes."""
    s, program, state = opened(bench, example)
    t = taps_of(bench, s, program, state, training=True, labels=True)
    return loss_found(bench, t, *program.gradients(state, s.images[0], s.labels[0]), s.labels[0])


def loss_found(bench: Bench, t: taps.Taps, gradients: dict[str, Values], metrics: Any, labels: Values) -> list[Finding]:
    """What metrics say beside the trace's logits, features and spikes.

    Where gradients that came with them differ from the trace's in any bit, they are another pass'.
    """
    ends = ends_of(t)
    found = terms_found(bench, t, metrics, ends, labels)
    if not all(finding.ok for finding in found) and not _same_pass(t, gradients):
        found = terms_found(bench, t, metrics, ends_of_another_pass(t), labels)
    return found + counts(bench, t, metrics, ends, labels)


def _same_pass(t: taps.Taps, gradients: dict[str, Values]) -> bool:
    """Whether gradients are the trace's to the bit, but those of factors, to which a penalty may have been added."""
    parts = {name: layer_and_part(name) for name in gradients}
    return all(
        np.array_equal(gradients[name], t.trace[layer][f"d_{part}"]) for name, (layer, part) in parts.items() if part not in "UV"
    )


def terms_found(bench: Bench, t: taps.Taps, metrics: Any, ends: Ends, labels: Values) -> list[Finding]:
    """The terms of the loss that metrics say beside those of what the loss sees."""
    clauses = ("DIS-1", "DIS-4", "DIS-5", "DIS-8", "DIS-9", "DIS-10", "DIS-11", "DIS-12", "DIS-13", "ORT-2")
    return [
        compare(name, bench.session.to_numpy(getattr(metrics, name)), right.value, right.error, rung="bound", clauses=clauses)
        for name, right in reported_terms(t, ends, labels).items()
    ]


def _evaluation(bench: Bench, example: Example) -> list[Finding]:
    """Evaluation gives the reduced logits of every exit and each layer's spike rate, and changes nothing."""
    s, program, state = opened(bench, example)
    t = taps_of(bench, s, program, state, training=False)
    result = program.evaluate(state, s.images[0])
    return evaluation_found(bench, s, t, result, program.dump(state))


def evaluation_found(bench: Bench, s: Setting, t: taps.Taps, result: Any, after: dict[str, Any]) -> list[Finding]:
    """What an evaluation gives beside the trace's values, and that the state is as it was.

    A trace is another pass: where logits are not within the head's own roundings, as where the head was given the
    same numbers, they are held to what two right paths to the head may differ by.
    """
    readout = tracked()["layers"].readout
    heads = [exit_.head for exit_ in s.network.exits]
    snn = stack([readout(t.lift(t.output("snn", head)), s.method.readout) for head in heads])
    ann = np.stack([t.output("ann", head)[0] for head in heads])
    # evaluation may reduce before the head where a trace reduces after it: the head's own bound is added
    own = stack([_head_bound(t, head) for head in heads])
    rates = np.array([np.asarray(t.trace[n]["snn"], np.float64).mean() for n in s.network.activations])

    def judged(apart: Values) -> list[Finding]:
        return [
            compare(name, bench.session.to_numpy(getattr(result, name)), want, bound, rung="bound", clauses=clauses)
            for name, want, bound, clauses in (
                ("logits_ann", ann, own.error[:, 0] + apart[:, 0, None, None], ("OUT-1", "BN-5")),
                ("logits_snn", snn.value, snn.error + own.error[:, 1] + apart[:, 1, None, None], ("OUT-1", "OUT-2", "BN-5")),
                ("spike_rates", rates, 8 * t.roundoff * rates, ("LIF-2",)),
            )
        ]

    found = judged(np.zeros((len(heads), 2)))
    if not all(finding.ok for finding in found):
        found = judged(np.stack([_paths_apart(s, t, head) for head in heads]))
    unchanged = ("BN-5", "PRE-4")
    return found + [compare(f"{n} after evaluation", after[n], s.state[n], 0.0, rung="exact", clauses=unchanged) for n in after]


def _paths_apart(s: Setting, t: taps.Taps, head: str) -> Values:
    """How far two right passes may lead a head's logits apart, (2,) by twin: features are rounded, each apart from the others."""
    layer: Any = t.network.layer(head)
    found = []
    for twin in TWINS:
        x = t.lift(t.output(twin, layer.input))
        features = np.abs((tracked()["layers"].readout(x, t.method.readout) if twin == "snn" else x[0]).value).max()
        row = np.sqrt((t.kernel(layer, twin).value.reshape(layer.out_features, -1) ** 2).sum(axis=1)).max()
        n = depths(s.network)[head] + (s.method.time_steps if twin == "snn" else 0)
        found.append(path(n, t.precision) * features * row)
    return np.array(found)


def _head_bound(t: taps.Taps, head: str) -> Tracked:
    """The bound of a head's logits, (2, B, K): of the artificial twin, and of the spiking twin summed over time."""
    layer: Any = t.network.layer(head)
    bias = t.lift(np.asarray(t.state[f"{head}.bias"], np.float64))
    both = []
    for twin in TWINS:
        x = t.lift(t.output(twin, layer.input))
        y = tracked()["layers"].linear(taps.folded(x), t.kernel(layer, twin), bias).reshape(len(x), -1, layer.out_features)
        both.append(tracked()["layers"].readout(y, t.method.readout) if twin == "snn" else y[0])
    return stack(both)


def _update(bench: Bench, example: Example) -> list[Finding]:
    """The training step moves every parameter once, from the gradients at the state before it; slots and counter follow.

    Slots show the gradient that the step itself has taken: they are held against the gradients asked for, and the parameter,
    which moves by no more than a few roundings otherwise, against the slots.
    """
    s, program, state = opened(bench, example)
    gradients, _ = program.gradients(state, s.images[0], s.labels[0])
    state, _ = program.train_step(state, s.images[0], s.labels[0], RATE)
    sizes = Summands(lambda: taps_of(bench, s, program, program.load(s.state), training=True, labels=True))
    return update_found(bench, s, gradients, program.dump(state), sizes)


def update_found(bench: Bench, s: Setting, gradients: dict[str, Values], after: dict[str, Any], sizes: Summands) -> list[Finding]:
    """What a step at RATE makes of parameters and slots, beside the gradients at the state before it."""
    precision = PRECISIONS[bench.session.precision]

    def judged(again: dict[str, Tracked]) -> list[Finding]:
        return list(updates.update(s.network, s.method, s.optimizer, s.state, after, RATE, again))

    again = {name: _again(s, value, precision) for name, value in gradients.items()}
    found = judged(again)
    wrong = {finding.quantity.rpartition("/")[2] for finding in found if not finding.ok} & set(gradients)
    return judged(again | {name: _again(s, gradients[name], precision, sizes(name)) for name in wrong}) if wrong else found


def _state(bench: Bench, example: Example) -> list[Finding]:
    """A state survives load and dump to the bit, three steps in a row equal three with dumps between, and states don't mix."""
    s, program, state = opened(bench, example, batches=3)
    first = program.dump(state)
    found = [compare(f"{n} loaded and dumped", first[n], s.state[n], 0.0, rung="exact", clauses=("PRE-4",)) for n in s.state]
    found += dumped_formats(bench, s, first)
    check_state(first, layout(s.network, s.method, s.optimizer))
    other, between = program.load(s.state), first
    for images, labels in zip(s.images, s.labels, strict=True):
        if not all(np.isfinite(value).all() for value in between.values()):
            break  # a network of large numbers may diverge in two steps, and what is no number is not loaded
        state, _ = program.train_step(state, images, labels, 0.0625)
        other, _ = program.train_step(program.load(between), images, labels, 0.0625)
        between = program.dump(other)
    straight = program.dump(state)
    for n, want in between.items():
        got, alike = _numbers(straight[n]), _numbers(want)
        found.append(compare(f"{n} after three steps", got, alike, 0.0, rung="property", clauses=("OPT-2",)))
    return found


def _numbers(values: Values) -> Values:
    """With the largest number of the format where there is none, which two states may have alike."""
    return values if values.dtype.kind == "i" else np.nan_to_num(values, nan=np.finfo(values.dtype).max)


def _refusals(bench: Bench, example: Example) -> list[Finding]:
    """Batches and states that don't fit are refused in one line."""
    s, program, state = opened(bench, example)
    x, y = s.images[0], s.labels[0]
    broken = x.copy()
    broken.flat[0] = np.nan
    first = next(iter(s.state))
    without = {k: v for k, v in s.state.items() if k == STEP or not k.startswith("optimizer/")}
    calls: dict[str, Callable[[], Any]] = {
        "images of the wrong shape": lambda: program.gradients(state, x[..., :-1], y),
        "images with a NaN": lambda: program.evaluate(state, broken),
        "images of a wrong dtype": lambda: program.evaluate(state, x.astype(np.int64)),
        "a label out of range": lambda: program.gradients(state, x, y + s.network.classes),
        "labels of the wrong length": lambda: program.gradients(state, x, y[:-1]),
        "a state without a parameter": lambda: program.load(dict(list(s.state.items())[1:])),
        "a state without its counter": lambda: program.load({k: v for k, v in s.state.items() if k != STEP}),
        "a state without slots": lambda: program.load(without | ({} if without != s.state else {"colour": s.state[first]})),
        "a state without statistics": lambda: program.load({k: v for k, v in s.state.items() if ".mean_" not in k}),
        "a state with an array more": lambda: program.load(s.state | {"colour": s.state[first]}),
        "a state with a NaN": lambda: program.load(s.state | {first: np.full_like(s.state[first], np.nan)}),
        "a state of the wrong shape": lambda: program.load(s.state | {first: np.zeros(3)}),
        "a learning rate that is no number": lambda: program.train_step(program.load(s.state), x, y, float("nan")),
    }
    return [refusal(what, call, None) for what, call in calls.items()]


_SPACE = Space("network", CONFIGS, BUCKETS, FAMILIES, False, PINNED)
_CLAUSES = {
    "layers": (
        "LAY-1", "LAY-2", "LAY-3", "LAY-4", "LAY-5", "LIF-1", "LIF-2", "LIF-3", "LIF-4", "LIF-5",
        "BN-1", "BN-2", "BN-3", "BN-5", "BN-6", "BN-7", "INP-1", "INP-2", "FAC-1", "FAC-6", "FAC-8",
    ),
    "gradients": (
        "FAC-1", "FAC-6", "FAC-7", "FAC-8", "DIS-1", "DIS-2", "DIS-3", "DIS-4", "DIS-5", "DIS-6", "DIS-7", "DIS-8", "DIS-9",
        "DIS-10", "DIS-11", "DIS-12", "DIS-13",
        "LAY-1", "LAY-2", "LAY-3", "LAY-4", "LAY-5", "LIF-6", "LIF-7", "LIF-8", "LIF-9", "LIF-10",
        "BN-1", "BN-2", "BN-3", "BN-6", "ORT-2", "OUT-1", "OUT-2",
    ),
    "loss": ("DIS-1", "DIS-4", "DIS-5", "DIS-8", "DIS-9", "DIS-10", "DIS-11", "DIS-12", "DIS-13", "OUT-3", "ORT-2"),
    "evaluation": ("OUT-1", "OUT-2", "BN-5"),
    "statistics": ("BN-2", "BN-3", "BN-4", "BN-6"),
    "update": (*(f"OPT-{n}" for n in range(1, 9)), "ORT-3", "SCH-3"),
    "state": ("OPT-2", "PRE-4"),
    "refusals": (),
}  # fmt: skip

_RUNS: tuple[tuple[str, Callable[[Bench, Example], list[Finding]], Rung, float], ...] = (
    ("layers", _layers, "bound", 0.25),
    ("gradients", _gradients, "bound", 0.25),
    ("loss", _loss, "bound", 0.25),
    ("evaluation", _evaluation, "bound", 0.25),
    ("statistics", statistics, "bound", 0.25),
    ("update", _update, "bound", 0.25),
    ("state", _state, "property", 0.15),
    ("refusals", _refusals, "property", 0.15),
)
"""Name, judge, rung and share of the profile's examples."""

CHECKS: tuple[Check, ...] = tuple(
    Check(
        id=f"network[{name}]",
        sentence=str(run.__doc__),
        clauses=_CLAUSES[name],
        rung=rung,
        needs=frozenset({"networks"}),
        space=_SPACE,
        run=run,
        weight=weight,
        whole=True,
    )
    for name, run, rung, weight in _RUNS
)
