"""Faults of batch normalization in single operations (clauses BN-1 to BN-5)."""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of

_norm = edits_of("norm")

_Y = "y[steps] = _wide(gamma, x) * (part - _wide(m, x)) / np.sqrt(_wide(v, x) + norm.eps) + _wide(beta, x)"
_MEAN = "mean = (1.0 - norm.momentum) * mean + norm.momentum * m\n"
_VAR = "var = (1.0 - norm.momentum) * var + norm.momentum * (v * (n / (n - 1)))\n"
_D_X = "d_x[steps] = (scaled - through_mean - through_var) / root"
_ROOT = "root = np.sqrt(_wide(v, x) + norm.eps)"
_EVAL = "np.asarray(_wide(gamma, x) * (x - _wide(mean, x)) / np.sqrt(_wide(var, x) + norm.eps) + _wide(beta, x))"
_EVAL_BACK = "return _wide(gamma, x) * g / root, (g * z).sum(axis=_axes(x)), g.sum(axis=_axes(x))"
_FOLDED = 'if norm.time == "folded":'
_TIME = "(slice(t, t + 1) for t in range(len(x)))"

NORMALIZED = (
    Fault(
        "bn-eps-outside",
        "BN-1",
        "eps is added to the root instead of the variance",
        (
            _norm(_Y, _Y.replace("np.sqrt(_wide(v, x) + norm.eps)", "(np.sqrt(_wide(v, x)) + norm.eps)")),
            _norm(_ROOT, "root = np.sqrt(_wide(v, x)) + norm.eps"),
        ),
    ),
    Fault(
        "bn-eps-missing",
        "BN-1",
        "eps is replaced by the default, 1e-5",
        (_norm(_Y, _Y.replace("norm.eps", "1e-5")), _norm(_ROOT, _ROOT.replace("norm.eps", "1e-5"))),
    ),
    Fault(
        "bn-unbiased-output",
        "BN-1",
        "values are normalized by the unbiased variance",
        (_norm(_Y, _Y.replace("_wide(v, x)", "_wide(v * (n / (n - 1)), x)")),),
    ),
    Fault(
        "bn-difference-of-squares",
        "BN-1",
        "the variance is E[x^2] - E[x]^2, which cancels",
        (
            _norm(
                "return m, ((x - _wide(m, x)) ** 2).mean(axis=_axes(x))",
                "return m, np.maximum((x**2).mean(axis=_axes(x)) - m**2, 0.0)",
            ),
        ),
        origin="flax.linen.BatchNorm with its default use_fast_variance",
    ),
    Fault(
        "bn-statistics-constant",
        "BN-1",
        "mean and variance are constants in the backward",
        (_norm(_D_X, "d_x[steps] = scaled / root"),),
    ),
    Fault(
        "bn-variance-constant",
        "BN-1",
        "the variance is a constant in the backward",
        (_norm(_D_X, "d_x[steps] = (scaled - through_mean) / root"),),
    ),
    Fault(
        "bn-gamma-in-gradient",
        "BN-1",
        "gamma is missing in the backward",
        (_norm("scaled = _wide(gamma, x) * g_part", "scaled = 1.0 * g_part"),),
    ),
    Fault(
        "bn-gamma-gradient",
        "BN-1",
        "gamma's gradient takes x for the normalized value",
        (_norm("d_gamma += (g_part * z)", "d_gamma += (g_part * part)"),),
    ),
    Fault(
        "bn-beta-scaled",
        "BN-1",
        "beta is added before gamma multiplies",
        (_norm(_Y, "y[steps] = _wide(gamma, x) * ((part - _wide(m, x)) / np.sqrt(_wide(v, x) + norm.eps) + _wide(beta, x))"),),
    ),
    Fault(
        "bn-always-folded",
        "BN-2",
        "per_step normalizes the sequence together",
        (_norm(_FOLDED, "if True:"),),
        origin="tdBN, called where statistics per step are meant",
    ),
    Fault(
        "bn-time-reversed",
        "BN-2",
        "running statistics see the steps in reverse",
        (_norm(_TIME, "(slice(t, t + 1) for t in reversed(range(len(x))))"),),
    ),
    Fault(
        "bn-last-step-only",
        "BN-2",
        "running statistics see the last step alone",
        (
            _norm(
                _MEAN,
                "start = (mean, var) if steps.start in (0, None) else start\n        " + _MEAN.replace("* mean", "* start[0]"),
            ),
            _norm(_VAR, _VAR.replace("* var", "* start[1]")),
        ),
    ),
    Fault("bn-always-per-step", "BN-3", "folded normalizes each step by itself", (_norm(_FOLDED, "if False:"),)),
    Fault(
        "bn-folded-repeated",
        "BN-3",
        "folded updates the running statistics T times",
        (
            _norm(
                _MEAN,
                "rest = (1.0 - norm.momentum) ** (len(x) if steps.start is None else 1)\n"
                "        mean = rest * mean + (1.0 - rest) * m\n",
            ),
            _norm(_VAR, "var = rest * var + (1.0 - rest) * (v * (n / (n - 1)))\n"),
        ),
    ),
    Fault(
        "bn-folded-count",
        "BN-3",
        "folded counts the values of one step for n",
        (_norm("v * (n / (n - 1))", "v * ((n // len(part)) / max(n // len(part) - 1, 1))"),),
    ),
    Fault(
        "bn-biased-running",
        "BN-4",
        "the running variance takes the biased variance",
        (_norm("v * (n / (n - 1))", "v"),),
        origin="Keras and Flax, whose running variance is the biased one",
    ),
    Fault(
        "bn-momentum-complement",
        "BN-4",
        "momentum is the weight of the old value",
        (
            _norm(_MEAN, "mean = norm.momentum * mean + (1.0 - norm.momentum) * m\n"),
            _norm(_VAR, "var = norm.momentum * var + (1.0 - norm.momentum) * (v * (n / (n - 1)))\n"),
        ),
        origin="the convention of Keras and Flax",
    ),
    Fault(
        "bn-running-deviation",
        "BN-4",
        "the running variance takes the standard deviation",
        (_norm(_VAR, _VAR.replace("(v * (n / (n - 1)))", "np.sqrt(v * (n / (n - 1)))")),),
    ),
    Fault("bn-mean-frozen", "BN-4", "the running mean stays", (_norm(_MEAN, "mean = 1.0 * mean\n"),)),
)

