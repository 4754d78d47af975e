"""Many processes of one run: what launchers say, and who has which samples (clauses DEV-1, DEV-6, DEV-7)."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import twinspike
from twinspike.errors import SpecError
from twinspike.replicas import Rendezvous
from twinspike_training.config import load_config
from twinspike_training.data import open_dataset
from twinspike_training.progress import Progress
from twinspike_training.ranks import Group, launched, place, rendezvous
from twinspike_training.run import prepare
from twinspike_training.terminal import console


@pytest.mark.parametrize(
    ("environ", "want"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "a"}, None),
        (
            {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node7", "MASTER_PORT": "1234"},
            Rendezvous(address="node7:1234", rank=3, world_size=4, local_rank=1),
        ),
        (
            {
                "SLURM_PROCID": "5",
                "SLURM_NTASKS": "8",
                "SLURM_LOCALID": "1",
                "SLURM_STEP_ID": "0",
                "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
                "SLURM_JOB_ID": "71234",
            },
            Rendezvous(address="10.0.0.1:31234", rank=5, world_size=8, local_rank=1),
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "71234"}, None),
        (
            {
                "OMPI_COMM_WORLD_RANK": "1",
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
            },
            Rendezvous(address="127.0.0.1:29500", rank=1, world_size=2, local_rank=1),
        ),
    ],
    ids=["none", "one process", "torchrun", "slurm", "a shell in an allocation", "open mpi"],
)
def test_what_launchers_say(environ: dict[str, str], want: Rendezvous | None) -> None:
    assert rendezvous(environ) == want


@pytest.mark.parametrize(
    ("environ", "match"),
    [
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK: expected a whole number in the environment, got x"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "rendezvous.rank: expected 0 to 1, got 2"),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, "MASTER_ADDR: expected the machine of rank 0"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "no"}, "rendezvous.address: expected HOST:PORT"),
    ],
)
def test_what_a_launcher_says_wrongly_is_refused(environ: dict[str, str], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        rendezvous(environ)


@pytest.mark.parametrize("processes", [2, 3, 6])
def test_parts_of_batches_are_the_batch_in_its_order(processes: int) -> None:
    """Samples, their order and how they are varied depend on no rank."""
    config = load_config("digits", ['data.augment=["crop", "flip"]'])
    with open_dataset(config.data, time_steps=2) as dataset:
        whole = dataset.train_batches(7, 3, 60)
        parts = [dataset.train_batches(7, 3, 60, process=r, processes=processes) for r in range(processes)]
        for _, (images, labels), *own in zip(range(3), whole, *parts, strict=False):
            assert np.array_equal(np.concatenate([x for x, _ in own]), images)
            assert np.array_equal(np.concatenate([y for _, y in own]), labels)


@pytest.mark.parametrize("processes", [2, 7])
def test_every_sample_is_evaluated_once(processes: int) -> None:
    config = load_config("digits")
    with open_dataset(config.data, time_steps=2) as dataset:
        images = np.concatenate([x for x, _ in dataset.test_batches(50)])
        own = [x for r in range(processes) for x, _ in dataset.test_batches(50, process=r, processes=processes)]
        assert np.array_equal(np.concatenate(own), images)


def test_a_backend_of_one_device_says_so() -> None:
    with pytest.raises(SpecError, match="devices of backend 'numpy': expected 1, got 2; it trains on one device alone"):
        place(twinspike.load("numpy"), "cpu", 2, None)
    with pytest.raises(SpecError, match="devices of backend 'numpy': expected 1, got 2"):
        prepare(load_config("digits", ["backend=numpy", "precision=f64", "devices=2"]), together=True)
    assert Progress(console(quiet=True)) is not None


class _Launched:
    """A backend whose launcher starts a process for each device."""

    name = "launched"
    launcher = ("-m", "launcher", "--count", "{devices}")

    def join(self, *_: Any) -> None:
        """Nothing."""

    def replicated(self, *_: Any, **__: Any) -> Any:
        """Not asked for here."""


def test_a_frameworks_launcher_runs_the_command() -> None:
    backend: Any = _Launched()
    want = [sys.executable, "-m", "launcher", "--count", "4", "-m", "twinspike_training.cli", "train", "--devices", "4"]
    assert launched(backend, 4, None, ["train", "--devices", "4"]) == want
    assert launched(backend, 1, None, []) is None
    assert launched(backend, 4, Rendezvous(address="a:1", rank=0, world_size=4), []) is None
    assert launched(twinspike.load("numpy"), 4, None, []) is None
    with pytest.raises(SpecError, match="devices of backend 'launched': expected a multiple of the 4 processes, got 6"):
        place(backend, "cpu", 6, Rendezvous(address="a:1", rank=0, world_size=4))


def test_processes_tell_one_another() -> None:
    """Two of them, the other one's words being given."""
    others: list[Any] = []

    def ask(values: Any) -> Any:
        return np.stack([others.pop(0), values])

    group = Group(rank=1, world_size=2, replicas=2, ask=ask)
    others += [np.array([1, 0], np.uint8), np.array([3.0])]
    assert group.any(False, False) == [True, False]
    assert group.total(np.array([4.0])) == 7.0
    said = np.zeros(4096, np.uint8)
    for text in ("+runs/a", "-out: no room"):
        said[:] = 0
        said[: len(text)] = np.frombuffer(text.encode(), np.uint8)
        others.append(said.copy())
    assert group.told(lambda: "never asked") == "runs/a"
    with pytest.raises(SpecError, match="out: no room"):
        group.told(lambda: "never asked")
    assert Group().any(True) == [True]
    assert Group().told(lambda: "alone") == "alone"
