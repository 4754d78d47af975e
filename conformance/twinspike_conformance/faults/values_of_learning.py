"""Faults of values in losses, factors and optimizer steps: full significands, zeros, ends of ranges, tiny and large."""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of
from twinspike_conformance.faults.values import at, beside

_losses, _fac, _optimizer = map(edits_of, ("losses", "factorization", "optimizer"))

_ZERO = "    zero = np.zeros_like(p)\n"
_EPS = "(np.sqrt(v_hat) + optimizer.eps)"
_DECAY = "optimizer.weight_decay if decays"
_TOTAL = "(1.0 - loss.alpha) * (ce_ann + ce_snn) + loss.alpha * kd + loss.beta * feature"
_LOG_P = "return np.asarray(shifted - np.log("
_SHIFTED = "    shifted = logits - logits.max("
_CUT = "u, sigma, v = u[..., :rank], sigma[..., :rank], v[..., :rank, :]"
_SVD = "u, sigma, v = np.linalg.svd(matrices, full_matrices=False)\n"
_STEP = "def optimizer_step("
_CAPTURED = (
    "_FIRST: list[float] = []\n\n\n"
    "def _captured(rate: float) -> float:\n"
    "    _FIRST.append(rate)\n"
    "    return _FIRST[0]\n\n\n"
)  # fmt: skip

RATES = (
    Fault("value-rate-short", "OPT-1", "the learning rate is rounded to bfloat16",
          beside(_optimizer, _STEP, _optimizer(_ZERO, f"{_ZERO}    lr = _short(lr)\n"))),
    Fault("value-rate-half", "OPT-1", "the learning rate is rounded to float16",
          (_optimizer(_ZERO, f"{_ZERO}    lr = float(np.float16(lr))\n"),)),
    Fault("value-rate-captured", "OPT-1", "the learning rate is that of the first step",
          (_optimizer(_STEP, _CAPTURED + _STEP), _optimizer(_ZERO, f"{_ZERO}    lr = _captured(float(lr))\n"))),
    Fault("value-rate-or", "OPT-1", "a learning rate of 0 is taken for one that is not given",
          (_optimizer(_ZERO, f"{_ZERO}    lr = float(lr) or 0.1\n"),)),
    *at("rate-least", "OPT-1", "a learning rate is {x} at least", (1e-5,),
        lambda x: (_optimizer(_ZERO, f"{_ZERO}    lr = max(float(lr), {x})\n"),)),
    *at("rate-most", "OPT-1", "a learning rate is {x} at most", (0.2, 1),
        lambda x: (_optimizer(_ZERO, f"{_ZERO}    lr = min(float(lr), {x})\n"),)),
)  # fmt: skip

STEPS = (
    Fault("value-weight-decay-short", "OPT-1", "weight decay is rounded to bfloat16",
          beside(_optimizer, _STEP, _optimizer(_DECAY, "_short(optimizer.weight_decay) if decays"))),
    Fault("value-weight-decay-or", "OPT-1", "a weight decay of 0 is taken for one that is not given",
          (_optimizer(_DECAY, "(optimizer.weight_decay or 5e-4) if decays"),)),
    Fault("value-sgd-momentum-short", "OPT-1", "SGD's momentum is rounded to bfloat16",
          beside(_optimizer, _STEP, _optimizer("m = optimizer.momentum * slots", "m = _short(optimizer.momentum) * slots"))),
    Fault("value-beta1-short", "OPT-5", "beta1 is rounded to bfloat16",
          beside(_optimizer, _STEP, _optimizer("m = optimizer.beta1 * slots", "m = _short(optimizer.beta1) * slots"))),
    Fault("value-beta2-short", "OPT-5", "beta2 is rounded to bfloat16",
          beside(_optimizer, _STEP, _optimizer("v = optimizer.beta2 * slots", "v = _short(optimizer.beta2) * slots"))),
    Fault("value-beta1-or", "OPT-5", "a beta1 of 0 is taken for one that is not given",
          (_optimizer("m = optimizer.beta1 * slots", "m = (optimizer.beta1 or 0.9) * slots"),)),
    Fault("value-beta2-or", "OPT-5", "a beta2 of 0 is taken for one that is not given",
          (_optimizer("v = optimizer.beta2 * slots", "v = (optimizer.beta2 or 0.999) * slots"),)),
    Fault("value-eps-half", "OPT-5", "Adam's eps is rounded to float16",
          (_optimizer(_EPS, _EPS.replace("optimizer.eps", "float(np.float16(optimizer.eps))")),)),
    *at("adam-eps-least", "OPT-5", "Adam's eps is {x} at least", (1e-7,),
        lambda x: (_optimizer(_EPS, _EPS.replace("optimizer.eps", f"max(optimizer.eps, {x})")),)),
    *at("adam-square", "OPT-5", "squares of gradients below {x} are taken for 0", (1e-4,),
        lambda x: (_optimizer("(1.0 - optimizer.beta2) * g**2", f"(1.0 - optimizer.beta2) * g**2 * (np.abs(g) >= {x})"),)),
    *at("gradient-clipped", "OPT-1", "gradients are clipped at {x}", (1, 10, 1000),
        lambda x: (_optimizer(_ZERO, f"{_ZERO}    g = np.clip(g, -{x}, {x})\n"),)),
    *at("gradient-flushed", "OPT-1", "gradients below {x} are taken for 0", (1e-8, 1e-5),
        lambda x: (_optimizer(_ZERO, f"{_ZERO}    g = g * (np.abs(g) >= {x})\n"),)),
)  # fmt: skip

