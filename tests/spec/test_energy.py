"""Counts of inference against their clauses, one product at a time, and the faults that this must see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

import twinspike as ts
from twinspike import energy
from twinspike.config import Twin
from twinspike.network import Activation, Add, AvgPool, Branch, Conv, GlobalPool, Linear, Network, Norm
from twinspike.parameters import State
from twinspike.random import Stream

SOURCE = Path(energy.__file__)


def network(event: bool) -> Network:
    return Network(
        name="counted",
        input_shape=(2, 5, 6),
        event=event,
        layers=(
            Conv(name="a", input="input", out_channels=3, kernel=3, padding=2, stride=2),
            Norm(name="a.norm", input="a"),
            Activation(name="a.act", input="a.norm"),
            Conv(name="b", input="a.act", out_channels=3, kernel=3, padding=1),
            Add(name="b.add", input="b", other="a.act"),
            Activation(name="b.act", input="b.add"),
            AvgPool(name="pool", input="b.act", kernel=2, stride=2),
            Conv(name="c", input="pool", out_channels=4, kernel=2),
            Activation(name="c.act", input="c"),
            GlobalPool(name="feature", input="c.act"),
            Linear(name="hidden", input="feature", out_features=5),
            Activation(name="hidden.act", input="hidden"),
            Linear(name="head", input="hidden.act", out_features=3),
            Conv(name="branch", input="a.act", out_channels=4, kernel=1, part="branch"),
            GlobalPool(name="branch.feature", input="branch"),
            Linear(name="branch.head", input="branch.feature", out_features=3),
        ),
        exits=(Branch(feature="branch.feature", head="branch.head"), Branch(feature="feature", head="head")),
    )


METHODS = {
    "hard": ts.Method(time_steps=3, factorization=ts.Factorization(scope="none"), neuron=ts.Neuron(decay=0.5)),
    "soft, learned, factors": ts.Method(
        time_steps=3, neuron=ts.Neuron(reset="soft", threshold_scope="channel", decay=0.5), factorization=ts.Factorization(rank=1)
    ),
    "v_reset": ts.Method(
        time_steps=3, factorization=ts.Factorization(scope="none"), neuron=ts.Neuron(v_reset=-0.25, decay=1.0, threshold=0.25)
    ),
}


def case(name: str, event: bool) -> tuple[Any, ts.Method, State, Any, Any]:
    """Sparse kernels and images, and the reference's trace of them."""
    net, method = network(event), METHODS[name]
    state = ts.initial_state(net, method, ts.SGD(), seed=1)
    for i, entry in enumerate(ts.layout(net, method, ts.SGD())):
        draw = np.asarray(Stream(5, "init", index=i).uniform(*entry.shape)) if entry.shape else None
        if draw is not None and entry.kind in ("weight", "factor", "sigma"):
            state[entry.name] = np.floor(draw * 4) / 2 - 0.5  # a quarter of them 0
        if draw is not None and entry.kind == "neuron":
            state[entry.name] = 0.25 + 0.5 * draw
    state = {key: value.astype(np.float32) if value.dtype.kind == "f" else value for key, value in state.items()}
    shape = (3, 2, 2, 5, 6) if event else (2, 2, 5, 6)
    images = np.maximum(np.floor(Stream(6, "init").uniform(*shape) * 6) - 2, 0) / 2
    program = ts.load("numpy").session(precision="f64").program(net, method, ts.SGD())
    wide = {key: value.astype(np.float64) if value.dtype.kind == "f" else value for key, value in state.items()}
    return net, method, state, images, program.trace(program.load(wide), images)


