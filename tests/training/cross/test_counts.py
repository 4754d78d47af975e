"""Counts of inference are the same whole numbers in every backend and format, where outputs and potentials are the same."""

from __future__ import annotations

import numpy as np
import pytest
from exported import few_bits

import twinspike as ts
from twinspike import energy
from twinspike.config import TWINS


@pytest.mark.parametrize("case", ["as published", "events, learned by channel, mean"])
def test_counts_are_equal_in_every_backend(case: str) -> None:
    found, images = few_bits(case)
    network, method = found.header.network, found.header.config.method
    counts = set()
    for backend, precision in (("numpy", "f64"), ("torch", "f64"), ("torch", "f32-ieee"), ("jax", "f32-ieee")):
        session = ts.load(backend).session("cpu", precision)
        program = session.program(network, method, ts.SGD())
        trace = program.trace(program.load(found.state), images.astype(np.float32))
        counts.add(tuple(energy.workload(network, method, twin, found.state, images, trace) for twin in TWINS))
    assert len(counts) == 1
    assert all(twin.macs > 0 for twin in next(iter(counts)))
