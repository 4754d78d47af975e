"""The kill matrix: which tests of the suite find each fault, and after how many examples.

Two different tests must find every fault that is not proved equivalent; one that finds an equivalent
fault gives a false alarm. Only tests of what the fault touches are run, each on a few examples that
cover its space and then on random ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from twinspike.backend import Backend
from twinspike.precision import PRECISIONS
from twinspike_conformance.checks import CHECKS, Bench, Check
from twinspike_conformance.faults.backend import fits, mutant
from twinspike_conformance.faults.base import Fault
from twinspike_conformance.faults.options import OVERLOOKED, touched
from twinspike_conformance.faults.protocol_sessions import MISUSED
from twinspike_conformance.faults.protocol_sessions import touched as misused
from twinspike_conformance.faults.reach import reach
from twinspike_conformance.report.record import WANTED, KillRow
from twinspike_conformance.run.profiles import PROFILES, Profile
from twinspike_conformance.run.runner import covering, examples, try_example

QUICK = "network[step]"
"""The check that sees most faults of networks, tried first of theirs to save time."""

_OF_USE = ("protocol[", "network[metrics]", "network[refusals]", "network[state]")
"""What the ids of checks begin with that are about how programs are used, tried first of faults that are about that."""

CI = PROFILES["ci"]
"""The profile within which every fault must be found."""


def relevant(fault: Fault, base: Backend, checks: Mapping[str, Check] = CHECKS) -> tuple[Check, ...]:
    """Checks of what a fault touches, of those that the base's claims let run."""
    claims = base.capabilities()
    claimed = claims.operations | ({"networks"} if claims.networks else set())
    possible = [check for check in checks.values() if check.needs <= claimed]
    if fault.id in OVERLOOKED:
        parts = touched(fault.id)
    elif fault.id in MISUSED:
        found = (check for check in possible if check.needs & misused(fault.id))
        return tuple(sorted(found, key=_use))
    elif not fault.edits:
        return tuple(possible)
    else:
        reached = reach(fault.edits)
        parts = reached.operations | ({"networks"} if reached.program else set())
    touching = (check for check in possible if check.needs & parts)
    return tuple(sorted(touching, key=lambda check: ("networks" in check.needs) * (1 + (check.id != QUICK))))


def _use(check: Check) -> int:
    """Place of a check among those of faults of use."""
    return next((place for place, start in enumerate(_OF_USE) if check.id.startswith(start)), len(_OF_USE))


def first_kill(
    faulty: Backend, check: Check, precision: str, profile: Profile, seed: int, wider: float = 1.0
) -> tuple[int, str] | None:
    """Number of the first example on which a check fails, and the rung that failed; None if none does.

    The session is opened for this check, so that a fault that remembers something starts without memory.
    With `wider` every bound is taken that many times as wide: what then lives, its bound alone had killed.
    """
    session = faulty.session(faulty.capabilities().devices[0], precision, False)
    bench = Bench(faulty, session)
    count = len(covering(check, profile.cover)) + round(profile.draws * check.weight)
    for number, example in enumerate(examples(check, seed, count), start=1):
        wrong = [finding for finding in try_example(check, bench, example) if not finding.within(wider)]
        if wrong:
            return number, wrong[0].rung
    return None


def kill(
    fault: Fault,
    base: Backend,
    *,
    precision: str | None = None,
    profile: Profile = CI,
    wanted: int = WANTED,
    seed: int = 0,
    checks: Mapping[str, Check] = CHECKS,
    wider: float = 1.0,
) -> KillRow:
    """What becomes of one fault.

    Args:
        fault: of the corpus.
        base: backend that it is put into.
        precision: of the session; the base's finest if not given.
        profile: says how many examples each check is given.
        wanted: killers after which no more checks are run.
        seed: of the examples beyond the covering ones.
        checks: of the suite.
        wider: factor on every bound.

    Raises:
        SpecError: the fault can't be put into the base.
    """
    faulty = mutant(fault, base)
    precision = finest(base) if precision is None else precision
    killers: list[tuple[int, str, str]] = []
    for check in relevant(fault, base, checks):
        killed = first_kill(faulty, check, precision, profile, seed, wider)
        if killed is not None:
            killers.append((killed[0], check.id, killed[1]))
            if len(killers) == wanted:
                break
    killers.sort(key=lambda killer: killer[0])
    return KillRow(
        fault=fault.id,
        description=fault.description,
        origin=fault.origin,
        clause=fault.clause,
        base=base.name,
        killers=tuple(killer[1] for killer in killers),
        rungs=tuple(killer[2] for killer in killers),
        examples=tuple(killer[0] for killer in killers),
        equivalent=fault.equivalent,
    )


def matrix(faults: Iterable[Fault], base: Backend, *, precision: str | None = None, profile: Profile = CI) -> tuple[KillRow, ...]:
    """The row of every fault that can be put into the base."""
    precision = finest(base) if precision is None else precision
    return tuple(kill(fault, base, precision=precision, profile=profile) for fault in faults if fits(fault, base))


def finest(base: Backend) -> str:
    """The base's precision of smallest roundoff."""
    return min(base.capabilities().precisions, key=lambda name: (PRECISIONS[name].product_roundoff, PRECISIONS[name].roundoff))


def survivors(rows: Iterable[KillRow]) -> tuple[KillRow, ...]:
    """Rows that break the gate: killed by too few tests, or equivalent and killed."""
    return tuple(row for row in rows if row.breaks_gate)
