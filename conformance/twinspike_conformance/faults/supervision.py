"""Faults of which exits learn from labels, and of labels that are smoothed (clauses DIS-9 and DIS-10)."""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of

_losses = edits_of("losses")

_FIRST = '{"ann": (0,), "snn": (0,)} if loss.supervised == "last" else supervised(loss, exits)'


def _distilled(then: str) -> tuple[str, str]:
    """The loop over pairs that goes on with `then`, and that over pairs of a student which learns from labels."""
    loop = "    for student, teacher in distillation_pairs(loss, exits):\n        for s in range(slices):\n"
    ends = f"            ends = [_at(end, s, logits_ann, logits_snn) for end in (student, teacher)]\n            {then}"
    slices = "slices if student.number - 1 in learning[student.twin] else 0"
    return loop + ends, loop.replace("slices", slices) + ends


_SMOOTHED = "return np.asarray((1.0 - e) * ce - e * log_softmax(logits).mean()) if e else ce"
_D_SMOOTHED = "return np.asarray((1.0 - e) * g + e * (np.exp(log_softmax(logits)) - 1.0 / classes) / batch)"

FAULTS = (
    Fault(
        "dis-supervised-first",
        "DIS-9",
        "last means the first exit of each twin",
        (
            _losses("learning, zero = supervised(loss, exits)", f"learning, zero = {_FIRST}"),
            _losses("    learning = supervised(loss, exits)", f"    learning = {_FIRST}"),
        ),
    ),
    Fault(
        "dis-supervised-gradients",
        "DIS-9",
        "labels send gradients into every exit of the spiking twin",
        (_losses('        for i in learning["snn"]:', "        for i in range(exits):"),),
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
        (_losses(*_distilled("kd")), _losses(*_distilled("for end, g"))),
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
                'ce_ann = sum((cross_entropy(logits_ann[i], labels) for i in learning["ann"]), zero)'
                "\n    return Terms(*map(np.asarray, (total,",
            ),
        ),
    ),
)
