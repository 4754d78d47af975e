"""Many devices against the specification, whatever backend drives them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

import twinspike
from twinspike.config import BatchNorm
from twinspike.errors import SpecError
from twinspike.setting import Setting
from twinspike_conformance.bounds.tracked import Tracked
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.networks import setting
from twinspike_conformance.checks import CHECKS, Bench, steps
from twinspike_conformance.run.replicas import Replicated

PARTS = ("layers", "loss", "gradients", "statistics", "update", "step", "evaluation")
"""Checks of networks in the order of the data."""


def opened(name: str, devices: int, processes: int | None = None) -> Bench:
    """A backend over devices of this machine, in float64."""
    backend = Replicated(twinspike.load(name), name, devices, processes)
    return Bench(backend, backend.session("cpu", "f64", False), name, replicas=devices)


def example(config: Any, batch: int, seed: int = 0) -> Setting:
    """Numbers of a network."""
    return setting(Example("network", config, {"B": batch}, "normal", False, seed), "float64")


def holds_the_step(bench: Bench, config: Any, batch: int) -> None:
    """Layer by layer, and in statistics, slots and parameters after a step, many devices keep the bounds of one."""
    s = example(config, batch)
    for part in PARTS:
        wrong = [finding.sentence() for finding in CHECKS[f"network[{part}]"].run(bench, s) if not finding.ok]
        assert wrong == [], part


def differs_from_one_device(bench: Bench, config: Any, batch: int, replicas: Any) -> float:
    """How far a step over many devices lies from the reference's of one."""
    s = example(config, batch)
    s = msgspec.structs.replace(s, method=msgspec.structs.replace(s.method, batch_norm=BatchNorm(replicas=replicas)))
    dumps = []
    for session in (bench.session, twinspike.load("numpy").session("cpu", "f64")):
        program = session.program(s.network, s.method, s.optimizer)
        after, _ = program.train_step(program.load(s.state), s.images[0], s.labels[0], 0.125)
        dumps.append(program.dump(after))
    return max(float(np.abs(dumps[0][name] - dumps[1][name]).max()) for name in dumps[0])


def refuses_what_ranks_cannot_share(bench: Bench, config: Any, batch: int) -> None:
    """A batch that N does not divide trains nothing; it is evaluated all the same (DEV-1, DEV-7)."""
    s = example(config, batch)
    program = bench.session.program(s.network, s.method, s.optimizer)
    state = program.load(s.state)
    with pytest.raises(SpecError, match=f"batch: expected a multiple of the {bench.replicas} devices, got {batch} samples"):
        program.train_step(state, s.images[0], s.labels[0], 0.125)
    assert program.evaluate(state, s.images[0]).logits_snn.shape == (len(s.network.exits), batch, s.network.classes)
    values, images = steps.tracked_state(s, 2.0**-53), Tracked(s.images[0], roundoff=2.0**-53)
    assert all(finding.ok for finding in steps._evaluation(bench, s, values, images, program.evaluate(state, s.images[0])))


def refuses_different_states(bench: Bench, config: Any, batch: int) -> None:
    """Processes that load different states are told so (DEV-5)."""
    s = example(config, batch)
    program: Any = bench.session.program(s.network, s.method, s.optimizer)
    other = {name: value + (name.endswith("bias")) for name, value in s.state.items()}
    with pytest.raises(SpecError, match="state: expected the same in every process, got another in process 1"):
        program._team.ask("load", program._number, [(dict(s.state),), (other,)])


def refuses_parts_of_two_sizes(bench: Bench, config: Any) -> None:
    """Processes that hand in parts of two sizes are told so (DEV-1)."""
    s = example(config, 6)
    program: Any = bench.session.program(s.network, s.method, s.optimizer)
    state = program.load(s.state)
    parts = [(state.handle, s.images[0][:n], s.labels[0][:n], 0.125) for n in (2, 3)]
    with pytest.raises(SpecError, match=r"batch: expected as many samples on every rank, got \[2, 3\]"):
        program._team.ask("train_step", program._number, parts)
