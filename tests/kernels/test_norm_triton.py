"""Triton's batch norm against float64, on the CPU in its interpreter; what its and the neuron's kernels compile to."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import twinspike as ts
from twinspike_torch import norm
from twinspike_torch.norm import batch_norm_again, batch_norm_train

SHAPES = [(2, 3, 5, 4, 4), (1, 5, 130, 3, 3), (3, 70, 4), (2, 1, 1, 9, 9), (1, 9, 257, 1, 1)]
"""Few channels and more than a tile has, no multiple of one; a single sample; linear."""
ROUNDINGS = 64
"""A tile of 32 rows is summed as a tree, tiles one after another, and some ten roundings stand around them."""


def _last(x: Tensor) -> Tensor:
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


@pytest.fixture(scope="session")
def norm_triton() -> ModuleType:
    """Imported when it is used: these tests can be listed where there is no Triton."""
    return importlib.import_module("twinspike_torch.norm_triton")


@pytest.fixture
def by_triton(monkeypatch: pytest.MonkeyPatch, norm_triton: Any) -> None:
    """On the CPU too."""
    monkeypatch.setattr(norm, "_fused", lambda x: norm_triton if norm_triton.fits(x) else None)


@pytest.mark.usefixtures("by_triton")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("parts", [1024, 2], ids=["tiles apart", "tiles in turn"])
def test_a_step_equals_float64_to_the_roundings_of_its_sums(shape, dtype, parts, device, monkeypatch, norm_triton) -> None:
    monkeypatch.setattr(norm_triton, "PROGRAMS", parts)
    monkeypatch.setattr(norm_triton, "TILE", 4 * norm_triton.WIDTH)  # many tiles of small maps
    torch.manual_seed(0)
    wide = torch.promote_types(dtype, torch.float32)
    x, g = (_last(3 * torch.randn(shape) + 1).to(device, dtype) for _ in range(2))
    gamma, beta = (torch.rand(shape[2], dtype=wide, device=device) + 0.5 for _ in range(2))
    assert norm_triton.fits(x)

    def step(*given: Tensor) -> list[Tensor]:
        x, gamma, beta, g = (value.clone().requires_grad_() for value in given)
        start = torch.zeros_like(gamma), torch.ones_like(gamma)
        y, mean, var = batch_norm_train(ts.BatchNorm(), x, gamma, beta, *start)
        assert torch.equal(batch_norm_again(ts.BatchNorm(), x, gamma, beta), y)
        return [value.detach() for value in (y, mean, var, *torch.autograd.grad(y, (x, gamma, beta), g))]

    found = step(x, gamma, beta, g)
    monkeypatch.setattr(norm, "_fused", lambda x: None)
    expected = step(x.double(), gamma.double(), beta.double(), g.double())
    for one, right in zip(found, expected, strict=True):
        unit = torch.finfo(one.dtype).eps / 2
        assert (one.double() - right).abs().max() <= ROUNDINGS * unit * max(1.0, float(right.abs().max()))


@pytest.mark.usefixtures("by_triton")
def test_a_variance_far_from_zero_keeps_its_digits(device: str, norm_triton: Any) -> None:
    """A difference of squares would lose all of them: the mean is 4,096 deviations away."""
    torch.manual_seed(0)
    x = _last(torch.randn(1, 16, 3, 8, 8) + 4096).to(device)
    _, mean, var, _ = norm_triton.normalize(x, torch.ones(3, device=device), torch.zeros(3, device=device), 1e-5)
    right = x.double().var((0, 1, 3, 4), correction=0)
    assert (var[0].double() - right).abs().max() <= 16 * 2.0**-24 * right.max()
    assert (mean[0].double() - x.double().mean((0, 1, 3, 4))).abs().max() <= 2.0**-24 * 4097


def test_layouts_that_it_does_not_read_are_left_to_torch(device: str, norm_triton: Any) -> None:
    x = torch.zeros(2, 3, 4, 5, 5, device=device)
    assert norm_triton.fits(_last(x))
    assert not norm_triton.fits(x)
    assert not norm_triton.fits(_last(x)[:, :, ::2])
    assert not norm_triton.fits(torch.zeros(2, 3, 0, device=device))


def test_a_billion_values_are_few_programs_in_all_axes_but_the_first(norm_triton: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA starts at most 65,535 in the second and the third."""
    grids: list[tuple[int, ...]] = []

    class Asked:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            grids.append(grid)
            return lambda *args, **options: None

    for name in ("_statistics", "_apply", "_sums", "_to_inputs"):
        monkeypatch.setattr(norm_triton, name, Asked())
    x, gamma = torch.empty(1, 2**13, 32, 32, 128, device="meta").movedim(-1, 2), torch.empty(128, device="meta")
    _, mean, _, inverse = norm_triton.normalize(x, gamma, gamma, 1e-5)
    norm_triton.gradients(x, x, gamma, mean, inverse, 1e-5)
    assert len(grids) == 4
    assert max(grid[0] for grid in grids) > 65_535 > max(max(grid[1:]) for grid in grids)


@pytest.fixture(scope="module")
def on_an_h100() -> dict[str, dict[str, object]]:
    script = Path(__file__).resolve().parents[1] / "support" / "triton_sm90.py"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, object]] = json.loads(done.stdout)
    return found


def test_kernels_compile_for_an_h100_and_keep_all_in_registers(on_an_h100) -> None:
    assert len(on_an_h100) == 33
    spilt = [name for name, used in on_an_h100.items() if used["stack"] or used["local"]]
    large = [name for name, used in on_an_h100.items() if used["reg"] > (224 if name.endswith("norm") else 168)]  # of two norms
    assert spilt == large == []


def test_maps_are_read_and_written_in_whole_words(on_an_h100) -> None:
    """16 bytes at a time; 8 where sixteen steps of 16 bits are in registers. Statistics of a channel are single numbers."""
    for name, used in on_an_h100.items():
        kind, way, *_ = name.split()
        if way.startswith("finish"):
            continue  # of no maps
        widths = {width for width, count in used["access"].items() if count}
        whole = (
            {"LDG.64", "STG.64", "STG.128"} if name.startswith("lif") and name.endswith("bfloat16 16") else {"LDG.128", "STG.128"}
        )
        single = set() if kind == "lif" else {"LDG.32", "LDG.U16"} | ({"STG.32"} if way in ("statistics", "sums") else set())
        assert widths <= whole | single, name
        assert widths & whole, name


def test_the_eager_step_is_counted_with_its_kernels(tmp_path: Path) -> None:
    """Norms, what is added to them and activations are one pass in each direction in both twins, and one for the norms' sums."""
    root = Path(__file__).resolve().parents[2]
    words = ["torch", "--network", "resnet18", "--batch-size", "2", "--top", "100"]
    done = subprocess.run(
        [sys.executable, root / "benchmarks" / "traffic.py", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    counted = dict(re.findall(r"^([FB] \w+(?: \w+)*) +(\d+) +\d+\.\d+$", done.stdout, re.M))
    norms, activations = 2 * 29, 2 * 26
    ways = {"F": ("activate",), "B": ("sums", "to_inputs")}
    assert {counted[f"{way} norm activation {name}"] for way in ways for name in ways[way]} == {str(activations)}
    assert counted["F norm statistics"] == counted["F norm activation finish"] == str(norms)
    assert counted["B norm activation finish_sums"] == str(norms)
    assert not [name for name in counted if "lif" in name or "relu" in name or "threshold" in name]
    assert counted["F convolution"] == counted["B convolution_backward"] == str(norms)
