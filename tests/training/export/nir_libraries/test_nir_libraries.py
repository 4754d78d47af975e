"""NIR files in the libraries that read them: nirtorch builds the graph, snnTorch and SpikingJelly run it with the same spikes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from exported import CASES, few_bits, logits
from numpy.typing import NDArray
from snntorch.import_nir import import_from_nir as to_snntorch
from spikingjelly.activation_based.nir_exchange import import_from_nir as to_spikingjelly
from training_runs import train

from twinspike_training.export import export, spiking_twin
from twinspike_training.run import opened

Array = NDArray[Any]
Read = Callable[[nir.NIRGraph], torch.nn.Module]

LIBRARIES: dict[str, tuple[Read, str]] = {
    "snntorch": (to_snntorch, "Leaky"),
    "spikingjelly": (to_spikingjelly, "_NIRStatefulModule"),
}
"""How a graph is read, and the class of the modules that neurons become."""


def ran(library: str, file: Path, frames: Array) -> tuple[Array, list[Array]]:
    """Logits summed over steps, (B, K), and spikes of each layer in the order in which it first fires, (T, B, ...)."""
    read, neurons = LIBRARIES[library]
    net = read(nir.read(file))
    spikes: dict[str, list[Array]] = {}
    for name, module in net.named_modules():
        if type(module).__name__ == neurons:
            kept = spikes.setdefault(name, [])
            module.register_forward_hook(lambda _, __, out, kept=kept: kept.append(_first(out).detach().numpy()))
    total, state = 0.0, None
    with torch.no_grad():
        for frame in frames.astype(np.float32):
            y, state = net(torch.tensor(frame)) if state is None else net(torch.tensor(frame), state)
            total = total + y
    return total.numpy()[:, :, 0, 0], [np.stack(kept) for _, kept in sorted(spikes.items(), key=lambda item: _number(item[0]))]


def _first(out: Any) -> torch.Tensor:
    return out[0] if isinstance(out, tuple) else out


def _number(name: str) -> int:
    """Of the layer that a node's name begins with: n12_stage_act."""
    return int(name.lstrip("n").partition("_")[0])


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", ["as published", "one step"])
def test_where_nothing_rounds_logits_are_the_checkpoint_s_bit_for_bit(case: str, library: str, tmp_path: Path) -> None:
    found, images = few_bits(case)
    assert not CASES[case][1]
    export(spiking_twin(found), "nir", tmp_path / "a.nir")
    steps = found.header.config.method.time_steps
    assert ran(library, tmp_path / "a.nir", np.stack([images] * steps))[0].tolist() == logits(found, images).tolist()


@pytest.mark.parametrize("network", ["digits_cnn", "resnet20"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_trained_run_has_the_same_spikes(network: str, library: str, tmp_path: Path) -> None:
    run = train(tmp_path, "name=a", "data.test_limit=40", f"network={network}", "width=4", "method.time_steps=4").folder.path
    ready, found = opened(run, "best")
    ((images, _),) = ready.dataset.test_batches(40)
    twin = spiking_twin(found)
    export(twin, "nir", tmp_path / "a.nir")
    got, spikes = ran(library, tmp_path / "a.nir", np.stack([images] * 4))
    trace = ready.program.trace(ready.program.load(found.state), images)
    assert len(spikes) == len(twin.network.activations)
    same = np.ones(40, bool)
    for name, s in zip(twin.network.activations, spikes, strict=True):
        same &= (s.reshape(4, 40, -1) == trace[name]["snn"].reshape(4, 40, -1)).all(axis=(0, 2))
    assert same.sum() >= 36  # float32 and folded norms may turn a spike next to the threshold
    weight, bias = (np.abs(twin.of("main.head", part)) for part in ("weight", "bias"))
    bound = 2.0**-24 * (weight.shape[1] + 6) * (np.abs(trace["main.feature"]["snn"]) @ weight.T + bias).sum(axis=0)
    assert (np.abs(got - logits(found, images)) <= bound)[same].all()
    print(f"{library}, {network}: {same.sum()} of 40 samples have every spike of the checkpoint")
