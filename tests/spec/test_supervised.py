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
