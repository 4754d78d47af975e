"""How programs may be used: any call after any other, on any state and batch; what was answered stays as long as one likes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Program
from twinspike.config import SGD
from twinspike.parameters import layout
from twinspike.precision import PRECISIONS
from twinspike.setting import Setting
from twinspike_conformance.bounds.finding import Finding, compare, holds
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.networks import setting
from twinspike_conformance.cases.options import config
from twinspike_conformance.checks.base import Bench, Check, Space, refusal
from twinspike_conformance.checks.cells import decided, judged, metrics_found, settled
from twinspike_conformance.checks.programs import dumped_formats
from twinspike_conformance.judges.ends import depths, path

Values = NDArray[Any]
Named = dict[str, Any]

CLAUSES = ("PRE-4",)
OTHER = 0.0375
"""Another learning rate than that of steps that are judged."""
RATES = (0.125, OTHER, 0.125)


def _first(bench: Bench, example: Example) -> Setting:
    """The example itself; in f64 and f32-ieee one in which rounding turns no spike."""
    precision = PRECISIONS[bench.session.precision]
    whole = precision.product_roundoff == precision.roundoff
    return decided(example, precision) if whole else setting(example, precision.storage)


def _second(bench: Bench, example: Example, size: int) -> Setting:
    """Other numbers of the same config, with so many samples."""
    other = msgspec.structs.replace(example, seed=example.seed + 1000, sizes={"B": size})
    return setting(other, PRECISIONS[bench.session.precision].storage)


def _program(bench: Bench, s: Setting, **form: bool) -> Program:
    return bench.session.program(s.network, s.method, s.optimizer, **form)


def _fields(found: Any) -> Named:
    """Metrics or an evaluation by name."""
    return {name: getattr(found, name) for name in found.__struct_fields__}


def _answers(program: Program, s: Setting, state: Any, rate: float) -> dict[str, Callable[[], Named]]:
    """Calls that leave the state as it was, by name, and a step as the last, each with all that it answers."""
    x, y = s.images[0], s.labels[0]

    def gradients() -> Named:
        found, metrics = program.gradients(state, x, y)
        return {f"gradient of {k}": v for k, v in found.items()} | _fields(metrics)

    def trace(training: bool) -> Named:
        taps = program.trace(state, x, training=training, labels=y if training else None)
        return {f"{layer}: {k}": v for layer, tap in taps.items() for k, v in tap.items()}

    def step() -> Named:
        after, metrics = program.train_step(state, x, y, rate)
        found = {f"{k} after a step": v for k, v in program.dump(after).items()} | _fields(metrics)
        return found | {f"{k} after a step": v for k, v in _fields(program.evaluate(after, x)).items()}

    return {
        "evaluate": lambda: _fields(program.evaluate(state, x)),
        "gradients": gradients,
        "trace in training": lambda: trace(True),
        "trace": lambda: trace(False),
        "dump": lambda: dict(program.dump(state)),
        "step": step,
    }


def _copied(bench: Bench, found: Named) -> dict[str, Values]:
    """Answers as NumPy arrays of their own."""
    return {k: np.array(v if isinstance(v, np.ndarray) else bench.session.to_numpy(v)) for k, v in found.items()}


def _lent(s: Setting) -> Setting:
    """The same numbers in memory of a caller who will write into it; the state in column order, labels with gaps."""
    state = {k: np.array(v, order="F") for k, v in s.state.items()}
    labels = tuple(np.repeat(y, 2)[::2] for y in s.labels)
    return msgspec.structs.replace(s, state=state, images=tuple(x.copy() for x in s.images), labels=labels)


def _unchanged(given: Setting, s: Setting) -> Iterator[Finding]:
    pairs = [("images", given.images[0], s.images[0]), ("labels", given.labels[0], s.labels[0])]
    for name, now, before in (*pairs, *((k, given.state[k], s.state[k]) for k in s.state)):
        yield compare(f"{name}, given", now, before, 0.0, rung="exact", clauses=CLAUSES)


def _scribble(*arrays: Values) -> None:
    for array in arrays:
        array[...] = 1


def _order(bench: Bench, example: Example) -> list[Finding]:
    """Calls on two states and batches in turn give what each gives alone, on arrays that the caller writes into afterwards."""
    others = (msgspec.structs.replace(example, seed=example.seed + k) for k in range(3))
    settings = [_second(bench, other, size) for other, size in zip(others, (3, 5, 3), strict=True)]
    alone: list[dict[str, dict[str, Values]]] = []
    for s, rate in zip(settings, RATES, strict=True):
        names = tuple(_answers(_program(bench, s), s, None, rate))
        calls = {}
        for name in names:
            program = _program(bench, s)
            calls[name] = _copied(bench, _answers(program, s, program.load(s.state), rate)[name]())
        fresh, after = _program(bench, s), {k: calls["step"][f"{k} after a step"] for k in s.state}
        evaluation = _copied(bench, _fields(fresh.evaluate(fresh.load(after), s.images[0])))
        calls["step"] |= {f"{k} after a step": v for k, v in evaluation.items()}
        alone.append(calls)
    program = _program(bench, settings[0])
    given = [_lent(s) for s in settings]
    states = [program.load(s.state) for s in given]
    found = [finding for now, s in zip(given, settings, strict=True) for finding in _unchanged(now, s)]
    for now in given:
        _scribble(*now.state.values())
    asked = [_answers(program, s, state, rate) for s, state, rate in zip(given, states, RATES, strict=True)]
    held = []
    for name in alone[0]:
        for which in range(len(given)):
            held.append((which, name, asked[which][name]()))
            if name == "dump":
                _scribble(*(v for v in program.dump(states[which]).values() if v.flags.writeable))
    for now, s in zip(given, settings, strict=True):
        found += _unchanged(msgspec.structs.replace(now, state=s.state), s)
        _scribble(*now.images, *now.labels)
    for which, name, answer in held:
        got, want = _copied(bench, answer), alone[which][name]
        found += [compare(f"{name}: {k}", got[k], want[k], 0.0, rung="property", clauses=CLAUSES) for k in want]
    return found


def _again(bench: Bench, example: Example) -> list[Finding]:
    """A program that has answered for other states, batches, sizes and rates answers rightly, and what it said before stays."""
    s = _first(bench, example)
    other = msgspec.structs.replace(s.method, loss=msgspec.structs.replace(s.method.loss, alpha=0.9))
    bench.session.program(s.network, other, s.optimizer)
    program, early = _program(bench, s), []
    for size in (5, 3):
        warm = _second(bench, example, size)
        state = program.load(warm.state)
        for name, call in _answers(program, warm, state, OTHER).items():
            answer = call()
            early.append((name, answer, _copied(bench, answer)))
    given = _lent(s)
    state = program.load(given.state)
    _scribble(*given.state.values())
    program.load(warm.state)
    plain, batch = _program(bench, s), (s.images[0], s.labels[0])
    want, got = plain.gradients(plain.load(s.state), *batch)[0], program.gradients(state, *batch)[0]
    found = [compare(f"gradient of {k}", got[k], v, 0.0, rung="property", clauses=CLAUSES) for k, v in want.items()]
    for name, call in list(_answers(program, given, state, OTHER).items())[:-1]:
        answer = call()
        early.append((name, answer, _copied(bench, answer)))
    _scribble(*(v for v in program.dump(state).values() if v.flags.writeable))
    found += [*_unchanged(msgspec.structs.replace(given, state=s.state), s), *judged(bench, s, program, state)]
    for name, answer, before in early:
        now = _copied(bench, answer)
        found += [compare(f"{name}: {k}, later", now[k], before[k], 0.0, rung="property", clauses=CLAUSES) for k in before]
    return found


# --- recomputation -----------------------------------------------------------------------------------


def _recompute(bench: Bench, example: Example) -> list[Finding]:
    """A program that recomputes gives what the clauses say."""
    s = _first(bench, example)
    program = _program(bench, s, recompute=True)
    warm = _second(bench, example, 3)
    program.gradients(program.load(warm.state), warm.images[0], warm.labels[0])
    gradients, _ = program.gradients(program.load(s.state), s.images[0], s.labels[0])
    plain = _program(bench, s)
    want, _ = plain.gradients(plain.load(s.state), s.images[0], s.labels[0])
    # here the twins hit different numbers of labels
    other = msgspec.structs.replace(example, seed=example.seed + 8)
    reporting = settled(setting(other, PRECISIONS[bench.session.precision].storage, batches=2))
    return [
        *_near(bench, s, gradients, want),
        *judged(bench, s, program, program.load(s.state)),
        *metrics_found(bench, reporting, program, program.load(reporting.state)),
    ]


def _recomputed(bench: Bench, example: Example) -> list[Finding]:
    """What a program that recomputes makes of gradients and of a step is what it makes of them without."""
    s, warm = _first(bench, example), _second(bench, example, 3)
    both = []
    for form in (False, True):
        program = _program(bench, s, recompute=form)
        program.gradients(program.load(warm.state), warm.images[0], warm.labels[0])
        found, _ = program.gradients(program.load(s.state), s.images[0], s.labels[0])
        after, _ = program.train_step(program.load(s.state), s.images[0], s.labels[0], 0.125)
        dumped = program.dump(after)
        moved = {k: np.subtract(v, s.state[k]) for k, v in dumped.items()}
        both.append(
            {**{f"gradient of {k}": v for k, v in found.items()}, **{f"{k}, moved by a step": v for k, v in moved.items()}}
        )
    return list(_near(bench, s, both[1], both[0], s.state))


def _near(bench: Bench, s: Setting, got: Named, want: Named, start: Named | None = None) -> Iterator[Finding]:
    """What is computed a second time, perhaps in another way: the path is to a loss and back."""
    share = path(2 * (max(depths(s.network).values()) + s.method.time_steps), PRECISIONS[bench.session.precision])
    unit = PRECISIONS[bench.session.precision].roundoff
    for k, v in want.items():
        own = 4 * unit * np.abs(start[k.partition(",")[0]]).max(initial=0.0) if start and k.endswith("step") else 0.0
        bound = share * np.abs(v).max(initial=0.0) + own
        yield compare(f"{k}, recomputed", got[k], v, bound, rung="bound", clauses=CLAUSES)


# --- batches that lie in memory otherwise ------------------------------------------------------------


def _layouts(x: Values) -> dict[str, Values]:
    """The same numbers, lying in memory in other ways."""
    still = x.copy()
    still.flags.writeable = False
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), 7, x.dtype)
    wide[..., ::2] = x
    return {
        "in column order": np.asfortranarray(x),
        "with gaps": wide[..., ::2],
        "reversed in memory": np.ascontiguousarray(x[..., ::-1])[..., ::-1],
        "read-only": still,
    }


def _images(bench: Bench, example: Example) -> list[Finding]:
    """Images mean the same however they lie in memory, as float32 and as float64; bytes are refused."""
    s, program, state = _batched(bench, example)

    def ask(x: Values) -> dict[str, Values]:
        found, _ = program.gradients(state, x, s.labels[0])
        return {f"gradient of {k}": v for k, v in found.items()} | _copied(bench, _fields(program.evaluate(state, x)))

    want, found = ask(s.images[0]), []
    for how, x in _formats(s).items():
        got = ask(x)
        found += [compare(f"{k}, images {how}", got[k], want[k], 0.0, rung="property", clauses=CLAUSES) for k in want]
    return [*found, refusal("images of bytes", lambda: ask(np.abs(s.images[0]).astype(np.uint8)), None)]


def _batches(bench: Bench, example: Example) -> list[Finding]:
    """A training step makes the same of a batch however it lies in memory; labels that are not int64 and bytes are refused."""
    s, program, _ = _batched(bench, example)

    def ask(x: Values, y: Values) -> dict[str, Values]:
        after, metrics = program.train_step(program.load(s.state), x, y, 0.125)
        found, _ = program.gradients(after, x, y)
        return _copied(bench, _fields(metrics)) | program.dump(after) | {f"gradient of {k}": v for k, v in found.items()}

    want, found = ask(s.images[0], s.labels[0]), []
    asked = {f"images {how}": (x, s.labels[0]) for how, x in _formats(s).items()}
    asked |= {f"labels {how}": (s.images[0], y) for how, y in _layouts(s.labels[0]).items()}
    for how, batch in asked.items():
        got = ask(*batch)
        found += [compare(f"{k}, {how}", got[k], want[k], 0.0, rung="property", clauses=CLAUSES) for k in want]
    short = s.labels[0].astype(np.int32)
    return [
        *found,
        refusal("labels of 32 bits", lambda: ask(s.images[0], short), None),
        refusal("a batch of bytes", lambda: ask(np.abs(s.images[0]).astype(np.uint8), s.labels[0]), None),
    ]


def _batched(bench: Bench, example: Example) -> tuple[Setting, Program, Any]:
    """An example whose images any format holds, its program and state."""
    s = _second(bench, example, 3)
    s = msgspec.structs.replace(s, images=tuple(np.round(x.astype(np.float64) * 256) / 256 for x in s.images))
    program = _program(bench, s)
    return s, program, program.load(s.state)


def _formats(s: Setting) -> dict[str, Values]:
    return _layouts(s.images[0]) | {"as float32": s.images[0].astype(np.float32), "as float64": s.images[0].astype(np.float64)}


# --- states ------------------------------------------------------------------------------------------


def _states(bench: Bench, example: Example) -> list[Finding]:
    """States are read by index however they lie in memory, whole or not at all, and dumped in the formats of the session."""
    s = _second(bench, example, 3)
    program = _program(bench, s)
    found = list(dumped_formats(bench, s, program.dump(program.load(s.state))))
    for how in _layouts(np.zeros((2, 2))):
        moved = {k: _layouts(v)[how] if v.ndim else v for k, v in s.state.items()}
        back = program.dump(program.load(moved))
        found += [compare(f"{k}, {how}", back[k], s.state[k], 0.0, rung="exact", clauses=CLAUSES) for k in s.state]
    kinds = {entry.kind: entry.name for entry in layout(s.network, s.method, s.optimizer)}
    for kind, name in kinds.items():
        lacking = {k: v for k, v in s.state.items() if k != name}
        found.append(refusal(f"a state without a {kind}", lambda given=lacking: program.load(given), None))  # type: ignore[misc]  # a default
    more = s.state | {"stem.colour": np.zeros(3)}
    return [*found, refusal("a state with one array more", lambda: program.load(more), None)]


def _sessions(bench: Bench, example: Example) -> list[Finding]:
    """A session answers the same after sessions of its and of every other precision have been opened and asked."""
    s = _second(bench, example, 3)
    program = _program(bench, s)
    batch = program.load(s.state), s.images[0], s.labels[0]
    want = program.gradients(*batch)[0]
    for precision in (*sorted(bench.backend.capabilities().precisions), bench.session.precision):
        try:
            other = bench.backend.session(bench.session.device, precision, False)
        except Exception as error:  # that a claimed precision can't be opened is the finding
            return [holds(f"session in {precision}", False, got=str(error), want="a session", clauses=CLAUSES)]
        other.to_numpy(other.from_numpy(np.ones(3)))
    got = program.gradients(*batch)[0]
    return [
        compare(f"gradient of {k}, other sessions opened", got[k], want[k], 0.0, rung="property", clauses=CLAUSES) for k in want
    ]


_USE = config(
    0, network="cell", time_steps=2, reset="hard", decay_input=False, gamma_init="one", eps=1e-3, scope="no_stem",
    orthogonality="penalty", rank="full", pairs="joint", supervised="all", time="per_step", readout="sum", isolate_ann=False,
    rule=SGD, inertia=0.5, decayed=0.01, excluded="all",
)  # fmt: skip
"""A cell with an own kernel and a factored one, a penalty, both twins' statistics and a slot."""

_SPACE = Space("network", (_USE,), ({"B": 3},), ("normal",), False)
_RUNS = {
    "order": _order,
    "again": _again,
    "recompute": _recompute,
    "recomputed": _recomputed,
    "images": _images,
    "batches": _batches,
    "states": _states,
    "sessions": _sessions,
}

CHECKS: tuple[Check, ...] = tuple(
    Check(
        id=f"protocol[{name}]",
        sentence=str(run.__doc__),
        clauses=("PRE-1", "PRE-4", "OPT-3"),
        rung="property",
        needs=frozenset({"networks"}),
        space=_SPACE,
        run=run,
        weight=0.04,
        eager=True,
    )
    for name, run in _RUNS.items()
)
