"""Running checks without any test framework: examples in, records out.

The pytest plugin, the command line, the kill matrix and the false-alarm study all run checks through here.
"""

from __future__ import annotations

import math
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import product

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase

from twinspike_conformance.cases import Example
from twinspike_conformance.checks import Bench, Check
from twinspike_conformance.finding import Finding
from twinspike_conformance.profiles import Profile
from twinspike_conformance.record import RATIO_BINS, Failure, Record, Status
from twinspike_conformance.reproduction import reproduction

Suspects = Callable[[Bench, Check, Example], tuple[str, ...]]
"""Finds faults of the corpus that reproduce an output; the corpus is not loaded unless a test fails."""


class FailedError(Exception):
    """An example with findings that are not ok."""

    def __init__(self, example: Example, findings: list[Finding]) -> None:
        super().__init__(example.operation)
        self.example = example
        self.findings = findings


class Tally:
    """Counts what the comparisons of one check found."""

    def __init__(self) -> None:
        self.examples = self.comparisons = 0
        self.worst = 0.0
        self.ratios = [0] * (len(RATIO_BINS) + 1)
        self.first: dict[Hashable, float] = {}
        """Seconds of the first example of each config and shape, where frameworks compile."""
        self.again: dict[Hashable, float] = {}
        """The least seconds of a later one."""
        self.clauses: Counter[str] = Counter()

    def add(self, example: Example, findings: Iterable[Finding], seconds: float) -> None:
        """Count one example's findings, and the seconds that it took."""
        self.examples += 1
        shape = repr((example.config, example.sizes))
        if shape in self.first:
            self.again[shape] = min(seconds, self.again.get(shape, math.inf))
        else:
            self.first[shape] = seconds
        for finding in findings:
            self.comparisons += 1
            self.clauses.update(finding.clauses)
            if finding.rung in ("bound", "certificate") and finding.bound > 0:
                self.worst = max(self.worst, finding.ratio)
                self.ratios[int(np.searchsorted(RATIO_BINS, finding.ratio))] += 1

    @property
    def compile_seconds(self) -> float:
        """Estimate of what first examples took beyond running: their share of it is that of those that came again."""
        both = sum(self.first[shape] for shape in self.again)
        share = max(0.0, 1.0 - sum(self.again.values()) / both) if both else 0.0
        return share * sum(self.first.values())


def findings_of(check: Check, bench: Bench, example: Example) -> list[Finding]:
    """What the check finds; an exception of the backend is a finding."""
    try:
        return check.run(bench, example)
    except Exception as error:  # whatever the implementation raises is its answer
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({place.name}, line {place.lineno})"
        return [Finding(quantity="answer", rung="property", clauses=check.clauses, ok=False, got=text, want="a result")]


def try_example(check: Check, bench: Bench, example: Example, tally: Tally | None = None) -> list[Finding]:
    """Findings that are not ok."""
    started = time.perf_counter()
    findings = findings_of(check, bench, example)
    if tally is not None:
        tally.add(example, findings, time.perf_counter() - started)
    return [finding for finding in findings if not finding.ok]


def covering(check: Check, share: float) -> list[Example]:
    """The first examples of the check's cover."""
    cover = list(check.space.cover())
    return cover[: max(1, math.ceil(share * min(1.0, check.weight) * len(cover)))] if check.weight else cover[:1]


def examples(check: Check, seed: int, count: int) -> Iterator[Example]:
    """The cover and then random examples, `count` in all."""
    rng = np.random.Generator(np.random.Philox(seed))
    cover = covering(check, 1.0)
    yield from cover[:count]
    for _ in range(count - len(cover)):
        yield check.space.sample(rng)


