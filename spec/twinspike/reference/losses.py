"""Cross entropy, distillation, the feature term and their sum, with adjoints (clauses DIS-*).

Logits are (B, K), features (B, F), labels (B,). Letters: a and f are the artificial twin's logits and
features, z and h the spiking twin's; N exits, S slices of time that the loss sees: T with `per_step`,
else 1. Adjoints take no cotangent: they are gradients of a scalar.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twinspike.config import Exit, Loss, distillation_pairs, pair_weights, supervised, supervised_weights
from twinspike.reference import Array

Labels = NDArray[np.integer[Any]]


class Terms(NamedTuple):
    """The total and its parts, each of shape () and unweighted (`distillation` includes tau^2)."""

    loss: Array
    cross_entropy_ann: Array
    cross_entropy_snn: Array
    distillation: Array
    feature: Array


class Gradients(NamedTuple):
    """Gradients of the total, shaped like the inputs of `joint_loss`."""

    logits_ann: Array
    logits_snn: Array
    features_ann: Array
    features_snn: Array


def log_softmax(logits: Array) -> Array:
    """log p over the last axis, with the largest logit subtracted first."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def cross_entropy(logits: Array, labels: Labels) -> Array:
    """-mean_batch log softmax(logits)[label] (clause DIS-2)."""
    log_p = log_softmax(logits)
    return np.asarray(-log_p[np.arange(len(labels)), labels].mean())


def cross_entropy_adjoint(logits: Array, labels: Labels) -> Array:
    """(softmax(logits) - onehot(labels))/B."""
    g = np.exp(log_softmax(logits))
    g[np.arange(len(labels)), labels] -= 1.0
    return np.asarray(g / len(labels))


def supervision(loss: Loss, logits: Array, labels: Labels) -> Array:
    """The cross entropy that joins the loss: of labels smoothed by e, (1 - e) CE - e mean log softmax (clause DIS-10)."""
    ce, e = cross_entropy(logits, labels), loss.label_smoothing
    return np.asarray((1.0 - e) * ce - e * log_softmax(logits).mean()) if e else ce


def supervision_adjoint(loss: Loss, logits: Array, labels: Labels) -> Array:
    """(softmax(logits) - smoothed labels)/B: (1 - e) of the sharp labels' gradient, and e of that of labels 1/K."""
    g, e = cross_entropy_adjoint(logits, labels), loss.label_smoothing
    if not e:
        return g
    batch, classes = logits.shape
    return np.asarray((1.0 - e) * g + e * (np.exp(log_softmax(logits)) - 1.0 / classes) / batch)


def times(weight: float, term: Array) -> Array:
    """A weighted term (clause DIS-11); a weight of 1 rounds nothing."""
    return term if weight == 1.0 else np.asarray(weight * term)


def spiking_supervision(loss: Loss, logits: Array, labels: Labels) -> Array:
    """The spiking twin's: its share of the cross entropy and of the squared distance to a constant (clause DIS-13)."""
    entropy, share = supervision(loss, logits, labels), loss.mse_weight
    return np.asarray((1.0 - share) * entropy + share * ((logits - loss.mse_target) ** 2).mean()) if share else entropy


def spiking_supervision_adjoint(loss: Loss, logits: Array, labels: Labels) -> Array:
    """(1 - l) g + 2 l (logits - c)/(B K), g the cross entropy's gradient."""
    g, share = supervision_adjoint(loss, logits, labels), loss.mse_weight
    return np.asarray((1.0 - share) * g + share * (2.0 * (logits - loss.mse_target) / logits.size)) if share else g


def distillation(loss: Loss, student: Array, teacher: Array) -> Array:
    """KD(student <- teacher) at the temperature tau, without the factor tau^2 (clause DIS-3)."""
    log_p = log_softmax(teacher / loss.temperature)
    log_q = log_softmax(student / loss.temperature)
    surprise = log_p - log_q if loss.form == "kl" else -log_q
    return np.asarray((np.exp(log_p) * surprise).sum(axis=-1).mean())


def distillation_adjoint(loss: Loss, student: Array, teacher: Array) -> tuple[Array, Array]:
    """Gradients of student and teacher; the teacher's is 0 where it is detached (clause DIS-6).

    With p the teacher's and q the student's softened probabilities: (q - p)/(tau B) for the student, and
    p (c - sum p c)/(tau B) for the teacher, c = -log q or log p - log q.
    """
    scale = loss.temperature * len(student)
    log_p = log_softmax(teacher / loss.temperature)
    log_q = log_softmax(student / loss.temperature)
    p = np.exp(log_p)
    d_student = (np.exp(log_q) - p) / scale
    if loss.detach_teacher:
        return d_student, np.zeros_like(teacher)
    surprise = log_p - log_q if loss.form == "kl" else -log_q
    return d_student, p * (surprise - (p * surprise).sum(axis=-1, keepdims=True)) / scale


def feature_loss(loss: Loss, snn: Array, ann: Array) -> Array:
    """F(h, f), the squared distance of the twins' features, reduced as `feature_reduction` says (clause DIS-5)."""
    return np.asarray(((snn - ann) ** 2).sum() / _feature_count(loss, snn))


