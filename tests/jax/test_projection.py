"""Learned quantities of the neuron stay in their domain (clause OPT-8)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinspike_jax.optimizer import project


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_leaves_the_interval_becomes_its_ends_and_all_else_stays_to_the_bit(dtype: type, compiled: bool) -> None:
    """A NaN stays one, so that a run that diverged is seen to."""
    given = np.array([-3.0, 0.1, 0.3, 7.0, np.nan], dtype)
    within = {"a.decay": (0.2, 1.0), "a.threshold": (0.2, np.inf)}
    with jax.enable_x64(True):
        params = {name: jnp.asarray(given) for name in (*within, "a.gamma")}
        move = partial(project, within=within)
        after = (jax.jit(move) if compiled else move)(params)
        assert all(value.dtype == dtype for value in after.values())
        found = {name: np.asarray(value) for name, value in after.items()}
    assert np.array_equal(found["a.decay"], np.array([0.2, 0.2, 0.3, 1.0, np.nan], dtype), equal_nan=True)
    assert np.array_equal(found["a.threshold"], np.array([0.2, 0.2, 0.3, 7.0, np.nan], dtype), equal_nan=True)
    assert np.array_equal(found["a.gamma"], given, equal_nan=True)
