"""The spiking twin in other programs' files: bit for bit where nothing rounds, within the clauses' bounds where it does."""

from __future__ import annotations

import json
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import msgspec
import nir
import numpy as np
import onnxruntime
import pytest
from exported import CASES, few_bits, logits, taps
from numpy.typing import NDArray
from safetensors.numpy import load_file
from training_runs import train
from typer.testing import CliRunner

import twinspike as ts
from twinspike.reference.layers import avg_pool, conv2d
from twinspike_conformance.judges import networks
from twinspike_training.checkpoint import load
from twinspike_training.commands import app
from twinspike_training.export import export, spiking_twin
from twinspike_training.export.onnx_file import model
from twinspike_training.run import open_run, opened

Array = NDArray[Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = ("name=a", "training.epochs=1", "data.test_limit=40", "network=resnet20")
    return train(tmp_path_factory.mktemp("export"), *changes).folder.path


def onnx_of(twin: Any, images: Array, **how: bool) -> dict[str, Array]:
    """What onnxruntime computes, by output."""
    session = onnxruntime.InferenceSession(model(twin, **how).SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images.astype(np.float32)}), strict=True))


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_onnx_gives_the_checkpoint_s_logits_bit_for_bit_where_nothing_rounds(case: str, folded: bool) -> None:
    found, images = few_bits(case)
    want = logits(found, images)
    assert len({tuple(row) for row in want.tolist()}) >= 3  # of 6 samples
    assert onnx_of(spiking_twin(found), images, folded=folded)["logits"].tolist() == want.tolist()


@pytest.mark.parametrize("name", ["logits", "images", "logits:2"])
def test_a_layer_may_be_called_as_the_onnx_model_s_input_or_output(name: str) -> None:
    found, images = few_bits(next(iter(CASES)))
    twin = spiking_twin(found)
    want, (*layers, head), (end,) = logits(found, images), twin.network.layers, twin.network.exits
    assert head.name == end.head
    layers = (*layers, msgspec.structs.replace(head, name=name))
    network = msgspec.structs.replace(twin.network, layers=layers, exits=(msgspec.structs.replace(end, head=name),))
    arrays = {key.replace(f"{head.name}.", f"{name}."): value for key, value in twin.arrays.items()}
    renamed = msgspec.structs.replace(twin, network=network, arrays=arrays)
    assert onnx_of(renamed, images)["logits"].tolist() == want.tolist()


def test_onnxruntime_keeps_the_clauses_at_every_layer_of_a_trained_run(run: Path) -> None:
    ready, found = opened(run, "best")
    ((images, _),) = ready.dataset.test_batches(40)
    twin = spiking_twin(found)
    outputs = onnx_of(twin, images, traced=True)
    judged = [f for layer in twin.network.layers for f in networks.output_of(taps(twin, images, outputs), layer, "snn")]
    assert len(judged) > len(twin.network.layers)
    assert [f"{f.quantity}: {f.ratio}" for f in judged if not f.ok] == []
    head = outputs[twin.network.exits[-1].head]
    assert outputs["logits"].tolist() == (head[:40] + head[40:]).tolist()
    # spikes decide: where all of a sample are the reference's, its logits are within those of the head's roundings
    trace = ready.program.trace(ready.program.load(found.state), images)
    same = np.ones(40, bool)
    for name in twin.network.activations:
        same &= (outputs[name].reshape(2, 40, -1) == trace[name]["snn"].reshape(2, 40, -1)).all(axis=(0, 2))
    assert same.sum() >= 36  # a spike next to the threshold may turn
    weight, bias = (np.abs(twin.of("main.head", part)) for part in ("weight", "bias"))
    features = np.abs(trace["main.feature"]["snn"])
    bound = 2.0**-24 * (weight.shape[1] + 4) * (features @ weight.T + bias).sum(axis=0)
    assert (np.abs(outputs["logits"] - logits(found, images)) <= bound)[same].all()


def euler(graph: nir.NIRGraph, images: Array, steps: int, dt: float) -> Array:
    """NIR's own words with forward Euler in float32: > fires, edges that meet are summed; (B, K, 1, 1) summed over steps."""
    before = {name: {source for source, target in graph.edges if target == name} for name in graph.nodes}
    order, states, total = list(TopologicalSorter(before).static_order()), {}, 0.0
    for t in range(steps):
        values = {"input": images[t]}
        for name in order[1:]:
            x = sum(values[source] for source, target in graph.edges if target == name)
            match graph.nodes[name]:
                case nir.Conv2d() as node:
                    y = conv2d(x, node.weight, int(node.stride[0]), int(node.padding[0])) + node.bias[:, None, None]
                case nir.AvgPool2d() as node:
                    y = avg_pool(x, int(node.kernel_size[0]), int(node.stride[0]))
                case nir.LIF() as node:
                    share = (dt / node.tau).astype(np.float32)
                    v = states.get(name, np.float32(0))
                    u = (1 - share) * v + (share * node.r).astype(np.float32) * x + share * node.v_leak
                    y = (u > node.v_threshold).astype(np.float32)
                    states[name] = np.where(y > 0, node.v_reset, u)
                case nir.Output():
                    total, y = total + x, x
            values[name] = y.astype(np.float32)
    return np.asarray(total)


