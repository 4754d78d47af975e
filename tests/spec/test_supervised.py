"""Which exits learn from labels (clause DIS-9), and the plain spiking network that follows from it."""

from __future__ import annotations

import re

import msgspec
import numpy as np
import pytest

import twinspike as ts
from twinspike.config import decode, encode, supervised
from twinspike.parameters import initial_state
from twinspike.reference import losses, step

NET = ts.network("digits_cnn", width=2)
N, B, K, F, S = 3, 4, 5, 6, 2


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"logits_ann": (N, B, K), "logits_snn": (S, N, B, K), "features_ann": (N, B, F), "features_snn": (N, B, F)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()} | {"labels": rng.integers(0, K, B)}


@pytest.mark.parametrize(
    ("named", "ann", "snn"),
    [
        ("all", (0, 1, 2), (0, 1, 2)),
        ("last", (2,), (2,)),
        ("snn_last", (), (2,)),
        (("snn3", "ann2", "snn1"), (1,), (0, 2)),
        ((), (), ()),
    ],
)
def test_the_cross_entropies_are_those_of_the_exits_named(
    named: str | tuple[str, ...], ann: tuple[int, ...], snn: tuple[int, ...]
) -> None:
    loss, i = ts.Loss(supervised=named, per_step=True, alpha=0.25, beta=0.5), inputs()
    assert supervised(loss, N) == {"ann": ann, "snn": snn}
    terms, whole = losses.joint_loss(loss, **i), losses.joint_loss(ts.Loss(per_step=True, alpha=0.25, beta=0.5), **i)
    of_ann = sum(losses.cross_entropy(i["logits_ann"][n], i["labels"]) for n in ann)
    of_snn = sum(losses.cross_entropy(i["logits_snn"][s, n], i["labels"]) for n in snn for s in range(S)) / S
    bound = 100 * 2.0**-53 * (1 + abs(float(whole.loss)))
    for found, value in zip(terms[1:3], (of_ann, of_snn), strict=True):
        assert abs(found - value) <= bound
    assert (terms.distillation, terms.feature) == (whole.distillation, whole.feature)
    rest = 0.25 * terms.distillation + 0.5 * terms.feature
    assert abs(terms.loss - (0.75 * (of_ann + of_snn) + rest)) <= bound


def test_only_exits_named_get_a_gradient_from_labels() -> None:
    found = losses.joint_loss_adjoint(ts.Loss(supervised=("ann2", "snn3"), pairs="none", per_step=True), **inputs())
    assert [bool(g.any()) for g in found.logits_ann] == [False, True, False]
    assert [bool(g.any()) for g in found.logits_snn[1]] == [False, False, True]


def test_smoothed_labels_are_a_share_of_each_spread_over_all_classes() -> None:
    """By the definition with a whole distribution as the label; sums of B K terms, a few roundings each."""
    e, i = 0.3, inputs()
    z, labels = i["logits_ann"][0], i["labels"]
    target = (1 - e) * np.eye(K)[labels] + e / K
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    loss = ts.Loss(label_smoothing=e)
    bound = 50 * K * 2.0**-53 * float(np.abs(np.log(p)).max())
    assert abs(losses.supervision(loss, z, labels) + (target * np.log(p)).sum(-1).mean()) <= bound
    assert np.abs(losses.supervision_adjoint(loss, z, labels) - (p - target) / B).max() <= bound
    assert losses.supervision(ts.Loss(), z, labels) == losses.cross_entropy(z, labels)


def test_weights_multiply_the_cross_entropies_and_pairs_that_they_are_written_with() -> None:
    """By weights that are powers of two, so that the terms are exact multiples of those of single exits and pairs."""
    i = inputs()
    ann, snn = (losses.joint_loss(ts.Loss(supervised=(name,), pairs=("snn1<-ann1",)), **i) for name in ("ann2", "snn1"))
    loss = ts.Loss(supervised=("ann2*2", " snn1 * 0.25"), pairs=("snn1<-ann1*0.5",))
    found = losses.joint_loss(loss, **i)
    assert found.cross_entropy_ann == 2 * ann.cross_entropy_ann
    assert found.cross_entropy_snn == 0.25 * snn.cross_entropy_snn
    assert found.distillation == 0.5 * ann.distillation


def test_a_spiking_exit_teaches_with_its_steps_together() -> None:
    i = inputs()
    z = i["logits_snn"]
    for time, taught in (("sum", z[:, 1].sum(0)), ("mean", z[:, 1].mean(0))):
        loss = ts.Loss(per_step=True, teacher_time=time, pairs=("snn2<-snn2", "snn1<-ann3"))
        kd = sum(losses.distillation(loss, z[s, 1], taught) for s in range(S)) / S
        kd += sum(losses.distillation(loss, z[s, 0], i["logits_ann"][2]) for s in range(S)) / S
        assert abs(losses.joint_loss(loss, **i).distillation - 9 * kd) <= 100 * 2.0**-53 * 9 * kd


def test_logits_are_drawn_to_a_constant_beside_the_labels() -> None:
    i = inputs()
    loss, z = ts.Loss(mse_weight=0.25, mse_target=-2.0, supervised=("snn3*2",), per_step=True), i["logits_snn"][:, 2]
    entropy = sum(losses.cross_entropy(z[s], i["labels"]) for s in range(S)) / S
    want = 2 * (0.75 * entropy + 0.25 * ((z + 2.0) ** 2).mean())
    assert abs(losses.joint_loss(loss, **i).cross_entropy_snn - want) <= 100 * 2.0**-53 * want


