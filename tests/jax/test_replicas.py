"""Training over many devices with jax: two processes that meet; `cross` has eight of the host's CPU in one process."""

from __future__ import annotations

import many_devices as many
import pytest

import twinspike
from twinspike.errors import SpecError
from twinspike_conformance.cases.networks import CONFIGS
from twinspike_conformance.cases.options import CELLS
from twinspike_conformance.checks import Bench
from twinspike_jax import replicas


@pytest.fixture(scope="module")
def two() -> Bench:
    """Two processes of one device each."""
    return many.opened("jax", 2, processes=2)


def test_two_processes_compute_the_step_of_the_global_batch(two: Bench) -> None:
    many.holds_the_step(two, CELLS[0], 6)


@pytest.mark.parametrize("replicas", ["synchronized", "local"])
def test_norms_share_statistics_or_not(two: Bench, replicas: str) -> None:
    assert (many.differs_from_one_device(two, CELLS[0], 6, replicas) > 1e-4) == (replicas == "local")


def test_a_batch_that_ranks_cannot_share_is_refused(two: Bench) -> None:
    many.refuses_what_ranks_cannot_share(two, CONFIGS[0], 5)


def test_processes_that_disagree_are_told_so(two: Bench) -> None:
    many.refuses_different_states(two, CONFIGS[0], 6)
    many.refuses_parts_of_two_sizes(two, CONFIGS[0])


def test_devices_that_are_not_there_are_refused() -> None:
    backend = twinspike.load("jax")
    backend.session("cpu")  # which has jax count its devices
    with pytest.raises(SpecError, match=r"cpu devices of a process: expected at least 99, got \d+; start a fresh process"):
        backend.replicated(devices=99)  # type: ignore[attr-defined]  # as its capabilities say


def test_what_jax_says_of_a_lost_process_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process then ends without JAX's parting, which would wait for the lost one and abort."""
    parting: list[object] = []
    monkeypatch.setattr(replicas.atexit, "register", parting.append)
    ranks = replicas.Ranks("cpu", 1)
    with pytest.raises(RuntimeError, match="Gloo AllGather failed"), ranks.met():
        raise RuntimeError("UNKNOWN: Gloo AllGather failed: Connection reset by peer")
    ranks.world_size = 2
    with pytest.raises(SpecError, match="process 0 of 2: expected an answer of every other one, got UNKNOWN: Gloo"), ranks.met():
        raise RuntimeError("UNKNOWN: Gloo AllGather failed: Connection reset by peer")
    assert parting == [replicas._leave]
    with pytest.raises(RuntimeError, match="a bug"), ranks.met():
        raise RuntimeError("a bug")
