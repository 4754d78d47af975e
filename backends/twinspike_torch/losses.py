"""The joint self-distillation loss and its terms (clauses DIS-*).

Logits are (B, K), features (B, F), labels (B,). Letters as in the clauses: a and f are the artificial
twin's logits and features, z and h the spiking twin's; N exits, S slices of time that the loss sees.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from twinspike.config import Loss, distillation_pairs, pair_weights, supervised, supervised_weights
from twinspike_torch.compiling import constant


class Terms(NamedTuple):
    """The total and its parts, scalars; the parts are unweighted (`distillation` includes tau^2) and detached."""

    loss: Tensor
    cross_entropy_ann: Tensor
    cross_entropy_snn: Tensor
    distillation: Tensor
    feature: Tensor


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """-mean_batch log softmax(logits)[label] (clause DIS-2).

    Args:
        logits: (B, K).
        labels: (B,), int64 in [0, K).
        smoothing: share of each label that is spread evenly over all classes, in [0, 1) (clause DIS-10).
    """
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing)


def _spiking(logits: Tensor, labels: Tensor, config: Loss) -> Tensor:
    """An exit's cross entropy, and its share of the squared distance of (S B, K) logits to a constant (clause DIS-13)."""
    entropy, share = cross_entropy(logits, labels, smoothing=config.label_smoothing), config.mse_weight
    return (1.0 - share) * entropy + share * (logits - config.mse_target).square().mean() if share else entropy


def distillation(student: Tensor, teacher: Tensor, *, config: Loss) -> Tensor:
    """KD(student <- teacher) at the temperature tau, without the factor tau^2 (clause DIS-3).

    Args:
        student: logits, (..., B, K).
        teacher: logits, likewise; leading axes broadcast.
        config: temperature, form, and whether the teacher is detached.
    """
    if config.detach_teacher:
        teacher = teacher.detach()
    log_p = functional.log_softmax(teacher / config.temperature, dim=-1)
    log_q = functional.log_softmax(student / config.temperature, dim=-1)
    surprise = log_p - log_q if config.form == "kl" else -log_q
    return (log_p.exp() * surprise).sum(-1).mean()


def feature_loss(snn: Tensor, ann: Tensor, *, config: Loss) -> Tensor:
    """F(h, f), the squared distance of the twins' features, (B, F) each, reduced as `feature_reduction` says (DIS-5)."""
    if config.detach_teacher:
        ann = ann.detach()
    total = (snn - ann).square().sum()
    match config.feature_reduction:
        case "sum":
            return total
        case "batch_mean":
            return total / snn.shape[0]
        case "mean":
            return total / snn.numel()


def joint_loss(
    logits_ann: Tensor,
    logits_snn: Tensor,
    features_ann: Tensor,
    features_snn: Tensor,
    labels: Tensor,
    *,
    config: Loss,
    replicas: int = 1,
) -> Terms:
    """The total over all exits, without the orthogonality penalty, and its terms (clauses DIS-1, DIS-4, DIS-8 to DIS-10).

    Args:
        logits_ann: a, (N, B, K); of a `TwinOutput` its first four fields come in this order.
        logits_snn: z, (S, N, B, K), or (N, B, K) where S is 1; the loss is the mean over S.
        features_ann: f, (N, B, F).
        features_snn: h, (N, B, F), reduced over time.
        labels: (B,), int64 in [0, K).
        config: weights, pairs and options.
        replicas: of as many ranks with as many samples, what these contribute to the terms of the global batch (clause DEV-2).
    """
    a, z = logits_ann, logits_snn
    if z.ndim == a.ndim:
        z = z.unsqueeze(0)
    exits = a.shape[0]
    every_step = labels.repeat(z.shape[0])
    of_ann, of_snn = _supervised(config, exits)
    # Of no exits the sum is still one of the logits, so that all of their parameters have a gradient.
    smooth = config.label_smoothing
    ce_ann = _sum([w * cross_entropy(a[i], labels, smoothing=smooth) for i, w in of_ann]) if of_ann else a[:0].sum()
    ce_snn = _sum([w * _spiking(z[:, i].flatten(0, 1), every_step, config) for i, w in of_snn]) if of_snn else z[:0].sum()

    def logits(twin: str, number: int) -> Tensor:
        return a[number - 1] if twin == "ann" else z[:, number - 1]

    def taught(twin: str, number: int) -> Tensor:
        """The teacher's logits, (S or 1, B, K), or (B, K) of the artificial twin (clause DIS-12)."""
        own = logits(twin, number)
        if twin == "ann" or config.teacher_time == "step":
            return own
        return own.sum(0, keepdim=True) if config.teacher_time == "sum" else own.mean(0, keepdim=True)

    pairs = _pairs(config, exits)
    kd = _sum([w * distillation(logits(*s), taught(*t), config=config) for s, t, w in pairs]) if pairs else a.new_zeros(())
    kd = config.temperature**2 * kd
    feature = _sum([feature_loss(h, f, config=config) for h, f in zip(features_snn, features_ann, strict=True)])
    if replicas > 1:
        ce_ann, ce_snn, kd = ce_ann / replicas, ce_snn / replicas, kd / replicas
        feature = feature if config.feature_reduction == "sum" else feature / replicas
    total = (1.0 - config.alpha) * (ce_ann + ce_snn) + config.alpha * kd + config.beta * feature
    return Terms(total, ce_ann.detach(), ce_snn.detach(), kd.detach(), feature.detach())


@constant
def _pairs(loss: Loss, exits: int) -> tuple[tuple[tuple[str, int], tuple[str, int], float], ...]:
    """The (student, teacher, weight) of each pair, each end a twin and a number from 1 (clause DIS-11)."""
    found = zip(distillation_pairs(loss, exits), pair_weights(loss, exits), strict=True)
    return tuple(((s.twin, s.number), (t.twin, t.number), w) for (s, t), w in found)


@constant
def _supervised(loss: Loss, exits: int) -> tuple[tuple[tuple[int, float], ...], tuple[tuple[int, float], ...]]:
    """Exits of the artificial and of the spiking twin that learn from labels, from 0, with weights (clauses DIS-9 and DIS-11)."""
    found, weights = supervised(loss, exits), supervised_weights(loss, exits)
    return tuple(zip(found["ann"], weights["ann"], strict=True)), tuple(zip(found["snn"], weights["snn"], strict=True))


def _sum(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum()
