"""What a training step of the PyTorch backend keeps for its backward pass, and that keeping less changes no bit."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from kept_maps import EVENTS, LEARNED, RESNET, VGG, bytes_of_layers
from torch.autograd.graph import saved_tensors_hooks

import twinspike as ts
import twinspike_torch as tt
from twinspike.network import Network, infer_shapes
from twinspike_torch.plan import plan


def batch(network: Network, method: ts.Method, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    lead = (method.time_steps, size) if network.event else (size,)
    return rng.standard_normal((*lead, *network.input_shape)).astype(np.float32), rng.integers(0, network.classes, size)


def after_two_steps(network: Network, method: ts.Method, precision: str, recompute: bool) -> dict[str, np.ndarray]:
    optimizer = ts.SGD(momentum=0.9)
    program = tt.backend.session(precision=precision).program(network, method, optimizer, recompute=recompute)
    state = program.load(ts.initial_state(network, method, optimizer, seed=1))
    images, labels = batch(network, method, 3)
    for _ in range(2):
        state, _ = program.train_step(state, images, labels, 0.05)
    return dict(program.dump(state))


@pytest.mark.parametrize("precision", ["f32-ieee", "bf16-mixed"])
@pytest.mark.parametrize(
    ("network", "method"),
    [(RESNET, ts.Method()), (VGG, ts.Method(time_steps=2)), (EVENTS, LEARNED)],
    ids=["resnet", "vgg", "events"],
)
def test_recomputed_blocks_give_the_same_bits_and_move_statistics_once(
    network: Network, method: ts.Method, precision: str
) -> None:
    kept, recomputed = (after_two_steps(network, method, precision, recompute) for recompute in (False, True))
    for name, value in kept.items():
        np.testing.assert_array_equal(recomputed[name], value, err_msg=name)


def test_recomputed_currents_equal_kept_ones_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    thrifty = after_two_steps(RESNET, ts.Method(), "f32-ieee", False)
    monkeypatch.setattr("twinspike_torch.execution.batch_norm_again", lambda *_: pytest.fail("nothing is to be recomputed"))
    monkeypatch.setattr("twinspike_torch.execution._recomputed", lambda *_: torch.enable_grad())
    for name, value in after_two_steps(RESNET, ts.Method(), "f32-ieee", False).items():
        np.testing.assert_array_equal(thrifty[name], value, err_msg=name)


def maps_kept(network: Network, method: ts.Method, precision: str, recompute: bool, size: int) -> int:
    """Bytes of all distinct maps that a forward pass keeps."""
    form: dict[str, Any] = {"activations": torch.bfloat16} if precision == "bf16-mixed" else {}
    body = tt.TwinNetwork(network, method, recompute=recompute, dtype=torch.float32, **form)
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim >= 4:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage
        return tensor

    images, labels = (torch.from_numpy(a) for a in batch(network, method, size))
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = tt.joint_loss(*body(images)[:4], labels, config=method.loss).loss
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in storages.values())


def maps_per_image(network: Network, method: ts.Method, precision: str, recompute: bool) -> int:
    """Kernels are kept as well, whatever the batch: two sizes tell them apart."""
    more, less = (maps_kept(network, method, precision, recompute, size) for size in (4, 2))
    assert (more - less) % 2 == 0
    return (more - less) // 2


@pytest.mark.parametrize(("precision", "size"), [("f32-ieee", 4), ("bf16-mixed", 2)])
def test_a_step_keeps_convolutions_outputs_once_and_spikes_as_bytes(precision: str, size: int) -> None:
    method = ts.Method(time_steps=3)
    expected = math.prod(RESNET.input_shape) * size + bytes_of_layers(RESNET, method.time_steps, size)
    assert maps_per_image(RESNET, method, precision, False) == expected


@pytest.mark.parametrize("network", [RESNET, VGG], ids=["resnet", "vgg"])
def test_recomputation_keeps_what_joins_blocks_and_less_than_half(network: Network) -> None:
    method, shapes = ts.Method(time_steps=3), infer_shapes(network)
    joints = {name for segment in plan(network) for name in segment.reads}
    expected = sum(math.prod(shapes[name]) * 2 * (1 if name == "input" else 1 + method.time_steps) for name in joints)
    kept = maps_per_image(network, method, "bf16-mixed", True)
    assert kept == expected
    assert 2 * kept < maps_per_image(network, method, "bf16-mixed", False)


def test_recomputation_traces_as_one_graph() -> None:
    """Tracing and differentiation ahead of time, without code generation: gradients within 1e-12 of their norm."""
    network = ts.network("digits_cnn", width=2, input_shape=(1, 8, 8), classes=4)
    method = ts.Method(time_steps=2)
    images, labels = (torch.from_numpy(a) for a in batch(network, method, 3))
    plain, module = (tt.build(network, method, recompute=recompute, dtype=torch.float64) for recompute in (False, True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, inside its tracer
        traced = torch.compile(module, backend="aot_eager", fullgraph=True)
        tt.joint_loss(*traced(images.double())[:4], labels, config=method.loss).loss.backward()
    tt.joint_loss(*plain(images.double())[:4], labels, config=method.loss).loss.backward()
    for (name, p), q in zip(plain.named_parameters(), module.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert (p.grad - q.grad).norm() <= 1e-12 * p.grad.norm(), name
    for (name, one), other in zip(plain.named_buffers(), module.buffers(), strict=True):
        assert (one - other).norm() <= 1e-12 * one.norm(), name  # moved once


def test_segments_are_blocks_and_exits() -> None:
    """Every layer is in one segment, and each reads only what earlier ones write."""
    segments = plan(RESNET)
    assert [node.name for segment in segments for node in segment.nodes] == [layer.name for layer in RESNET.layers]
    firsts = [segment.nodes[0].name for segment in segments]
    assert firsts[:3] == ["stem.conv", "stage1.1.1.conv", "stage1.2.1.conv"]
    assert firsts[-3:] == ["branch1.1.conv", "branch2.1.conv", "branch3.1.conv"]
    written = {"input"}
    for segment in segments:
        assert written.issuperset(segment.reads)
        written |= set(segment.writes)
