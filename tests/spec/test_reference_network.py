"""The joint network's reference: its hand-written gradients against finite differences of the smooth twin.

Artificial twins have kinks: a comparison counts only where no ReLU changes sides between the points at
which the loss is taken. Differences are central, at steps h and h/2: their own disagreement bounds the
truncation error, and operations x roundoff x magnitude / h the rounding.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

import twinspike as ts
from twinspike.config import distillation_pairs
from twinspike.network import INPUT, Activation, Add, Branch, Conv, GlobalPool, Linear, Network, Norm
from twinspike.parameters import STEP
from twinspike.reference import factorization, losses, network, step
from twinspike.reference.network import Tape, backward, forward, forward_twin, frames

U = 2.0**-53
T, B = 3, 4
SMOOTH = ts.Sigmoid(slope=3.0)
DIGITS = ts.network("digits_cnn", width=2)
EVENTS = ts.network("digits_cnn", width=2, event=True)
RESIDUAL = ts.network("resnet19", width=1, input_shape=(1, 8, 8), classes=3)
POOLED = ts.network("vgg16", width=1, input_shape=(2, 16, 16), classes=3)
BRAIDED = Network(  # layers read several times, as first and as second summand, and one added to itself
    name="braided",
    input_shape=(2, 5, 4),
    layers=(
        Conv(name="a", input=INPUT, out_channels=3, kernel=3, padding=1),
        Norm(name="b", input="a"),
        Activation(name="c", input="b"),
        Add(name="d", input="b", other="c"),
        Add(name="e", input="d", other="c"),
        Add(name="f", input="e", other="e"),
        GlobalPool(name="g", input="f"),
        Linear(name="h", input="g", out_features=3),
        Activation(name="i", input="h"),
        Linear(name="j", input="i", out_features=3),
        Linear(name="k", input="g", out_features=3),
    ),
    exits=(Branch(feature="g", head="k"), Branch(feature="g", head="j")),
)


def method(neuron=None, loss=None, **options):
    n = ts.Neuron(**{"surrogate": SMOOTH} | (neuron or {}))
    chosen = {"alpha": 0.3, "beta": 0.05, "temperature": 2.0, "detach_teacher": False} | (loss or {})
    return ts.Method(**{"time_steps": T, "neuron": n, "loss": ts.Loss(**chosen)} | options)


def factored(**options):
    return {"factorization": ts.Factorization(**options)}


LEARNED = {"reset": "soft", "decay_scope": "layer", "threshold_scope": "layer"}
PER_CHANNEL = {"decay_input": True, "decay_scope": "channel", "threshold_scope": "channel", "v_reset": -0.1}
CASES = {
    "default": (DIGITS, method()),
    "events": (EVENTS, method(batch_norm=ts.BatchNorm(time="folded"))),
    "residual": (RESIDUAL, method(LEARNED)),
    "braided": (BRAIDED, method(None, {"per_step": True, "pairs": "joint"}, **factored(scope="with_heads"))),
    "pooled": (POOLED, method(readout="mean")),
    "learned-soft": (DIGITS, method(LEARNED, readout="mean", batch_norm=ts.BatchNorm(time="folded", eps=1e-2))),
    "channel-per-step": (DIGITS, method(PER_CHANNEL, {"per_step": True, "form": "kl", "feature_reduction": "mean"})),
    "penalty": (DIGITS, method(None, None, **factored(orthogonality=ts.Penalty(weight=0.1), rank=1))),
    "out-by-rest": (DIGITS, method(None, {"pairs": ("ann1<-snn3",)}, **factored(matricize="out_by_rest", scope="with_heads"))),
    "energy": (DIGITS, method(None, {"feature_reduction": "batch_mean"}, **factored(rank=0.9))),
    "unfactored": (DIGITS, method(None, {"pairs": "snn_from_ann"}, **factored(scope="none"))),
    "no-stem": (DIGITS, method(None, {"pairs": "ann_only"}, **factored(scope="no_stem"))),
    "backbone": (DIGITS, method({"surrogate": ts.Arctan()}, {"pairs": "none"}, **factored(scope="backbone"))),
}


def moved_state(net, m, optimizer=None, seed=1):
    """A state with no value at its default, so that none hides behind a 0 or 1."""
    state = ts.initial_state(net, m, optimizer)
    rng = np.random.default_rng(seed)
    for entry in ts.layout(net, m, optimizer):
        if entry.kind in ("factor", "norm", "statistic", "slot", "sigma", "neuron"):
            noise = rng.uniform(-0.2, 0.2, entry.shape)
            state[entry.name] = np.asarray(
                state[entry.name] + np.abs(noise) if "/v/" in entry.name else state[entry.name] + noise
            )
    return state


def batch(net, seed=2):
    rng = np.random.default_rng(seed)
    lead = (T, B) if net.event else (B,)
    return rng.standard_normal((*lead, *net.input_shape)), rng.integers(0, net.classes, B)


def sides(net, tape):
    """On which side of its kink every ReLU is."""
    return [tape.ann.outputs[layer.input] > 0 for layer in net.layers if isinstance(layer, Activation)]


def slope(net, run, h=2.0**-15, operations=1e4):
    """Slope at 0 of the loss that `run(t)` gives beside its tape, and a bound on the error of that; None at a kink."""
    (base, here), points = run(0.0), {t: run(t) for t in (h, -h, h / 2, -h / 2)}
    for _, tape in points.values():
        if not all(np.array_equal(a, b) for a, b in zip(sides(net, here), sides(net, tape), strict=True)):
            return None
    coarse = (points[h][0] - points[-h][0]) / (2 * h)
    fine = (points[h / 2][0] - points[-h / 2][0]) / h
    return fine, abs(fine - coarse) + 2 * operations * U * abs(base) / h


def check_slopes(net, m, state, run_at, gradients, groups):
    """Compare along one random direction per group of names, the first of a few that meets no kink."""
    for names in groups:
        for attempt in range(5):
            rng = np.random.default_rng((len(names[0]), attempt))
            t = {name: rng.standard_normal(state[name].shape) / np.sqrt(state[name].size) for name in names}
            found = sum(float((gradients[name] * t[name]).sum()) for name in names)
            measured = slope(net, lambda h, t=t: run_at(state | {name: state[name] + h * t[name] for name in t}))
            if measured is not None and measured[1] <= abs(measured[0]) / 50:  # else the comparison says nothing
                break
        else:
            pytest.fail(f"no direction without a kink and with a slope to speak of: {names}")
        expected, bound = measured
        assert abs(found - expected) <= bound, names


def by_kind(net, m):
    groups = {}
    for entry in ts.layout(net, m):
        if entry.trained:
            groups.setdefault((entry.kind, entry.name[-3:]), []).append(entry.name)
    return list(groups.values())


def smooth_loss(net, m, images, labels, training=True):
    def run_at(state):
        tape = forward(net, m, state, images, training=training, smooth=True)
        return float(network.loss(net, m, state, tape, labels)[0].loss), tape

    return run_at


def smooth_gradients(net, m, state, images, labels, training=True):
    return backward(net, m, state, forward(net, m, state, images, training=training, smooth=True), labels)[0]


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_finite_differences_for_every_kind_of_parameter(case):
    net, m = CASES[case]
    state, (images, labels) = moved_state(net, m), batch(net)
    gradients = smooth_gradients(net, m, state, images, labels)
    trained = {entry.name: entry.shape for entry in ts.layout(net, m) if entry.trained}
    assert {name: g.shape for name, g in gradients.items()} == trained
    check_slopes(net, m, state, smooth_loss(net, m, images, labels), gradients, by_kind(net, m))


def test_gradients_are_those_of_finite_differences_for_every_single_array():
    net, m = DIGITS, method(LEARNED)
    state, (images, labels) = moved_state(net, m), batch(net)
    gradients = smooth_gradients(net, m, state, images, labels)
    check_slopes(net, m, state, smooth_loss(net, m, images, labels), gradients, [[name] for name in gradients])


def test_gradients_in_evaluation_mode_take_statistics_as_constants():
    net, m = DIGITS, method()
    state, (images, labels) = moved_state(net, m), batch(net)
    gradients = smooth_gradients(net, m, state, images, labels, training=False)
    check_slopes(net, m, state, smooth_loss(net, m, images, labels, training=False), gradients, by_kind(net, m))


@pytest.mark.parametrize("form", ["ce", "kl"])
def test_detached_teachers_are_constants(form):
    """The gradient is that of a loss whose teacher logits and artificial features are held where they are."""
    net, m = DIGITS, method(None, {"detach_teacher": True, "form": form})
    state, (images, labels) = moved_state(net, m), batch(net)
    held = network.exits(net, m, forward(net, m, state, images, training=True, smooth=True))
    teacher = {"ann": held.logits_ann, "snn": held.logits_snn[0]}

    def run_at(state):
        tape = forward(net, m, state, images, training=True, smooth=True)
        now = network.exits(net, m, tape)
        student = {"ann": now.logits_ann, "snn": now.logits_snn[0]}
        ce = sum(losses.cross_entropy(z, labels) for twin in student.values() for z in twin)
        kd = sum(
            losses.distillation(m.loss, student[s.twin][s.number - 1], teacher[t.twin][t.number - 1])
            for s, t in distillation_pairs(m.loss, len(net.exits))
        )
        feature = ((now.features_snn - held.features_ann) ** 2).sum()
        total = 0.7 * ce + 0.3 * 4 * kd + 0.05 * feature
        return float(total), tape

    check_slopes(net, m, state, run_at, smooth_gradients(net, m, state, images, labels), by_kind(net, m))


def test_isolation_drops_the_spiking_twins_gradient_into_what_is_shared_and_nothing_else():
    net, m = DIGITS, method(None, {"isolate_ann": True}, **factored(scope="with_heads"))
    state, (images, labels) = moved_state(net, m), batch(net)
    isolated = smooth_gradients(net, m, state, images, labels)
    joined = smooth_gradients(net, method(None, None, **factored(scope="with_heads")), state, images, labels)
    shared = {name for name in joined if name.rpartition(".")[2] in ("U", "V", "bias")}
    for name in joined:
        assert np.array_equal(isolated[name], joined[name]) == (name not in shared), name

    def run_at(moved):
        """The spiking twin keeps the shared arrays where they were."""
        kept = moved | {name: state[name] for name in shared}
        seen = {"ann": (moved, frames(net, m, "ann", images)), "snn": (kept, frames(net, m, "snn", images))}
        tape = Tape(*(forward_twin(net, m, twin, *seen[twin], training=True, smooth=True) for twin in ("ann", "snn")), True)
        return float(network.loss(net, m, moved, tape, labels)[0].loss), tape

    check_slopes(net, m, state, run_at, isolated, by_kind(net, m))


def test_an_isolated_artificial_twin_learns_as_if_it_were_alone():
    net, m = DIGITS, ts.Method(time_steps=T, loss=ts.Loss(isolate_ann=True))
    other = msgspec.structs.replace(m, neuron=ts.Neuron(threshold=2.0, decay=0.9))
    state, (images, labels) = moved_state(net, m), batch(net)
    one, two = (step.gradients(net, each, state, images, labels)[0] for each in (m, other))
    unlike = {name for name in one if not np.array_equal(one[name], two[name])}
    assert unlike == {name for name in one if name.endswith("_snn")}


def test_a_static_image_gives_the_stem_the_same_values_at_every_step():
    net, m = DIGITS, ts.Method(time_steps=T)
    state, (images, _) = moved_state(net, m), batch(net)
    tape = forward(net, m, state, images, training=True)
    stem = tape.snn.outputs["stem.norm"]
    assert all(np.array_equal(stem[0], stem[t]) for t in range(T))
    x = tape.snn.outputs["stem.conv"][0]
    kept = 0.9**T  # T equal updates: weight 1 - (1 - momentum)^T
    for name, new in (("mean", x.mean(axis=(0, 2, 3))), ("var", x.var(axis=(0, 2, 3)) * (B * 64) / (B * 64 - 1))):
        expected = kept * state[f"stem.norm.{name}_snn"] + (1 - kept) * new
        assert np.abs(tape.snn.statistics[f"stem.norm.{name}_snn"] - expected).max() <= 600 * U * np.abs(new).max()


def test_statistics_move_in_training_and_stay_in_evaluation():
    net, m = DIGITS, ts.Method(time_steps=T)
    state, (images, labels) = moved_state(net, m), batch(net)
    assert not forward(net, m, state, images, training=False).snn.statistics
    _, statistics, _ = step.gradients(net, m, state, images, labels)
    assert set(statistics) == {entry.name for entry in ts.layout(net, m) if entry.kind == "statistic"}
    assert not any(np.array_equal(statistics[name], state[name]) for name in statistics)


def test_event_frames_reach_the_twins_as_frames_and_as_their_mean():
    images, _ = batch(EVENTS)
    m = ts.Method(time_steps=T)
    assert np.array_equal(frames(EVENTS, m, "snn", images), images)
    assert np.array_equal(frames(EVENTS, m, "ann", images), images.mean(axis=0, keepdims=True))


@pytest.mark.parametrize("readout", ["sum", "mean"])
def test_logits_and_features_are_reduced_over_time(readout):
    net, m = DIGITS, ts.Method(time_steps=T, readout=readout)
    tape = forward(net, m, moved_state(net, m), batch(net)[0], training=False)
    seen = network.exits(net, m, tape)
    for i, exit_ in enumerate(net.exits):
        assert np.array_equal(seen.logits_snn[0, i], getattr(tape.snn.outputs[exit_.head], readout)(axis=0))
        assert np.array_equal(seen.features_snn[i], getattr(tape.snn.outputs[exit_.feature], readout)(axis=0))


# --- the step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        ts.SGD(),
        ts.SGD(momentum=0.9, nesterov=True, decay_scope="no_norm_bias"),
        ts.Adam(weight_decay=0.1),
        ts.AdamW(weight_decay=0.1),
    ],
    ids=["sgd", "nesterov", "adam", "adamw"],
)
def test_a_step_moves_every_array_of_the_state_once_and_leaves_its_input_alone(optimizer):
    net, m = DIGITS, ts.Method(time_steps=T)
    state, (images, labels) = moved_state(net, m, optimizer), batch(net)
    state[STEP] = np.asarray(6, dtype=np.int64)
    before = {name: value.copy() for name, value in state.items()}
    gradients, statistics, _ = step.gradients(net, m, state, images, labels)
    after, _ = step.train_step(net, m, optimizer, state, images, labels, 0.05)
    assert all(np.array_equal(state[name], before[name]) for name in before)
    assert list(after) == list(state)
    assert after[STEP] == 7
    assert after[STEP].dtype == np.int64
    for entry in ts.layout(net, m):
        if entry.kind == "statistic":
            assert np.array_equal(after[entry.name], statistics[entry.name])
            continue
        decayed = optimizer.decay_scope == "all" or entry.kind not in ("norm", "bias")
        o = msgspec.structs.replace(optimizer, weight_decay=optimizer.weight_decay if decayed else 0.0)
        inputs = {"p": state[entry.name], "g": gradients[entry.name], "lr": np.array(0.05), "step": np.array(7)}
        kept = {
            slot: state[f"optimizer/{slot}/{entry.name}"]
            for slot in ("momentum", "m", "v")
            if f"optimizer/{slot}/{entry.name}" in state
        }
        for name, value in ts.OPERATIONS["optimizer_step"].forward(o, inputs | kept).items():
            assert np.array_equal(after[entry.name if name == "p" else f"optimizer/{name}/{entry.name}"], value)


@pytest.mark.parametrize("by", ["polar", "qr"])
def test_factors_are_retracted_at_every_second_step_only(by):
    net = DIGITS
    free = ts.Method(time_steps=T)
    m = msgspec.structs.replace(free, **factored(orthogonality=ts.Retract(every=2, by=by)))
    optimizer = ts.SGD(momentum=0.5)
    state, (images, labels) = moved_state(net, m, optimizer), batch(net)
    worst = []
    for _ in range(4):
        loose, _ = step.train_step(net, free, optimizer, state, images, labels, 0.1)
        state, _ = step.train_step(net, m, optimizer, state, images, labels, 0.1)
        worst.append(max(factorization.deviation(u, v) for u, v in network.factors(net, m, state).values()))
        for name in state:
            if name.rpartition(".")[2] not in ("U", "V") or "/" in name:
                assert np.array_equal(state[name], loose[name])
    assert max(worst[1], worst[3]) <= 20 * 8 * U * np.sqrt(8)
    assert min(worst[0], worst[2]) > 1e-6


def test_metrics_add_up():
    net, m = DIGITS, method(None, None, **factored(orthogonality=ts.Penalty(weight=0.1), rank=1))
    state, (images, labels) = moved_state(net, m), batch(net)
    _, _, metrics = step.gradients(net, m, state, images, labels)
    total = 0.7 * (metrics.cross_entropy_ann + metrics.cross_entropy_snn) + 0.3 * metrics.distillation + 0.05 * metrics.feature
    assert abs(total + metrics.penalty - metrics.loss) <= 8 * U * metrics.loss
    taps = step.trace(net, m, state, images, training=True)
    assert metrics.correct_ann == (taps["main.head"]["ann"].argmax(axis=1) == labels).sum()
    assert metrics.correct_snn == (taps["main.head"]["snn"].sum(axis=0).argmax(axis=1) == labels).sum()
    spikes = np.concatenate([taps[name]["snn"].ravel() for name in net.activations])
    assert metrics.spike_rate == spikes.mean()
    assert set(np.unique(spikes)) == {0.0, 1.0}


def test_the_network_computes_in_float32_when_its_state_is_float32():
    net, m, optimizer = RESIDUAL, ts.Method(time_steps=T, neuron=ts.Neuron(**LEARNED)), ts.AdamW()
    state = {
        name: value.astype(np.float32) if value.dtype.kind == "f" else value
        for name, value in moved_state(net, m, optimizer).items()
    }
    images, labels = batch(net)
    after, metrics = step.train_step(net, m, optimizer, state, images, labels, 0.01)
    assert {name for name, value in after.items() if value.dtype != np.float32} == {STEP}
    assert metrics.loss.dtype == np.float32
