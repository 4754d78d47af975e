"""Where the JAX backend keeps what XLA compiled, and that whoever set JAX's own settings is left alone.

Each case has a process of its own: JAX's settings are the process's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax")

ASKS = """
import jax, sys
import twinspike as ts
{before}
jax.jit(lambda x: x + 1)(1.0)  # compiled before a session was asked for: the cache must be looked at again
session = ts.load("jax").session("cpu", "f32-ieee", {compiled})
print(jax.config.jax_compilation_cache_dir)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: x * 3 + 1)(2.0)
"""


def told(folder: Path, before: str = "", compiled: bool = True, **environment: str) -> str:
    """The folder that JAX was told, in a process whose user caches are in `folder`."""
    caches = {name: str(folder) for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME")}
    plain = {"TWINSPIKE_JAX_LIF": "plain", "TWINSPIKE_JAX_PRODUCTS": "plain"}  # none of our kernels is compiled for this
    inherited = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    run = subprocess.run(
        [sys.executable, "-c", ASKS.format(before=before, compiled=compiled)],
        env=inherited | caches | plain | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


def test_a_compiled_session_keeps_what_it_compiles_in_the_users_cache(tmp_path: Path) -> None:
    folder = Path(told(tmp_path))
    assert folder.is_relative_to(tmp_path)
    assert folder.name == "jax"
    assert any(folder.iterdir())


def test_other_settings_are_left_alone(tmp_path: Path) -> None:
    own = str(tmp_path / "own")
    assert told(tmp_path, compiled=False) == "None"
    assert told(tmp_path, before="jax.config.update('jax_enable_compilation_cache', False)") == "None"
    assert told(tmp_path, before=f"jax.config.update('jax_compilation_cache_dir', {own!r})") == own
    assert told(tmp_path, JAX_COMPILATION_CACHE_DIR=own) == own


SAYS = "print(ts.load('jax').capabilities().kernels.get('compiled sessions'))"


@pytest.mark.parametrize("name", ["twinspike", "twinspike/jax"])
def test_a_folder_that_others_can_write_is_not_told_and_that_is_said(tmp_path: Path, name: str) -> None:
    """What JAX finds there, it runs."""
    (tmp_path / "twinspike").mkdir(mode=0o755)
    (tmp_path / "twinspike" / "jax").mkdir(mode=0o755)
    (tmp_path / name).chmod(0o777)
    said, given = told(tmp_path, before=SAYS).splitlines()
    assert said == f"XLA, compiled anew by each process: {tmp_path / name} can be written by others (mode 777; chmod go-w)"
    assert given == "None"
    assert list((tmp_path / "twinspike" / "jax").iterdir()) == []
    own = str(tmp_path / "own")
    assert told(tmp_path, before=SAYS, JAX_COMPILATION_CACHE_DIR=own).splitlines() == ["None", own]
    (tmp_path / name).chmod(0o755)
    assert told(tmp_path, before=SAYS).splitlines() == ["None", str(tmp_path / "twinspike" / "jax")]
