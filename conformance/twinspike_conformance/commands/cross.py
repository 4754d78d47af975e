"""Two backends against one another: every comparison that the suite makes of one, made between two.

Both answer the same examples of the same table. What the judge expects of each, with its bound, is what
allows the two to differ: the deviation of one from what its own inputs demand may not differ from that of
the other by more than both bounds. Where both start from the same numbers this is |a - b| <= bound_a + bound_b,
and equality on the exact lane; where each goes on from values of its own, it is followed there, so no
difference is excused by an earlier one. No tolerance is added here. Two that are wrong alike agree: that is
found by holding each against the specification, which this is no substitute for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.backend import Capabilities, Session
from twinspike.errors import refuse, require
from twinspike.parameters import STEP, State
from twinspike.precision import PRECISIONS
from twinspike.setting import Setting
from twinspike_conformance.bounds.finding import Compared, Finding, Rung, compare, holds
from twinspike_conformance.cases import CASES, Example, materialize
from twinspike_conformance.cases.networks import setting
from twinspike_conformance.checks import CHECKS, Bench, Check
from twinspike_conformance.checks.replicas import RATE as EXACT_RATE
from twinspike_conformance.checks.replicas import exact_setting, exact_step, over
from twinspike_conformance.judges import certificates
from twinspike_conformance.judges.operations import roundoff_of
from twinspike_conformance.report.record import Record
from twinspike_conformance.run.diagnosis import suspects
from twinspike_conformance.run.profiles import Profile
from twinspike_conformance.run.runner import Trail, findings_of, run_check

Values = NDArray[Any]

STEPS = 3
"""Training steps of an example of networks."""

RATE = 2.0**-6
"""Learning rate between them, small enough to leave every state one that training might come to."""

OPEN = 1e-3
"""Share of a sequence's decisions at which the two may part by rounding before a check is inconclusive."""

INDEPENDENCE = "cross[independence]"
"""The check of the pair itself, after all others."""

_KEPT = ("OPT-2", "OPT-3", "PRE-4")
"""Clauses of what a state keeps."""

_RANKS = ("DEV-1", "DEV-2", "DEV-5")
"""Clauses of a step over many devices."""

FLOW = ("layers", "loss", "gradients", "statistics", "update", "step", "evaluation")
"""Checks of networks in the order in which the data flow through a training step; `step` compares whole steps, in
float64 and where rounding decides no spike, with the bound of the reference from the images to the last parameter."""


@final
class Pair:
    """Two backends; to the runner it is one backend that claims what both do."""

    def __init__(self, a: Bench, b: Bench) -> None:
        same = a.session.precision == b.session.precision
        require(same, "precision", expected="the same of both", got=f"{a.session.precision} and {b.session.precision}")
        modes = [(bench.session.device, bench.session.compiled, bench.replicas) for bench in (a, b)]
        if a.backend is b.backend and modes[0] == modes[1]:
            do = "name another backend, device or mode"
            raise refuse("cross", expected="two backends", got=f"{a.backend.name} twice, which agrees with itself", do=do)
        self.a, self.b = a, b
        self.names = (a.backend.name, b.backend.name)
        if self.names[0] == self.names[1]:
            words = [f"{name} on {device}{', compiled' * c}" for name, (device, c, _) in zip(self.names, modes, strict=True)]
            self.names = (words[0], words[1]) if words[0] != words[1] else (f"{words[0]} (first)", f"{words[0]} (second)")
        self.name = " and ".join(self.names)
        self.arrays = self.unequal = 0
        self.decisions = self.parted = 0

    @property
    def sides(self) -> tuple[tuple[str, Bench], tuple[str, Bench]]:
        """Each backend with its name in what is told."""
        return (self.names[0], self.a), (self.names[1], self.b)

    def capabilities(self) -> Capabilities:
        """What both claim."""
        a, b = (bench.backend.capabilities() for bench in (self.a, self.b))
        return msgspec.structs.replace(a, operations=a.operations & b.operations, networks=a.networks and b.networks)

    def session(self, device: str = "cpu", precision: str = "f32-ieee", compiled: bool = False) -> Session:
        """SpecError: both sides' sessions are open."""
        raise refuse("pair", expected="the sessions that it was made of", got=f"{device}, {precision}")


# --- comparing ---------------------------------------------------------------------------------------


