"""Faults of sizes, in losses, factors and optimizer steps: the first so many classes, ranks, elements or steps are right."""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of
from twinspike_conformance.faults.sizes import each

_losses, _fac, _optimizer = map(edits_of, ("losses", "factorization", "optimizer"))

_LABELS = "-log_p[np.arange(len(labels)), labels].mean()"
_CUT = "u, sigma, v = u[..., :rank], sigma[..., :rank], v[..., :rank, :]"
_POLAR, _QR = "return np.asarray(left @ right)", "return np.asarray(q * sign[..., None, :])"
_ZERO = "    zero = np.zeros_like(p)\n"

LOSSES = (
    *each(
        "softmax", "DIS-2", "the softmax sums over the first {n} classes", (16, 64, 128, 1000),
        lambda n: (_losses("np.exp(shifted).sum(", f"np.exp(shifted)[..., :{n}].sum("),),
    ),
    *each(
        "entropy-batch", "DIS-2", "cross entropy is the mean of the first {n} samples", (8, 16, 32),
        lambda n: (_losses(_LABELS, _LABELS.replace(".mean()", f"[:{n}].mean()")),),
    ),
    *each(
        "entropy-gradient", "DIS-2", "cross entropy's gradient is divided by {n} at most", (16, 32),
        lambda n: (_losses("np.asarray(g / len(labels))", f"np.asarray(g / min(len(labels), {n}))"),),
    ),
    *each(
        "labels", "DIS-2", "labels count up to {n} and begin again", (128, 256),
        lambda n: (_losses(_LABELS, _LABELS.replace("labels]", f"labels % {n}]")),
                   _losses("g[np.arange(len(labels)), labels] -= 1.0", f"g[np.arange(len(labels)), labels % {n}] -= 1.0")),
    ),
    *each(
        "kd-classes", "DIS-3", "distillation sums over the first {n} classes", (16, 64, 128, 1000),
        lambda n: (_losses("(np.exp(log_p) * surprise).sum(", f"(np.exp(log_p) * surprise)[..., :{n}].sum("),),
    ),
    *each(
        "kd-gradient", "DIS-3", "distillation's gradient is divided by {n} samples at most", (8, 16, 32),
        lambda n: (_losses("loss.temperature * len(student)", f"loss.temperature * min(len(student), {n})"),),
    ),
    *each(
        "kd-teacher", "DIS-6", "the teacher's gradient sums over the first {n} classes", (64, 128),
        lambda n: (_losses("(p * surprise).sum(", f"(p * surprise)[..., :{n}].sum("),),
    ),
    *each(
        "features", "DIS-5", "the feature term sums over the first {n} features", (16, 128, 512),
        lambda n: (_losses("((snn - ann) ** 2).sum()", f"((snn - ann) ** 2)[:, :{n}].sum()"),),
    ),
    *each(
        "features-batch", "DIS-5", "batch_mean divides by {n} at most", (8, 32),
        lambda n: (_losses('"batch_mean": len(features)', f'"batch_mean": min(len(features), {n})'),),
    ),
    *each(
        "slices", "DIS-8", "cross entropy of the spiking twin is of the first {n} steps", (4, 6),
        lambda n: (_losses("for z in logits_snn for i, w in", f"for z in logits_snn[:{n}] for i, w in"),),
    ),
    *each(
        "exits", "DIS-1", "cross entropy of the artificial twin is of the first {n} exits", (3, 4),
        lambda n: (_losses("for i, w in ann), zero)", f"for i, w in ann[:{n}]), zero)"),),
    ),
)  # fmt: skip

FACTORS = (
    *each(
        "compose-ranks", "FAC-6", "a kernel is made of the first {n} ranks", (8, 16, 32),
        lambda n: (_fac("(u * sigma[..., None, :]) @ v", f"(u * sigma[..., None, :])[..., :{n}] @ v[..., :{n}, :]"),),
    ),
    *each(
        "compose-rows", "FAC-6", "sigma's gradient sums over the first {n} rows", (8, 16, 32),
        lambda n: (_fac("(u * left).sum(axis=-2)", f"(u * left)[..., :{n}, :].sum(axis=-2)"),),
    ),
    *each(
        "penalty-ranks", "ORT-2", "the penalty is of the first {n} ranks", (8, 16, 32),
        lambda n: (_fac("    left = ((np.swapaxes(",
                        f"    u, v, eye = u[..., :{n}], v[..., :{n}, :], eye[:{n}, :{n}]\n    left = ((np.swapaxes("),),
    ),
    *each(
        "penalty-positions", "ORT-2", "the penalty is of the first {n} positions", (9, 16),
        lambda n: (_fac("    left = ((np.swapaxes(", f"    u, v = u[:{n}], v[:{n}]\n    left = ((np.swapaxes("),),
    ),
    *each(
        "factorize-ranks", "FAC-3", "singular values beyond {n} are 0", (12, 16, 32),
        lambda n: (_fac(_CUT, f"{_CUT}\n    sigma[..., {n}:] = 0.0"),),
    ),
    *each(
        "energy-ranks", "FAC-5", "the energy is that of the first {n} singular values", (12, 16),
        lambda n: (_fac("np.cumsum(sigma**2, axis=-1)", f"np.cumsum(sigma[..., :{n}] ** 2, axis=-1)"),),
    ),
    *each(
        "retract-ranks", "ORT-3", "columns from {n} on stay as they are", (4, 16, 32),
        lambda n: (_fac(_POLAR, f"return np.concatenate([(left @ right)[..., :{n}], a[..., {n}:]], axis=-1)"),
                   _fac(_QR, f"return np.concatenate([(q * sign[..., None, :])[..., :{n}], a[..., {n}:]], axis=-1)")),
    ),
)  # fmt: skip

STEPS = (
    *each(
        "parameters", "OPT-1", "gradients of elements from {n} on are not seen", (16, 1024, 4096),
        lambda n: (_optimizer(_ZERO, f"{_ZERO}    g = g * (np.arange(g.size).reshape(g.shape) < {n})\n"),),
    ),
    *each(
        "parameters-multiple", "OPT-1", "of a multiple of {n} elements the last {n} see no gradient", (64, 1024, 2048),
        lambda n: (_optimizer(_ZERO, f"{_ZERO}    seen = np.arange(g.size).reshape(g.shape) < g.size - {n}\n"
                              f"    g = g * seen if g.size % {n} == 0 else g\n"),),
    ),
    *each(
        "adam-steps", "OPT-5", "moments are corrected as at step {n} from then on", (42, 100, 1000),
        lambda n: (_optimizer("optimizer.beta1**step", f"optimizer.beta1 ** min(step, {n})"),
                   _optimizer("optimizer.beta2**step", f"optimizer.beta2 ** min(step, {n})")),
    ),
    *each(
        "adam-counter", "OPT-5", "steps count up to {n} and begin again", (128, 256),
        lambda n: (_optimizer("optimizer.beta1**step", f"optimizer.beta1 ** (1 + (step - 1) % {n})"),
                   _optimizer("optimizer.beta2**step", f"optimizer.beta2 ** (1 + (step - 1) % {n})")),
    ),
)  # fmt: skip

FAULTS: tuple[Fault, ...] = LOSSES + FACTORS + STEPS
