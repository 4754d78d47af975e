"""The state of a run: its names, shapes and counts, its initial values, and states that are refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import twinspike as ts
from twinspike.parameters import STEP, Entry, check_state, check_values, decays, initial_state, is_factored, layout
from twinspike.random import Stream
from twinspike.reference.factorization import compose, deviation

U = 2.0**-53
DIGITS = ts.network("digits_cnn", width=4)
SGD = ts.SGD(momentum=0.9)


def count(entries: tuple[Entry, ...], *, kind: str | None = None, suffix: str = "") -> int:
    """Number of values in the entries of a kind whose names end so."""
    return sum(math.prod(e.shape) for e in entries if kind in (None, e.kind) and e.name.endswith(suffix))


def method(**factorization: Any) -> ts.Method:
    return ts.Method(factorization=ts.Factorization(**factorization))


def test_resnet18_has_the_parameters_of_the_paper() -> None:
    entries = layout(ts.network("resnet18"), ts.Method())
    assert sum(math.prod(entry.shape) for entry in entries if entry.trained) == 24_703_471
    assert (count(entries, suffix=".U"), count(entries, suffix=".V")) == (12_773_056, 11_776_081)
    assert count(entries, suffix=".sigma_ann") == count(entries, suffix=".sigma_snn") == 42_459
    assert (count(entries, kind="weight"), count(entries, kind="bias")) == (4 * 2 * 5_120, 40)
    assert count(entries, kind="norm") == count(entries, kind="statistic") == 2 * 14_208
    assert count(entries, kind="counter") == count(entries, kind="slot") == 0


@pytest.mark.parametrize(
    ("scope", "stem", "body", "branch", "head"),
    [
        ("all_convs", True, True, True, False),
        ("no_stem", False, True, True, False),
        ("backbone", True, True, False, False),
        ("with_heads", True, True, True, True),
        ("none", False, False, False, False),
    ],
)
def test_scope(scope: Any, stem: bool, body: bool, branch: bool, head: bool) -> None:
    """FAC-1, FAC-8."""
    f = ts.Factorization(scope=scope)
    names = {"stem.conv": stem, "stage2.conv": body, "branch1.2.conv": branch, "main.head": head, "branch1.head": head}
    assert {name: is_factored(DIGITS.layer(name), f) for name in names} == names
    entries = {entry.name for entry in layout(DIGITS, ts.Method(factorization=f))}
    for name, factored in names.items():
        assert ({f"{name}.U", f"{name}.sigma_ann", f"{name}.sigma_snn", f"{name}.V"} <= entries) == factored
        assert ({f"{name}.weight_ann", f"{name}.weight_snn"} <= entries) == (not factored)
    assert "main.head.bias" in entries


@pytest.mark.parametrize(
    ("options", "u", "sigma", "v"),
    [
        ({}, (3, 3, 8, 4), (3, 3, 4), (3, 3, 4, 4)),
        ({"rank": 2}, (3, 3, 8, 2), (3, 3, 2), (3, 3, 2, 4)),
        ({"rank": 99}, (3, 3, 8, 4), (3, 3, 4), (3, 3, 4, 4)),
        ({"matricize": "out_by_rest"}, (8, 8), (8,), (8, 36)),
        ({"matricize": "out_by_rest", "rank": 5}, (8, 5), (5,), (5, 36)),
    ],
)
def test_shapes_of_factors(options: dict[str, Any], u: tuple[int, ...], sigma: tuple[int, ...], v: tuple[int, ...]) -> None:
    """FAC-2, FAC-5, on the kernel (8, 4, 3, 3)."""
    shapes = {entry.name: entry.shape for entry in layout(DIGITS, method(**options))}
    assert (shapes["stage2.conv.U"], shapes["stage2.conv.V"]) == (u, v)
    assert shapes["stage2.conv.sigma_ann"] == shapes["stage2.conv.sigma_snn"] == sigma


def test_a_fraction_keeps_that_share_at_every_position_and_no_more_than_needed() -> None:
    """FAC-5."""
    full = initial_state(DIGITS, ts.Method())["stage3.conv.sigma_ann"] ** 2
    share = np.cumsum(full, axis=-1) / full.sum(axis=-1, keepdims=True)
    rank = {entry.name: entry.shape for entry in layout(DIGITS, method(rank=0.8))}["stage3.conv.sigma_ann"][-1]
    assert share[..., rank - 1].min() >= 0.8
    assert share[..., rank - 2].min() < 0.8


STATES = {
    "joint": ts.Method(),
    "cut": method(rank=2, scope="with_heads"),
    "energy": method(rank=0.9),
    "flat": method(matricize="out_by_rest"),
    "free": method(scope="none"),
    "learned": ts.Method(neuron=ts.Neuron(decay=0.5, threshold=0.75, decay_scope="layer", threshold_scope="channel")),
}


@pytest.mark.parametrize("key", STATES)
@pytest.mark.parametrize("optimizer", [None, ts.SGD(), SGD, ts.Adam()], ids=["none", "sgd", "momentum", "adam"])
def test_initial_state_follows_the_layout(key: str, optimizer: ts.Optimizer | None) -> None:
    entries = layout(DIGITS, STATES[key], optimizer)
    state = initial_state(DIGITS, STATES[key], optimizer, seed=3)
    assert list(state) == [entry.name for entry in entries]
    check_state(state, entries)
    for entry in entries:
        assert state[entry.name].dtype == (np.int64 if entry.kind == "counter" else np.float64)
        assert state[entry.name].flags.writeable


def test_entries_own_their_memory() -> None:
    state = initial_state(DIGITS, method(scope="none"), SGD)
    values = list(state.values())
    assert not any(np.shares_memory(a, b) for i, a in enumerate(values) for b in values[:i])


@pytest.mark.parametrize("key", ["joint", "flat"])
def test_factors_compose_to_the_drawn_kernel(key: str) -> None:
    """FAC-3, FAC-7, INI-1, INI-2: a factored run starts where the unfactored one does."""
    drawn = initial_state(DIGITS, STATES["free"], seed=7)
    state = initial_state(DIGITS, STATES[key], seed=7)
    for name in ("stem.conv", "stage2.conv", "branch1.2.conv"):
        u, sigma, v = (state[f"{name}.{part}"].astype(np.float64) for part in ("U", "sigma_ann", "V"))
        kernel = drawn[f"{name}.weight_ann"].astype(np.float64)
        assert (state[f"{name}.sigma_ann"] == state[f"{name}.sigma_snn"]).all()
        assert (np.diff(sigma, axis=-1) <= 0).all()
        assert (sigma >= 0).all()
        rows, columns = u.shape[-2], v.shape[-1]
        # A backward stable decomposition errs by a modest polynomial of its size in roundoffs of the norm.
        bound = 8 * max(rows, columns) * math.sqrt(min(rows, columns)) * U
        assert deviation(u, v) <= bound
        assert np.abs(compose(STATES[key].factorization, u, sigma, v, kernel.shape) - kernel).max() <= bound * sigma.max()
        columns_of_u = np.take_along_axis(u, np.abs(u).argmax(axis=-2, keepdims=True), axis=-2)
        assert (columns_of_u > 0).all()


def test_kernels_are_drawn_by_the_layer_s_stream() -> None:
    """INI-1, INI-2."""
    state = initial_state(DIGITS, STATES["free"], seed=11)
    for index, layer in enumerate(DIGITS.layers):
        if f"{layer.name}.weight_ann" not in state:
            continue
        weight = state[f"{layer.name}.weight_ann"]
        assert (weight == state[f"{layer.name}.weight_snn"]).all()
        stream = Stream(11, "init", index=2 * index)
        if weight.ndim == 4:
            out, _, height, width = weight.shape
            assert (weight == stream.normal(*weight.shape) * math.sqrt(2 / (out * height * width))).all()
        else:
            limit = math.sqrt(weight.shape[1])
            assert (weight == (2 * stream.uniform(*weight.shape) - 1) / limit).all()
            bias = Stream(11, "init", index=2 * index + 1).uniform(weight.shape[0])
            assert (state[f"{layer.name}.bias"] == (2 * bias - 1) / limit).all()


def test_heads_are_drawn_as_the_authors_draw_theirs_where_asked_for() -> None:
    """INI-6."""
    plain, heads = (initial_state(DIGITS, ts.Method(linear_init=init), seed=11) for init in ("uniform", "fan_out"))
    for index, layer in enumerate(DIGITS.layers):
        name = f"{layer.name}.weight_ann"
        if name in heads:
            weight = heads[name]
            assert (weight == Stream(11, "init", index=2 * index).normal(*weight.shape) * math.sqrt(2 / weight.shape[0])).all()
            assert (weight == heads[f"{layer.name}.weight_snn"]).all()
    different = {name for name in plain if (plain[name] != heads[name]).any()}
    assert different == {name for name in plain if name.rpartition(".")[2].startswith("weight_")}


def test_seeds_differ_and_repeat() -> None:
    first, again, other = (initial_state(DIGITS, ts.Method(), seed=seed) for seed in (1, 1, 2))
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["stem.conv.U"] != other["stem.conv.U"]).any()


@pytest.mark.parametrize("gamma", ["one", "threshold"])
def test_norms_start_as_the_clause_says(gamma: Any) -> None:
    """BN-7."""
    chosen = ts.Method(neuron=ts.Neuron(threshold=0.75), batch_norm=ts.BatchNorm(gamma_init=gamma))
    state = initial_state(DIGITS, chosen)
    assert (state["stem.norm.gamma_ann"] == 1).all()
    assert (state["stem.norm.gamma_snn"] == (0.75 if gamma == "threshold" else 1)).all()
    for twin in ("ann", "snn"):
        assert (state[f"stem.norm.beta_{twin}"] == 0).all()
        assert (state[f"stem.norm.mean_{twin}"] == 0).all()
        assert (state[f"stem.norm.var_{twin}"] == 1).all()


def test_learned_quantities_slots_and_counter_start_as_the_clause_says() -> None:
    """INI-3."""
    state = initial_state(DIGITS, STATES["learned"], SGD)
    assert state["stem.act.decay"] == 0.5
    assert state["stem.act.decay"].shape == ()
    assert (state["stem.act.threshold"] == 0.75).all()
    assert state["stem.act.threshold"].shape == (4,)
    assert state[STEP] == 0
    assert all((value == 0).all() for name, value in state.items() if name.startswith("optimizer/momentum/"))


@pytest.mark.parametrize(
    ("optimizer", "slots"),
    [(ts.SGD(), set()), (SGD, {"momentum"}), (ts.Adam(), {"m", "v"}), (ts.AdamW(), {"m", "v"})],
)
def test_slots_are_one_per_parameter(optimizer: ts.Optimizer, slots: set[str]) -> None:
    entries = layout(DIGITS, ts.Method(), optimizer)
    trained = {entry.name for entry in entries if entry.trained}
    held = {entry.name for entry in entries if entry.kind == "slot"}
    assert held == {f"optimizer/{slot}/{name}" for slot in slots for name in trained}
    assert entries[-1].name == STEP


def test_decay_spares_norms_biases_and_neurons_when_asked() -> None:
    """OPT-4."""
    entries = [entry for entry in layout(DIGITS, STATES["learned"]) if entry.trained]
    kept = {entry.kind for entry in entries if decays(entry, ts.SGD(decay_scope="no_norm_bias"))}
    assert kept == {"weight", "factor", "sigma"}
    assert all(decays(entry, ts.SGD()) for entry in entries)


def spoil(state: dict[str, Any], how: str) -> None:
    match how:
        case "missing":
            del state["stem.conv.U"]
        case "unknown":
            state["stem.conv.W"] = np.zeros(1)
        case "shape":
            state["stem.conv.U"] = state["stem.conv.U"][0]
        case "nan":
            state["stem.conv.U"][0, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("missing", "state[stem.conv.U]: expected an array of shape (3, 3, 4, 1), got nothing"),
        ("unknown", "state: expected the names of its network and optimizer, got ['stem.conv.W']"),
        ("shape", "state[stem.conv.U]: expected shape (3, 3, 4, 1), got (3, 4, 1)"),
        ("nan", "state[stem.conv.U]: expected finite values, got NaN or infinity"),
    ],
)
def test_states_that_do_not_fit_are_refused(how: str, line: str) -> None:
    entries, state = layout(DIGITS, ts.Method()), dict(initial_state(DIGITS, ts.Method()))
    spoil(state, how)
    with pytest.raises(ts.SpecError) as refused:
        check_state(state, entries)
    assert str(refused.value) == line


LEARNED = ts.Method(neuron=ts.Neuron(v_reset=0.1, decay_scope="layer", threshold_scope="channel"))


def stored(dtype: type) -> tuple[tuple[Entry, ...], ts.State]:
    state = initial_state(DIGITS, LEARNED, ts.Adam())
    return layout(DIGITS, LEARNED, ts.Adam()), {n: v.astype(dtype) if v.dtype.kind == "f" else v for n, v in state.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_a_run_can_come_to_is_accepted(dtype: type) -> None:
    entries, state = stored(dtype)
    check_values(state, entries, LEARNED, np.dtype(dtype).name)
    state["stem.act.decay"][...] = 1
    state["stem.conv.U"][...] = -3
    state["optimizer/m/stem.conv.U"][...] = -3
    state["stem.norm.mean_ann"][...] = -3
    check_values(state, entries, LEARNED, np.dtype(dtype).name)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("stem.norm.var_snn", -1.0, "expected values >= 0, got -1.0"),
        ("optimizer/v/stem.conv.U", -0.5, "expected values >= 0, got -0.5"),
        ("optimizer/step", -1, "expected values >= 0, got -1"),
        ("stem.act.decay", 1.5, "neuron.decay: expected a finite number in [0, 1], got 1.5"),
        ("stem.act.decay", -0.5, "neuron.decay: expected a finite number in [0, 1], got -0.5"),
        ("stem.act.threshold", 0.0, "neuron.threshold: expected a finite number in (0, inf), got 0.0"),
        ("stem.act.threshold", 0.0625, "neuron.v_reset: expected a finite number in (-inf, 0.0625), got 0.1"),
    ],
)
def test_what_no_run_can_come_to_or_go_on_from_is_refused(name: str, value: float, line: str) -> None:
    entries, state = stored(np.float64)
    state[name] = np.array(state[name])
    state[name].reshape(-1)[-1] = value
    check_state(state, entries)
    with pytest.raises(ts.SpecError) as refused:
        check_values(state, entries, LEARNED, "float64", "file")
    assert str(refused.value) == f"file[{name}]: {line}"


@pytest.mark.parametrize(
    ("name", "dtype", "line"),
    [
        ("stem.conv.V", np.float32, "expected float64, got float32"),
        ("stem.act.decay", np.float16, "expected float64, got float16"),
        ("optimizer/m/stem.conv.V", np.int64, "expected float64, got int64"),
        ("optimizer/step", np.int32, "expected int64, got int32"),
        ("optimizer/step", np.float64, "expected int64, got float64"),
    ],
)
def test_values_in_another_format_are_refused(name: str, dtype: type, line: str) -> None:
    entries, state = stored(np.float64)
    state[name] = state[name].astype(dtype)
    with pytest.raises(ts.SpecError) as refused:
        check_values(state, entries, LEARNED, "float64")
    assert str(refused.value) == f"state[{name}]: {line}"
