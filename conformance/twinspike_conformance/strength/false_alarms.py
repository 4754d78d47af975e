"""False alarms: right implementations, judged by the suite, which must find nothing.

`python -m twinspike_conformance false-alarms --examples N` runs the reference in float32 as it is, with
sums in another order, with fused multiply-adds, with subnormals flushed, and with all of these, on N
examples of the suite's checks. A finding is an alarm: then the suite is wrong, or the emulation is.
With --networks it is whole networks, whose traces, gradients and steps are passes that round each in another way.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence

import msgspec

from twinspike.backend import Backend
from twinspike.errors import require
from twinspike.operations import OPERATIONS
from twinspike_conformance.checks import CHECKS, Bench, Check
from twinspike_conformance.run.runner import Tally, examples, try_example
from twinspike_conformance.strength import innocent_networks
from twinspike_conformance.strength.innocent import VARIANTS, InnocentBackend
from twinspike_conformance.strength.innocent_networks import InnocentNetworks, Mixed
from twinspike_conformance.strength.rounding import Rules

_ALL: dict[str, Rules | Mixed | None] = {**VARIANTS, **innocent_networks.VARIANTS}


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


def checks(networks: bool = False) -> tuple[Check, ...]:
    """The checks that a backend of operations, or of networks, eager, is put to with examples."""
    offered = frozenset({"networks"}) if networks else frozenset(OPERATIONS)
    return tuple(check for check in CHECKS.values() if check.needs and check.needs <= offered and check.weight > 0)


def backend(name: str, order: int) -> tuple[Backend, int | None]:
    """A variant, of operations or of networks, whose sums are in an order of this seed; the seed, if it has orders."""
    variant = _ALL[name]
    rules = variant.rules if isinstance(variant, Mixed) else variant
    if rules is not None and rules.order is not None:
        rules = msgspec.structs.replace(rules, order=order)
    found: Backend
    if isinstance(variant, Mixed):
        assert rules is not None
        found = InnocentNetworks(name, msgspec.structs.replace(variant, rules=rules))
    else:
        found = InnocentBackend(name, rules)
    return found, rules.order if rules else None


def study(count: int, seed: int, names: Sequence[str] = tuple(VARIANTS)) -> Study:
    """Judge the variants in turn on `count` examples in all, shared by the checks in proportion to their weights.

    Args:
        count: at least one example of each check is run, whatever it is.
        seed: of the random examples and of the orders.
        names: of variants, all of operations or all of networks.
    """
    started = time.process_time()
    tallies = {name: Tally() for name in names}
    alarms: list[Alarm] = []
    chosen, number = checks(isinstance(_ALL[names[0]], Mixed)), seed
    total = sum(min(1.0, check.weight) for check in chosen)
    for check in chosen:
        share = math.ceil(count * min(1.0, check.weight) / total)
        for example in examples(check, seed, share):
            name = names[number % len(names)]
            number += 1
            right, order = backend(name, number)
            session = right.session("cpu", min(right.capabilities().precisions), False)
            wrong = try_example(check, Bench(right, session), example, tallies[name])
            if wrong:
                sentences = tuple(finding.sentence() for finding in wrong)
                alarms.append(Alarm(name, f"{check.id}:{example.digest()}", sentences, order))
    return Study(tallies, tuple(alarms), time.process_time() - started)


def main(words: list[str]) -> int:
    """0 if there was no alarm, 1 if there was one.

    Raises:
        SpecError: a variant or a number of examples that is none.
    """
    parser = argparse.ArgumentParser(prog="twinspike_conformance false-alarms", description=__doc__, allow_abbrev=False)
    parser.add_argument("--examples", type=int, default=2000, help="in all, over checks and variants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", action="store_true", help="whole networks in the place of operations")
    each = f"one of {', '.join(VARIANTS)}, with --networks of {', '.join(innocent_networks.VARIANTS)}"
    parser.add_argument("--variant", action="append", default=[], help=f"{each}; repeatable")
    given = parser.parse_args(words)
    variants = tuple(innocent_networks.VARIANTS if given.networks else VARIANTS)
    unknown = sorted(set(given.variant) - set(variants))
    require(not unknown, "--variant", expected=f"one of {', '.join(variants)}", got=unknown)
    require(given.examples >= 1, "--examples", expected="a whole number >= 1", got=given.examples)
    found = study(given.examples, given.seed, tuple(given.variant) or variants)
    for alarm in found.alarms:
        print(f"alarm: {alarm.variant}, order {alarm.order}, {alarm.digest}", *alarm.sentences, sep="\n    ")
    print(*found.lines(), sep="\n")
    return 1 if found.alarms else 0
