"""Counts of inference equal those of NeuroBench's harness, on the exported network in snnTorch, where both count the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import nir
import numpy as np
import pytest
import torch
from neurobench.benchmarks import Benchmark
from neurobench.metrics.static import ConnectionSparsity
from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
from neurobench.models import SNNTorchModel
from snntorch.import_nir import import_from_nir
from torch.utils.data import DataLoader, TensorDataset
from training_runs import train

from twinspike import energy
from twinspike_training.export import export, spiking_twin
from twinspike_training.run import opened


@pytest.mark.parametrize("network", ["digits_cnn", "resnet20"])
def test_the_harness_counts_the_same(network: str, tmp_path: Path) -> None:
    run = train(tmp_path, "name=a", "data.test_limit=24", f"network={network}", "width=4", "method.time_steps=4").folder.path
    ready, found = opened(run, "best")
    ((images, labels),) = ready.dataset.test_batches(24)
    state = _pruned(found.state)
    twin = spiking_twin(msgspec.structs.replace(found, state=state))
    export(twin, "nir", tmp_path / "a.nir")
    trace = ready.program.trace(ready.program.load(state), images)
    method = ready.config.method
    work = energy.workload(ready.network, method, "snn", state, images, trace)
    size = energy.static(ready.network, method, "snn", state)

    data = torch.tensor(np.stack([images] * 4, axis=1))
    loader = DataLoader(TensorDataset(data, torch.tensor(labels)), batch_size=8)
    model = SNNTorchModel(import_from_nir(nir.read(tmp_path / "a.nir")))
    metrics = [ConnectionSparsity], [ActivationSparsity, SynapticOperations, MembraneUpdates]
    with torch.no_grad():
        told = Benchmark(model, loader, [], [], list(metrics)).run(quiet=True)
    operations = told["SynapticOperations"]
    assert operations == {
        "Effective_MACs": work.macs / 24,
        "Effective_ACs": work.acs / 24,
        "Dense": work.dense / 24,
    }
    assert told["MembraneUpdates"] == work.updates / 24
    assert told["ConnectionSparsity"] == round(size.connection_sparsity, 4)
    assert size.zeros > 0
    # it averages over batches, all of 8 samples: a mean of shares with a few roundings
    assert told["ActivationSparsity"] == pytest.approx(work.activation_sparsity, abs=2.0**-50)


def _pruned(state: dict[str, Any]) -> dict[str, Any]:
    """A state whose kernels have zeros: some rows of U."""
    pruned = dict(state)
    for name, value in state.items():
        if name.endswith(".U"):
            pruned[name] = value.copy()
            pruned[name][..., 0, :] = 0
    return pruned
