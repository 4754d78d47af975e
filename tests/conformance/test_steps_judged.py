"""The judge of a real step, whole and by samples: nothing right is accused, and what is wrong where it looks is found."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

import twinspike as ts
from twinspike.judge import Step
from twinspike.setting import Setting
from twinspike_conformance.cases.base import Example
from twinspike_conformance.cases.networks import CONFIGS, setting
from twinspike_conformance.judges import again, networks, sampled, steps

RATE = 0.125
FACTORED, EVENTS, UNFACTORED = 0, 8, 9
"""Of the examples of networks: the block with the paper's method; events; the block unfactored, neurons learned by channel."""


def example(config: int, **method: Any) -> Setting:
    config_of = CONFIGS[config]
    changed = {**config_of["method"], **method}
    given = {"config": {**config_of, "method": changed}, "sizes": {"B": 5}, "family": "normal", "exact": False, "seed": 7}
    return setting(Example(operation="network", **given), "float64")


def taken(s: Setting) -> Step:
    """A right step, in float64 by the reference's own backend."""
    session = ts.load("numpy").session("cpu", "f64", False)
    program = session.program(s.network, s.method, s.optimizer)
    state = program.load(s.state)
    before = program.dump(state)
    trace = program.trace(state, s.images[0], training=True, labels=s.labels[0])
    state, metrics = program.train_step(state, s.images[0], s.labels[0], RATE)
    return Step(
        network=s.network, method=s.method, optimizer=s.optimizer, precision="f64", before=before, images=s.images[0],
        labels=s.labels[0], learning_rate=RATE, trace=trace, after=program.dump(state),
        metrics={name: float(getattr(metrics, name)) for name in metrics.__struct_fields__},
    )  # fmt: skip


def taps(step: Step) -> networks.Taps:
    trace = {name: dict(tap) for name, tap in step.trace.items()}
    return networks.Taps(step.network, step.method, ts.PRECISIONS["f64"], 2.0**-52, step.before, step.images, True, trace)


BY_REST = {"factorization": {"matricize": "out_by_rest"}}


@pytest.fixture(scope="module", params=["factored", "out_by_rest", "events", "unfactored"])
def right(request: pytest.FixtureRequest) -> Step:
    given: dict[str, Any] = {"factored": (FACTORED, {}), "out_by_rest": (FACTORED, BY_REST), "events": (EVENTS, {}),
                             "unfactored": (UNFACTORED, {})}  # fmt: skip
    config, method = given[request.param]
    return taken(example(config, **method))


@pytest.mark.parametrize(("large", "sample"), [(2**40, 2), (0, 1), (0, 2), (0, 9)])
def test_a_right_step_passes_whole_and_by_any_sample(
    right: Step, monkeypatch: pytest.MonkeyPatch, large: int, sample: int
) -> None:
    monkeypatch.setattr(steps, "LARGE", large)
    verdicts = [steps.judge(right, sample=sample, seed=seed) for seed in range(1 if large else 3)]
    assert [verdict.failure for verdict in verdicts] == [None] * len(verdicts)
    assert all(verdict.open == 0 and 0 < verdict.worst < 0.5 for verdict in verdicts)


def spoiled(step: Step, layer: str, key: str, by: float = 1e-6) -> Step:
    """The step with all numbers of one array of its trace off by a share."""
    trace = {name: dict(tap) for name, tap in step.trace.items()}
    trace[layer][key] = np.asarray(trace[layer][key]) * (1.0 + by)
    return msgspec.structs.replace(step, trace=trace)


def test_every_output_and_gradient_is_held_against_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "LARGE", 0)
    step, unseen = taken(example(FACTORED)), []
    for layer, tap in step.trace.items():
        for key, value in tap.items():
            if np.any(value) and not key.startswith("d_"):
                verdict = steps.judge(spoiled(step, layer, key), sample=2, seed=1)
                unseen += [f"{layer}.{key}"] if verdict.failure is None else []
    assert unseen == []


def test_gradients_of_parameters_are_held_against_maps_and_gradients(right: Step) -> None:
    unseen = []
    for layer in right.network.layers:
        for key in [key for key, value in right.trace[layer.name].items() if key.startswith("d_") and np.any(value)]:
            found = sampled._of_parameters(
                taps(spoiled(right, layer.name, key)), layer, sampled.Draw(np.random.default_rng(0), 2)
            )
            unseen += [f"{layer.name}.{key}"] if all(finding.ok for finding in found) else []
    assert unseen == []


def test_the_room_of_a_gradient_is_of_its_summands_and_not_of_its_sum() -> None:
    """Two samples whose contributions cancel: another pass may be off by a share of either."""
    step = taken(example(UNFACTORED))
    t = taps(step)
    name = "head.bias"
    before = again.spread(t)[name]
    tap = t.trace["head"]
    for key in ("g_ann", "g_snn"):
        half = tap[key].copy()
        half[..., :2, :], half[..., 2:4, :], half[..., 4:, :] = 1.0, -1.0, 0.0
        tap[key] = half
    assert (again.spread(t)[name] >= again.room(t) * 4).all()
    assert (before > 0).all()
