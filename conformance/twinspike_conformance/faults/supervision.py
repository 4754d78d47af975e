"""Faults of which exits learn from labels (clause DIS-9)."""

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
                "ce_ann = sum((cross_entropy(a, labels) for a in logits_ann), zero)\n    return Terms(*map(np.asarray, (total,",
            ),
        ),
    ),
    Fault(
        "dis-supervised-distilled",
        "DIS-9",
        "only exits that learn from labels are distilled",
        (_losses(*_distilled("kd")), _losses(*_distilled("for end, g"))),
    ),
)
