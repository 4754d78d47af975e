"""Training over many devices with torch.distributed: two gloo processes of this machine."""

from __future__ import annotations

import many_devices as many
import pytest

import twinspike
from twinspike.errors import SpecError
from twinspike.parameters import layout
from twinspike.replicas import Rendezvous
from twinspike_conformance.cases.networks import CONFIGS
from twinspike_conformance.cases.options import CELLS
from twinspike_conformance.checks import Bench
from twinspike_conformance.judges.alike import DifferError


@pytest.fixture(scope="module")
def bench() -> Bench:
    """Two ranks."""
    return many.opened("torch", 2)


@pytest.mark.parametrize("config", [*CONFIGS[:2], CELLS[0], CELLS[3]], ids=["paper", "retracted", "cell", "another"])
def test_two_ranks_compute_the_step_of_the_global_batch(bench: Bench, config: object) -> None:
    many.holds_the_step(bench, config, 6)


@pytest.mark.parametrize("replicas", ["synchronized", "local"])
def test_norms_share_statistics_or_not(bench: Bench, replicas: str) -> None:
    assert (many.differs_from_one_device(bench, CONFIGS[0], 6, replicas) > 1e-4) == (replicas == "local")


def test_a_batch_that_ranks_cannot_share_is_refused(bench: Bench) -> None:
    many.refuses_what_ranks_cannot_share(bench, CONFIGS[0], 5)


def test_ranks_that_disagree_are_told_so(bench: Bench) -> None:
    many.refuses_different_states(bench, CONFIGS[0], 6)
    many.refuses_parts_of_two_sizes(bench, CONFIGS[0])


def test_what_is_not_the_same_on_all_ranks_is_told(bench: Bench) -> None:
    s = many.example(CONFIGS[0], 6)
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
        s = many.example(CONFIGS[1], 6)
        assert (session.rank, session.world_size, session.replicas) == (0, 1, 1)
        program = session.program(s.network, s.method, s.optimizer)
        after, _ = program.train_step(program.load(s.state), s.images[0], s.labels[0], 0.125)
        assert set(program.dump(after)) == {entry.name for entry in layout(s.network, s.method, s.optimizer)}
        with pytest.raises(SpecError, match="expected process 0 of 1, as the group has it"):
            backend.replicated(at=Rendezvous(address="127.0.0.1:1", rank=0, world_size=2))  # type: ignore[attr-defined]  # likewise
    finally:
        session.close()


def test_a_process_drives_one_device() -> None:
    with pytest.raises(SpecError, match=r"devices of a process of backend 'torch': expected 1, got 2"):
        twinspike.load("torch").replicated(devices=2)  # type: ignore[attr-defined]  # likewise
