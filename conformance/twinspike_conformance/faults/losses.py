"""Faults of the losses (clauses DIS-1 to DIS-6 and DIS-8)."""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of

_losses = edits_of("losses")

_TOTAL = "total = (1.0 - loss.alpha) * (ce_ann + ce_snn) + loss.alpha * kd + loss.beta * feature"
_CE_ANN = "ce_ann = sum((times(w, supervision(loss, logits_ann[i], labels)) for i, w in ann), zero)"
_CE_SNN = "ce_snn = sum((times(w, spiking_supervision(loss, z[i], labels)) for z in logits_snn for i, w in snn), zero) / slices"
_D_ANN = "d_a[i] = (1.0 - loss.alpha) * times(w, supervision_adjoint(loss, logits_ann[i], labels))"
_D_SNN = "d_z[s, i] = (1.0 - loss.alpha) * times(w, g) / slices"
_WEIGHT = "weight = loss.alpha * loss.temperature**2 / slices"
_SQUARE = "kd = loss.temperature**2 * kd"
_SHIFTED = "shifted = logits - logits.max(axis=-1, keepdims=True)"
_CE = "return np.asarray(-log_p[np.arange(len(labels)), labels].mean())"
_KD = "return np.asarray((np.exp(log_p) * surprise).sum(axis=-1).mean())"
_KD_FORWARD = (
    "    log_p = log_softmax(teacher / loss.temperature)\n    log_q = log_softmax(student / loss.temperature)\n    surprise"
)
_KD_BACKWARD = "    log_p = log_softmax(teacher / loss.temperature)\n    log_q = log_softmax(student / loss.temperature)\n    p ="
_COUNT = '{"sum": 1, "batch_mean": len(features), "mean": features.size}'
_FEATURE = "((snn - ann) ** 2).sum()"
_G_FEATURE = "g = 2.0 * (snn - ann)"
_IMPORT = "from twinspike.config import Exit, Loss, distillation_pairs, pair_weights, supervised, supervised_weights\n"


def _pairs(others: str, only: str = "isinstance(loss.pairs, str)") -> str:
    """The import of `distillation_pairs`, followed by one of that name that gives other `pairs`, for presets unless said."""
    return (
        "from twinspike.config import Exit, Loss, supervised, supervised_weights\n"
        "from twinspike.config import distillation_pairs as _right\n\n\n"
        "def distillation_pairs(loss: Loss, exits: int) -> tuple[tuple[Exit, Exit], ...]:\n    pairs = _right(loss, exits)\n"
        f"    return tuple({others}) if {only} else pairs\n\n\n"
        "def pair_weights(loss: Loss, exits: int) -> tuple[float, ...]:\n"
        "    return (1.0,) * len(distillation_pairs(loss, exits))\n\n\n"
    )


