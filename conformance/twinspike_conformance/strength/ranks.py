"""What finds each fault of ranks: the checks of networks, over two ranks, on settings that show what ranks share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import islice

import msgspec
import numpy as np

import twinspike
from twinspike.setting import Setting
from twinspike_conformance.bounds.finding import Finding, holds
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.networks import setting
from twinspike_conformance.cases.options import config
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.checks.steps import tracked_state
from twinspike_conformance.faults.rank_threads import RankSession
from twinspike_conformance.faults.ranks import RankFault
from twinspike_conformance.judges.variant import tracked
from twinspike_conformance.run.runner import findings_of

REPLICAS = 2
PARTS = ("layers", "loss", "gradients", "statistics", "update", "step")
"""Checks of networks over ranks."""
_UNIT = 2.0**-53


@cache
def settings() -> dict[str, Setting]:
    """Settings by what they show."""
    alike = {
        "network": "cell",
        "time_steps": 2,
        "alpha": 0.3,
        "supervised": "all",
        "pairs": "joint",
        "scope": "all_convs",
        "isolate_ann": False,
    }
    found = {}
    for name, changes in {
        "synchronized": {"time": "per_step", "feature_reduction": "sum", "beta": 0.1, "orthogonality": "penalty"},
        "local": {"time": "folded", "feature_reduction": "batch_mean", "beta": 0.1, "orthogonality": "retract", "every": 1},
        "one rank dark": {"time": "per_step", "feature_reduction": "mean", "beta": 0.1, "orthogonality": "free"},
    }.items():
        example = Example("network", config(0, **alike, **changes), {"B": 6}, "normal", False, 3)
        found[name] = setting(example, "float64")
    dark = found["one rank dark"].images[0].copy()
    dark[:3] = 0.0  # of rank 0: its convolution of the images gets no gradient there
    found["one rank dark"] = msgspec.structs.replace(found["one rank dark"], images=(dark,))
    return found


def bench(fault: RankFault | None) -> Bench:
    """Two ranks of the reference, with a fault or right."""
    numpy = twinspike.load("numpy")
    return Bench(numpy, RankSession(numpy.session("cpu", "f64"), REPLICAS, fault), numpy.name, replicas=REPLICAS)


def asked(given: Bench) -> Iterator[tuple[str, list[Finding]]]:
    """What is asked, and what is found."""
    for name, s in settings().items():
        for part in PARTS:
            check = CHECKS[f"network[{part}]"]
            yield f"{check.id}, {name}", findings_of(check, given, s)  # type: ignore[arg-type]  # a setting in place of an example
        yield f"evaluation, {name}", evaluation(given, s)


def evaluation(given: Bench, s: Setting) -> list[Finding]:
    """Every sample of five is evaluated once, over two ranks (DEV-7)."""
    program = given.session.program(s.network, s.method, s.optimizer)
    images = s.images[0][:5]
    got = program.evaluate(program.load(s.state), images)
    want = tracked()["step"].evaluate(s.network, s.method, tracked_state(s, _UNIT), Tracked(images, roundoff=_UNIT))
    found = []
    for name in ("logits_ann", "logits_snn"):
        right, value = getattr(want, name), np.asarray(getattr(got, name))
        ok = value.shape == right.shape and bool((np.abs(value - right.value) <= right.error).all())
        found.append(holds(name, ok, got=str(value.shape), want=f"{right.shape}, within its bound", clauses=("DEV-7",)))
    return found


def killers(fault: RankFault | None, enough: int = 2) -> list[str]:
    """What finds the fault, the first few."""
    wrong = (what for what, found in asked(bench(fault)) if not all(finding.ok for finding in found))
    return list(islice(wrong, enough))
