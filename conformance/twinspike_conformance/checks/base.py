"""A check: one sentence of what must hold, a space of examples, and the function that judges one example."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinspike.backend import Backend, Session
from twinspike.config import encode
from twinspike.errors import SpecError
from twinspike.operations import Operation
from twinspike_conformance.bounds.finding import Finding, Rung
from twinspike_conformance.cases import CASES, Example
from twinspike_conformance.judges.operations import together
from twinspike_conformance.raised import interrupted, said

Values = NDArray[Any]
Named = dict[str, Values]


class Bench(msgspec.Struct, frozen=True):
    """What a check runs on: a backend, and the session that the run is about."""

    backend: Backend
    session: Session
    given: str = ""
    """What the user gave for the backend, from which `session.load` finds it again; empty where nothing was given."""
    opened: dict[bool, Session] = msgspec.field(default_factory=dict)
    """Sessions that differ in their mode alone, once a check has asked for them."""

    replicas: int = 1
    """Devices that the session's programs train over."""

    def in_mode(self, compiled: bool) -> Session:
        """The session, or one that differs in its mode alone; always the same one, whose compilations are kept."""
        if compiled == self.session.compiled:
            return self.session
        if compiled not in self.opened:
            self.opened[compiled] = self.backend.session(self.session.device, self.session.precision, compiled)
        return self.opened[compiled]


class Space(msgspec.Struct, frozen=True):
    """All examples of a check: a few configs, shapes and families, and any seed."""

    operation: str
    configs: tuple[Any, ...]
    """Configs as plain data, so that an example is its own description."""
    buckets: tuple[dict[str, int], ...]
    families: tuple[str, ...]
    exact: bool
    pinned: tuple[int, ...] = ()
    """Bucket that the cover gives to each config; by default it goes through all of them."""

    def at(self, config: int, bucket: int, family: int, seed: int) -> Example:
        """One example by indices, each taken modulo its range."""
        return Example(
            self.operation,
            self.configs[config % len(self.configs)],
            self.buckets[bucket % len(self.buckets)],
            self.families[family % len(self.families)],
            self.exact,
            seed,
        )

    def strategy(self) -> st.SearchStrategy[Example]:
        """Examples for Hypothesis; what comes first in a list is simplest."""
        return st.builds(
            self.at,
            st.integers(0, len(self.configs) - 1),
            st.integers(0, len(self.buckets) - 1),
            st.integers(0, len(self.families) - 1),
            st.integers(0, 2**32 - 1),
        )

    def cover(self) -> Iterator[Example]:
        """Few examples in which every config, every shape that is not pinned away and every family occurs."""
        for i in range(max(len(self.configs), len(self.buckets), len(self.families))):
            bucket = self.pinned[i % len(self.pinned)] if self.pinned else i + i // len(self.buckets)
            yield self.at(i, bucket, i + i // len(self.families), i)

    def sample(self, rng: np.random.Generator) -> Example:
        """One example at random."""
        config, bucket, family = (int(rng.integers(n)) for n in (len(self.configs), len(self.buckets), len(self.families)))
        return self.at(config, bucket, family, int(rng.integers(2**32)))


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One test of the suite."""

    id: str
    sentence: str
    clauses: tuple[str, ...]
    rung: Rung
    needs: frozenset[str]
    """Operations that the backend must claim, or `networks`."""
    space: Space
    run: Callable[[Bench, Example], list[Finding]]
    weight: float = 1.0
    """Share of the profile's number of examples: networks cost more than single operations."""
    whole: bool = False
    """Whether the share is of drawn examples alone, and the cover is run as far as the profile says."""
    eager: bool = False
    """Whether it is about what is computed, not how, so that profiles that spare the compiler leave it out of a compiled run."""
    counts: Callable[[Iterable[Any]], tuple[int, int]] | None = None
    """Of what is to be reached, how much these configs reach, and how much there is."""


def space_of(operation: str, exact: bool, bucket: int | None = None) -> Space | None:
    """The examples of an operation in one lane, in one bucket if it is given; None where it has no such lane."""
    cases = CASES[operation]
    configs = tuple(c for c in cases.configs if not exact or (cases.budget is not None and cases.exact(c)))
    if not configs:
        return None
    families = cases.exact_families if exact else cases.families
    buckets = cases.buckets if bucket is None else cases.buckets[bucket : bucket + 1]
    return Space(operation, tuple(encode(c) for c in configs), buckets, families, exact)


def answer(
    session: Session, row: Operation, config: Any, inputs: Mapping[str, Values], cotangents: Mapping[str, Values]
) -> Named:
    """Outputs and, as `gradient of NAME`, gradients of one call."""
    tensors = {name: session.from_numpy(value) for name, value in inputs.items()}
    if row.adjoint is None:
        return {name: session.to_numpy(value) for name, value in session.forward(row.name, config, tensors).items()}
    incoming = {name: session.from_numpy(value) for name, value in cotangents.items()}
    outputs, gradients = session.vjp(row.name, config, tensors, incoming)
    return {name: session.to_numpy(value) for name, value in together(outputs, gradients).items()}


def refusal(what: str, call: Callable[[], Any], want: str | None) -> Finding:
    """The finding of a call that must raise a SpecError, with that very text if one is given."""
    try:
        call()
    except SpecError as error:
        ok = want is None or str(error) == want
        ok, got = ok and "\n" not in str(error), str(error)
    except BaseException as error:  # whatever a backend raises instead is the finding
        if interrupted(error):
            raise
        ok, got = False, said(error)
    else:
        ok, got = False, "an answer"
    return Finding(
        quantity=what,
        rung="property",
        clauses=(),
        ok=ok,
        ratio=0.0 if ok else np.inf,
        got=got,
        want=want or "a SpecError of one line",
    )
