"""`twinspike import`: a pretrained network's function is the new run's artificial twin's, to rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from training_runs import TINY, quiet
from typer.testing import CliRunner, Result

import twinspike as ts
from twinspike.network import Conv, Linear, infer_shapes
from twinspike.parameters import kernel_shape
from twinspike.random import Stream
from twinspike.reference.factorization import compose
from twinspike_training import loop
from twinspike_training.checkpoint import load
from twinspike_training.commands import app
from twinspike_training.imports import ours, pretrained_state
from twinspike_training.run import open_run

Array = NDArray[Any]


def torchvision_names(blocks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's ResNet of basic blocks, of width 2, with a 3 x 3 stem of one channel and 10 classes."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (2, 1, 3, 3), "fc.weight": (10, 16), "fc.bias": (10,)}
    norms, before = {"bn1": 2}, 2
    for s, count in enumerate(blocks, start=1):
        width = 2**s
        for b in range(count):
            at = f"layer{s}.{b}"
            shapes |= {f"{at}.conv1.weight": (width, before, 3, 3), f"{at}.conv2.weight": (width, width, 3, 3)}
            norms |= {f"{at}.bn1": width, f"{at}.bn2": width}
            if before != width:
                shapes[f"{at}.downsample.0.weight"] = (width, before, 1, 1)
                norms[f"{at}.downsample.1"] = width
            before = width
    for name, width in norms.items():
        shapes |= {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    return {
        name: np.asarray(Stream(3, "init", index=i).uniform(*shape) - (0 if name.endswith("var") else 0.4), np.float32)
        for i, (name, shape) in enumerate(shapes.items())
    }


NETWORK = ts.network("resnet18", input_shape=(1, 8, 8), width=2, classes=10)


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", (2, 2, 2, 2)), ("resnet34", (3, 4, 6, 3))])
def test_every_array_of_torchvision_s_resnets_has_its_place(name: str, blocks: tuple[int, ...]) -> None:
    network = ts.network(name, input_shape=(1, 8, 8), width=2, classes=10)
    arrays = {ours(key): value for key, value in drawn(torchvision_names(blocks)).items()}
    _, left, energy = pretrained_state(network, ts.Method(), ts.SGD(), 0, arrays)  # type: ignore[arg-type]
    assert {layer.partition(".")[0] for layer in left} == {"branch1", "branch2", "branch3"}
    assert energy == {}
    assert ours("bn1.num_batches_tracked") is None
    assert ours("stage1.1.1.conv.weight") == "stage1.1.1.conv.weight"


@pytest.mark.parametrize("factorization", [{}, {"matricize": "out_by_rest", "scope": "with_heads"}, {"scope": "none"}])
def test_effective_kernels_of_both_twins_are_the_file_s_to_rounding(factorization: dict[str, Any]) -> None:
    f, shapes = ts.Factorization(**factorization), infer_shapes(NETWORK)
    arrays = {str(ours(key)): value.astype(np.float64) for key, value in drawn(torchvision_names((2, 2, 2, 2))).items()}
    state, left, _ = pretrained_state(NETWORK, ts.Method(factorization=f), ts.SGD(), 0, arrays)
    for layer in NETWORK.layers:
        if not isinstance(layer, Conv | Linear) or layer.name in left:
            continue
        want, shape = arrays[f"{layer.name}.weight"], kernel_shape(layer, shapes[layer.input])
        for twin in ("ann", "snn"):
            if f"{layer.name}.U" not in state:
                assert state[f"{layer.name}.weight_{twin}"].tolist() == want.tolist()
                continue
            u, sigma, v = (np.asarray(state[f"{layer.name}.{part}"]) for part in ("U", f"sigma_{twin}", "V"))
            # the residual of a singular value decomposition: m n roundings of the largest singular value
            bound = 2.0**-53 * 4 * max(u.shape[-2], v.shape[-1]) * min(u.shape[-2], v.shape[-1]) * sigma.max()
            assert np.abs(compose(f, u, sigma, v, shape) - want).max() <= bound
    assert state["stem.norm.gamma_ann"].tolist() == arrays["stem.norm.gamma"].tolist()


def test_a_rank_keeps_the_share_of_energy_that_is_said() -> None:
    arrays = {str(ours(key)): value.astype(np.float64) for key, value in drawn(torchvision_names((2, 2, 2, 2))).items()}
    method = ts.Method(factorization=ts.Factorization(rank=2))
    state, _, energy = pretrained_state(NETWORK, method, ts.SGD(), 0, arrays)
    sigma = np.linalg.svd(arrays["stage4.2.2.conv.weight"].transpose(2, 3, 0, 1), compute_uv=False)
    want = ((sigma[..., :2] ** 2).sum(axis=-1) / (sigma**2).sum(axis=-1)).min()
    assert energy["stage4.2.2.conv"] == pytest.approx(want, abs=2.0**-53 * 64)  # 16 squares and sums, each rounded
    assert "stem.conv" not in energy  # of rank 1
    assert state["stage4.2.2.conv.U"].shape == (3, 3, 16, 2)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["import", *arguments], catch_exceptions=False)


SETS = [part for change in (*TINY, "network=resnet18", "training.max_steps=2") for part in ("--set", change)]


def test_a_run_starts_from_the_file_and_trains(tmp_path: Path) -> None:
    save_file(drawn(torchvision_names((2, 2, 2, 2))), tmp_path / "ann.safetensors")
    result = run(str(tmp_path / "ann.safetensors"), *SETS, "--out", str(tmp_path), "--name", "a")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"in {tmp_path}/a, at step 0; train with: twinspike train --resume {tmp_path}/a\n" in result.stdout
    assert "as drawn by the seed: branch1.1.conv, " in result.stdout
    folder = open_run(tmp_path / "a")
    before = load(folder.checkpoint("last"))
    assert before.header.steps == 0
    outcome = loop.resume(folder, None, quiet())
    assert outcome.steps == 2
    after = load(folder.checkpoint("last")).state
    assert np.abs(after["stem.conv.U"] - before.state["stem.conv.U"]).max() > 0


def test_what_does_not_fit_is_a_line_each_and_leaves_nothing(tmp_path: Path) -> None:
    arrays = drawn(torchvision_names((2, 2, 2, 2)))
    arrays["conv1.weight"] = np.zeros((2, 3, 7, 7), np.float32)
    arrays["layer5.0.conv1.weight"] = np.zeros((2, 2, 3, 3), np.float32)
    del arrays["layer2.0.bn1.bias"]
    save_file(arrays, tmp_path / "ann.safetensors")
    result = run(str(tmp_path / "ann.safetensors"), *SETS, "--out", str(tmp_path / "runs"), "--skip", "steam")
    assert result.exit_code == 2
    assert sorted(result.stderr.splitlines()) == [
        "--skip steam: no layer is called so",
        "error: import: expected arrays that fit the network, got 4 that don't; --skip LAYER leaves a layer out",
        "stage2.1.1.norm.beta: the file has other arrays of stage2.1.1.norm and not this one",
        "stage5.1.1.conv.weight: the network has no such array",
        "stem.conv.weight: expected shape (2, 1, 3, 3), got (2, 3, 7, 7)",
    ]
    assert not (tmp_path / "runs").exists()
    (tmp_path / "text.safetensors").write_text("no arrays")
    result = run(str(tmp_path / "text.safetensors"), *SETS)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: import: expected a readable safetensors file, got ")
    assert len(result.stderr.splitlines()) == 1
    result = run("nowhere", *SETS)
    assert result.stderr == "error: import: expected a safetensors file, got no such file: nowhere\n"


def test_values_that_no_run_can_begin_with_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    file, arrays = tmp_path / "ann.safetensors", drawn(torchvision_names((2, 2, 2, 2)))
    save_file(arrays | {"bn1.running_var": np.array([-1, 1], np.float32)}, file)
    result = run(str(file), *SETS, "--out", str(tmp_path / "runs"))
    assert (result.exit_code, result.stderr) == (2, "error: import[stem.norm.var_ann]: expected values >= 0, got -1.0\n")
    save_file(arrays | {"conv1.weight": np.full_like(arrays["conv1.weight"], 1e300, np.float64)}, file)
    result = run(str(file), *SETS, "--out", str(tmp_path / "runs"))
    told = "error: import conv1.weight: expected finite values that float32 holds, got 1e+300\n"
    assert (result.exit_code, result.stderr) == (2, told)
    save_file({}, file)
    result = run(str(file), *SETS, "--out", str(tmp_path / "runs"))
    assert (result.exit_code, result.stderr) == (2, f"error: import: expected arrays of a network, got none: {file}\n")
    head = b'{"conv1.weight":{"dtype":"F32","shape":[' + b",".join([b"1"] * 70) + b'],"data_offsets":[0,4]}}'
    file.write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))  # of more dimensions than NumPy has
    result = run(str(file), *SETS, "--out", str(tmp_path / "runs"))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: import: expected a readable safetensors file, got ")
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