def by_hand(
    net: Network, method: ts.Method, twin: Twin, state: State, images: Any, trace: Any
) -> tuple[dict[str, int], dict[str, int]]:
    """Every product, entry and neuron looked at by itself."""
    steps, batch = (method.time_steps if twin == "snn" else 1), 2
    counts = dict.fromkeys(energy.Workload.__struct_fields__, 0) | {"samples": batch}
    sizes = {"footprint": 0, "connections": 0, "zeros": 0}

    def at(name: str, t: int) -> Any:
        if name == "input":
            return images[t] if net.event and twin == "snn" else images.mean(axis=0) if net.event else images
        return trace[name]["snn"][t] if twin == "snn" else trace[name]["ann"]

    for layer in net.layers:
        if layer.name.startswith("branch"):
            continue
        if isinstance(layer, Norm):
            sizes["footprint"] += 4 * 4 * 3
        if isinstance(layer, Activation):
            if twin == "snn" and method.neuron.threshold_scope == "channel":
                sizes["footprint"] += 4 * trace[layer.name]["snn"].shape[2]
            for t in range(steps):
                counts["activations"] += at(layer.name, t).size
                counts["silent"] += int(np.count_nonzero(at(layer.name, t) == 0))
            if twin == "snn":
                counts["updates"] += _updates(method, state.get(f"{layer.name}.threshold"), trace[layer.name])
        if not isinstance(layer, Conv | Linear):
            continue
        weight = _weight(layer, twin, state)
        sizes["connections"] += weight.size
        sizes["zeros"] += int(np.count_nonzero(weight == 0))
        sizes["footprint"] += 4 * (weight.size + (weight.shape[0] if isinstance(layer, Linear) else 0))
        kind = "acs" if twin == "snn" and layer.input in net.activations else "macs"
        for t in range(steps):
            for x in at(layer.input, t):
                for value, w in _products(layer, x, weight):
                    counts["dense"] += 1
                    counts[kind] += bool(value) and bool(w)
    return counts, sizes


def _weight(layer: Conv | Linear, twin: Twin, state: State) -> Any:
    if f"{layer.name}.U" not in state:
        return state[f"{layer.name}.weight_{twin}"]
    u, sigma, v = (state[f"{layer.name}.{part}"] for part in ("U", f"sigma_{twin}", "V"))
    return np.einsum("hwor,hwr,hwri->oihw", u, sigma, v)


def _products(layer: Conv | Linear, x: Any, weight: Any) -> Iterator[tuple[float, float]]:
    if isinstance(layer, Linear):
        yield from ((x[i], weight[o, i]) for o in range(weight.shape[0]) for i in range(len(x)))
        return
    out, channels, size, _ = weight.shape
    rows = (x.shape[1] + 2 * layer.padding - size) // layer.stride + 1
    columns = (x.shape[2] + 2 * layer.padding - size) // layer.stride + 1
    for i, j in np.ndindex(rows, columns):
        for p, q in np.ndindex(size, size):
            row, column = i * layer.stride + p - layer.padding, j * layer.stride + q - layer.padding
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                yield from ((x[c, row, column], weight[o, c, p, q]) for o in range(out) for c in range(channels))


def _updates(method: ts.Method, learned: Any, tap: Any) -> int:
    u, s, found = tap["u"], tap["snn"], 0
    for place in np.ndindex(u.shape[1:]):
        theta = method.neuron.threshold if learned is None else float(learned[place[1]])
        before = None
        for t in range(len(u)):
            value, fired = u[t][place], s[t][place]
            after = value - fired * theta if method.neuron.reset == "soft" else method.neuron.v_reset if fired else value
            found += before is None or after != before
            before = after
    return found


def counted(module: ModuleType, name: str, event: bool, twin: Twin) -> tuple[dict[str, int], dict[str, int]]:
    net, method, state, images, trace = case(name, event)
    found = module.workload(net, method, twin, state, images, trace), module.static(net, method, twin, state)
    return msgspec.structs.asdict(found[0]), msgspec.structs.asdict(found[1])


CASES = [("hard", False), ("soft, learned, factors", True), ("v_reset", False)]


