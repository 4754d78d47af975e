"""Faults of accuracy alone: each errs by some ten to some hundred times what correct rounding may, and nowhere else.

A number or an operand loses about half of its digits: 11 significant bits are left of float32, 41 of
float64. Numbers of few bits lose nothing, so dyadic data can't show it, and no decision, sign, shape or
order is wrong: what finds such a fault is the size of a bound, and a bound two thousand times as wide
would let it live. Kept apart from the corpus' other chapters since this is what they measure.
"""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of
from twinspike_conformance.judges.variant import Edit

_layers, _losses, _norm, _neuron, _surrogate, _optimizer, _fac = map(
    edits_of, ("layers", "losses", "norm", "neuron", "surrogate", "optimizer", "factorization")
)

_COARSE = (
    "def _coarse(a: Array, like: Array | None = None) -> Array:\n"
    "    form = np.asarray(a if like is None else like).dtype\n"
    "    bits = 2.0 ** (41 if form == np.float64 else 11)\n"
    "    fraction, exponent = np.frexp(np.asarray(a, form))\n"
    "    return np.ldexp(np.round(fraction * bits) / bits, exponent).astype(form)[()]\n\n\n"
)
"""Rounds to 11 significant bits of float32 and to 40 of float64, in the format of a or `like`; no array where a is none."""

_SLICES = "TF32 under the name of float32; emulated float64 with too few slices of 8 bits (Ozaki's scheme)"
_APPROXIMATE = "a processor's fast instructions for 1/sqrt(x), 2^x and tanh(x), unrefined"


def _beside(module: str, place: str) -> Edit:
    """`_coarse` in front of a definition."""
    return Edit(module, place, _COARSE + place)


_EXP = "return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))"
_ROOT, _EVAL_ROOT = "np.sqrt(_wide(v, x) + norm.eps)", "np.sqrt(_wide(var, x) + norm.eps)"
_DECAY = "alpha = _over_channels(neuron.decay if decay is None else decay, x)\n"
_THETA = "    theta = _over_channels(neuron.threshold if threshold is None else threshold, x)\n"
_BEFORE, _START = "    before = np.zeros_like(x[0])", "    start = np.zeros_like(x[0])"
_MEAN = "mean = (1.0 - norm.momentum) * mean + norm.momentum * m\n"
_VAR = "var = (1.0 - norm.momentum) * var + norm.momentum * (v * (n / (n - 1)))\n"
_MOMENTUM = "_coarse(norm.momentum, x)"

PRODUCTS = (
    Fault(
        "subtle-conv-products",
        "PRE-1",
        "operands of convolutions lose half their digits, forward and backward",
        (
            _beside("layers", "def conv2d("),
            _layers("np.tensordot(windows, kernel,", "np.tensordot(_coarse(windows), _coarse(kernel),"),
            _layers("np.tensordot(g, windows,", "np.tensordot(_coarse(g), _coarse(windows),"),
            _layers("np.tensordot(g, kernel,", "np.tensordot(_coarse(g), _coarse(kernel),"),
        ),
        origin=_SLICES,
    ),
    Fault(
        "subtle-linear-products",
        "PRE-1",
        "operands of linear layers lose half their digits, forward and backward",
        (
            _beside("layers", "def linear("),
            _layers("np.asarray(x @ weight.T + bias)", "np.asarray(_coarse(x) @ _coarse(weight.T) + bias)"),
            _layers("np.asarray(g @ weight), np.asarray(g.T @ x)", "_coarse(g) @ _coarse(weight), _coarse(g.T) @ _coarse(x)"),
        ),
        origin=_SLICES,
    ),
    Fault(
        "subtle-compose-products",
        "PRE-1",
        "factors lose half their digits before they are multiplied, forward and backward",
        (
            _beside("factorization", "def compose("),
            _fac("(u * sigma[..., None, :]) @ v", "_coarse(u * sigma[..., None, :]) @ _coarse(v)"),
            _fac(
                "    gv = np.swapaxes(v, -2, -1)",
                "    g, u, v = _coarse(g), _coarse(u), _coarse(v)\n    gv = np.swapaxes(v, -2, -1)",
            ),
        ),
        origin=_SLICES,
    ),
    Fault(
        "subtle-penalty-products",
        "PRE-1",
        "the penalty's products have half their digits, forward and backward",
        (
            _beside("factorization", "def penalty("),
            _fac(
                "left = ((np.swapaxes(u, -2, -1) @ u - eye) ** 2).sum()",
                "u, v = _coarse(u), _coarse(v)\n    left = ((np.swapaxes(u, -2, -1) @ u - eye) ** 2).sum()",
            ),
            _fac("return 4.0 * u @", "u, v = _coarse(u), _coarse(v)\n    return 4.0 * u @"),
        ),
        origin=_SLICES,
    ),
)

