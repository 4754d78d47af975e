"""The joint loss and its terms (clauses DIS-*); a and f are the artificial twin's logits and features, z and h the other's."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from twinspike.config import Exit, Loss, Twin, distillation_pairs, pair_weights, supervised, supervised_weights


class Terms(NamedTuple):
    """The total and its parts, each of shape ()."""

    loss: mx.array
    cross_entropy_ann: mx.array
    cross_entropy_snn: mx.array
    distillation: mx.array
    feature: mx.array


def log_softmax(logits: mx.array) -> mx.array:
    """log p over the last axis, with the largest logit subtracted first."""
    shifted = logits - mx.stop_gradient(logits.max(axis=-1, keepdims=True))
    return shifted - mx.log(mx.exp(shifted).sum(axis=-1, keepdims=True))


def cross_entropy(logits: mx.array, labels: mx.array, *, smoothing: float = 0.0) -> mx.array:
    """-mean log softmax(logits)[label] over all leading axes (clauses DIS-2, DIS-10).

    Args:
        logits: (..., B, K).
        labels: (B,), whole numbers in [0, K).
        smoothing: share of each label that is spread over all classes.
    """
    log_p = log_softmax(logits)
    chosen = mx.arange(logits.shape[-1]) == labels[:, None]
    sharp = -mx.where(chosen, log_p, mx.zeros_like(log_p)).sum() / (logits.size // logits.shape[-1])
    return (1.0 - smoothing) * sharp - smoothing * (log_p.sum() / log_p.size) if smoothing else sharp


def distillation(student: mx.array, teacher: mx.array, *, config: Loss) -> mx.array:
    """KD(student <- teacher) at the temperature, without tau^2, over all leading axes (clauses DIS-3, DIS-6)."""
    teacher = mx.stop_gradient(teacher) if config.detach_teacher else teacher
    log_p, log_q = log_softmax(teacher / config.temperature), log_softmax(student / config.temperature)
    surprise = log_p - log_q if config.form == "kl" else -log_q
    return (mx.exp(log_p) * surprise).sum() / (student.size // student.shape[-1])


def feature_loss(snn: mx.array, ann: mx.array, *, config: Loss) -> mx.array:
    """F(h, f), both (B, F) (clauses DIS-5, DIS-6)."""
    ann = mx.stop_gradient(ann) if config.detach_teacher else ann
    count = {"sum": 1, "batch_mean": snn.shape[0], "mean": snn.size}[config.feature_reduction]
    return mx.square(snn - ann).sum() / count


def joint_loss(
    logits_ann: mx.array, logits_snn: mx.array, features_ann: mx.array, features_snn: mx.array, labels: mx.array, *, config: Loss
) -> Terms:
    """The total over all exits, without the orthogonality penalty.

    Args:
        logits_ann: a, (N, B, K).
        logits_snn: z, (S, N, B, K); the loss is the mean over S.
        features_ann: f, (N, B, F).
        features_snn: h, (N, B, F).
        labels: (B,).
        config: weights, pairs and options.
    """
    slices, exits = logits_snn.shape[:2]
    learning, weights = supervised(config, exits), supervised_weights(config, exits)

    def at(end: Exit) -> mx.array:
        a = logits_ann[end.number - 1]
        return mx.broadcast_to(a, (slices, *a.shape)) if end.twin == "ann" else logits_snn[:, end.number - 1]

    def taught(end: Exit) -> mx.array:
        """The teacher's logits: at each slice, or of all slices together (clause DIS-12)."""
        own = at(end)
        if end.twin == "ann" or config.teacher_time == "step":
            return own
        together = own.sum(axis=0, keepdims=True)
        return mx.broadcast_to(together if config.teacher_time == "sum" else together / slices, own.shape)

    def entropy(logits: mx.array, twin: Twin) -> mx.array:
        """An exit's cross entropy and, of the spiking twin, its squared distance to a constant (clause DIS-13)."""
        found = cross_entropy(logits, labels, smoothing=config.label_smoothing)
        share = config.mse_weight if twin == "snn" else 0.0
        return (1.0 - share) * found + share * (mx.square(logits - config.mse_target).sum() / logits.size) if share else found

    def entropies(logits: mx.array, twin: Twin) -> mx.array:
        chosen = zip(learning[twin], weights[twin], strict=True)
        return sum((w * entropy(logits[..., i, :, :], twin) for i, w in chosen), mx.zeros((), logits.dtype))

    zero = mx.zeros((), logits_ann.dtype)
    ce_ann, ce_snn = entropies(logits_ann, "ann"), entropies(logits_snn, "snn")
    pairs = zip(distillation_pairs(config, exits), pair_weights(config, exits), strict=True)
    kd = config.temperature**2 * sum((w * distillation(at(a), taught(b), config=config) for (a, b), w in pairs), zero)
    feature = sum((feature_loss(features_snn[i], features_ann[i], config=config) for i in range(exits)), zero)
    total = (1.0 - config.alpha) * (ce_ann + ce_snn) + config.alpha * kd + config.beta * feature
    return Terms(total, ce_ann, ce_snn, kd, feature)
