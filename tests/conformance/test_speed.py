"""What makes the suite fast, and that it stays as strict: shapes of the cover, second answers, the estimate of compiling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import msgspec
import pytest
from conformance_examples import report

import twinspike as ts
from twinspike.network import Add
from twinspike_conformance.bounds.finding import holds
from twinspike_conformance.cases import CASES
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.networks import BUCKETS, CONFIGS, PINNED
from twinspike_conformance.cases.structures import NARROW, build
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.checks.base import Check
from twinspike_conformance.faults.within import Within
from twinspike_conformance.report import terminal
from twinspike_conformance.run.profiles import PROFILES
from twinspike_conformance.run.runner import Tally, covering, run_check

NUMPY = ts.load("numpy")
BENCH = Bench(NUMPY, NUMPY.session("cpu", "f64"))


def test_lif_has_one_neuron_beyond_the_blocks_of_kernels():
    neurons = {math.prod(n.get(d, 1) for d in "BCHW") for n in CASES["lif"].buckets}
    assert {1024 + 1, 16384 + 1} <= neurons


def test_every_bucket_of_an_operation_is_in_its_cover():
    for check in CHECKS.values():
        if not check.space.pinned:
            shapes = {repr(example.sizes) for example in check.space.cover()}
            assert shapes == {repr(sizes) for sizes in check.space.buckets}, check.id


def test_every_network_has_one_batch_size_in_the_cover_and_both_occur():
    assert len(PINNED) == len(CONFIGS)
    sizes: dict[str, set[int]] = {}
    for example in CHECKS["network[layers]"].space.cover():
        sizes.setdefault(example.config["network"], set()).add(example.sizes["B"])
    assert all(len(found) == 1 for found in sizes.values())
    assert set().union(*sizes.values()) == {bucket["B"] for bucket in BUCKETS}


def test_ci_runs_every_network_through_its_layers_and_gradients():
    names = {config["network"] for config in CONFIGS}
    for name in ("layers", "gradients", "loss", "update"):
        assert {e.config["network"] for e in covering(CHECKS[f"network[{name}]"], PROFILES["ci"].cover)} == names


def _structures(names: Iterable[str]) -> set[str]:
    """What kinds of networks there are: with sums, without, deep or not, and those that see events."""
    found = set()
    for name in names:
        built = build(name)
        shape = "residual" if any(isinstance(layer, Add) for layer in built.layers) else "plain"
        found |= {f"{shape}, {'narrow' if name in NARROW else 'deep'}", *(("events",) if built.event else ())}
    return found


OF_STRUCTURES = [name for name in CHECKS if name.startswith("network[") and not CHECKS[name].eager]
"""Checks of networks but for those of options, whose networks are cells."""


@pytest.mark.parametrize("name", OF_STRUCTURES)
def test_each_check_of_networks_reaches_each_structure_in_ci(name):
    """Deep ones too: a ResNet and a VGG, but where a check is of narrow networks alone."""
    check = CHECKS[name]
    reached = _structures(e.config["network"] for e in covering(check, PROFILES["ci"].cover))
    assert reached >= {"residual, narrow", "plain, narrow", "events"}
    assert reached == _structures(config["network"] for config in check.space.configs)


def test_the_checks_of_narrow_networks_alone_are_these():
    narrow = {name for name in OF_STRUCTURES if _only_narrow(CHECKS[name])}
    assert narrow == {"network[step]", "network[predictions]", "network[casts]"}


def _only_narrow(check: Check) -> bool:
    return {config["network"] for config in check.space.configs} <= set(NARROW)


def test_smoke_compiles_no_deep_network():
    for name in OF_STRUCTURES:
        assert _structures(e.config["network"] for e in covering(CHECKS[name], PROFILES["smoke"].cover)) == {"residual, narrow"}


class BothModes:
    """numpy under the claim that it is compiled where asked; counts compiled sessions."""

    def __init__(self) -> None:
        self.name, self.compiling = "both", 0

    def capabilities(self):
        return msgspec.structs.replace(NUMPY.capabilities(), compiled=True)

    def session(self, device, precision, compiled):
        found = Within(NUMPY.session(device, precision, False))
        found.compiled = compiled
        self.compiling += compiled
        return found


@pytest.mark.parametrize(
    ("profile", "compiled", "status"), [("smoke", False, "not run"), ("smoke", True, "pass"), ("ci", False, "pass")]
)
def test_smoke_starts_no_second_compiler(profile, compiled, status):
    """An eager session is held against a compiled one in ci; a compiled one against an eager one always."""
    backend = BothModes()
    bench = Bench(backend, backend.session("cpu", "f64", compiled))
    record = run_check(CHECKS["modes[relu]"], bench, PROFILES[profile], 0)
    assert record.status == status
    assert backend.compiling == (status == "pass")


def test_modes_are_compared_in_one_bucket():
    assert {len(check.space.buckets) for name, check in CHECKS.items() if name.startswith("modes[")} == {1}


def test_the_session_of_the_other_mode_is_opened_once():
    class Counting:
        opened = 0

        def session(self, device, precision, compiled):
            self.opened += 1
            return NUMPY.session(device, precision, False)

    backend = Counting()
    bench = Bench(backend, BENCH.session)
    assert bench.in_mode(False) is BENCH.session
    assert bench.in_mode(True) is bench.in_mode(True)
    assert backend.opened == 1


def test_a_wrong_second_answer_fails_a_profile_without_draws():
    """Whoever answers rightly once only is found even where no example would come again."""
    counter = itertools.count()

    def run(bench, example):
        return [holds("answer", next(counter) < count, got="another", want="the same", clauses=())]

    check = msgspec.structs.replace(CHECKS["operation[relu-exact]"], run=run)
    count = len(covering(check, PROFILES["smoke"].cover))
    assert run_check(check, BENCH, PROFILES["smoke"], 0).status == "fail"


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ([("a", 5.0), ("a", 1.0), ("a", 2.0)], 4.0),  # the least of later calls is what running takes
        ([("a", 4.0), ("b", 8.0), ("a", 1.0)], 9.0),  # a share of three quarters, of what came once too
        ([("a", 1.0), ("a", 3.0)], 0.0),
        ([("a", 1.0), ("b", 1.0)], 0.0),  # nothing came again, nothing is known
    ],
)
def test_compiling_is_what_first_calls_take_longer(times, wanted):
    tally = Tally()
    for shape, seconds in times:
        tally.add(Example("relu", {"kind": shape}, {"B": 1}, "normal", False, 0), [], seconds)
    assert tally.compile_seconds == wanted


def test_the_terminal_says_where_the_time_went():
    run = report()
    total = sum(record.seconds for record in run.records)
    share = sum(record.compile_seconds for record in run.records) / total
    (line,) = (line for line in terminal.render(run).splitlines() if line.startswith("tests took"))
    assert f"about {share:.0%} of it compiling" in line
    assert max(run.records, key=lambda record: record.seconds).id in line