def feature_loss_adjoint(loss: Loss, snn: Array, ann: Array) -> tuple[Array, Array]:
    """Gradients of h and f; that of f is 0 where teachers are detached (clause DIS-6)."""
    g = 2.0 * (snn - ann) / _feature_count(loss, snn)
    return g, np.zeros_like(g) if loss.detach_teacher else -g


def _feature_count(loss: Loss, features: Array) -> int:
    return {"sum": 1, "batch_mean": len(features), "mean": features.size}[loss.feature_reduction]


def joint_loss(
    loss: Loss, logits_ann: Array, logits_snn: Array, features_ann: Array, features_snn: Array, labels: Labels
) -> Terms:
    """The total over all exits, without the orthogonality penalty (clauses DIS-1, DIS-4, DIS-8 to DIS-13).

    Args:
        loss: weights, pairs and options.
        logits_ann: a, (N, B, K).
        logits_snn: z, (S, N, B, K); the loss is the mean over S.
        features_ann: f, (N, B, F).
        features_snn: h, (N, B, F), reduced over time.
        labels: (B,), in [0, K).
    """
    slices, exits = logits_snn.shape[:2]
    (ann, snn), zero = _learning(loss, exits), np.zeros((), dtype=logits_ann.dtype)
    ce_ann = sum((times(w, supervision(loss, logits_ann[i], labels)) for i, w in ann), zero)
    ce_snn = sum((times(w, spiking_supervision(loss, z[i], labels)) for z in logits_snn for i, w in snn), zero) / slices
    kd = zero
    for (student, teacher), w in zip(distillation_pairs(loss, exits), pair_weights(loss, exits), strict=True):
        for s in range(slices):
            ends = _at(student, s, logits_ann, logits_snn), _taught(loss, teacher, s, logits_ann, logits_snn)
            kd = kd + times(w, distillation(loss, *ends)) / slices
    kd = loss.temperature**2 * kd
    feature = sum(feature_loss(loss, h, f) for h, f in zip(features_snn, features_ann, strict=True))
    total = (1.0 - loss.alpha) * (ce_ann + ce_snn) + loss.alpha * kd + loss.beta * feature
    return Terms(*map(np.asarray, (total, ce_ann, ce_snn, kd, feature)))


def joint_loss_adjoint(
    loss: Loss, logits_ann: Array, logits_snn: Array, features_ann: Array, features_snn: Array, labels: Labels
) -> Gradients:
    """Gradients of the total (clauses DIS-1, DIS-6, DIS-8 to DIS-13)."""
    slices, exits = logits_snn.shape[:2]
    d_a, d_z = np.zeros_like(logits_ann), np.zeros_like(logits_snn)
    ann, snn = _learning(loss, exits)
    for i, w in ann:
        d_a[i] = (1.0 - loss.alpha) * times(w, supervision_adjoint(loss, logits_ann[i], labels))
    for s in range(slices):
        for i, w in snn:
            g = spiking_supervision_adjoint(loss, logits_snn[s, i], labels)
            d_z[s, i] = (1.0 - loss.alpha) * times(w, g) / slices
    weight = loss.alpha * loss.temperature**2 / slices
    for (student, teacher), w in zip(distillation_pairs(loss, exits), pair_weights(loss, exits), strict=True):
        for s in range(slices):
            ends = _at(student, s, logits_ann, logits_snn), _taught(loss, teacher, s, logits_ann, logits_snn)
            d_student, d_teacher = distillation_adjoint(loss, *ends)
            _at(student, s, d_a, d_z)[...] += weight * times(w, d_student)
            if teacher.twin == "ann" or loss.teacher_time == "step":
                _at(teacher, s, d_a, d_z)[...] += weight * times(w, d_teacher)
            else:
                d_z[:, teacher.number - 1] += weight * times(w, d_teacher) / (slices if loss.teacher_time == "mean" else 1)
    d_h, d_f = np.empty_like(features_snn), np.empty_like(features_ann)
    for i in range(exits):
        g_h, g_f = feature_loss_adjoint(loss, features_snn[i], features_ann[i])
        d_h[i], d_f[i] = loss.beta * g_h, loss.beta * g_f
    return Gradients(d_a, d_z, d_f, d_h)


def _learning(loss: Loss, exits: int) -> tuple[tuple[tuple[int, float], ...], tuple[tuple[int, float], ...]]:
    """Exits of the artificial and of the spiking twin that learn from labels, each with its weight (clauses DIS-9 and DIS-11)."""
    found, weights = supervised(loss, exits), supervised_weights(loss, exits)
    return tuple(zip(found["ann"], weights["ann"], strict=True)), tuple(zip(found["snn"], weights["snn"], strict=True))


def _at(end: Exit, s: int, ann: Array, snn: Array) -> Array:
    """The (B, K) of one exit at slice s, a view; the artificial twin is the same at all slices."""
    return np.asarray(ann[end.number - 1] if end.twin == "ann" else snn[s, end.number - 1])


def _taught(loss: Loss, end: Exit, s: int, ann: Array, snn: Array) -> Array:
    """The (B, K) with which an exit teaches at slice s: of the spiking twin its own slice's, or of all slices (clause DIS-12)."""
    if end.twin == "ann" or loss.teacher_time == "step":
        return _at(end, s, ann, snn)
    total = snn[:, end.number - 1].sum(axis=0)
    return np.asarray(total / len(snn) if loss.teacher_time == "mean" else total)