@pytest.mark.parametrize("case", [case for case in CASES if "soft" not in case])
def test_nir_gives_the_checkpoint_s_logits_bit_for_bit_where_nothing_rounds(case: str, tmp_path: Path) -> None:
    found, images = few_bits(case)
    twin, method = spiking_twin(found), found.header.config.method
    export(twin, "nir", tmp_path / "a.nir")
    graph = nir.read(tmp_path / "a.nir")
    assert graph.metadata["time_steps"] == str(method.time_steps)
    frames = images if found.header.network.event else np.stack([images] * method.time_steps)
    got = euler(graph, frames.astype(np.float32), method.time_steps, float(graph.metadata["dt"]))[:, :, 0, 0]
    if method.readout == "mean":
        got = got / method.time_steps
    assert got.tolist() == logits(found, images).tolist()


def test_what_nir_has_no_place_for_is_one_line(tmp_path: Path) -> None:
    twin = spiking_twin(few_bits("soft reset, no factors")[0])
    with pytest.raises(ts.SpecError, match=r"^nir: expected method.neuron.reset = 'hard', which NIR's LIF has, got 'soft'$"):
        export(twin, "nir", tmp_path / "a.nir")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_every_format_and_refuses_in_one_line(run: Path, tmp_path: Path) -> None:
    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["export", str(run), *arguments], catch_exceptions=False)

    for to, name in (("nir", "a.nir"), ("onnx", "a.onnx"), ("safetensors", "a.safetensors"), ("torch", "t.py"), ("jax", "j.py")):
        result = call("--format", to, "--out", str(tmp_path / name))
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.split()[-1] == str(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.nir", "a.onnx", "a.safetensors", "j.py", "j.safetensors", "t.py", "t.safetensors",
    ]  # fmt: skip
    arrays, twin = load_file(tmp_path / "a.safetensors"), spiking_twin(load(open_run(run).checkpoint("best")))
    assert {name: value.tolist() for name, value in arrays.items()} == {name: v.tolist() for name, v in twin.arrays.items()}
    for arguments, line in {
        ("--format", "onx", "--out", "a.onnx"): "--format: expected one of nir, onnx, safetensors, torch, jax, got onx",
        ("--format", "onnx", "--out", "a.bin"): "--out: expected a file that ends in .onnx, got a.bin",
        (
            "--format",
            "torch",
            "--out",
            "my-net.py",
        ): "--out: expected a name that Python can import, such as net.py, got my-net.py",
        ("--format", "nir", "--out", "a.nir", "--fold"): (
            "--fold: expected --format onnx; nir folds always, the others never, got --format nir"
        ),
        ("--format", "onnx", "--out", str(tmp_path / "no" / "a.onnx")): (
            f"--out: expected a file that can be written, got No such file or directory: {tmp_path / 'no' / 'a.onnx'}"
        ),
    }.items():
        result = call(*arguments)
        assert (result.exit_code, result.stderr) == (2, f"error: {line}\n")


def test_a_missing_package_is_one_line(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys  # noqa: PLC0415 - its table of modules is changed

    monkeypatch.delitem(sys.modules, "twinspike_training.export.onnx_file")
    monkeypatch.setitem(sys.modules, "onnx", None)
    twin = spiking_twin(load(open_run(run).checkpoint("best")))
    with pytest.raises(
        ts.SpecError, match=r"^package 'onnx' is not installed; install it with: pip install 'twinspike\[export\]'$"
    ):
        export(twin, "onnx", tmp_path / "a.onnx")


def test_names_and_facts_travel(run: Path, tmp_path: Path) -> None:
    twin = spiking_twin(load(open_run(run).checkpoint("best")))
    props = {prop.key: prop.value for prop in model(twin).metadata_props}
    assert (props["time_steps"], props["data"], props["classes"]) == ("2", "digits", "10")
    assert twin.facts["normalization"] == {"mean": (0.3045,), "std": (0.3756,)}
    assert json.loads(json.dumps(twin.facts))["input"] == "(B, 1, 8, 8), normalized, the same at each of the 2 steps"
