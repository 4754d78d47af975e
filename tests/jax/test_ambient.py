"""A session computes the same, bit for bit, in its own formats and on its own device, whatever JAX's settings are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ambient
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ambient import assert_same, tour

AROUND: dict[str, Any] = {
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_default_matmul_precision": "bfloat16",
    "jax_transfer_guard": "disallow_explicit",
    "jax_disable_jit": True,
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_check_tracer_leaks": True,
    "jax_enable_checks": True,
    "jax_default_prng_impl": "rbg",
}
"""What a session either does not see or goes along with."""


@contextmanager
def settings(values: dict[str, Any]) -> Iterator[None]:
    """Change them, and see that they still stand when the block ends."""
    config: Any = jax.config  # declared at run time
    found = {name: config.values[name] for name in values}
    for name, value in values.items():
        config.update(name, value)
    there = {name: config.values[name] for name in values}
    try:
        yield
        assert {name: config.values[name] for name in values} == there
    finally:
        for name, value in found.items():
            config.update(name, value)


@pytest.mark.parametrize(("precision", "compiled"), [("f64", False), ("f32-ieee", True), ("bf16-mixed", False)])
def test_what_is_set_around_a_session_changes_nothing_and_stays(device: str, precision: str, compiled: bool) -> None:
    expected = tour("jax", device, precision, compiled)
    wide = {"jax_enable_x64": precision != "f64"}
    with settings(AROUND | wide), np.errstate(all="raise"):
        found = tour("jax", device, precision, compiled)
    assert_same(found, expected)


def test_the_settings_bite() -> None:
    """Outside of a session."""
    one, matrix = jnp.ones(2, jnp.float32), jnp.ones((2, 2), jnp.float32)
    for setting, call in {
        "jax_numpy_dtype_promotion": lambda: one + jnp.ones(2, jnp.int32),
        "jax_numpy_rank_promotion": lambda: one + matrix,
        "jax_transfer_guard": lambda: jax.device_put(np.ones(2)),
        "jax_debug_nans": lambda: one * jnp.nan,
    }.items():
        with settings({setting: AROUND[setting]}), pytest.raises(Exception, match=r"."):
            call()
    with settings({"jax_disable_jit": True}):
        assert jax.jit(float)(one[0]) == 1.0, "which needs the value"
    plain = str(jax.make_jaxpr(jnp.matmul)(matrix, matrix))
    with settings({"jax_default_matmul_precision": "bfloat16"}):
        assert str(jax.make_jaxpr(jnp.matmul)(matrix, matrix)) != plain


ELSEWHERE = """
import jax, numpy as np
from ambient import METHOD, OPTIMIZER, STATE
from jax_networks import SMALL, batch
import twinspike_jax as tj
from twinspike.operations import Nothing

here, elsewhere = jax.devices()
jax.config.update("jax_default_device", elsewhere)
assert jax.numpy.ones(1).devices() == {elsewhere}
for compiled in (False, True):
    session = tj.backend.session("cpu:0", compiled=compiled)
    x = {name: session.from_numpy(np.ones(shape)) for name, shape in (("x", (3, 5)), ("weight", (4, 5)), ("bias", (4,)))}
    outputs, gradients = session.vjp("linear", Nothing(), x, {})
    assert all(a.devices() == {here} for a in (*x.values(), *outputs.values(), *gradients.values()))
program = session.program(SMALL, METHOD, OPTIMIZER)
after, metrics = program.train_step(program.load(STATE), *batch(SMALL, METHOD), 0.0625)
assert all(a.devices() == {here} for a in jax.tree.leaves(after[:3]) + [metrics.loss])
assert jax.numpy.ones(1).devices() == {elsewhere}
"""


@pytest.mark.slow
def test_arrays_are_on_the_sessions_device_whatever_the_default_is() -> None:
    """In a process that has two; JAX counts them once, when it starts."""
    two = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    two["PYTHONPATH"] = os.pathsep.join([str(Path(ambient.__file__).parent), *sys.path])
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], env=two, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
