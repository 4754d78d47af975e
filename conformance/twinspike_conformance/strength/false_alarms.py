"""False alarms: right implementations, judged by the suite, which must find nothing.

`python -m twinspike_conformance false-alarms --examples N` runs the reference in float32 as it is, with
sums in another order, with fused multiply-adds, with subnormals flushed, and with all of these, on N
examples of the suite's checks. A finding is an alarm: then the suite is wrong, or the emulation is.
Whole networks and modes are left out: their checks are of these operations again, and cost a thousand times as much.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence

import msgspec

from twinspike.errors import require
from twinspike.operations import OPERATIONS
from twinspike_conformance.checks import CHECKS, Bench, Check
from twinspike_conformance.run.runner import Tally, examples, try_example
from twinspike_conformance.strength.innocent import VARIANTS, InnocentBackend


class Alarm(msgspec.Struct, frozen=True):
    """One example on which the suite accuses a right implementation."""

    variant: str
    digest: str
    """CHECK:EXAMPLE, as the suite's reports have it."""
    sentences: tuple[str, ...]
    order: int | None
    """Seed of the sums' order."""


class Study(msgspec.Struct, frozen=True):
    """What came of a study."""

    tallies: dict[str, Tally]
    """Variant -> counts."""
    alarms: tuple[Alarm, ...]
    seconds: float

    @property
    def examples(self) -> int:
        """Examples judged, of all variants."""
        return sum(tally.examples for tally in self.tallies.values())

    def lines(self) -> Iterator[str]:
        """The result in words."""
        for name, tally in self.tallies.items():
            alarms = sum(alarm.variant == name for alarm in self.alarms)
            counts = f"{tally.examples} examples, {tally.comparisons} comparisons, {alarms} alarms"
            yield f"{name}: {counts}, worst error/bound {tally.worst:.3g}"
        n, k = self.examples, len(self.alarms)
        # no alarm in n independent examples has probability (1 - rate)^n, which is 5 % at -log(0.05)/n
        rate = f"{k / n:.2g}" if k else f"below {-math.log(0.05) / n:.2g} with 95 % confidence"
        yield f"{k} false alarms in {n} examples, rate {rate}, {self.seconds:.0f} s of one core"


def checks() -> tuple[Check, ...]:
    """The checks that a backend of operations, eager, is put to with examples."""
    offered = frozenset(OPERATIONS)
    return tuple(check for check in CHECKS.values() if check.needs and check.needs <= offered and check.weight > 0)


def study(count: int, seed: int, names: Sequence[str] = tuple(VARIANTS)) -> Study:
    """Judge the variants in turn on `count` examples in all, shared by the checks in proportion to their weights.

    Args:
        count: at least one example of each check is run, whatever it is.
        seed: of the random examples and of the orders.
        names: of variants.
    """
    started = time.process_time()
    tallies = {name: Tally() for name in names}
    alarms: list[Alarm] = []
    chosen, number = checks(), seed
    total = sum(min(1.0, check.weight) for check in chosen)
    for check in chosen:
        share = math.ceil(count * min(1.0, check.weight) / total)
        for example in examples(check, seed, share):
            name = names[number % len(names)]
            number += 1
            rules = VARIANTS[name]
            if rules is not None and rules.order is not None:
                rules = msgspec.structs.replace(rules, order=number)
            backend = InnocentBackend(name, rules)
            bench = Bench(backend, backend.session())
            wrong = try_example(check, bench, example, tallies[name])
            if wrong:
                sentences = tuple(finding.sentence() for finding in wrong)
                alarms.append(Alarm(name, f"{check.id}:{example.digest()}", sentences, rules.order if rules else None))
    return Study(tallies, tuple(alarms), time.process_time() - started)


def main(words: list[str]) -> int:
    """0 if there was no alarm, 1 if there was one.

    Raises:
        SpecError: a variant or a number of examples that is none.
    """
    parser = argparse.ArgumentParser(prog="twinspike_conformance false-alarms", description=__doc__, allow_abbrev=False)
    parser.add_argument("--examples", type=int, default=2000, help="in all, over checks and variants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", action="append", default=[], help=f"one of {', '.join(VARIANTS)}; repeatable")
    given = parser.parse_args(words)
    unknown = sorted(set(given.variant) - set(VARIANTS))
    require(not unknown, "--variant", expected=f"one of {', '.join(VARIANTS)}", got=unknown)
    require(given.examples >= 1, "--examples", expected="a whole number >= 1", got=given.examples)
    found = study(given.examples, given.seed, tuple(given.variant) or tuple(VARIANTS))
    for alarm in found.alarms:
        print(f"alarm: {alarm.variant}, order {alarm.order}, {alarm.digest}", *alarm.sentences, sep="\n    ")
    print(*found.lines(), sep="\n")
    return 1 if found.alarms else 0
