"""Faults of which exits learn from labels, how much, and from what beside them (clauses DIS-9 to DIS-13)."""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of

_losses = edits_of("losses")

_FIRST = '{"ann": (0,), "snn": (0,)} if loss.supervised == "last" else supervised(loss, exits)'


_ZIPPED = "zip(distillation_pairs(loss, exits), pair_weights(loss, exits), strict=True)"
_TAUGHT = "_taught(loss, teacher, s, logits_ann, logits_snn)"


def _distilled(then: str) -> tuple[str, str]:
    """The loop over pairs that goes on with `then`, and that over pairs of a student which learns from labels."""
    loop = f"    for (student, teacher), w in {_ZIPPED}:\n        for s in range(slices):\n"
    ends = f"            ends = _at(student, s, logits_ann, logits_snn), {_TAUGHT}\n            {then}"
    slices = "slices if student.number - 1 in dict(ann if student.twin == 'ann' else snn) else 0"
    return loop + ends, loop.replace("range(slices)", f"range({slices})") + ends


_SMOOTHED = "return np.asarray((1.0 - e) * ce - e * log_softmax(logits).mean()) if e else ce"
_D_SMOOTHED = "return np.asarray((1.0 - e) * g + e * (np.exp(log_softmax(logits)) - 1.0 / classes) / batch)"

