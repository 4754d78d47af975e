"""False alarms: right implementations, judged by the suite, which must find nothing.

`python -m twinspike_conformance.strength.false_alarms --examples N` runs the reference in float32 as it is, with
sums in another order, with fused multiply-adds, with subnormals flushed, and with all of these, on N
examples of the suite's checks. A finding is an alarm: then the suite is wrong, or the emulation is.
Whole networks and modes are left out: their checks are of these operations again, and cost a thousand times as much.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any, final

import msgspec
import numpy as np
from numpy.typing import NDArray

import twinspike
from twinspike.backend import Capabilities
from twinspike.checks import check_claim, check_operation
from twinspike.errors import SpecError, refuse, require
from twinspike.operations import OPERATIONS
from twinspike_conformance.checks import CHECKS, Bench, Check
from twinspike_conformance.judges import variant
from twinspike_conformance.run.runner import Tally, examples, try_example
from twinspike_conformance.strength.innocent import InnocentNumpy, Rules, innocent

Values = NDArray[Any]
Tensors = dict[str, Any]

PRECISION = "f32-ieee"

VARIANTS: dict[str, Rules | None] = {
    "plain": None,
    "permuted": Rules(order=0),
    "fused": Rules(fused=True),
    "flushed": Rules(flushed=True),
    "all": Rules(order=0, fused=True, flushed=True),
}
"""Name -> how it rounds; None is NumPy's own float32. Orders are seeds, and every example has another."""

_SCATTER = (
    variant.Edit("layers", "for i in range(windows.shape[4]):", "for i in reversed(range(windows.shape[4])):"),
    variant.Edit("layers", "for j in range(windows.shape[5]):", "for j in reversed(range(windows.shape[5])):"),
)
"""A sum that the reference writes as a loop, in another order."""


@cache
def _modules(ordered: bool, plain: bool) -> dict[str, ModuleType]:
    return variant.load(_SCATTER if ordered else (), np if plain else InnocentNumpy())


@final
class InnocentBackend:
    """The reference in float32, rounding by some rules."""

    def __init__(self, name: str, rules: Rules | None) -> None:
        self.name, self.rules = f"reference in float32, {name}", rules

    def capabilities(self) -> Capabilities:
        """Every operation in float32 on the CPU."""
        return Capabilities(
            operations=frozenset(OPERATIONS),
            networks=False,
            precisions=frozenset({PRECISION}),
            devices=("cpu",),
            compiled=False,
            versions={"numpy": np.__version__, "twinspike": twinspike.__version__},
        )

    def session(self, device: str = "cpu", precision: str = PRECISION, compiled: bool = False) -> InnocentSession:
        """SpecError for what is not claimed."""
        check_claim(self.name, self.capabilities(), device, precision, compiled)
        return InnocentSession(self.rules)


@final
class InnocentSession:
    """Operations of the reference's text on arrays that round by the rules."""

    device, precision, compiled = "cpu", PRECISION, False

    def __init__(self, rules: Rules | None) -> None:
        self.rules = rules
        self._rows = _modules(rules is not None and rules.order is not None, rules is None)["rows"]

    def flags(self) -> dict[str, str]:
        """None."""
        return {}

    def from_numpy(self, values: Values) -> Values:
        """A copy in float32 or int64."""
        return np.array(values, np.float32 if values.dtype.kind == "f" else np.int64)

    def to_numpy(self, tensor: Values) -> Values:
        """A copy."""
        return np.array(tensor)

    def forward(self, operation: str, config: Any, inputs: Mapping[str, Values]) -> Tensors:
        """Outputs by name; SpecError for what does not fit."""
        shapes = {name: value.shape for name, value in inputs.items()}
        check_operation(operation, config, shapes, {name: value.dtype.kind == "f" for name, value in inputs.items()})
        return self._run(operation, config, inputs)

    def vjp(
        self, operation: str, config: Any, inputs: Mapping[str, Values], cotangents: Mapping[str, Values]
    ) -> tuple[Tensors, Tensors]:
        """Outputs and gradients; SpecError for what does not fit."""
        outputs = self.forward(operation, config, inputs)
        require(OPERATIONS[operation].adjoint is not None, operation, expected="one with a gradient", got=operation)
        return outputs, self._run(f"{operation}_adjoint", config, inputs, cotangents)

    def program(self, network: Any, method: Any, optimizer: Any, *, recompute: bool = False) -> Any:
        """SpecError: operations only."""
        raise refuse("program", expected="operations only", got="a network")

    def _run(self, function: str, config: Any, *groups: Mapping[str, Values]) -> Tensors:
        if self.rules is not None:
            groups = tuple({name: innocent(value, self.rules) for name, value in group.items()} for group in groups)
        with np.errstate(all="ignore"):
            found = getattr(self._rows, function)(config, *groups)
        return {name: np.array(value) for name, value in found.items()}


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


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if there was no alarm, 1 if there was one, 2 for what can't be run."""
    parser = argparse.ArgumentParser(prog="twinspike_conformance.strength.false_alarms", description=__doc__, allow_abbrev=False)
    parser.add_argument("--examples", type=int, default=2000, help="in all, over checks and variants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", action="append", default=[], help=f"one of {', '.join(VARIANTS)}; repeatable")
    given = parser.parse_args(arguments)
    try:
        unknown = sorted(set(given.variant) - set(VARIANTS))
        require(not unknown, "--variant", expected=f"one of {', '.join(VARIANTS)}", got=unknown)
        require(given.examples >= 1, "--examples", expected="a whole number >= 1", got=given.examples)
    except SpecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = study(given.examples, given.seed, tuple(given.variant) or tuple(VARIANTS))
    for alarm in found.alarms:
        print(f"alarm: {alarm.variant}, order {alarm.order}, {alarm.digest}", *alarm.sentences, sep="\n    ")
    print(*found.lines(), sep="\n")
    return 1 if found.alarms else 0


if __name__ == "__main__":
    sys.exit(main())
