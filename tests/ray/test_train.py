"""The example of Ray Train on a local Ray: a run over two workers, and the same run gone on with over one."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import ray

from twinspike_training.checkpoint import load_header

# Ray's data layer warns of its own settings
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/ray/train.py"
SET = [
    "width=2", "data.limit=64", "data.test_limit=11", "data.workers=0", "method.time_steps=2", "training.batch_size=16",
    "training.log_every=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example as a module whose functions Ray sends whole to its workers, which do not have the file."""
    spec = importlib.util.spec_from_file_location("ray_train_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    ray.cloudpickle.register_pickle_by_value(module)
    return module


@pytest.fixture(scope="module")
def local() -> Iterator[None]:
    """A Ray of this machine alone."""
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environ = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        runtime_env={"env_vars": environ},
        log_to_driver=True,
    )
    yield
    ray.shutdown()


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_run_over_two_workers_and_then_on_one(example: ModuleType, local: None, backend: str, tmp_path: Path) -> None:
    def fit(workers: int, steps: int) -> None:
        changes = [*SET, f"training.max_steps={steps}"]
        assert example.trainer(backend, "digits", workers=workers, out=tmp_path, name="run", set_=changes).fit().error is None

    fit(2, 2)
    fit(1, 4)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["devices"] for line in lines if line["kind"] == "session"] == [2, 1]
    assert [line["samples"] for line in lines if line["kind"] == "step"] == [16] * 4
    assert load_header(tmp_path / "run/last.safetensors").steps == 4