TOTAL = (
    Fault(
        "dis-alpha-swapped",
        "DIS-1",
        "alpha weighs cross entropy, 1 - alpha distillation",
        (
            _losses(_TOTAL, "total = loss.alpha * (ce_ann + ce_snn) + (1.0 - loss.alpha) * kd + loss.beta * feature"),
            _losses(_D_ANN, _D_ANN.replace("(1.0 - loss.alpha)", "loss.alpha")),
            _losses(_D_SNN, _D_SNN.replace("(1.0 - loss.alpha)", "loss.alpha")),
            _losses(_WEIGHT, _WEIGHT.replace("loss.alpha", "(1.0 - loss.alpha)")),
        ),
    ),
    Fault(
        "dis-ce-unweighted",
        "DIS-1",
        "cross entropy lacks its weight 1 - alpha",
        (
            _losses(_TOTAL, _TOTAL.replace("(1.0 - loss.alpha) * ", "")),
            _losses(_D_ANN, _D_ANN.replace("(1.0 - loss.alpha) * ", "")),
            _losses(_D_SNN, _D_SNN.replace("(1.0 - loss.alpha) * ", "")),
        ),
    ),
    Fault(
        "dis-temperature-squared",
        "DIS-1",
        "distillation lacks temperature^2",
        (_losses(_SQUARE, "kd = 1.0 * kd"), _losses(_WEIGHT, "weight = loss.alpha / slices")),
        origin="often left out of code after Hinton et al. 2015, section 2, which asks for it",
    ),
    Fault(
        "dis-temperature-once",
        "DIS-1",
        "distillation is multiplied by temperature instead of its square",
        (_losses(_SQUARE, "kd = loss.temperature * kd"), _losses(_WEIGHT, "weight = loss.alpha * loss.temperature / slices")),
    ),
    Fault(
        "dis-beta-missing",
        "DIS-1",
        "the feature term's gradient lacks beta",
        (_losses("d_h[i], d_f[i] = loss.beta * g_h, loss.beta * g_f", "d_h[i], d_f[i] = g_h, g_f"),),
    ),
    Fault(
        "dis-main-exit-only",
        "DIS-1",
        "of the artificial twin only the main exit learns from labels",
        (
            _losses(_CE_ANN, "ce_ann = supervision(loss, logits_ann[-1], labels)"),
            _losses(_D_ANN, f"{_D_ANN} * (i == exits - 1)"),
        ),
    ),
    Fault(
        "dis-mean-over-exits",
        "DIS-1",
        "cross entropy is averaged over the exits",
        (_losses(_TOTAL, f"ce_ann, ce_snn = ce_ann / exits, ce_snn / exits\n    {_TOTAL}"),),
    ),
)

CROSS_ENTROPY = (
    Fault(
        "dis-softmax-unstable", "DIS-2", "exponentials are taken of unshifted logits", (_losses(_SHIFTED, "shifted = logits"),)
    ),
    Fault(
        "dis-ce-sum",
        "DIS-2",
        "cross entropy is summed over the batch",
        (_losses(_CE, _CE.replace(".mean()", ".sum()")), _losses("return np.asarray(g / len(labels))", "return np.asarray(g)")),
    ),
    Fault(
        "dis-ce-gradient-sum",
        "DIS-2",
        "cross entropy's gradient is not divided by B",
        (_losses("return np.asarray(g / len(labels))", "return np.asarray(g)"),),
    ),
    Fault(
        "dis-ce-eps",
        "DIS-2",
        "1e-8 is added to the probability under the logarithm",
        (_losses(_CE, "return np.asarray(-np.log(np.exp(log_p[np.arange(len(labels)), labels]) + 1e-8).mean())"),),
    ),
    Fault(
        "dis-ce-smoothed",
        "DIS-2",
        "labels are smoothed by a tenth",
        (_losses(_CE, "return np.asarray(-0.9 * log_p[np.arange(len(labels)), labels].mean() - 0.1 * log_p.mean())"),),
    ),
    Fault(
        "dis-softmax-over-batch",
        "DIS-2",
        "softmax runs over the batch",
        (
            _losses(
                "    shifted = logits - logits.max(axis=-1, keepdims=True)\n"
                "    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))",
                "    shifted = logits - logits.max(axis=0, keepdims=True)\n"
                "    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=0, keepdims=True)))",
            ),
        ),
        origin="the implicit dimension of old torch.nn.functional.softmax",
    ),
)

