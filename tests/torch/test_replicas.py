"""Training over many devices with torch.distributed: two gloo processes of this machine."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

import twinspike
from twinspike.config import BatchNorm
from twinspike.errors import SpecError
from twinspike.parameters import layout
from twinspike.replicas import Rendezvous
from twinspike.setting import Setting
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.networks import CONFIGS, setting
from twinspike_conformance.cases.options import CELLS
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.run.replicas import DifferError, Replicated

PARTS = ("layers", "loss", "gradients", "statistics", "update", "step", "evaluation")


@pytest.fixture(scope="module")
def bench() -> Bench:
    """Two ranks."""
    backend = Replicated(twinspike.load("torch"), "torch", 2)
    return Bench(backend, backend.session("cpu", "f64", False), "torch", replicas=2)


def example(config: object, seed: int = 0, batch: int = 6) -> Setting:
    return setting(Example("network", config, {"B": batch}, "normal", False, seed), "float64")


@pytest.mark.parametrize("config", [*CONFIGS[:2], CELLS[0], CELLS[3]], ids=["paper", "retracted", "cell", "another"])
def test_two_ranks_compute_the_step_of_the_global_batch(bench: Bench, config: object) -> None:
    """Layer by layer, and statistics, slots and parameters after the step."""
    s = example(config)
    for part in PARTS:
        wrong = [finding.sentence() for finding in CHECKS[f"network[{part}]"].run(bench, s) if not finding.ok]
        assert wrong == [], part


@pytest.mark.parametrize("replicas", ["synchronized", "local"])
def test_norms_share_statistics_or_not(bench: Bench, replicas: str) -> None:
    s = example(CONFIGS[0])
    method = msgspec.structs.replace(s.method, batch_norm=BatchNorm(replicas=replicas))
    s = msgspec.structs.replace(s, method=method)
    one = Bench(twinspike.load("torch"), twinspike.load("torch").session("cpu", "f64", False))
    found = [CHECKS["network[step]"].run(given, s) for given in (bench, one)]
    assert all(finding.ok for findings in found for finding in findings)
    dumps = []
    for given in (bench, one):
        program = given.session.program(s.network, s.method, s.optimizer)
        after, _ = program.train_step(program.load(s.state), s.images[0], s.labels[0], 0.125)
        dumps.append(program.dump(after))
    far = max(float(np.abs(dumps[0][name] - dumps[1][name]).max()) for name in dumps[0])
    assert (far > 1e-4) == (replicas == "local")


def test_a_batch_that_ranks_cannot_share_is_refused(bench: Bench) -> None:
    s = example(CONFIGS[0], batch=5)
    program = bench.session.program(s.network, s.method, s.optimizer)
    state = program.load(s.state)
    with pytest.raises(SpecError, match="batch: expected a multiple of the 2 devices, got 5 samples"):
        program.train_step(state, s.images[0], s.labels[0], 0.125)
    assert program.evaluate(state, s.images[0]).logits_snn.shape == (len(s.network.exits), 5, s.network.classes)


def test_ranks_that_load_different_states_are_refused(bench: Bench) -> None:
    s = example(CONFIGS[0])
    program = bench.session.program(s.network, s.method, s.optimizer)
    other = {name: value + (name.endswith("bias")) for name, value in s.state.items()}
    team, number = program._team, program._number  # type: ignore[attr-defined]  # each rank is told something else
    with pytest.raises(SpecError, match="state: expected the same in every process, got another in process 1"):
        team.ask("load", number, [(dict(s.state),), (other,)])


def test_ranks_with_parts_of_two_sizes_are_refused(bench: Bench) -> None:
    s = example(CONFIGS[0])
    program = bench.session.program(s.network, s.method, s.optimizer)
    state = program.load(s.state)
    parts = [(state.handle, s.images[0][:n], s.labels[0][:n], 0.125) for n in (2, 3)]
    with pytest.raises(SpecError, match=r"batch: expected as many samples on every rank, got \[2, 3\]"):
        program._team.ask("train_step", program._number, parts)  # type: ignore[attr-defined]  # likewise


def test_what_is_not_the_same_on_all_ranks_is_told(bench: Bench) -> None:
    s = example(CONFIGS[0])
    program = bench.session.program(s.network, s.method, s.optimizer)
    team, number = program._team, program._number  # type: ignore[attr-defined]  # likewise
    first, second = team.ask("load", number, [(dict(s.state),)] * 2), program.load(s.state)
    after = team.ask("train_step", number, [(first[0], s.images[0][r::2], s.labels[0][r::2], 0.125) for r in range(2)])
    assert after[0][0] == after[1][0]
    program._team.ask("train_step", number, [(second.handle, s.images[0][:3], s.labels[0][:3], rate) for rate in (0.1, 0.2)])
    second.handle = after[0][0] + 1
    with pytest.raises(DifferError, match="is not the same on rank 1 as on rank 0"):
        program.dump(second)


def test_one_process_alone_is_a_group_of_one() -> None:
    backend = twinspike.load("torch")
    session = backend.replicated("cpu", "f64", False)  # type: ignore[attr-defined]  # as its capabilities say
    try:
        s = example(CONFIGS[1])
        assert (session.rank, session.world_size, session.replicas) == (0, 1, 1)
        program = session.program(s.network, s.method, s.optimizer)
        after, _ = program.train_step(program.load(s.state), s.images[0], s.labels[0], 0.125)
        assert set(program.dump(after)) == {entry.name for entry in layout(s.network, s.method, s.optimizer)}
        with pytest.raises(SpecError, match="in a group already"):
            backend.replicated(at=Rendezvous(address="127.0.0.1:1", rank=0, world_size=2))  # type: ignore[attr-defined]  # likewise
    finally:
        session.close()


def test_a_process_drives_one_device() -> None:
    with pytest.raises(SpecError, match=r"devices of a process of backend 'torch': expected 1, got 2"):
        twinspike.load("torch").replicated(devices=2)  # type: ignore[attr-defined]  # likewise