LAYERS = (
    Fault(
        "subtle-pool-share",
        "PRE-1",
        "pools over windows multiply by a reciprocal of half the digits, those over maps add up as many, forward and backward",
        (
            _beside("layers", "def avg_pool("),
            _layers("stride).mean(axis=(4, 5))", "stride).sum(axis=(4, 5)) * _coarse(1.0 / kernel**2, x)"),
            _layers("(g / kernel**2)[", "(g * _coarse(1.0 / kernel**2, x))["),
            _layers("x.mean(axis=(2, 3))", "_coarse(x).mean(axis=(2, 3))"),
            _layers("(g / (x.shape[2] * x.shape[3]))", "(_coarse(g) / (x.shape[2] * x.shape[3]))"),
        ),
    ),
    Fault(
        "subtle-readout-half",
        "PRE-7",
        "the readout adds up steps of half their digits, and a mean hands back as many",
        (
            _beside("layers", "def readout("),
            _layers('x.sum(axis=0) if reduction == "sum"', '_coarse(x).sum(axis=0) if reduction == "sum"'),
            _layers("else x.mean(axis=0)", "else _coarse(x).mean(axis=0)"),
            _layers("else g / len(x), x.shape)", "else _coarse(g) / len(x), x.shape)"),
        ),
    ),
    Fault(
        "subtle-norm-root",
        "PRE-1",
        "norms take an approximate reciprocal root, forward and backward",
        (
            _beside("norm", "def batch_norm_train("),
            _norm(f"/ {_ROOT}", f"* _coarse(1.0 / {_ROOT})"),
            _norm(f"root = {_ROOT}", f"root = 1.0 / _coarse(1.0 / {_ROOT})"),
            _norm(f"/ {_EVAL_ROOT}", f"* _coarse(1.0 / {_EVAL_ROOT})"),
            _norm(f"root = {_EVAL_ROOT}", f"root = 1.0 / _coarse(1.0 / {_EVAL_ROOT})"),
        ),
        origin=_APPROXIMATE,
    ),
    Fault(
        "subtle-shifts",
        "PRE-7",
        "gradients of biases and of norms' shifts add up cotangents of half their digits",
        (
            _beside("norm", "def batch_norm_train_adjoint("),
            _norm("d_beta += g_part.sum(", "d_beta += _coarse(g_part).sum("),
            _norm("(g * z).sum(axis=_axes(x)), g.sum(", "(g * z).sum(axis=_axes(x)), _coarse(g).sum("),
            _beside("layers", "def linear_adjoint("),
            _layers("g.sum(axis=0)", "_coarse(g).sum(axis=0)"),
        ),
        origin="sums of bfloat16 gradients",
    ),
    Fault(
        "subtle-norm-momentum",
        "PRE-1",
        "the momentum of running statistics is a constant of half its digits",
        (
            _beside("norm", "def batch_norm_train("),
            _norm(_MEAN, _MEAN.replace("norm.momentum", _MOMENTUM)),
            _norm(_VAR, _VAR.replace("norm.momentum", _MOMENTUM)),
        ),
        origin="constants stored in half precision",
    ),
)

NEURONS = (
    Fault(
        "subtle-decay",
        "PRE-1",
        "the decay has half its digits, forward and backward",
        (
            _beside("neuron", "def lif("),
            _neuron(f"{_THETA}{_BEFORE}", f"    alpha = _coarse(alpha, x)\n{_THETA}{_BEFORE}"),
            _neuron(f"{_THETA}{_START}", f"    alpha = _coarse(alpha, x)\n{_THETA}{_START}"),
        ),
        origin="constants stored in half precision",
    ),
    Fault(
        "subtle-membrane",
        "PRE-1",
        "the state between steps has half its digits",
        (
            _beside("neuron", "def lif("),
            _neuron("        before = after[t]\n", "        before = after[t] = _coarse(after[t])\n"),
        ),
        origin="states kept in half precision to save memory",
    ),
    Fault(
        "subtle-soft-reset",
        "PRE-1",
        "a soft reset leaves a state of half the digits",
        (
            _beside("neuron", "def lif("),
            _neuron("after[t] = u[t] - s[t] * theta", "after[t] = np.where(s[t] == 1.0, _coarse(u[t] - theta), u[t])"),
        ),
        origin="states kept in half precision to save memory",
    ),
    Fault(
        "subtle-adjoint",
        "PRE-1",
        "the adjoint of the state has half its digits between steps, and learned quantities add up as many",
        (
            _beside("neuron", "def lif_adjoint("),
            _neuron("e = alpha * d[t]", "e = _coarse(alpha * d[t])"),
            _neuron("d_decay += d[t] *", "d_decay += _coarse(d[t]) *"),
            _neuron(
                "d_threshold -= through_spike if",
                "through_spike = _coarse(through_spike)\n        d_threshold -= through_spike if",
            ),
        ),
        origin="gradients kept in half precision to save memory",
    ),
    Fault(
        "subtle-surrogate-exp",
        "PRE-1",
        "smooth surrogates are computed from approximate exponentials and reciprocals",
        (
            _beside("surrogate", "def derivative("),
            _surrogate(
                "q = np.exp(-np.abs(k * z))\n                return",
                "q = _coarse(np.exp(-np.abs(k * z)))\n                return",
            ),
            _surrogate("q = np.exp(-2.0 * np.abs(k * z))", "q = _coarse(np.exp(-2.0 * np.abs(k * z)))"),
            _surrogate(
                "(k / 2) / (1.0 + (math.pi * k * z / 2) ** 2)", "(k / 2) * _coarse(1.0 / (1.0 + (math.pi * k * z / 2) ** 2))"
            ),
            _surrogate("(k / 2) / (1.0 + k * np.abs(z)) ** 2", "(k / 2) * _coarse(1.0 / (1.0 + k * np.abs(z)) ** 2)"),
        ),
        origin=_APPROXIMATE,
    ),
)