def _search(check: Check, profile: Profile, seed: int, judge: Callable[[Example], None]) -> None:
    """Let Hypothesis draw examples until one fails or the profile's number is reached."""
    cover = covering(check, profile.cover)
    draws = round(profile.draws * check.weight)
    if draws == 0:
        return
    known = hypothesis.strategies.builds(
        lambda e, family, s: Example(e.operation, e.config, e.sizes, family, e.exact, s),
        hypothesis.strategies.sampled_from(cover),
        hypothesis.strategies.sampled_from(check.space.families),
        hypothesis.strategies.integers(0, 2**32 - 1),
    )
    settings = hypothesis.settings(
        max_examples=draws,
        deadline=None,
        database=None,
        derandomize=profile.derandomized,
        phases=(Phase.generate, Phase.target),
        suppress_health_check=list(HealthCheck),
    )
    strategy = check.space.strategy() if profile.fresh else known

    def test(example: Example) -> None:
        judge(example)

    test.__name__ = test.__qualname__ = re.sub(r"\W", "_", check.id)  # derandomized examples depend on it
    search = settings(hypothesis.given(strategy)(test))
    if not profile.derandomized:
        search = hypothesis.seed(seed)(search)
    search()


def minimize(check: Check, bench: Bench, failed: FailedError) -> FailedError:
    """A failing example with the same config, as small and simple as a short search finds."""
    buckets = sorted(check.space.buckets, key=lambda sizes: math.prod(max(1, n) for n in sizes.values()))
    for sizes, family, seed in product(buckets, check.space.families, range(2)):
        small = Example(failed.example.operation, failed.example.config, sizes, family, failed.example.exact, seed)
        if small == failed.example:
            break
        findings = try_example(check, bench, small)
        if findings:
            return FailedError(small, findings)
    return failed


def run_check(check: Check, bench: Bench, profile: Profile, seed: int, suspects: Suspects | None = None) -> Record:
    """Run one check and record what became of it."""
    started, tally = time.perf_counter(), Tally()
    claims = bench.backend.capabilities()
    claimed = claims.operations | ({"networks"} if claims.networks else set()) | ({"compiled"} if claims.compiled else set())
    missing = sorted(check.needs - claimed)
    if missing:
        return _record(check, tally, "not supported", 0.0, reason=f"the backend does not claim {', '.join(missing)}")
    if "compiled" in check.needs and not (profile.both_modes or bench.session.compiled):
        return left_out(check, f"profile {profile.name} holds no eager session against a compiled one")

    def judge(example: Example) -> None:
        findings = try_example(check, bench, example, tally)
        if findings:
            raise FailedError(example, findings)

    failure = None
    try:
        cover = covering(check, profile.cover)
        for example in cover:
            judge(example)
        _search(check, profile, seed, judge)
        if not tally.again and check.weight:  # a second answer must be as right, and its time tells running from compiling
            judge(cover[0])
    except FailedError as found:
        small = minimize(check, bench, found)
        failure = Failure(
            digest=f"{check.id}:{small.example.digest()}",
            clauses=tuple(dict.fromkeys(clause for f in small.findings for clause in f.clauses)),
            sentences=tuple(f.sentence() for f in small.findings[:8]),
            reproduction=reproduction(bench, small.example),
            suspects=suspects(bench, check, small.example) if suspects else (),
        )
    seconds = time.perf_counter() - started
    if failure is not None:
        return _record(check, tally, "fail", seconds, failure=failure)
    if tally.comparisons == 0:
        return _record(check, tally, "not run", seconds, reason="no example of this profile came to a comparison")
    return _record(check, tally, "pass", seconds)


def left_out(check: Check, reason: str) -> Record:
    """The record of a check that was not run, so that no report looks whole which is not."""
    return _record(check, Tally(), "not run", 0.0, reason=reason)


def broken(check: Check, reason: str) -> Record:
    """The record of a check that came to no end."""
    return _record(check, Tally(), "error", 0.0, reason=reason)


def _record(
    check: Check, tally: Tally, status: Status, seconds: float, reason: str = "", failure: Failure | None = None
) -> Record:
    return Record(
        id=check.id,
        sentence=" ".join(check.sentence.split()),
        clauses=check.clauses,
        rung=check.rung,
        status=status,
        reason=reason,
        examples=tally.examples,
        comparisons=tally.comparisons,
        worst_ratio=tally.worst,
        ratios=tuple(tally.ratios),
        seconds=seconds,
        compile_seconds=tally.compile_seconds,
        failure=failure,
    )
