"""Cross entropy, distillation, the feature term and their sum (clauses DIS-*), differentiated by JAX.

Letters: a and f are the artificial twin's logits and features, z and h the spiking twin's; N exits,
S slices of time that the loss sees: T with `per_step`, else 1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from twinspike.config import Exit, Loss, Twin, distillation_pairs, pair_weights, supervised, supervised_weights


class Terms(NamedTuple):
    """The total and its parts, each of shape () and unweighted; `distillation` includes tau^2."""

    loss: Array
    cross_entropy_ann: Array
    cross_entropy_snn: Array
    distillation: Array
    feature: Array


def cross_entropy(logits: Array, labels: Array, *, smoothing: float = 0.0) -> Array:
    """-mean log softmax(logits)[label] over all leading axes (clause DIS-2).

    Args:
        logits: (..., B, K).
        labels: (B,), integers in [0, K).
        smoothing: share of each label that is spread evenly over all classes, in [0, 1) (clause DIS-10).
    """
    log_p = jax.nn.log_softmax(logits)
    chosen = jnp.arange(logits.shape[-1]) == labels[:, None]  # a mask, since a gather's adjoint is a slow scatter
    sharp = -jnp.where(chosen, log_p, 0.0).sum(axis=-1).mean()
    return (1.0 - smoothing) * sharp - smoothing * log_p.mean() if smoothing else sharp


def distillation(student: Array, teacher: Array, *, config: Loss) -> Array:
    """KD(student <- teacher) at the temperature, without the factor tau^2 (clauses DIS-3, DIS-6).

    Args:
        student: (..., B, K); leading axes are averaged over.
        teacher: likewise, or without the leading axes.
        config: temperature, form, and whether the teacher is detached.
    """
    if config.detach_teacher:
        teacher = lax.stop_gradient(teacher)
    log_p = jax.nn.log_softmax(teacher / config.temperature)
    log_q = jax.nn.log_softmax(student / config.temperature)
    surprise = log_p - log_q if config.form == "kl" else -log_q
    return (jnp.exp(log_p) * surprise).sum(axis=-1).mean()


def feature_loss(snn: Array, ann: Array, *, config: Loss) -> Array:
    """F(h, f), the squared distance of one exit's features (clauses DIS-5, DIS-6).

    Args:
        snn: h, (B, F), reduced over time.
        ann: f, (B, F).
        config: the reduction, and whether f is detached.
    """
    if config.detach_teacher:
        ann = lax.stop_gradient(ann)
    count = {"sum": 1, "batch_mean": snn.shape[0], "mean": snn.size}[config.feature_reduction]
    return ((snn - ann) ** 2).sum() / count


def joint_loss(
    logits_ann: Array,
    logits_snn: Array,
    features_ann: Array,
    features_snn: Array,
    labels: Array,
    *,
    config: Loss,
    replicas: int = 1,
) -> Terms:
    """The total over all exits, without the orthogonality penalty (clauses DIS-1, DIS-4, DIS-8 to DIS-13).

    Args:
        logits_ann: a, (N, B, K).
        logits_snn: z, (S, N, B, K); the loss is the mean over S.
        features_ann: f, (N, B, F).
        features_snn: h, (N, B, F), reduced over time.
        labels: (B,), integers in [0, K).
        config: weights, pairs and options.
        replicas: of as many ranks with as many samples, what these contribute to the terms of the global batch (clause DEV-2).
    """

    def at(end: Exit) -> Array:
        return logits_ann[end.number - 1] if end.twin == "ann" else logits_snn[:, end.number - 1]

    exits = logits_ann.shape[0]
    zero = jnp.zeros((), logits_ann.dtype)
    learning, weights = supervised(config, exits), supervised_weights(config, exits)

    def taught(end: Exit) -> Array:
        """The teacher's logits: the spiking twin's of each slice, or of all (clause DIS-12)."""
        if end.twin == "ann" or config.teacher_time == "step":
            return at(end)
        return at(end).sum(axis=0) if config.teacher_time == "sum" else at(end).mean(axis=0)

    def entropy(logits: Array, twin: Twin) -> Array:
        found = cross_entropy(logits, labels, smoothing=config.label_smoothing)
        share = config.mse_weight if twin == "snn" else 0.0
        return (1.0 - share) * found + share * ((logits - config.mse_target) ** 2).mean() if share else found

    def entropies(logits: Array, twin: Twin) -> Array:
        chosen = learning[twin]
        if any(weight != 1.0 for weight in weights[twin]):  # clause DIS-11
            return sum((w * entropy(logits[..., i, :, :], twin) for i, w in zip(chosen, weights[twin], strict=True)), zero)
        if len(chosen) < exits:
            logits = jnp.stack([logits[..., i, :, :] for i in chosen]) if chosen else logits
        return entropy(logits, twin) * len(chosen) if chosen else zero

    ce_ann, ce_snn = entropies(logits_ann, "ann"), entropies(logits_snn, "snn")
    pairs = zip(distillation_pairs(config, exits), pair_weights(config, exits), strict=True)
    kd = sum((w * distillation(at(student), taught(teacher), config=config) for (student, teacher), w in pairs), zero)
    kd = config.temperature**2 * kd
    feature = sum((feature_loss(features_snn[i], features_ann[i], config=config) for i in range(exits)), zero)
    if replicas > 1:
        ce_ann, ce_snn, kd = ce_ann / replicas, ce_snn / replicas, kd / replicas
        feature = feature if config.feature_reduction == "sum" else feature / replicas
    total = (1.0 - config.alpha) * (ce_ann + ce_snn) + config.alpha * kd + config.beta * feature
    return Terms(total, ce_ann, ce_snn, kd, feature)
