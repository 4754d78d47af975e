"""Programs that lie about gradients or steps are found in every precision, also on a network as deep as those of the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import twinspike as ts
from twinspike.config import SGD, Method, Optimizer, encode
from twinspike.network import Network
from twinspike.parameters import decays, layout, slots
from twinspike.reference.optimizer import optimizer_step
from twinspike_conformance.certify import at
from twinspike_conformance.checks import CHECKS, Bench
from twinspike_conformance.finding import Finding
from twinspike_torch.backend import TorchBackend

TORCH = TorchBackend("plain")
NETWORK: dict[str, Any] = {"name": "resnet18", "width": 4}


class Untrue:
    """A program with other gradients, or another step."""

    def __init__(self, inner: Any, gradients: Callable[[Any], Any], step: Callable[..., Any]) -> None:
        self._inner, self._gradients, self._step = inner, gradients, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def gradients(self, *batch: Any) -> Any:
        found, metrics = self._inner.gradients(*batch)
        return {name: self._gradients(g) for name, g in found.items()}, metrics

    def train_step(self, *arguments: Any) -> Any:
        return self._step(self._inner, *arguments)


class Session:
    """A session whose programs are untrue."""

    def __init__(self, inner: Any, gradients: Callable[[Any], Any], step: Callable[..., Any]) -> None:
        self._inner, self._lie = inner, (gradients, step)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def program(self, *arguments: Any, **options: Any) -> Any:
        return Untrue(self._inner.program(*arguments, **options), *self._lie)


def true(inner: Any, *arguments: Any) -> Any:
    return inner.train_step(*arguments)


def at_another_rate(inner: Any, state: Any, images: Any, labels: Any, rate: float) -> Any:
    return inner.train_step(state, images, labels, 0.95 * rate)


def without_gradients(network: Network, optimizer: Optimizer) -> Callable[..., Any]:
    """Weight decay and old momentum alone move parameters."""

    def step(inner: Any, state: Any, images: Any, labels: Any, rate: float) -> Any:
        before = inner.dump(state)
        after, metrics = inner.train_step(state, images, labels, rate)
        values = inner.dump(after)
        for entry in (entry for entry in layout(network, Method(), optimizer) if entry.trained):
            name = entry.name
            names = {slot: f"optimizer/{slot}/{name}" for slot in slots(optimizer)}
            kept, zero = {slot: before[key] for slot, key in names.items()}, np.zeros_like(before[name])
            moved = optimizer_step(optimizer, before[name], zero, rate, 1, kept, decays=decays(entry, optimizer))
            values |= {name: moved[0].astype(zero.dtype)} | {names[slot]: v.astype(zero.dtype) for slot, v in moved[1].items()}
        return inner.load(values), metrics

    return step


def found(check: str, precision: str, optimizer: Optimizer, gradients: Callable[[Any], Any], step: Any) -> list[Finding]:
    config = {"network": NETWORK, "method": encode(Method()), "optimizer": encode(optimizer)}
    of_network = at(CHECKS[check], config, 2)
    session = Session(TORCH.session("cpu", precision), gradients, step)
    return of_network.run(Bench(TORCH, session), next(iter(of_network.space.cover())))


@pytest.mark.parametrize("precision", ["f64", "f32-ieee", "bf16-mixed"])
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.5, -1.0])
def test_each_untrue_gradient_is_found(precision: str, factor: float) -> None:
    findings = found("network[gradients]", precision, SGD(), lambda g: g * g.dtype.type(factor), true)
    reported = [finding for finding in findings if finding.quantity.endswith("reported")]
    assert reported
    assert not any(finding.ok for finding in reported if finding.quantity.startswith("gradient of"))


@pytest.mark.parametrize("precision", ["f64", "f32-ieee", "bf16-mixed"])
@pytest.mark.parametrize(
    "optimizer", [SGD(), SGD(momentum=0.9), SGD(momentum=0.9, nesterov=True), ts.Adam(), ts.AdamW()], ids=str
)
def test_a_step_that_ignores_its_gradient_is_found(precision: str, optimizer: Optimizer) -> None:
    network = ts.network(**NETWORK)
    findings = found("network[update]", precision, optimizer, lambda g: g, without_gradients(network, optimizer))
    trained = [entry.name for entry in layout(network, Method(), optimizer) if entry.trained]
    wrong = {finding.quantity.rpartition("/")[2] for finding in findings if not finding.ok}
    assert wrong >= set(trained)


@pytest.mark.parametrize("precision", ["f64", "f32-ieee", "bf16-mixed"])
@pytest.mark.parametrize("optimizer", [SGD(momentum=0.9), SGD(momentum=0.9, nesterov=True), ts.Adam(), ts.AdamW()], ids=str)
def test_a_step_at_a_slightly_different_rate_is_found(precision: str, optimizer: Optimizer) -> None:
    findings = found("network[update]", precision, optimizer, lambda g: g, at_another_rate)
    trained = {entry.name for entry in layout(ts.network(**NETWORK), Method(), optimizer) if entry.trained}
    assert {finding.quantity for finding in findings if not finding.ok} == trained, "slots don't know the rate"


@pytest.mark.parametrize("precision", ["f64", "f32-ieee", "bf16-mixed"])
@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9, nesterov=True), ts.Adam(weight_decay=0.1), ts.AdamW()], ids=str)
def test_what_is_true_passes(precision: str, optimizer: Optimizer) -> None:
    for check in ("network[gradients]", "network[update]"):
        findings = found(check, precision, optimizer, lambda g: g, true)
        assert all(finding.ok for finding in findings), [f.sentence() for f in findings if not f.ok][:3]