def apart(pair: Pair, one: Finding, other: Finding) -> Finding:
    """Two backends' findings about one quantity as one: whether they agree, and if not, which is to blame."""
    a, b = one.compared, other.compared
    if a is None or b is None or a.got.shape != b.got.shape:
        told = "; ".join(f"{name}: {f.sentence()}" for name, f in zip(pair.names, (one, other), strict=True))
        ok = one.ok and other.ok and (a is None) == (b is None)
        return msgspec.structs.replace(one, ok=ok, told=f"{told}; {_blame(pair, one.ok, other.ok)}", compared=None)
    bound = a.bound + b.bound
    with np.errstate(over="ignore"):
        together = np.array_equal(a.want, b.want)
        left, right = (a.got, b.got) if together else (_deviation(a), _deviation(b))
        found = compare(one.quantity, left, right, bound, rung=one.rung, clauses=one.clauses)
    if found.rung in ("bound", "certificate") and bound.any():
        pair.arrays += 1
        pair.unequal += not np.array_equal(a.got, b.got)
    if one.quantity == "s" or one.quantity.endswith(": s"):
        pair.decisions += a.got.size
        pair.parted += int((a.got != b.got).sum())
    found = msgspec.structs.replace(found, compared=Compared(a.got, a.want, bound))  # no deviation is what zeros are held against
    return found if found.ok else msgspec.structs.replace(found, told=_told(pair, found, a, b))


def _deviation(side: Compared) -> Values:
    """Of what came from what its own inputs demand."""
    with np.errstate(invalid="ignore"):
        return np.where(side.got == side.want, 0.0, side.got - side.want)


def _told(pair: Pair, found: Finding, a: Compared, b: Compared) -> str:
    """Both results, the reference's, and who breaks their own bound, at the first element that is wrong."""
    at = found.index
    place = f"[{', '.join(map(str, at))}]" if at else ""
    results = ", ".join(f"{name} {_number(side.got[at])}" for name, side in zip(pair.names, (a, b), strict=True))
    wanted = f"reference {_number(a.want[at])}"
    if a.want[at] != b.want[at]:
        wanted += f" from {pair.names[0]}'s own values, {_number(b.want[at])} from {pair.names[1]}'s"
    allowed = f"within {found.bound:.3g}" if found.bound else "exactly"
    kept = [abs(_deviation(side)[at]) <= side.bound[at] for side in (a, b)]
    return f"{found.quantity}{place}: expected to agree {allowed}, got {results}; {wanted}; {_blame(pair, kept[0], kept[1])}"


def _number(value: Any) -> str:
    return f"{float(value).hex()} ({value:.9g})"


def _blame(pair: Pair, *kept: bool) -> str:
    guilty = [name for name, good in zip(pair.names, kept, strict=True) if not good]
    if not guilty:
        return "each keeps its own bound"
    return f"{' and '.join(guilty)} break{'s its' if len(guilty) == 1 else ' their'} own bound"


Found = dict[tuple[str, int], Finding]
"""A backend's findings by quantity, and by number where a quantity occurs again."""


def _asked(pair: Pair, check: Check, numbers: Any) -> tuple[Found, Found]:
    """The findings of one check on each."""
    return _by_quantity(findings_of(check, pair.a, numbers)), _by_quantity(findings_of(check, pair.b, numbers))


def _paired(pair: Pair, ones: Found, others: Found) -> Iterator[Finding]:
    """Findings quantity by quantity; one that a side alone has counts where it is wrong."""
    for key, one in ones.items():
        if key in others:
            yield apart(pair, one, others[key])
        elif not one.ok:
            yield msgspec.structs.replace(one, told=f"{pair.names[0]} alone: {one.sentence()}", compared=None)
    for key, other in others.items():
        if key not in ones and not other.ok:
            yield msgspec.structs.replace(other, told=f"{pair.names[1]} alone: {other.sentence()}", compared=None)


def _by_quantity(findings: list[Finding]) -> Found:
    found: Found = {}
    for finding in findings:
        number = 0
        while (finding.quantity, number) in found:
            number += 1
        found[finding.quantity, number] = finding
    return found


# --- what is compared --------------------------------------------------------------------------------


def _operation(pair: Pair, check: Check, bench: Bench, example: Example) -> list[Finding]:
    ones, others = _asked(pair, check, example)
    found = list(_paired(pair, ones, others))
    s = ones.get(("s", 0))
    if example.operation == "lif" and s is not None and s.rung == "certificate" and all(finding.ok for finding in found):
        found += _sequences(pair, example, ones, others)
    return found


