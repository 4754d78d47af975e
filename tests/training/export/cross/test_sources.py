"""Generated Python: with torch or jax alone it gives the checkpoint's logits, bit for bit where nothing rounds."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
import pytest
import torch
from exported import CASES, Array, few_bits, logits

import twinspike as ts
import twinspike_torch as tt
from twinspike.reference.surrogate import derivative
from twinspike_training.checkpoint import Checkpoint
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


def with_surrogate(surrogate: ts.Surrogate, detach: bool = False) -> tuple[Checkpoint, Array]:
    """A checkpoint of few bits whose neurons have another surrogate."""
    found, images = few_bits("v_reset, decayed input")
    replace, header = msgspec.structs.replace, found.header
    neuron = replace(header.config.method.neuron, surrogate=surrogate, detach_reset=detach)
    config = replace(header.config, method=replace(header.config.method, neuron=neuron))
    return replace(found, header=replace(header, config=config)), images


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_are_those_of_training_bit_for_bit(detach: bool, tmp_path: Path) -> None:
    found, images = with_surrogate(ts.Rectangle(width=0.5), detach)
    header = found.header
    twins = tt.TwinNetwork(header.network, header.config.method, dtype=torch.float64, kernel="plain").eval()
    twins.load_state_dict({name: torch.tensor(value) for name, value in found.state.items() if not name.startswith("optimizer")})
    x = torch.tensor(images, requires_grad=True)
    (want,) = torch.autograd.grad(twins(x).logits_snn[-1].square().sum(), x)
    assert want.abs().max() > 0
    for to in ("torch", "jax"):
        export(spiking_twin(found), to, tmp_path / f"{to}_net.py")
    net = loaded(tmp_path / "torch_net.py").load()
    (got,) = torch.autograd.grad(net(x).square().sum(), x)
    assert torch.equal(got, want)
    with jax.enable_x64():
        module = loaded(tmp_path / "jax_net.py")
        p = module.load()
        pulled = jax.jit(jax.grad(lambda image: (module.network(p, image) ** 2).sum()))(images)
        assert np.asarray(pulled).tolist() == want.tolist()


SURROGATES = (
    ts.Rectangle(width=0.5), ts.Triangle(width=2.0), ts.Sigmoid(slope=3.0), ts.Arctan(), ts.FastSigmoid(slope=1.5), ts.Tanh(),
)  # fmt: skip


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda surrogate: type(surrogate).__name__)
def test_surrogates_are_as_near_to_the_reference_as_sur_1_wants(surrogate: ts.Surrogate, tmp_path: Path) -> None:
    found, _ = with_surrogate(surrogate)
    for to in ("torch", "jax"):
        export(spiking_twin(found), to, tmp_path / f"{to}_net.py")
    z = np.linspace(-6, 6, 97)
    h = derivative(surrogate, z)
    if isinstance(surrogate, ts.Rectangle | ts.Triangle):
        bound = 12 * 2.0**-53 / surrogate.width * np.ones_like(z)
    else:
        bound = (32 + 10 * surrogate.slope * np.abs(z)) * 2.0**-53 * h
    u = torch.tensor(z, requires_grad=True)
    loaded(tmp_path / "torch_net.py").Spike.apply(u, u >= 0).sum().backward()
    assert u.grad is not None
    assert (np.abs(u.grad.numpy() - h) <= bound).all()
    with jax.enable_x64():
        spike = loaded(tmp_path / "jax_net.py").spike
        g = jax.vmap(jax.grad(spike), in_axes=(0, None))(z, 0.0)
        assert (np.abs(np.asarray(g) - h) <= bound).all()


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
