"""In bf16-mixed a backend may hand float32 gradients back and round them as operands of convolutions alone (PRE-6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from twinspike.config import TWINS
from twinspike.network import INPUT, Conv, inputs_of
from twinspike_conformance.bounds.finding import Finding
from twinspike_conformance.cases.families import rounded
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.checks.programs import opened, taps_of
from twinspike_conformance.judges import networks as taps
from twinspike_conformance.judges.ends import seeds
from twinspike_conformance.run.runner import covering
from twinspike_torch.backend import TorchBackend

TORCH = TorchBackend("plain")
SESSION = TORCH.session("cpu", "bf16-mixed")
EXAMPLE = covering(CHECKS["network[gradients]"], 1.0)[0]


def float32(x: Any) -> Any:
    return np.asarray(x, np.float32).astype(np.float64)


def bfloat16(x: Any) -> Any:
    """To nearest, ties to even, of the bits."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


def handed_back(t: taps.Taps, labels: Any, rounded: Any) -> list[Finding]:
    """What is found of torch's forward pass with another backward pass: float32, operands of convolutions `rounded`."""
    sent, towards, whole = seeds(t, labels), {}, {}
    for layer in reversed(t.network.layers):
        for twin in TWINS:
            readers = [r for r in t.network.layers if layer.name in inputs_of(r) and layer.name != INPUT]
            parts = [taps.adjoint_of(t, reader, twin, layer.name, towards).value for reader in readers]
            parts += [sent[twin, layer.name].value] if (twin, layer.name) in sent else []
            form = t.gradient(twin, layer.name).shape
            total = sum(p.sum(axis=0, keepdims=True) if form[0] == 1 else p for p in parts)
            whole[layer.name, twin] = float32(np.broadcast_to(total, form)).reshape(t.trace[layer.name][f"g_{twin}"].shape)
            operand = rounded(whole[layer.name, twin]) if isinstance(layer, Conv) else whole[layer.name, twin]
            t.trace[layer.name][f"g_{twin}"] = operand
    for layer in t.network.layers:
        for twin in TWINS:
            taps.note_parameters(t, layer, twin, towards)
    for name, parts in towards.items():
        layer_name, _, suffix = name.rpartition(".")
        t.trace[layer_name][f"d_{suffix}"] = float32(sum(part.value for part in parts))
    for (layer_name, twin), g in whole.items():
        t.trace[layer_name][f"g_{twin}"] = g
    return list(taps.backward(t, sent))


def traced() -> tuple[taps.Taps, Any]:
    s, program, state = opened(Bench(TORCH, SESSION), EXAMPLE)
    return taps_of(Bench(TORCH, SESSION), s, program, state, training=True, labels=True), s.labels[0]


def test_float32_gradients_that_are_rounded_as_operands_pass() -> None:
    findings = handed_back(*traced(), bfloat16)
    assert all(finding.ok for finding in findings), [f.sentence() for f in findings if not f.ok][:3]


def test_operands_of_fewer_bits_are_found() -> None:
    findings = handed_back(*traced(), lambda g: bfloat16(g) * (1 + 2.0**-5))
    assert not all(finding.ok for finding in findings)


def test_without_the_room_for_it_they_would_be_accused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taps.Taps, "operand_of", taps.Taps.lift)
    assert not all(finding.ok for finding in handed_back(*traced(), bfloat16))


def test_bfloat16_gradients_get_no_room() -> None:
    t, _ = traced()
    g = np.array([1.5, -0.0, 3e-30, 2.0**100, 0.1, 1 + 2.0**-8])
    assert np.array_equal(t.operand_of(bfloat16(g)).error, np.zeros(6))
    assert np.array_equal(t.operand_of(g).error > 0, [False, False, True, False, True, True])
    assert np.array_equal(rounded(g, "bfloat16"), bfloat16(g))
