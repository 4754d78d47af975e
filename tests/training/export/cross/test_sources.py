"""Generated Python: with torch or jax alone it gives the checkpoint's logits, bit for bit where nothing rounds."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from exported import CASES, few_bits, logits

from twinspike_training.export import export, spiking_twin


def loaded(path: Path) -> Any:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", CASES)
def test_the_torch_module_gives_the_checkpoint_s_logits_bit_for_bit(case: str, tmp_path: Path) -> None:
    found, images = few_bits(case)
    export(spiking_twin(found), "torch", tmp_path / "net.py")
    net = loaded(tmp_path / "net.py").load()
    for dtype in (torch.float64, torch.float32):
        with torch.no_grad():
            got = net.to(dtype)(torch.tensor(images, dtype=dtype))
        assert got.tolist() == logits(found, images).tolist()


@pytest.mark.parametrize("case", CASES)
def test_the_jax_function_gives_the_checkpoint_s_logits_bit_for_bit(case: str, tmp_path: Path) -> None:
    found, images = few_bits(case)
    export(spiking_twin(found), "jax", tmp_path / "net.py")
    net = loaded(tmp_path / "net.py")
    p = {name: value.astype(np.float32) for name, value in net.read(tmp_path / "net.safetensors").items()}
    got = jax.jit(net.network)(p, images.astype(np.float32))
    assert np.asarray(got).tolist() == logits(found, images).tolist()


def test_the_file_needs_torch_alone(tmp_path: Path) -> None:
    found, images = few_bits("as published")
    export(spiking_twin(found), "torch", tmp_path / "net.py")
    program = (
        "import sys, warnings\n"
        "for name in ('numpy', 'twinspike', 'safetensors', 'jax'):\n"
        "    sys.modules[name] = None\n"
        "warnings.simplefilter('ignore')\n"  # torch's, of a NumPy that is not there
        "import torch, net\n"
        f"print(net.load()(torch.tensor({images.tolist()}, dtype=torch.float64)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, env={})
    assert done.stdout.strip() == str(logits(found, images).tolist())