LOSSES = (
    Fault("value-alpha-short", "DIS-1", "alpha is rounded to bfloat16",
          beside(_losses, "def joint_loss(", _losses(_TOTAL, _TOTAL.replace("loss.alpha", "_short(loss.alpha)")))),
    Fault("value-beta-short", "DIS-1", "beta is rounded to bfloat16",
          beside(_losses, "def joint_loss_adjoint(", _losses("loss.beta * g_h", "_short(loss.beta) * g_h"))),
    Fault("value-alpha-or", "DIS-1", "an alpha of 0 is taken for one that is not given",
          (_losses(_TOTAL, _TOTAL.replace("loss.alpha", "(loss.alpha or 0.1)")),)),
    Fault("value-beta-or", "DIS-1", "a beta of 0 is taken for one that is not given",
          (_losses("loss.beta * g_h", "(loss.beta or 1e-6) * g_h"),)),
    Fault("value-temperature-short", "DIS-3", "the temperature is rounded to bfloat16 in the gradient",
          beside(_losses, "def distillation_adjoint(",
                 _losses("loss.temperature * len(student)", "_short(loss.temperature) * len(student)"))),
    *at("temperature-most", "DIS-1", "the temperature's square is that of {x} at most", (4, 15),
        lambda x: (_losses("kd = loss.temperature**2", f"kd = min(loss.temperature, {x})**2"),)),
    *at("temperature-least", "DIS-3", "the gradient is divided by a temperature of {x} at least", (0.2, 0.5),
        lambda x: (_losses("loss.temperature * len(student)", f"max(loss.temperature, {x}) * len(student)"),)),
    *at("log-p-least", "DIS-2", "logarithms of probabilities are {x} at least", (-30, -100, -1000),
        lambda x: (_losses(_LOG_P, f"return np.maximum({x}, shifted - np.log("),)),
    *at("logits-clipped", "DIS-2", "logits are clipped at {x}", (100, 1000),
        lambda x: (_losses(_SHIFTED, f"    logits = np.clip(logits, -{x}, {x})\n{_SHIFTED}"),)),
)  # fmt: skip

FACTORS = (
    *at("sigma-floor", "FAC-3", "singular values below {x} of the largest are taken for 0", (0.01, 1e-3),
        lambda x: (_fac(_CUT, f"{_CUT}\n    sigma = sigma * (sigma >= {x} * sigma[..., :1])"),)),
    Fault("value-sigma-gram", "FAC-3", "singular values are roots of eigenvalues of A'A: small ones lose half the digits",
          (_fac(_CUT, f"{_CUT}\n    gram = np.linalg.eigvalsh(np.swapaxes(matrices, -2, -1) @ matrices)[..., ::-1]\n"
                "    sigma = np.sqrt(np.maximum(gram, 0.0))[..., :rank]"),)),
    Fault("value-sigma-relative", "FAC-3", "a kernel of zeros gives NaN",
          (_fac(_CUT, f"{_CUT}\n    sigma = sigma / sigma[..., :1] * sigma[..., :1]"),)),
    *at("kernel-flushed", "FAC-3", "entries of kernels below {x} are taken for 0", (1e-8, 1e-3),
        lambda x: (_fac(_SVD, f"matrices = matrices * (np.abs(matrices) >= {x})\n    {_SVD}"),)),
    *at("kernel-clipped", "FAC-3", "entries of kernels are clipped at {x}", (65504,),
        lambda x: (_fac(_SVD, f"matrices = np.clip(matrices, -{x}, {x})\n    {_SVD}"),)),
)  # fmt: skip

FAULTS: tuple[Fault, ...] = RATES + STEPS + LOSSES + FACTORS