def _sequences(pair: Pair, example: Example, ones: Found, others: Found) -> Iterator[Finding]:
    """Spikes are equal, and potentials near, until a margin is within the running bound; where they part, each goes its way."""
    precision = PRECISIONS[pair.a.session.precision]
    material, unit = materialize(CASES["lif"], example, precision.activations), roundoff_of(precision)
    arrays = [{quantity: found[quantity, 0].compared for quantity in ("s", "u")} for found in (ones, others)]
    mine, theirs = ({quantity: c.got for quantity, c in side.items() if c is not None} for side in arrays)
    running = certificates.followed(material.config, material.inputs, mine["s"], unit)
    theta = certificates.quantities_of(material.config, material.inputs, unit)[1]
    sure = np.abs(running.value - theta.value) > running.error + theta.error
    parted = np.cumsum(mine["s"] != theirs["s"], axis=0) > 0
    together = ~np.concatenate([np.zeros_like(parted[:1]), parted[:-1]])
    want = (running.value >= theta.value) * 1.0
    for quantity, right, seen, bound in (("s", want, sure & together, 0.0), ("u", running.value, together, running.error)):
        kept = (np.where(seen, values, 0.0) for values in (mine[quantity], theirs[quantity]))
        one, other = (
            compare(
                f"{quantity} of equal sequences",
                got,
                np.where(seen, right, 0.0),
                bound,
                rung="certificate",
                clauses=("LIF-1", "LIF-2"),
            )
            for got in kept
        )
        yield apart(pair, one, other)


def _steps(pair: Pair, bench: Bench, example: Example) -> list[Finding]:
    """Steps of training, each from a common state, agree layer by layer, in loss, gradients, statistics, slots and parameters."""
    return through(pair, setting(example, PRECISIONS[bench.session.precision].storage, STEPS))


def through(pair: Pair, s: Setting) -> list[Finding]:
    """What is found from batch to batch, each time from the state that the first backend came to; it ends where they differ."""
    state = s.state
    found: list[Finding] = []
    for k in range(len(s.images)):
        at = msgspec.structs.replace(s, state=state, images=s.images[k : k + 1], labels=s.labels[k : k + 1])
        for name in FLOW:
            for finding in _paired(pair, *_asked(pair, CHECKS[f"network[{name}]"], at)):
                told = f"step {k + 1}, {name}: {finding.told}" if finding.told else ""
                found.append(msgspec.structs.replace(finding, told=told, compared=None))
            if not all(finding.ok for finding in found):
                return found
        after = _trained(pair.a, at)
        state = {name: value if value.dtype.kind == "i" else value.astype(np.float64) for name, value in after.items()}
    return found


def _trained(bench: Bench, s: Setting) -> State:
    """What the backend dumps after a step on each batch."""
    program = bench.session.program(s.network, s.method, s.optimizer)
    state = program.load(s.state)
    for images, labels in zip(s.images, s.labels, strict=True):
        state, _ = program.train_step(state, images, labels, RATE)
    return program.dump(state)


def _free(pair: Pair, bench: Bench, example: Example) -> list[Finding]:
    """After free steps each backend's state loads into the other and comes back bit for bit, and training goes on from it."""
    s = setting(example, PRECISIONS[bench.session.precision].storage, STEPS)
    dumps = [_trained(side, s) for side in (pair.a, pair.b)]
    forms = [{name: (value.shape, str(value.dtype)) for name, value in dump.items()} for dump in dumps]
    other = sorted(name for name in forms[0] | forms[1] if forms[0].get(name) != forms[1].get(name))
    found = [holds("names, shapes and formats of states", not other, got=str(other), want="none that differ", clauses=_KEPT)]
    if other:
        return found
    programs = [side.session.program(s.network, s.method, s.optimizer) for side in (pair.a, pair.b)]
    for k, (name, host) in enumerate((pair.names, pair.names[::-1])):
        try:
            there = programs[1 - k].dump(programs[1 - k].load(dumps[k]))
            back = programs[k].dump(programs[k].load(there))
            on, _ = programs[1 - k].train_step(programs[1 - k].load(dumps[k]), s.images[0], s.labels[0], RATE)
            count = programs[1 - k].dump(on)[STEP]
        except Exception as error:  # whatever an implementation raises is its answer
            text = f"{type(error).__name__}: {error}"
            found.append(holds(f"state of {name} in {host} and back", False, got=text, want="the same bits", clauses=_KEPT))
            continue
        for place, after in ((f"in {host}", there), (f"back from {host}", back)):
            lost = [n for n, value in dumps[k].items() if n not in after or value.tobytes() != after[n].tobytes()]
            text = f"other bits in {', '.join(lost)}"
            found.append(holds(f"state of {name}, {place}", not lost, got=text, want="the same bits", clauses=_KEPT))
        steps = s.state[STEP] + STEPS + 1
        found.append(compare(f"{STEP} of {name}, one step on in {host}", count, steps, 0.0, rung="exact", clauses=_KEPT))
    return found


