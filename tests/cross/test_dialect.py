"""One dialect: what backends publish under one name is called alike: arrays first in the table's order, options by name."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import twinspike as ts
import twinspike_jax as tj
import twinspike_torch as tt
from twinspike.operations import OPERATIONS

EXTRA = {("lif", "kernel"): tt, ("lif_traced", "kernel"): tt, ("compose", "precision"): tj}
"""Options of one framework alone: which kernel torch runs, how exact XLA's products are."""

FUNCTIONS = sorted(name for name in set(tt.__all__) & set(tj.__all__) if inspect.isfunction(getattr(tt, name)))


def parameters(room: Any, name: str) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(getattr(room, name)).parameters.values()
    return [(p.name, p.kind, p.default) for p in found if EXTRA.get((name, p.name)) is not room]


def test_what_both_publish_is_what_a_user_needs_to_write_one_training_loop() -> None:
    assert FUNCTIONS == [
        "compose", "cross_entropy", "derivative", "deviation", "distillation", "factorize", "feature_loss", "joint_loss",
        "lif", "lif_traced", "penalty", "retract", "spike",
    ]  # fmt: skip
    assert tt.Terms._fields == tj.Terms._fields
    assert tt.TwinOutput._fields == tj.Outputs._fields


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_are_the_same_in_both(name: str) -> None:
    assert parameters(tt, name) == parameters(tj, name)


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) & set(OPERATIONS)))
def test_arrays_come_first_in_the_order_of_the_table(name: str) -> None:
    wanted = [key for key, dims in OPERATIONS[name].inputs.items() if not dims.endswith("or () ?")]
    arrays = [key for key, kind, _ in parameters(tt, name) if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert arrays == wanted


def test_results_come_in_the_order_of_the_table() -> None:
    import jax.numpy as jnp  # noqa: PLC0415
    import torch  # noqa: PLC0415

    x, kernel = np.full((3, 2, 4), 0.75, np.float32), np.eye(4, dtype=np.float32)[:, :, None, None]
    for room, array in ((tt, torch.from_numpy), (tj, jnp.asarray)):
        traced = room.lif_traced(array(x), neuron=ts.Neuron(decay=0.5))
        shapes = dict(zip(OPERATIONS["lif"].outputs, (tuple(value.shape) for value in traced), strict=True))
        assert shapes == {"s": (3, 2, 4), "u": (3, 2, 4), "v": (2, 4)}
        assert set(np.unique(np.asarray(traced[0]))) <= {0.0, 1.0}
        assert np.asarray(traced[1])[0, 0, 0] == 0.75
        factors = room.factorize(array(kernel), factorization=ts.Factorization(rank=3))
        assert [tuple(value.shape) for value in factors] == [(1, 1, 4, 3), (1, 1, 3), (1, 1, 3, 4)]
