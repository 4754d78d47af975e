"""The paper's recipe as a user runs it, compiled: trained for two steps, tested, gone on with and drawn, on a CPU.

Everything but sizes is the recipe's: data layout, augmentation, optimizer, schedule and `compile = true`. XLA gets its ResNet-18
at full depth, two channels wide, in some ten seconds of a core. For Inductor one residual block of it remains: that takes a
minute and a half of a core, and many times as long at full depth.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from twinspike.network import Network, to_json
from twinspike.zoo import _Builder, _residual
from twinspike_training.commands import app
from twinspike_training.run import open_run

RECORDS = 10_000


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Options that make the recipe small, by backend: files that are sparse but for their first records, and a small network."""
    home = tmp_path_factory.mktemp("recipe")
    folder, draw = home / "cifar-10-batches-bin", np.random.default_rng(0)
    folder.mkdir()
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        with (folder / name).open("wb") as file:
            for label in range(10):
                file.write(bytes([label]) + draw.bytes(3072))
            file.truncate(RECORDS * 3073)
    (folder / "batches.meta.txt").write_text("".join(f"class {i}\n" for i in range(10)))
    builder = _Builder((3, 32, 32))
    exits = _residual((1,), (1,))(builder, 2, 10)
    network = Network(name="block", input_shape=(3, 32, 32), event=False, layers=tuple(builder.layers), exits=exits)
    (home / "block.json").write_text(to_json(network))
    sizes = {
        "data.path": json.dumps(str(home)),
        "method.time_steps": 2,
        "training.max_steps": 2,
        "training.batch_size": 8,
        "data.limit": 32,
        "data.test_limit": 16,
        "data.workers": 0,
    }
    networks = {"torch": {"network": json.dumps(str(home / "block.json"))}, "jax": {"width": 2}}
    wanted = {backend: sizes | network for backend, network in networks.items()}
    return {
        backend: [part for key, value in sizes.items() for part in ("--set", f"{key}={value}")]
        for backend, sizes in wanted.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_the_papers_recipe_is_trained_tested_gone_on_with_and_drawn(
    recipe: dict[str, list[str]], tmp_path: Path, backend: str
) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(app, list(words), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    here = ["--backend", backend, "--device", "cpu", "--precision", "f32-ieee"]
    said = run("train", "cifar10_resnet18", *here, *recipe[backend], "--out", str(tmp_path), "--name", "r")
    assert f"backend {backend} on cpu, f32-ieee, compiled" in said
    folder = open_run(tmp_path / "r")
    last = json.loads(folder.metrics.read_text().splitlines()[-1])
    assert (last["kind"], last["step"], last["samples"]) == ("epoch", 2, 16)
    found = json.loads(run("evaluate", str(folder.path), "--checkpoint", "last", "--json"))
    assert found.pop("energy").keys() == {"ann", "snn"}
    assert found.items() <= last.items()
    assert "resumed after step 2" in run("train", "--resume", str(folder.path), "--set", "training.max_steps=3")
    assert json.loads(folder.metrics.read_text().splitlines()[-1])["step"] == 3
    assert len(run("plot", str(folder.path)).split()) == 5
