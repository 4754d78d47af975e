"""A session computes the same, bit for bit, in its own format and on its own device, whatever torch's settings around it are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from ambient import METHOD, OPTIMIZER, STATE, assert_same, tour
from jax_networks import SMALL, batch

import twinspike_torch as tt
from twinspike.operations import Nothing
from twinspike_torch.precision import without_autocast


def ones() -> torch.Tensor:
    return torch.ones(2, 2)


@contextmanager
def setting(change: Callable[[Any], None], value: Any, found: Any) -> Iterator[None]:
    change(value)
    try:
        yield
    finally:
        change(found)


class Around(NamedTuple):
    """A user's setting."""

    enter: Callable[[], AbstractContextManager[Any]]
    bites: Callable[[], bool]
    """Whether torch does as the setting says: while it holds, and still after a session computed."""


def autocast(dtype: torch.dtype, device: str = "cpu") -> Around:
    return Around(lambda: torch.autocast(device, dtype), lambda: torch.get_autocast_dtype(device) == (ones() @ ones()).dtype)


AROUND = {
    "autocast bfloat16": autocast(torch.bfloat16),
    "autocast float16": autocast(torch.float16),
    "set_default_device": Around(lambda: setting(torch.set_default_device, "meta", None), lambda: ones().is_meta),
    "with device": Around(lambda: torch.device("meta"), lambda: ones().is_meta),
    "default float64": Around(
        lambda: setting(torch.set_default_dtype, torch.float64, torch.float32), lambda: ones().dtype == torch.float64
    ),
    "default bfloat16": Around(
        lambda: setting(torch.set_default_dtype, torch.bfloat16, torch.float32), lambda: ones().dtype == torch.bfloat16
    ),
    "inference_mode": Around(torch.inference_mode, lambda: ones().is_inference()),
    "no_grad": Around(torch.no_grad, lambda: not torch.is_grad_enabled()),
    "enable_grad": Around(torch.enable_grad, torch.is_grad_enabled),
    "deterministic": Around(
        lambda: setting(torch.use_deterministic_algorithms, True, False), torch.are_deterministic_algorithms_enabled
    ),
    "anomalies": Around(
        lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled
    ),
    "errstate": Around(lambda: np.errstate(all="raise"), lambda: np.geterr()["under"] == "raise"),
}  # fmt: skip
wanted = cache(tour)


@pytest.mark.parametrize("precision", ["f64", "f32-ieee", "bf16-mixed"])
@pytest.mark.parametrize("name", AROUND)
def test_what_is_around_a_session_changes_nothing_and_stays(device: str, name: str, precision: str) -> None:
    expected = wanted("torch", device, precision)
    with AROUND[name].enter():
        assert AROUND[name].bites()
        found = tour("torch", device, precision)
        assert AROUND[name].bites()
    assert_same(found, expected)


@pytest.mark.slow
@pytest.mark.skipif(not tt.backend.capabilities().compiled, reason="no C++ compiler here")
def test_a_compiled_session_in_all_of_it_at_once(device: str) -> None:
    """The compiler reads settings too, and keeps what it compiled under them."""
    expected = tour("torch", device, "f32-ieee", True)
    with ExitStack() as stack:
        for name in ("autocast bfloat16", "set_default_device", "default float64", "inference_mode"):
            stack.enter_context(AROUND[name].enter())
        found = tour("torch", device, "f32-ieee", True)
    assert_same(found, expected)


def test_a_program_goes_from_one_setting_to_another(device: str) -> None:
    """What was made in inference mode trains outside of it, and the other way round."""
    session = tt.backend.session(device)
    images, labels = batch(SMALL, METHOD)
    ways = []
    for inside in ((True, False, True), (False, True, False), (False, False, False)):
        with torch.inference_mode(inside[0]):
            program = session.program(SMALL, METHOD, OPTIMIZER)
            state = program.load(STATE)
        for mode in inside[1:]:
            with torch.inference_mode(mode):
                program.evaluate(state, images)
                state, _ = program.train_step(state, images, labels, 0.0625)
        ways.append(program.dump(state))
    assert_same(ways[0], ways[2])
    assert_same(ways[1], ways[2])


def test_a_tensor_that_the_user_made_in_inference_mode_is_differentiated(device: str) -> None:
    session = tt.backend.session(device)
    with torch.inference_mode():
        inputs = {"x": torch.ones(3, 5, device=device), "weight": torch.ones(4, 5, device=device)}
        inputs["bias"] = torch.zeros(4, device=device)
    _, gradients = session.vjp("linear", Nothing(), inputs, {"y": torch.ones(3, 4, device=device)})
    np.testing.assert_array_equal(session.to_numpy(gradients["x"]), 4.0)


def test_a_module_keeps_to_the_autocast_around_it(device: str) -> None:
    """Which is how modules are used; only sessions and programs hold their own."""
    module = tt.TwinNetwork(SMALL, METHOD, device=device)
    images = torch.as_tensor(batch(SMALL, METHOD)[0], dtype=torch.float32, device=device)
    plain = module(images).logits_ann
    with torch.autocast(device, torch.bfloat16):
        cast = module(images).logits_ann
        with without_autocast(device):
            held = module(images).logits_ann
    assert not torch.equal(plain, cast)
    assert torch.equal(plain, held)