DISTILLATION = (
    Fault(
        "dis-kd-direction",
        "DIS-3",
        "student and teacher are swapped",
        (_losses(_KD_FORWARD, _KD_FORWARD.replace("log_p", "swap", 1).replace("log_q", "log_p", 1).replace("swap", "log_q")),),
    ),
    Fault(
        "dis-kd-mean",
        "DIS-3",
        "divergences are averaged over classes as well",
        (_losses(_KD, "return np.asarray((np.exp(log_p) * surprise).mean())"),),
        origin="torch.nn.functional.kl_div, whose reduction 'mean' divides by B K and whose 'batchmean' is meant",
    ),
    Fault(
        "dis-kd-sum",
        "DIS-3",
        "divergences are summed over the batch",
        (_losses(_KD, "return np.asarray((np.exp(log_p) * surprise).sum())"),),
    ),
    Fault(
        "dis-temperature-one-side",
        "DIS-3",
        "the teacher's logits are not softened",
        (
            _losses(_KD_FORWARD, _KD_FORWARD.replace("teacher / loss.temperature", "teacher")),
            _losses(_KD_BACKWARD, _KD_BACKWARD.replace("teacher / loss.temperature", "teacher")),
        ),
    ),
    Fault(
        "dis-temperature-multiplied",
        "DIS-3",
        "logits are multiplied by the temperature",
        (
            _losses(_KD_FORWARD, _KD_FORWARD.replace("/ loss", "* loss")),
            _losses(_KD_BACKWARD, _KD_BACKWARD.replace("/ loss", "* loss")),
        ),
    ),
    Fault(
        "dis-kd-gradient-temperature",
        "DIS-3",
        "distillation's gradient lacks 1/temperature",
        (_losses("scale = loss.temperature * len(student)", "scale = len(student)"),),
    ),
    Fault(
        "dis-kl-as-ce",
        "DIS-3",
        "form kl gives the cross entropy",
        (
            _losses(
                'surprise = log_p - log_q if loss.form == "kl" else -log_q\n    return np', "surprise = -log_q\n    return np"
            ),
        ),
    ),
    Fault(
        "dis-ce-as-kl",
        "DIS-3",
        "form ce gives the divergence",
        (
            _losses(
                'surprise = log_p - log_q if loss.form == "kl" else -log_q\n    return np',
                "surprise = log_p - log_q\n    return np",
            ),
        ),
    ),
    Fault(
        "dis-pairs-next",
        "DIS-4",
        "an early exit of the artificial twin learns from the next instead of the last",
        (
            _losses(
                _IMPORT,
                _pairs('(s, Exit("ann", s.number + 1) if s.twin == "ann" else t) for s, t in pairs'),
            ),
        ),
    ),
    Fault(
        "dis-pairs-from-main",
        "DIS-4",
        "every spiking exit learns from the main artificial one",
        (
            _losses(
                _IMPORT,
                _pairs('(s, Exit("ann", exits) if s.twin == "snn" else t) for s, t in pairs'),
            ),
        ),
    ),
    Fault(
        "dis-pairs-by-number",
        "DIS-4",
        "of two teachers with one number, one of each twin, the last teaches both students",
        (
            _losses(
                _IMPORT,
                _pairs("(s, {t.number: t for _, t in pairs}[t.number]) for s, t in pairs", only="pairs"),
            ),
        ),
    ),
    Fault(
        "dis-pairs-no-main",
        "DIS-4",
        "the main spiking exit has no teacher",
        (
            _losses(
                _IMPORT,
                _pairs('(s, t) for s, t in pairs if s != Exit("snn", exits)'),
            ),
        ),
    ),
    Fault(
        "dis-pairs-preset-ignored",
        "DIS-4",
        "every preset is joint",
        (_losses(_IMPORT, _pairs("_right(Loss(), exits)")),),
    ),
)

