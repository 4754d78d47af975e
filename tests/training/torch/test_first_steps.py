"""Every recipe's network takes a first step on samples of its data set's size, at its own depth and a few channels wide."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

import twinspike
from twinspike import initial_state
from twinspike.zoo import network
from twinspike_training import recipes
from twinspike_training.config import load_config

SHAPES = {
    "digits": ((1, 8, 8), False),
    "cifar10": ((3, 32, 32), False),
    "cifar100": ((3, 32, 32), False),
    "tinyimagenet": ((3, 64, 64), False),
    "nmnist": ((2, 34, 34), True),
    "cifar10dvs": ((2, 48, 48), True),
    "dvsgesture": ((2, 64, 64), True),
    "ncaltech101": ((2, 48, 48), True),
}
"""Data set -> (C, H, W) of an image or a frame, and whether it has frames."""


def test_every_data_set_has_a_size() -> None:
    assert set(SHAPES) == set(recipes.book().data)


def _different() -> list[str]:
    """Recipes of which no other has the network on samples of the same size."""
    found = {(net, SHAPES[name]): f"{name}-{net}" for name, data in recipes.book().data.items() for net in data.networks}
    return sorted(found.values())


@pytest.mark.parametrize("name", _different())
def test_a_recipe_takes_a_first_step(name: str) -> None:
    """At two time steps, so that it is fast: the loss is finite, and the first and the last matrix moved."""
    config = load_config(name)
    shape, event = SHAPES[name.partition("-")[0]]
    method = msgspec.structs.replace(config.method, time_steps=2)
    net = network(config.network, input_shape=shape, event=event, width=2, classes=3)
    program = twinspike.load("torch").session("cpu", "f32-ieee").program(net, method, config.optimizer)
    values = initial_state(net, method, config.optimizer, seed=0)
    draw = np.random.default_rng(0)
    images = draw.normal(size=(*((2,) if event else ()), 2, *shape)).astype(np.float32)
    state, metrics = program.train_step(program.load(values), images, np.array([0, 2]), 0.1)
    assert np.isfinite(float(metrics.loss))
    after = program.dump(state)
    trained = [key for key, value in values.items() if value.ndim > 1 and not key.startswith("optimizer/")]
    for key in (trained[0], trained[-1]):
        assert not np.array_equal(after[key], values[key].astype(np.float32)), key
