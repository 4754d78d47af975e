"""What a run of the suite leaves behind: one schema-versioned structure that all reports are made from."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

SCHEMA = 5
"""Version of this structure; a reader refuses others.

5: the header says whether the run was official, and for which version of the specification a backend was written.
4: a record says how many configs its examples had, and how many pairs of option values.
3: the header says what narrowed the run, and the verdict of a part is `incomplete`; a failure says whether it is steady.
2: the header says what was given as backend and, of a cross run, the second backend; a verdict counts faults.
"""

WANTED = 2
"""Different tests that must find a fault."""

VACUOUS = 20
"""Of each so many comparisons with a bound, one may be such that an answer of zeros would pass; of a part of so many too.

Where the right value is itself what rounding leaves of terms that cancel, no bound is below it, so there will be a few. A fault
is to be found by two tests (WANTED): with 1 comparison in 20 blind, both are so by chance in 1 case of 400.
"""

NO_EXAMPLE = "no example of this profile came to a comparison"
"""Why a test is `not run` that was asked: whole steps are compared in float64 alone, say."""

Status = Literal["pass", "fail", "error", "not supported", "waived", "inconclusive", "not run"]

Verdict = Literal["fail", "inconclusive", "incomplete", "pass"]
"""Of a run, the gravest first; `incomplete` where nothing that ran failed and it was a part of the suite."""

RATIO_BINS: tuple[float, ...] = tuple(10.0**e for e in range(-6, 1))
"""Upper edges of the histogram of error/bound: 1e-6 ... 1e-1, 1; the last bin holds what is above 1."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The first failure of a test, made small."""

    digest: str
    """Replays it: `python -m twinspike_conformance repro DIGEST --backend ...`; empty where there is no example."""
    sentences: tuple[str, ...]
    """What was expected and what came, one line per wrong quantity."""
    reproduction: str
    """Python code that shows it with NumPy and the backend alone."""
    suspects: tuple[str, ...] = ()
    """Faults of the corpus that reproduce exactly this output, `ID: description`."""
    clauses: tuple[str, ...] = ()
    """Those of the test's clauses that the wrong quantities fulfil, where that is known."""
    example: str = ""
    """The example in words: operation, config, sizes, family and seed."""
    steady: bool = True
    """Whether the example gave the same answer when it was asked again; if not, the first sentence says what it gave."""


class Waiver(msgspec.Struct, frozen=True, kw_only=True):
    """What an expectation accepted for a while."""

    status: Status
    """What the test's status is without it."""
    url: str
    """Where the deviation is discussed."""
    expires: str
    """ISO date after which it counts no more."""
    was: str = ""
    """The reason that the test itself gave, if any."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One test of the suite on one backend."""

    id: str
    """Such as `operation[lif-exact]`."""
    sentence: str
    """What the test says, from its docstring."""
    clauses: tuple[str, ...]
    rung: str
    status: Status
    reason: str = ""
    """Why it is not supported, waived, inconclusive or an error."""
    examples: int = 0
    comparisons: int = 0
    worst_ratio: float = 0.0
    ratios: tuple[int, ...] = ()
    """Comparisons per bin of RATIO_BINS, of rungs that have a bound."""
    vacuous: int = 0
    """Of these, how many an answer of zeros would pass, though what is wanted is not 0 everywhere."""
    configs: tuple[int, int] = (0, 0)
    """Of the configs of its space, how many its examples had, and how many there are."""
    pairs: tuple[int, int] = (0, 0)
    """Of the pairs of option values, likewise, where the test is there to bring every two together."""
    ambiguous: float = 0.0
    """Share of decisions that rounding left open."""
    seconds: float = 0.0
    compile_seconds: float = 0.0
    """Of these, by estimate, spent compiling: what first calls of a shape and config took longer than later ones."""
    failure: Failure | None = None
    waiver: Waiver | None = None
    """Set where the status is `waived`; the reason is then the waiver's."""


def says_little(record: Record) -> bool:
    """Whether more comparisons than a few are vacuous (VACUOUS), or all of them."""
    bounded = sum(record.ratios)
    return record.vacuous > math.ceil(bounded / VACUOUS) or 0 < bounded == record.vacuous


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """The second backend of a cross run; precision, profile, machine and packages are those of the header."""

    backend: str
    given: str
    versions: dict[str, str]
    device: str
    device_name: str
    compiled: bool
    flags: dict[str, str]
    written_for: str = ""
    """Version of the specification that it says it was written for."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What was run, where and how."""

    suite_version: str
    spec_version: str
    backend: str
    """Its own name."""
    given: str
    """What the user gave for it: a name, `module:object`, `mutant:ID` or a TOML file; replays use this."""
    versions: dict[str, str]
    device: str
    device_name: str
    precision: str
    compiled: bool
    flags: dict[str, str]
    """Flags read back from the framework after they were set."""
    profile: str
    seed: int
    python: str
    platform: str
    packages: tuple[str, ...]
    """As `pip freeze` lists them."""
    started: str
    """UTC, ISO 8601."""
    seconds: float
    jobs: int = 1
    """Processes that ran the tests, at once: their times add up to more than the run's."""
    narrowed: str = ""
    """What limited the run to a part of the suite, such as `--only lif`; empty where all of the profile was to run."""
    written_for: str = ""
    """Version of the specification that the backend says it was written for; empty where it says none."""
    official: bool = False
    """Whether it was asked for as an official run, and is one (`report.official`)."""
    against: Side | None = None
    """The backend that this one was held against, where that is what the run was about."""


class KillRow(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one fault."""

    fault: str
    description: str
    origin: str
    """The real bug that it comes from, or empty."""
    clause: str
    base: str
    """Backend that it was put into."""
    killers: tuple[str, ...]
    """Ids of the tests that killed it, in order of examples needed."""
    rungs: tuple[str, ...]
    examples: tuple[int, ...]
    """Examples that each killer needed."""
    equivalent: str = ""
    """Proof that it computes the same, where it does."""

    @property
    def breaks_gate(self) -> bool:
        """Whether too few tests killed the fault, or any killed one that is proved equivalent."""
        return len(self.killers) > 0 if self.equivalent else len(self.killers) < WANTED


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of one run."""

    schema: int = SCHEMA
    header: Header
    records: tuple[Record, ...]
    kills: tuple[KillRow, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """fail if any test failed or erred, or none ran, or a fault breaks the gate; then inconclusive, then incomplete."""
        statuses = [record.status for record in self.records]
        if not {"pass", "waived"} & set(statuses) or {"fail", "error"} & set(statuses) or any(k.breaks_gate for k in self.kills):
            return "fail"
        if "inconclusive" in statuses:
            return "inconclusive"
        left = statuses.count("not run")
        return "incomplete" if self.header.narrowed or left > len(statuses) - left - statuses.count("not supported") else "pass"