FEATURES = (
    Fault(
        "dis-feature-mean",
        "DIS-5",
        "squared differences are averaged though a sum is asked for",
        (_losses(_COUNT, _COUNT.replace('"sum": 1', '"sum": features.size')),),
        origin="torch.nn.functional.mse_loss averages by default",
    ),
    Fault(
        "dis-feature-batch-mean",
        "DIS-5",
        "batch_mean divides by the channels",
        (_losses(_COUNT, _COUNT.replace("len(features)", "features.shape[1]")),),
    ),
    Fault(
        "dis-feature-mean-of-batch",
        "DIS-5",
        "mean divides by B alone",
        (_losses(_COUNT, _COUNT.replace("features.size", "len(features)")),),
    ),
    Fault("dis-feature-absolute", "DIS-5", "differences are not squared", (_losses(_FEATURE, "np.abs(snn - ann).sum()"),)),
    Fault(
        "dis-feature-root",
        "DIS-5",
        "the distance enters instead of its square",
        (_losses(_FEATURE, "np.sqrt(((snn - ann) ** 2).sum())"),),
    ),
    Fault(
        "dis-feature-gradient-half",
        "DIS-5",
        "the feature term's gradient lacks the factor 2",
        (_losses(_G_FEATURE, "g = 1.0 * (snn - ann)"),),
    ),
)

TEACHER = (
    Fault(
        "dis-teacher-attached",
        "DIS-6",
        "teacher logits pass a gradient though detached",
        (_losses("if loss.detach_teacher:", "if False:"),),
    ),
    Fault(
        "dis-feature-attached",
        "DIS-6",
        "the artificial twin's features pass a gradient though detached",
        (_losses("np.zeros_like(g) if loss.detach_teacher else -g", "-g"),),
    ),
    Fault(
        "dis-teacher-always-detached",
        "DIS-6",
        "the teacher is detached even where it must not be",
        (_losses("if loss.detach_teacher:", "if True:"),),
    ),
    Fault(
        "dis-feature-always-detached",
        "DIS-6",
        "features are detached even where they must not be",
        (_losses("np.zeros_like(g) if loss.detach_teacher else -g", "np.zeros_like(g)"),),
    ),
    Fault(
        "dis-student-detached",
        "DIS-6",
        "the student is detached with its teacher",
        (_losses("return d_student, np.zeros_like(teacher)", "return 0.0 * d_student, np.zeros_like(teacher)"),),
    ),
    Fault(
        "dis-teacher-gradient-kl",
        "DIS-6",
        "an attached teacher's gradient takes form ce for kl",
        (
            _losses(
                'surprise = log_p - log_q if loss.form == "kl" else -log_q\n    return d_student',
                "surprise = -log_q\n    return d_student",
            ),
        ),
    ),
)

PER_STEP = (
    Fault(
        "dis-per-step-summed",
        "DIS-8",
        "losses of the time steps are summed",
        (_losses(_CE_SNN, _CE_SNN.removesuffix(" / slices")), _losses(_D_SNN, _D_SNN.replace(" / slices", ""))),
    ),
    Fault(
        "dis-per-step-kd-summed",
        "DIS-8",
        "distillation of the time steps is summed",
        (
            _losses("kd + times(w, distillation(loss, *ends)) / slices", "kd + times(w, distillation(loss, *ends))"),
            _losses(_WEIGHT, "weight = loss.alpha * loss.temperature**2"),
        ),
    ),
    Fault(
        "dis-per-step-of-mean",
        "DIS-8",
        "the loss is taken of the mean logits",
        (_losses(_CE_SNN, "ce_snn = sum((w * supervision(loss, logits_snn.mean(axis=0)[i], labels) for i, w in snn), zero)"),),
    ),
    Fault(
        "dis-per-step-last",
        "DIS-8",
        "only the last step's logits enter cross entropy",
        (
            _losses(_CE_SNN, _CE_SNN.replace("logits_snn", "logits_snn[-1:]").removesuffix(" / slices")),
            _losses(_D_SNN, _D_SNN.replace(" / slices", " * (s == slices - 1)")),
        ),
    ),
    Fault(
        "dis-per-step-teacher-once",
        "DIS-8",
        "only the first step is distilled",
        (_losses("kd + times(w, distillation(loss, *ends)) / slices", "kd + times(w, distillation(loss, *ends)) * (s == 0)"),),
    ),
)

FAULTS: tuple[Fault, ...] = TOTAL + CROSS_ENTROPY + DISTILLATION + FEATURES + TEACHER + PER_STEP
