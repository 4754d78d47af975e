"""Running checks without any test framework: examples in, records out.

The pytest plugin, the command line, the kill matrix and the false-alarm study all run checks through here.
"""

from __future__ import annotations

import math
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice, product
from typing import Any

import hypothesis
import msgspec
import numpy as np
from hypothesis import HealthCheck, Phase

import twinspike
from twinspike_conformance.bounds.finding import Finding
from twinspike_conformance.cases import Example
from twinspike_conformance.checks import Bench, Check
from twinspike_conformance.raised import interrupted, legible, said
from twinspike_conformance.report.record import NO_EXAMPLE, RATIO_BINS, VACUOUS, Failure, Record, Status, says_little
from twinspike_conformance.run.profiles import Profile
from twinspike_conformance.run.reproduction import reproduction

Suspects = Callable[[Bench, Check, Example], tuple[str, ...]]
"""Finds faults of the corpus that reproduce an output; the corpus is not loaded unless a test fails."""

Trail = Callable[[Example, Failure | None], None]
"""Is told each example before it is run, and the failure that is known by then: what is left if the process ends there."""

Ask = Callable[[Example], list[Finding]]
"""Findings that are not ok."""

MOST = 8
"""Sentences of a failure."""

SECOND = 20
"""Seeds that are tried for a second failing example."""


class FailedError(Exception):
    """An example with findings that are not ok."""

    def __init__(self, example: Example, findings: list[Finding]) -> None:
        super().__init__(example.operation)
        self.example = example
        self.findings = findings


class Tally:
    """Counts what the comparisons of one check found."""

    def __init__(self) -> None:
        self.examples = self.comparisons = self.vacuous = 0
        self.worst = 0.0
        self.ratios = [0] * (len(RATIO_BINS) + 1)
        self.first: dict[Hashable, float] = {}
        """Seconds of the first example of each config and shape, where frameworks compile."""
        self.again: dict[Hashable, float] = {}
        """The least seconds of a later one."""
        self.clauses: Counter[str] = Counter()
        self.configs: dict[str, Any] = {}
        """Those of the examples of which something was compared, by what they are in words."""

    def add(self, example: Example, findings: Iterable[Finding], seconds: float) -> None:
        """Count one example's findings, and the seconds that it took."""
        self.examples += 1
        shape = repr((example.config, example.sizes))
        if shape in self.first:
            self.again[shape] = min(seconds, self.again.get(shape, math.inf))
        else:
            self.first[shape] = seconds
        for finding in findings:
            self.configs[repr(example.config)] = example.config
            self.comparisons += 1
            self.clauses.update(finding.clauses)
            vacuous = finding.vacuous
            if finding.rung in ("bound", "certificate") and (finding.bound > 0 or vacuous):
                self.vacuous += vacuous
                self.worst = max(self.worst, finding.ratio)
                self.ratios[int(np.searchsorted(RATIO_BINS, finding.ratio))] += 1

    @property
    def compile_seconds(self) -> float:
        """Estimate of what first examples took beyond running: their share of it is that of those that came again."""
        both = sum(self.first[shape] for shape in self.again)
        share = max(0.0, 1.0 - sum(self.again.values()) / both) if both else 0.0
        return share * sum(self.first.values())


def findings_of(check: Check, bench: Bench, example: Example) -> list[Finding]:
    """What the check finds; whatever is raised is a finding, but an interrupt by the user."""
    try:
        return check.run(bench, example)
    except BaseException as error:  # whatever the implementation raises is its answer
        if interrupted(error):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{said(error)} ({place.name}, line {place.lineno})"
        return [
            Finding(quantity="answer", rung="property", clauses=check.clauses, ok=False, raised=True, got=text, want="a result")
        ]


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
    own = 1.0 if check.whole else min(1.0, check.weight)
    return cover[: max(1, math.ceil(share * own * len(cover)))] if check.weight else cover[:1]


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