FAULTS = (
    Fault(
        "dis-supervised-first",
        "DIS-9",
        "last means the first exit of each twin",
        (_losses("found, weights = supervised(loss, exits)", f"found, weights = {_FIRST}"),),
    ),
    Fault(
        "dis-supervised-gradients",
        "DIS-9",
        "labels send gradients into every exit of the spiking twin",
        (_losses("        for i, w in snn:", "        for i, w in [(i, 1.0) for i in range(exits)]:"),),
    ),
    Fault(
        "dis-supervised-reported",
        "DIS-9",
        "what is reported of the artificial twin's cross entropy is that of all exits",
        (
            _losses(
                "return Terms(*map(np.asarray, (total,",
                "ce_ann = sum((supervision(loss, a, labels) for a in logits_ann), zero)\n"
                "    return Terms(*map(np.asarray, (total,",
            ),
        ),
    ),
    Fault(
        "dis-supervised-distilled",
        "DIS-9",
        "only exits that learn from labels are distilled",
        (_losses(*_distilled("kd")), _losses(*_distilled("d_student"))),
    ),
    Fault(
        "dis-smoothing-others",
        "DIS-10",
        "the share of a label is spread over the other classes",
        (
            _losses(
                _SMOOTHED,
                "k = logits.shape[-1]\n"
                "    return np.asarray((1.0 - e) * ce + e * (k * -log_softmax(logits).mean() - ce) / (k - 1)) if e else ce",
            ),
            _losses(
                _D_SMOOTHED,
                "hot = np.exp(log_softmax(logits)) - batch * g\n    p = np.exp(log_softmax(logits))\n"
                "    return np.asarray((1.0 - e) * g + e * (p - (1.0 - hot) / (classes - 1)) / batch)",
            ),
        ),
        origin="Szegedy et al. 2016 spread it over all classes; code after other descriptions leaves the label out",
    ),
    Fault(
        "dis-smoothing-summed",
        "DIS-10",
        "log probabilities of the smoothed part are summed over classes, not averaged",
        (
            _losses(_SMOOTHED, _SMOOTHED.replace(".mean()", ".sum(axis=-1).mean()")),
            _losses(_D_SMOOTHED, _D_SMOOTHED.replace("1.0 / classes)", "1.0 / classes) * classes")),
        ),
    ),
    Fault(
        "dis-smoothing-undiminished",
        "DIS-10",
        "the sharp label keeps its whole weight",
        (
            _losses(_SMOOTHED, _SMOOTHED.replace("(1.0 - e) * ce", "ce")),
            _losses(_D_SMOOTHED, _D_SMOOTHED.replace("(1.0 - e) * g", "g")),
        ),
    ),
    Fault(
        "dis-smoothing-gradient",
        "DIS-10",
        "gradients are those of sharp labels",
        (_losses(_D_SMOOTHED, "return g"),),
    ),
    Fault(
        "dis-smoothing-reported",
        "DIS-10",
        "what is reported of the artificial twin's cross entropy is that of sharp labels",
        (
            _losses(
                "return Terms(*map(np.asarray, (total,",
                "ce_ann = sum((w * cross_entropy(logits_ann[i], labels) for i, w in ann), zero)"
                "\n    return Terms(*map(np.asarray, (total,",
            ),
        ),
    ),
    Fault(
        "dis-weights-exits-gradient",
        "DIS-11",
        "gradients of the spiking twin's cross entropies lack their weights",
        (_losses("(1.0 - loss.alpha) * times(w, g) / slices", "(1.0 - loss.alpha) * g / slices"),),
    ),
    Fault(
        "dis-weights-exits-normalized",
        "DIS-11",
        "weights of the exits of one twin are divided by their mean",
        (
            _losses(
                'return tuple(zip(found["ann"], weights["ann"]',
                "weights = {k: tuple(w * len(v) / (sum(v) or 1.0) for w in v) for k, v in weights.items()}\n"
                '    return tuple(zip(found["ann"], weights["ann"]',
            ),
        ),
        origin="torch.nn.functional.cross_entropy divides by the sum of its weights",
    ),
    Fault(
        "dis-weights-exits-reported",
        "DIS-11",
        "what is reported of the artificial twin's cross entropy lacks the weights",
        (
            _losses(
                "return Terms(*map(np.asarray, (total,",
                "ce_ann = sum((supervision(loss, logits_ann[i], labels) for i, w in ann), zero)"
                "\n    return Terms(*map(np.asarray, (total,",
            ),
        ),
    ),
    Fault(
        "dis-weights-pairs-missing",
        "DIS-11",
        "pairs are not weighted",
        (
            _losses("times(w, distillation(loss, *ends))", "distillation(loss, *ends)"),
            _losses("times(w, d_student)", "d_student"),
            _losses("[...] += weight * times(w, d_teacher)", "[...] += weight * d_teacher"),
            _losses("1] += weight * times(w, d_teacher)", "1] += weight * d_teacher"),
        ),
    ),
    Fault(
        "dis-weights-pairs-gradient",
        "DIS-11",
        "the student's gradient lacks its pair's weight",
        (_losses("times(w, d_student)", "d_student"),),
    ),
    Fault(
        "dis-teacher-time-swapped",
        "DIS-12",
        "mean teaches with the sum over the slices",
        (
            _losses('total / len(snn) if loss.teacher_time == "mean" else total', "total"),
            _losses('d_teacher) / (slices if loss.teacher_time == "mean" else 1)', "d_teacher)"),
        ),
    ),
    Fault(
        "dis-teacher-time-last",
        "DIS-12",
        "a spiking exit teaches with its last slice's logits",
        (_losses("total = snn[:, end.number - 1].sum(axis=0)", "total = snn[-1, end.number - 1] * len(snn)"),),
    ),
    Fault(
        "dis-teacher-time-so-far",
        "DIS-12",
        "a spiking exit teaches with the slices up to the student's",
        (
            _losses("total = snn[:, end.number - 1].sum(axis=0)", "total = snn[: s + 1, end.number - 1].sum(axis=0)"),
            _losses("total / len(snn) if", "total / (s + 1) if"),
        ),
        origin="a running sum over time, as a readout by membrane potential has it",
    ),
    Fault(
        "dis-teacher-time-gradient",
        "DIS-12",
        "an attached teacher's gradient reaches the student's slice alone",
        (_losses("d_z[:, teacher.number - 1] +=", "d_z[s, teacher.number - 1] +="),),
    ),
    Fault(
        "dis-mse-both",
        "DIS-13",
        "the artificial twin's logits are drawn to the constant too",
        (
            _losses(
                "times(w, supervision(loss, logits_ann[i], labels)) for i, w in ann",
                "times(w, spiking_supervision(loss, logits_ann[i], labels)) for i, w in ann",
            ),
            _losses(
                "times(w, supervision_adjoint(loss, logits_ann[i], labels))",
                "times(w, spiking_supervision_adjoint(loss, logits_ann[i], labels))",
            ),
        ),
    ),
    Fault(
        "dis-mse-added",
        "DIS-13",
        "the cross entropy keeps its whole weight beside the squared distance",
        (
            _losses("(1.0 - share) * entropy", "entropy"),
            _losses("(1.0 - share) * g", "g"),
        ),
    ),
    Fault(
        "dis-mse-summed",
        "DIS-13",
        "squared distances are summed over classes",
        (
            _losses("((logits - loss.mse_target) ** 2).mean()", "((logits - loss.mse_target) ** 2).sum(axis=-1).mean()"),
            _losses("(logits - loss.mse_target) / logits.size", "(logits - loss.mse_target) / len(logits)"),
        ),
    ),
    Fault(
        "dis-mse-halved",
        "DIS-13",
        "the squared distance's gradient lacks the factor 2",
        (_losses("2.0 * (logits - loss.mse_target)", "(logits - loss.mse_target)"),),
    ),
    Fault(
        "dis-mse-weight",
        "DIS-13",
        "the squared distance is not weighted by its exit's weight",
        (
            _losses(
                "times(w, spiking_supervision(loss, z[i], labels))",
                "(spiking_supervision(loss, z[i], labels)"
                " + (w - 1.0) * (1.0 - loss.mse_weight) * supervision(loss, z[i], labels))",
            ),
        ),
    ),
)