@pytest.mark.parametrize("twin", ["ann", "snn"])
@pytest.mark.parametrize(("name", "event"), CASES)
def test_counts_are_those_of_the_clauses_one_by_one(name: str, event: bool, twin: Twin) -> None:
    got = counted(energy, name, event, twin)
    assert got == by_hand(case(name, event)[0], METHODS[name], twin, *case(name, event)[2:])
    work, sizes = got
    assert 0 < work["macs"] < work["dense"]
    assert 0 < sizes["zeros"] < sizes["connections"]
    assert 0 < work["silent"] < work["activations"]
    assert (work["acs"] > 0) == (work["updates"] > 0) == (twin == "snn")


FAULTS = {
    "ENE-1: branches count": ("needed = {network.exits[-1].head}", "needed = {exit_.head for exit_ in network.exits}"),
    "ENE-1: the first step alone": ("x = output(layer.input)\n", "x = output(layer.input)[:1]\n"),
    "ENE-2: norms' statistics left out": ('entry.kind in ("norm", "statistic")', 'entry.kind == "norm"'),
    "ENE-2: both twins' norms": (" and entry.twin == twin)", ")"),
    "ENE-2: four bytes whatever is read": ("bytes_ += weight.nbytes", "bytes_ += 8 * weight.size"),
    "ENE-2: biases left out": ('shared = entry.kind == "bias" or ', "shared = "),
    "ENE-3: weights that are not 0": ("(weight == 0).sum()", "(weight != 0).sum()"),
    "ENE-3: bias of linear layers joins": ("connections += weight.size", "connections += weight.size + (weight.ndim == 2)"),
    "ENE-4: share that fires": ("(y == 0).sum()", "(y != 0).sum()"),
    "ENE-4: layers of branches alone left out of silent ones": ("activations += y.size", "activations += y[0].size"),
    "ENE-5: padding counts": (
        "_fan_out(layer, np.ones_like(weight), active).sum()",
        "(weight.size * np.prod(np.asarray(trace[layer.name][twin]).shape[-2:] if active.ndim == 3 else ()))",
    ),
    "ENE-5: a static image's layer once": ("* x.shape[0] * x.shape[1]", "* x.shape[1]"),
    "ENE-6: zero weights count": ("_fan_out(layer, weight != 0, active)", "_fan_out(layer, weight == weight, active)"),
    "ENE-6: zero inputs count": ("active = (x != 0)", "active = (x == x)"),
    "ENE-6: pooled spikes are spikes": ("isinstance(network.layer(layer.input), Activation)", "layer.input != INPUT"),
    "ENE-6: the artificial twin adds": ('if twin == "snn" and layer.input != INPUT', "if layer.input != INPUT"),
    "ENE-7: the first step like the others": ("v[0].size + (v[1:]", "(v[0] != 0).sum() + (v[1:]"),
    "ENE-7: before the reset": ("(v[1:] != v[:-1])", "(u[1:] != v[:-1])"),
    "ENE-7: reset to 0": ("np.asarray(neuron.v_reset, u.dtype)", "np.asarray(0, u.dtype)"),
    "ENE-7: the config's threshold": ("neuron.threshold if learned is None else learned", "neuron.threshold"),
    "ENE-7: every step": ("(v[1:] != v[:-1]).sum()", "v[1:].size"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_counts_is_seen(fault: str) -> None:
    before, after = FAULTS[fault]
    text = SOURCE.read_text(encoding="utf-8")
    assert text.count(before) == 1, fault
    faulty = ModuleType("faulty")
    exec(compile(text.replace(before, after), str(SOURCE), "exec"), faulty.__dict__)
    seen = any(
        counted(faulty, name, event, twin) != counted(energy, name, event, twin)
        for name, event in CASES
        for twin in ("ann", "snn")
    )
    assert seen


def test_counts_of_batches_add_up() -> None:
    net, method, state, images, trace = case("hard", False)

    def of(samples: slice) -> energy.Workload:
        part = {name: {key: tap[key][:, samples] for key in ("snn", "u") if key in tap} for name, tap in trace.items()}
        return energy.workload(net, method, "snn", state, images[samples], part)

    assert of(slice(0, 1)) + of(slice(1, 2)) == of(slice(0, 2))