@pytest.mark.parametrize("time", ["step", "sum", "mean"])
def test_gradients_of_weighted_terms_are_those_of_finite_differences(time: str) -> None:
    """A central difference of step d is off by d^2/6 of the third derivative, some 0.1, and 2^-53/d of the loss, some 30."""
    own = () if time == "step" else ("snn2<-snn2",)
    loss = ts.Loss(
        per_step=True, teacher_time=time, mse_weight=0.3, alpha=0.5, beta=0.0, detach_teacher=False, label_smoothing=0.1,
        supervised=("ann1*2", "snn2*0.5", "snn3"), pairs=("snn1<-snn3*1.5", "ann2<-snn1", *own),
    )  # fmt: skip
    i, d, rng = inputs(), 1e-4, np.random.default_rng(1)
    found = losses.joint_loss_adjoint(loss, **i)
    for name in ("logits_ann", "logits_snn"):
        along = rng.normal(size=i[name].shape)
        up, down = (float(losses.joint_loss(loss, **i | {name: i[name] + sign * d * along}).loss) for sign in (1, -1))
        assert abs((up - down) / (2 * d) - (getattr(found, name) * along).sum()) <= 1e-6 * (along**2).sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": ("snn1<-snn1",), "per_step": True}, r"loss\.pairs: .* got snn1 as its own teacher"),
        ({"pairs": ("ann1<-ann1",), "per_step": True, "teacher_time": "sum"}, r"loss\.pairs: .* got ann1 as its own teacher"),
        ({"pairs": ("snn1<-snn1",), "teacher_time": "mean"}, r"loss\.pairs: .* with per_step"),
        ({"pairs": ("snn1<-ann1*",)}, r"loss\.pairs: expected a finite weight >= 0 after \*"),
        ({"supervised": ("snn1*-1",)}, r"loss\.supervised: expected a finite weight >= 0 after \*"),
        ({"supervised": ("snn1*nan",)}, r"loss\.supervised: expected a finite weight >= 0 after \*"),
        ({"supervised": ("snn1", "snn1*2")}, r"loss\.supervised: expected different exits"),
        ({"mse_weight": 1.5}, r"loss\.mse_weight: expected a finite number in \[0, 1\]"),
        ({"mse_target": float("inf")}, r"loss\.mse_target: expected a finite number"),
    ],
)
def test_weights_and_teachers_that_mean_nothing_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ts.SpecError, match=message):
        ts.Loss(**options)


def test_a_share_is_no_less_than_nothing_and_less_than_all() -> None:
    for value in (-0.1, 1.0, float("nan")):
        with pytest.raises(ts.SpecError, match=r"loss\.label_smoothing: expected a finite number in \[0, 1\)"):
            ts.Loss(label_smoothing=value)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (("snn0",), "loss.supervised: expected exits such as 'snn1' and 'ann4', got snn0"),
        (("cnn1",), "loss.supervised: expected exits such as 'snn1' and 'ann4', got cnn1"),
        (("snn1", "snn1"), "loss.supervised: expected different exits, got ('snn1', 'snn1')"),
        ("first", "Invalid enum value 'first'"),
    ],
)
def test_other_exits_are_refused(named: object, message: str) -> None:
    with pytest.raises(ts.SpecError, match=re.escape(message)):
        decode(ts.Loss, {"supervised": named})


def test_an_exit_beyond_the_network_is_refused() -> None:
    with pytest.raises(ts.SpecError, match=r"loss\.supervised: expected exits 1 to 3 of this network, got ann4"):
        supervised(ts.Loss(supervised=("ann4", "snn1")), 3)


def test_a_config_reads_back() -> None:
    for named in ("last", ("snn1",)):
        assert decode(ts.Loss, encode(ts.Loss(supervised=named))).supervised == named


PLAIN = ts.Method(
    time_steps=3,
    factorization=ts.Factorization(scope="none"),
    loss=ts.Loss(alpha=0.0, beta=0.0, pairs="none", supervised="snn_last"),
)
"""A spiking network that learns from labels by its last exit alone: no factors, no teacher, no other exit."""


def test_a_plain_spiking_network_learns_as_if_it_were_alone() -> None:
    rng = np.random.default_rng(1)
    images, labels = rng.normal(size=(6, *NET.input_shape)), rng.integers(0, NET.classes, 6)
    state = initial_state(NET, PLAIN, ts.SGD(), seed=3)
    moved = {name: value + rng.normal(size=value.shape) if name.endswith("_ann") else value for name, value in state.items()}
    moved |= {name: np.abs(value) for name, value in moved.items() if name.endswith("var_ann")}
    (one, _, metrics), (other, *_) = (step.gradients(NET, PLAIN, values, images, labels) for values in (state, moved))
    assert metrics.cross_entropy_ann == metrics.distillation * 0 == 0
    for name, g in one.items():
        if name.endswith("_ann"):
            assert not g.any(), name
        else:  # the bias too: only the spiking twin sends a gradient into it
            assert np.array_equal(g, other[name]), name
    last = NET.exits[-1].head
    assert one[f"{last}.bias"].any()
    assert not any(one[f"{exit_.head}.bias"].any() for exit_ in NET.exits[:-1])


def test_the_artificial_network_alone_is_the_same_with_names() -> None:
    ann = msgspec.structs.replace(PLAIN, loss=ts.Loss(alpha=0.0, beta=0.0, pairs="none", supervised=("ann2",)))
    rng = np.random.default_rng(1)
    images, labels = rng.normal(size=(6, *NET.input_shape)), rng.integers(0, NET.classes, 6)
    gradients, *_ = step.gradients(NET, ann, initial_state(NET, ann, seed=3), images, labels)
    assert not any(g.any() for name, g in gradients.items() if name.endswith("_snn"))