def minimize(check: Check, ask: Ask, failed: FailedError) -> FailedError:
    """A failing example with the same config, as small and simple as a short search finds, that fails the same way twice."""
    buckets = sorted(check.space.buckets, key=lambda sizes: math.prod(max(1, n) for n in sizes.values()))
    for sizes, family, seed in product(buckets, check.space.families, range(2)):
        small = Example(failed.example.operation, failed.example.config, sizes, family, failed.example.exact, seed)
        if small == failed.example:
            break
        findings = ask(small)
        if findings and told(ask(small)) == told(findings):
            return FailedError(small, findings)
    return failed


def told(findings: Iterable[Finding]) -> tuple[str, ...]:
    """The sentences of a failure."""
    return tuple(legible(finding.sentence()) for finding in islice(findings, MOST))


def not_twice(first: Sequence[str], second: Sequence[str]) -> str:
    """What an answer is that was wrong and, asked again, right or wrong in another way; nothing if it was the same twice."""
    if tuple(first) == tuple(second):
        return ""
    then = f"was wrong in another way: {second[0]}" if second else "was right"
    return f"the answer is not the same twice, or depends on earlier calls: the same example, asked again, {then}"


class _Asked:
    """One check in progress: what it was asked, and the first failure."""

    def __init__(self, check: Check, bench: Bench, trail: Trail | None) -> None:
        self._check, self._bench, self._trail = check, bench, trail
        self.tally = Tally()
        self.failed: FailedError | None = None

    def ask(self, example: Example, tally: Tally | None = None) -> list[Finding]:
        """Findings that are not ok."""
        if self._trail is not None:
            self._trail(example, _failure(self._check, self.failed) if self.failed else None)
        return try_example(self._check, self._bench, example, tally)

    def judge(self, example: Example) -> None:
        """Count an example, and raise FailedError once one has failed.

        Hypothesis asks a failing example once more. The first answer counts, since the second may be another.
        """
        if self.failed is None:
            findings = self.ask(example, self.tally)
            self.failed = FailedError(example, findings) if findings else None
        if self.failed is not None:
            raise FailedError(self.failed.example, self.failed.findings)


def run_check(
    check: Check,
    bench: Bench,
    profile: Profile,
    seed: int,
    suspects: Suspects | None = None,
    trail: Trail | None = None,
    sides: tuple[Bench, ...] = (),
) -> Record:
    """Run one check and record what became of it; an error of the suite's own is a record too.

    Args:
        check: which.
        bench: on what.
        profile: says how many examples.
        seed: of examples that are not the same in every run.
        suspects: finds faults that give a failing output.
        trail: is told each example before it is run.
        sides: the benches that the check asks, where it is about two.
    """
    started = time.perf_counter()
    try:
        missing = sorted(check.needs - _claimed(bench))
        if missing:
            return _record(check, Tally(), "not supported", 0.0, reason=f"the backend does not claim {', '.join(missing)}")
        if "compiled" in check.needs and not (profile.both_modes or bench.session.compiled):
            return left_out(check, f"profile {profile.name} holds no eager session against a compiled one")
        if check.eager and bench.session.compiled and not profile.both_modes:
            return left_out(check, f"profile {profile.name} compiles nothing for what is no matter of compiling")
        asked = _Asked(check, bench, trail)
        _judge_all(check, profile, seed, asked)
        if asked.failed is not None and not sides and _suite_fails(check, asked.failed):
            text = f"the suite itself failed, on a right backend too: {told(asked.failed.findings)[0]}"
            return broken(check, text, time.perf_counter() - started)
        failure = _explained(check, asked, suspects, *(sides or (bench,))) if asked.failed else None
    except Exception as error:  # of the suite: `findings_of` keeps what a backend raises
        return broken(check, f"the suite itself failed: {said(error)}", time.perf_counter() - started)
    seconds = time.perf_counter() - started
    if failure is not None:
        return _record(check, asked.tally, "fail", seconds, failure=failure)
    if asked.tally.comparisons == 0:
        return _record(check, asked.tally, "not run", seconds, reason=NO_EXAMPLE)
    return _weighed(_record(check, asked.tally, "pass", seconds))


def _weighed(record: Record) -> Record:
    """A record of a check that passed, or that says too little for that."""
    if not says_little(record):
        return record
    compared = sum(record.ratios)
    few = f"more than 1 in {VACUOUS}" if record.vacuous < compared else "all"
    reason = f"an answer of zeros would pass {record.vacuous} of {compared} comparisons with a bound, {few}"
    return msgspec.structs.replace(record, status="inconclusive", reason=reason)