def _exact(pair: Pair, bench: Bench, example: Example) -> list[Finding]:
    """In float64, a step whose every partial result is one of few bits is the same to the last bit, over however many devices."""
    if PRECISIONS[bench.session.precision].storage != "float64":
        return []  # shorter formats don't hold these results
    s = exact_setting(math.lcm(pair.a.replicas, pair.b.replicas), example.seed)
    want = exact_step(s)
    if want is None:
        return []
    found = []
    for name, side in pair.sides:
        program = side.session.program(s.network, s.method, s.optimizer)
        after, _ = program.train_step(program.load(s.state), s.images[0], s.labels[0], EXACT_RATE)
        got = program.dump(after)
        found += [compare(f"{key} of {name}", got[key], want[key], 0.0, rung="exact", clauses=_RANKS) for key in want]
    return found


# --- the checks --------------------------------------------------------------------------------------

_Run = Callable[[Pair, Bench, Example], list[Finding]]
_NETWORKS: tuple[tuple[str, _Run, float, Rung, tuple[str, ...]], ...] = (
    ("steps", _steps, 0.15, "bound", tuple(dict.fromkeys(c for name in FLOW for c in CHECKS[f"network[{name}]"].clauses))),
    ("free", _free, 0.1, "property", _KEPT),
    ("exact", _exact, 0.1, "exact", _RANKS),
)


def checks(pair: Pair) -> tuple[Check, ...]:
    """The checks of a pair: one per operation and lane, steps of networks from common states, and a free run."""
    found = []
    many = math.lcm(pair.a.replicas, pair.b.replicas)
    for name, check in CHECKS.items():
        if name.startswith("operation[") and many == 1:
            sentence = f"{name[10:-1]}: both backends agree, in outputs and gradients."
            run = partial(_operation, pair, check)
            found.append(msgspec.structs.replace(check, id=f"cross[{name[10:-1]}]", sentence=sentence, run=run))
    network = CHECKS["network[step]"]
    for name, judge, weight, rung, clauses in _NETWORKS:
        found.append(
            msgspec.structs.replace(
                network,
                id=f"cross[network-{name}]",
                sentence=str(judge.__doc__),
                clauses=clauses,
                rung=rung,
                run=partial(judge, pair),
                weight=weight,
                space=over(network.space, many),
            )
        )
    return tuple(found)


def run(pair: Pair, check: Check, profile: Profile, seed: int, trail: Trail | None = None) -> Record:
    """Run one check of a pair and record what became of it; `trail` is told each example before it is run."""
    pair.decisions = pair.parted = 0
    explain = partial(suspects_of, pair)
    record = run_check(check, Bench(pair, pair.a.session), profile, seed, explain, trail, sides=(pair.a, pair.b))
    return _weighed(record, pair.parted / max(1, pair.decisions), of_sequences="lif" in check.needs)


def _weighed(record: Record, share: float, of_sequences: bool) -> Record:
    """A record with the share of decisions at which the two parted: of single sequences too many leave nothing compared."""
    record = msgspec.structs.replace(record, ambiguous=share)
    if record.status != "pass" or not of_sequences or share <= OPEN:
        return record
    reason = f"the two parted by rounding at {share:.2%} of the decisions, above {OPEN:.2%}"
    return msgspec.structs.replace(record, status="inconclusive", reason=reason)


def suspects_of(pair: Pair, bench: Bench, check: Check, example: Example) -> tuple[str, ...]:
    """Faults that reproduce the answer of a side that is wrong by itself."""
    base = CHECKS.get(check.id.replace("cross[", "operation["))
    if base is None:
        return ()
    found = []
    for name, side in pair.sides:
        if not all(finding.ok for finding in findings_of(base, side, example)):
            found += [f"{line} (in {name})" for line in suspects(side, base, example)]
    return tuple(found)


def independence(pair: Pair, only: str = "") -> Record:
    """Whether the two are two: right implementations of their own round differently somewhere; `only` as on the command line."""
    base = Record(
        id=INDEPENDENCE,
        sentence="The two backends round differently somewhere, so neither is the other under another name.",
        clauses=(),
        rung="property",
        status="pass",
        comparisons=pair.arrays,
    )
    if only not in INDEPENDENCE:
        return msgspec.structs.replace(base, status="not run", reason="left out by --only", comparisons=0)
    if pair.a.backend is pair.b.backend or (pair.a.given and pair.a.given == pair.b.given):
        return msgspec.structs.replace(base, status="not run", reason="one backend in two sessions, as was asked for")
    if pair.unequal:
        return base
    if not pair.arrays:
        return msgspec.structs.replace(base, status="not run", reason="nothing was compared where rounding has room")
    reason = (
        f"all {pair.arrays} arrays with room for rounding are equal to the bit: nothing shows that these are two implementations"
    )
    return msgspec.structs.replace(base, status="inconclusive", reason=reason)