LOSSES = (
    Fault(
        "subtle-softmax-exp",
        "PRE-1",
        "exponentials of the softmax are approximate, forward and backward",
        (
            _beside("losses", "def log_softmax("),
            _losses(_EXP, _EXP.replace("np.exp(shifted)", "_coarse(np.exp(shifted))")),
            _losses("g = np.exp(log_softmax(logits))", "g = _coarse(np.exp(log_softmax(logits)))"),
            _losses("np.asarray((np.exp(log_p) * surprise)", "np.asarray((_coarse(np.exp(log_p)) * surprise)"),
            _losses("    p = np.exp(log_p)\n", "    p = _coarse(np.exp(log_p))\n"),
            _losses("(np.exp(log_q) - p)", "(_coarse(np.exp(log_q)) - p)"),
        ),
        origin=_APPROXIMATE,
    ),
    Fault(
        "subtle-features",
        "PRE-1",
        "differences of features have half their digits, forward and backward",
        (
            _beside("losses", "def feature_loss("),
            _losses("((snn - ann) ** 2).sum()", "(_coarse(snn - ann) ** 2).sum()"),
            _losses("2.0 * (snn - ann)", "2.0 * _coarse(snn - ann)"),
        ),
        origin=_SLICES,
    ),
    Fault(
        "subtle-weights-of-terms",
        "PRE-1",
        "alpha and beta are constants of half their digits, forward and backward",
        (
            _beside("losses", "def joint_loss("),
            _losses(
                "    ce_ann = sum(",
                "    alpha, beta = (_coarse(c, logits_ann) for c in (loss.alpha, loss.beta))\n    ce_ann = sum(",
            ),
            _losses(
                "(1.0 - loss.alpha) * (ce_ann + ce_snn) + loss.alpha * kd + loss.beta",
                "(1.0 - alpha) * (ce_ann + ce_snn) + alpha * kd + beta",
            ),
            _losses("    weight = loss.alpha *", "    weight = _coarse(loss.alpha, logits_ann) *"),
            _losses("loss.beta * g_h, loss.beta * g_f", "_coarse(loss.beta, d_h) * g_h, _coarse(loss.beta, d_f) * g_f"),
        ),
        origin="constants stored in half precision",
    ),
)

STEPS = (
    Fault(
        "subtle-sgd-rate",
        "PRE-1",
        "learning rate, weight decay and the momentum buffer have half their digits",
        (
            _beside("optimizer", "def optimizer_step("),
            _optimizer(
                "weight_decay = optimizer.weight_decay if decays else 0.0",
                "weight_decay = _coarse(optimizer.weight_decay if decays else 0.0, p)\n    lr = _coarse(lr, p)",
            ),
            _optimizer('slots.get("momentum", zero)', '_coarse(slots.get("momentum", zero))'),
        ),
        origin="constants stored in half precision",
    ),
    Fault(
        "subtle-adam-root",
        "PRE-1",
        "adam divides by an approximate root, and its moments decay by constants of half their digits",
        (
            _beside("optimizer", "def optimizer_step("),
            _optimizer("(np.sqrt(v_hat) + optimizer.eps)", "(_coarse(np.sqrt(v_hat)) + optimizer.eps)"),
            _optimizer("m = optimizer.beta1 * slots", "m = _coarse(optimizer.beta1, p) * slots"),
            _optimizer("v = optimizer.beta2 * slots", "v = _coarse(optimizer.beta2, p) * slots"),
        ),
        origin=_APPROXIMATE,
    ),
    Fault(
        "subtle-svd",
        "FAC-3",
        "the decomposition is stopped at half the digits",
        (
            _beside("factorization", "def factorize("),
            _fac(
                "u, sigma, v = u[..., :rank], sigma",
                "u, sigma, v = (_coarse(part) for part in (u, sigma, v))\n    u, sigma, v = u[..., :rank], sigma",
            ),
        ),
        origin="randomized or iterated decompositions, stopped early",
    ),
    Fault(
        "subtle-retract",
        "ORT-3",
        "the retraction is stopped at half the digits",
        (
            _beside("factorization", "def retract("),
            _fac("return np.asarray(left @ right)", "return _coarse(left @ right)"),
            _fac("return np.asarray(q * sign[..., None, :])", "return _coarse(q * sign[..., None, :])"),
        ),
        origin="the polar factor by a few steps of Newton and Schulz",
    ),
)

FAULTS: tuple[Fault, ...] = PRODUCTS + LAYERS + NEURONS + LOSSES + STEPS