def _judge_all(check: Check, profile: Profile, seed: int, asked: _Asked) -> None:
    """Judge the cover, then what Hypothesis draws, until an example fails."""
    try:
        cover = covering(check, profile.cover)
        for example in cover:
            asked.judge(example)
        _search(check, profile, seed, asked.judge)
        # a second answer must be as right, and its time tells running from compiling
        if not asked.tally.again and check.weight:
            asked.judge(cover[0])
    except Exception:
        if asked.failed is None:
            raise


def _claimed(bench: Bench) -> set[str]:
    """Everything that a check may need."""
    claims = bench.backend.capabilities()
    return set(claims.operations) | ({"networks"} if claims.networks else set()) | ({"compiled"} if claims.compiled else set())


def _suite_fails(check: Check, failed: FailedError) -> bool:
    """Whether what was raised is raised on a right backend too, and so says nothing about the one that is judged."""
    if not any(finding.raised for finding in failed.findings):
        return False
    numpy = twinspike.load("numpy")
    right = Bench(numpy, numpy.session("cpu", "f64", False), numpy.name)
    return check.needs <= _claimed(right) and any(finding.raised for finding in findings_of(check, right, failed.example))


def _failure(check: Check, failed: FailedError) -> Failure:
    """What is known of a failure before anything is asked again."""
    clauses = tuple(dict.fromkeys(clause for finding in failed.findings for clause in finding.clauses))
    digest, words = f"{check.id}:{failed.example.digest()}", failed.example.words()
    return Failure(digest=digest, clauses=clauses, sentences=told(failed.findings), reproduction="", example=words)


def _explained(check: Check, asked: _Asked, suspects: Suspects | None, bench: Bench, *others: Bench) -> Failure:
    """The failure, made small if it is the same twice, with what helps to find its cause as far as that can be had."""
    failed = asked.failed
    assert failed is not None
    note = not_twice(told(failed.findings), told(asked.ask(failed.example)))
    beside: tuple[str, ...] = ()
    if not note:
        try:
            failed = minimize(check, asked.ask, failed)
        except Exception as error:  # what was found stands
            beside = (f"no smaller example: the suite itself failed: {said(error)}",)
    found = _failure(check, failed)
    code, names = "", tuple[str, ...]()
    try:
        code = reproduction(bench, failed.example, *others)
        names = _named(check, asked, suspects, bench, failed.example) if suspects and not note else ()
    except Exception as error:  # likewise
        beside = (*beside, f"nothing more to find its cause by: the suite itself failed: {said(error)}")
    sentences = (*((note,) if note else ()), *found.sentences, *beside)
    return msgspec.structs.replace(found, sentences=sentences, reproduction=code, suspects=names, steady=not note)


def _named(check: Check, asked: _Asked, suspects: Suspects, bench: Bench, example: Example) -> tuple[str, ...]:
    """Faults that give the outputs of two failing examples, since one alone may be alike by chance."""
    names = suspects(bench, check, example)
    assert asked.failed is not None
    seeds = (msgspec.structs.replace(example, seed=seed) for seed in range(SECOND))
    others = (other for other in (asked.failed.example, *seeds) if other != example)
    second = next((other for other in others if asked.ask(other)), None) if names else None
    return () if second is None else tuple(name for name in names if name in suspects(bench, check, second))


def left_out(check: Check, reason: str) -> Record:
    """The record of a check that was not run, so that no report looks whole which is not."""
    return _record(check, Tally(), "not run", 0.0, reason=reason)


def broken(check: Check, reason: str, seconds: float = 0.0, failure: Failure | None = None) -> Record:
    """The record of a check that came to no end: an error, or the failure that was known by then."""
    return _record(check, Tally(), "error", seconds, reason=reason, failure=failure)


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
        vacuous=tally.vacuous,
        configs=(len(tally.configs), len(check.space.configs)),
        pairs=check.counts(tally.configs.values()) if check.counts is not None else (0, 0),
        seconds=seconds,
        compile_seconds=tally.compile_seconds,
        failure=failure,
    )