EVALUATION = (
    Fault(
        "bn-eval-by-batch",
        "BN-5",
        "evaluation uses the batch's statistics",
        (_norm(f"return {_EVAL}", f"mean, var = _moments(x)\n    return {_EVAL}"),),
    ),
    Fault(
        "bn-eval-eps-outside",
        "BN-5",
        "evaluation adds eps to the root",
        (_norm(_EVAL, _EVAL.replace("np.sqrt(_wide(var, x) + norm.eps)", "(np.sqrt(_wide(var, x)) + norm.eps)")),),
    ),
    Fault(
        "bn-eval-updates",
        "BN-5",
        "evaluation moves the running mean",
        (
            _norm(
                f"return {_EVAL}",
                f"result = {_EVAL}\n    mean += norm.momentum * (x.mean(axis=_axes(x)) - mean)\n    return result",
            ),
        ),
        origin="a model evaluated without eval()",
    ),
    Fault(
        "bn-eval-gradient-gamma",
        "BN-5",
        "evaluation's gradient lacks gamma",
        (_norm(_EVAL_BACK, _EVAL_BACK.replace("_wide(gamma, x) * g / root", "g / root")),),
    ),
    Fault(
        "bn-eval-gradient-through",
        "BN-5",
        "evaluation's gradient passes through a mean that is a constant",
        (
            _norm(
                _EVAL_BACK,
                "d_x = _wide(gamma, x) * g / root\n"
                "    return d_x - _wide(d_x.mean(axis=_axes(x)), x), (g * z).sum(axis=_axes(x)), g.sum(axis=_axes(x))",
            ),
        ),
    ),
)

FAULTS: tuple[Fault, ...] = NORMALIZED + EVALUATION
