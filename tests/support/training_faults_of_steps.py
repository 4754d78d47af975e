"""Faults of gradients and of the optimizer's step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from training_faults import HERE, TRAINCHECK, TTRACE, Arrays, Course, Fault, State, afterwards, on_another, with_gradients

import twinspike
from twinspike.parameters import STEP, layer_and_part, layout

_DECAY = ("optimizer.weight_decay=0.01", 'optimizer.decay_scope="no_norm_bias"')
_SLOT, _MOVED = "optimizer/momentum/", "OPT-1"


def _trained(course: Course) -> set[str]:
    config = course.ready.config
    return {entry.name for entry in layout(course.ready.network, config.method, config.optimizer) if entry.trained}


def _only(wanted: Callable[[str], bool]) -> Callable[[Course, Arrays], Arrays]:
    return lambda course, g: {k: v if wanted(k) else 0 * v for k, v in g.items()}


def _clipped(course: Course, g: Arrays) -> Arrays:
    norm = float(np.sqrt(sum((v**2).sum() for v in g.values())))
    return {k: v / max(1.0, norm) for k, v in g.items()}


def _half(course: Course, state: State, images: Any, labels: Any) -> Arrays:
    part = len(labels) // 2
    return course.right.gradients(state, images[:part], labels[:part])[0]


def _twice_the_first_half(course: Course, state: State, images: Any, labels: Any) -> Arrays:
    place = np.arange(len(labels)) % (len(labels) // 2)
    return course.right.gradients(state, images[place], labels[place])[0]


def _one_layer_of_half(course: Course, state: State, images: Any, labels: Any) -> Arrays:
    whole, half = course.right.gradients(state, images, labels)[0], _half(course, state, images, labels)
    return {k: half[k] if k.startswith("side.") else v for k, v in whole.items()}


def _ann_alone(course: Course, state: State, images: Any, labels: Any) -> Arrays:
    trace = course.right.trace(state, images, training=True, labels=labels)
    g = course.right.gradients(state, images, labels)[0]
    bias = trace["head"]["g_ann"].sum(axis=0)
    return {**g, "head.bias": bias}


def _old_parameters(course: Course, state: State, images: Any, labels: Any) -> Arrays:
    return course.right.gradients({**state, **{k: course.memory["state"][k] for k in state if k != STEP}}, images, labels)[0]


def _bit(course: Course, g: Arrays) -> Arrays:
    hit = g["stem.V"].copy()
    hit.flat[np.abs(hit).argmax()] *= 1.0 + 2.0**-20
    return {**g, "stem.V": hit}


def _other_slots(course: Course, before: State, after: State) -> State:
    names = ("optimizer/momentum/stem.sigma_ann", "optimizer/momentum/stem.sigma_snn")
    return {**after, names[0]: after[names[1]], names[1]: after[names[0]]}


def _initial(course: Course, before: State, after: State) -> State:
    config = course.ready.config
    start = twinspike.initial_state(course.ready.network, config.method, config.optimizer, seed=config.seed)
    return {**after, "head.weight_snn": start["head.weight_snn"]}


def _rounded(course: Course, before: State, after: State) -> State:
    return {k: v if k == STEP else v.astype(np.float32).astype(np.float64) for k, v in after.items()}


def _at_rate(rate_of: Callable[[Course, float], float]) -> Callable[..., Any]:
    def step(course: Course, state: State, images: Any, labels: Any, rate: float) -> Any:
        return course.right.train_step(state, images, labels, rate_of(course, rate))

    return step


def _with_decay(sign: float, wanted: Callable[[str], bool]) -> Callable[..., Any]:
    def step(course: Course, state: State, images: Any, labels: Any, rate: float) -> Any:
        g = course.right.gradients(state, images, labels)[0]
        decay = course.ready.config.optimizer.weight_decay
        g = {k: v + sign * decay * state[k] if wanted(k) else v for k, v in g.items()}
        return course.moved(state, images, labels, rate, g)

    return step


def _ahead(schedule: Any, base: float, epoch: int, step: int, epochs: int, length: int) -> float:
    n = min(epoch * length + step + (epoch * length + step + 1 >= 3), epochs * length - 1)
    return twinspike.learning_rate(schedule, base, *divmod(n, length), epochs, length)


def _of_norm(name: str) -> bool:
    return layer_and_part(name)[1].startswith(("gamma", "beta"))


FAULTS: tuple[Fault, ...] = (
    # gradients
    Fault(
        "accumulates",
        "gradients are added to those of the step before",
        TRAINCHECK + "zero_grad is missing",
        _SLOT,
        step=with_gradients(lambda c, g: {k: v + c.memory["gradients"][k] for k, v in g.items()}),
    ),
    Fault(
        "stale",
        "the gradients are those of the step before",
        TTRACE + "stale gradients under overlap",
        _SLOT,
        step=with_gradients(lambda c, g: c.memory["gradients"]),
    ),
    Fault(
        id="stale-parameters",
        says="gradients are taken at the parameters before the last update",
        after=TRAINCHECK + "a compiled graph without a guard",
        seen=_SLOT,
        step=on_another(_old_parameters),
    ),
    Fault(
        "norms-alone",
        "norms alone learn",
        TRAINCHECK + "only BatchNorm layers were enabled",
        _SLOT,
        step=with_gradients(_only(_of_norm)),
    ),
    Fault(
        "frozen-factor",
        "V gets no gradient",
        TRAINCHECK + "parameters frozen before they are wrapped",
        _SLOT,
        step=with_gradients(_only(lambda k: not k.endswith(".V"))),
    ),
    Fault(
        "scaled",
        "the loss scale is not taken out of the gradients",
        HERE + "a float16 scaler",
        _SLOT,
        step=with_gradients(lambda c, g: {k: 1024 * v for k, v in g.items()}),
    ),
    Fault(
        "overflow",
        "an infinite gradient is applied as the largest number",
        HERE + "an overflow that no scaler skips",
        _SLOT,
        step=with_gradients(lambda c, g: {**g, "stem.U": np.full_like(g["stem.U"], np.finfo(np.float32).max)}),
    ),
    Fault(
        "doubled",
        "gradients of two parts are summed and not averaged",
        TTRACE + "loss scaled wrongly in data parallel",
        _SLOT,
        step=with_gradients(lambda c, g: {k: 2 * v for k, v in g.items()}),
    ),
    Fault(
        "thousandth",
        "gradients are too large by a thousandth",
        TTRACE + "loss scaled wrongly in context parallel",
        _SLOT,
        step=with_gradients(lambda c, g: {k: 1.001 * v for k, v in g.items()}),
    ),
    Fault(
        "clipped",
        "the gradient is clipped, which nobody asked for",
        TRAINCHECK + "clipping in a sharded optimizer",
        _SLOT,
        step=with_gradients(_clipped),
    ),
    Fault(
        "clipped-layer",
        "one tensor alone is clipped",
        TRAINCHECK + "weights of BLOOM-176B drifted by clipping",
        _SLOT,
        step=with_gradients(lambda c, g: {**g, "head.weight_ann": np.clip(g["head.weight_ann"], -1e-3, 1e-3)}),
    ),
    Fault("last-part", "of an accumulated batch one half counts", TTRACE + "micro-batches", _SLOT, step=on_another(_half)),
    Fault(
        "seen-twice",
        "every rank gets the first rank's samples",
        TRAINCHECK + "loaders with the same seed",
        _SLOT,
        step=on_another(_twice_the_first_half),
    ),
    Fault(
        "unsynchronized",
        "one branch's gradients are not averaged over the ranks",
        TTRACE + "layer norm without all-reduce",
        _SLOT,
        step=on_another(_one_layer_of_half),
    ),
    Fault(
        "twin-left-out",
        "the shared bias feels the artificial twin alone",
        HERE + "what is shared",
        _SLOT,
        step=on_another(_ann_alone),
    ),
    Fault(
        "corrupted",
        "one element of a gradient is off by 2^-20",
        TRAINCHECK + "faulty hardware and drivers",
        _SLOT,
        step=with_gradients(_bit),
    ),
    # update
    Fault(
        "never-moves",
        "the optimizer holds other tensors than the network",
        TRAINCHECK + "optimizer made before wrapping",
        _MOVED,
        step=afterwards(lambda c, b, a: {k: b[k] if k in _trained(c) else a[k] for k in a}),
    ),
    Fault(
        "one-never-moves",
        "one head is not among the optimizer's tensors",
        TRAINCHECK + "incomplete parameter groups",
        _MOVED,
        step=afterwards(lambda c, b, a: {**a, "head.weight_snn": b["head.weight_snn"]}),
    ),
    Fault(
        "lags",
        "a replica's parameters stay a step behind",
        TRAINCHECK + "replicas out of step",
        "",
        step=afterwards(lambda c, b, a: {k: b[k] if k != STEP else a[k] for k in a}),
    ),
    Fault(
        "drawn-again",
        "a head is drawn anew in every step",
        TRAINCHECK + "weights initialized again and again",
        _MOVED,
        step=afterwards(_initial),
    ),
    Fault(
        "untied",
        "the twins' copies of a factor part",
        TTRACE + "tied weights that are tied no longer",
        _MOVED,
        step=afterwards(lambda c, b, a: {**a, "side.U": a["side.U"] + 1e-3 * (a["side.U"] - b["side.U"])}),
    ),
    Fault(
        "short",
        "the state is kept in a shorter format",
        TTRACE + "a wrong cast; TrainCheck: autocast's type ignored",
        "",
        step=afterwards(_rounded),
    ),
    Fault(
        "momentum-forgotten",
        "momentum starts from 0 in every step",
        HERE + "an optimizer made anew",
        _SLOT,
        step=lambda c, s, x, y, r: c.right.train_step({k: 0 * v if "momentum" in k else v for k, v in s.items()}, x, y, r),
    ),
    Fault(
        "slots-exchanged",
        "the twins' sigma have each other's momentum",
        TRAINCHECK + "tensors with overwritten names",
        _SLOT,
        step=afterwards(_other_slots),
    ),
    Fault(
        "decays-all",
        "weight decay takes norms and biases too",
        HERE + "excluded tensors",
        _SLOT,
        changes=_DECAY,
        step=_with_decay(1.0, lambda k: _of_norm(k) or k.endswith("bias")),
    ),
    Fault(
        "decays-none",
        "weight decay is left out",
        HERE + "parameter groups",
        _SLOT,
        changes=_DECAY,
        step=_with_decay(-1.0, lambda k: not (_of_norm(k) or k.endswith("bias"))),
    ),
    Fault(
        "rate-captured",
        "a compiled step keeps the first learning rate",
        TRAINCHECK + "a compiled graph without a guard",
        _MOVED,
        step=_at_rate(lambda c, rate: c.memory["rate"]),
    ),
    Fault(
        "rate-late",
        "the schedule is a step ahead",
        HERE + "scheduler before optimizer",
        "learning rate",
        changes=("training.epochs=2",),
        rate=_ahead,
    ),
    Fault(
        "counter-stays",
        "the counter of steps stays",
        HERE + "bias correction",
        "counter of steps",
        step=afterwards(lambda c, b, a: {**a, STEP: b[STEP]}),
    ),
)
