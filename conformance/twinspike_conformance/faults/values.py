"""Faults of values: right for the numbers that examples are made of by habit, wrong for others.

Constants that are exact in bfloat16, rates that never change, potentials far from every threshold, arguments near 1 and
options away from 0 see none of these.
"""

from __future__ import annotations

from collections.abc import Callable

from twinspike_conformance.faults.base import Fault, edits_of
from twinspike_conformance.judges.variant import Edit

_neuron, _surrogate, _norm, _layers = map(edits_of, ("neuron", "surrogate", "norm", "layers"))

SHORT = (
    "def _short(a: float) -> float:\n"
    "    bits = int(np.float32(a).view(np.uint32))\n"
    "    return float(np.uint32((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32))\n\n\n"
)
"""Rounds to bfloat16."""

_BEFORE = "    before = np.zeros_like(x[0]) if v is None else v\n"
_START = "    start = np.zeros_like(x[0]) if v is None else v\n"
_FIRE = "np.asarray(u >= threshold)"
_EPS = "np.finfo(u.dtype).eps"
_CHARGE = "(1.0 - alpha) * x[t] if neuron.decay_input else x[t]"
_SPIKE = "        s[t] = fire(neuron, u[t], theta, smooth=smooth)"
_SIGMOID, _TANH = "q = np.exp(-np.abs(k * z))\n                return", "q = np.exp(-2.0 * np.abs(k * z))"
_ARCTAN, _FAST = "(k / 2) / (1.0 + (math.pi * k * z / 2) ** 2)", "(k / 2) / (1.0 + k * np.abs(z)) ** 2"
_ROOT, _EVAL_ROOT = "np.sqrt(_wide(v, x) + norm.eps) + _wide(beta", "np.sqrt(_wide(var, x) + norm.eps) + _wide(beta"
_MEAN = "mean = (1.0 - norm.momentum) * mean + norm.momentum * m\n"
_VAR = "var = (1.0 - norm.momentum) * var + norm.momentum * (v * (n / (n - 1)))\n"
_RELU, _RELU_BACK = "np.asarray(np.maximum(x, 0.0))", "np.where(x > 0, g"


def beside(edit: Callable[[str, str], Edit], place: str, *edits: Edit) -> tuple[Edit, ...]:
    """The edits, with `_short` in front of a definition."""
    return (edit(place, SHORT + place), *edits)


def at(
    name: str, clause: str, text: str, values: tuple[float, ...], edits: Callable[[str], tuple[Edit, ...]]
) -> tuple[Fault, ...]:
    """The same fault at several values, `value-NAME-X` each; `text` says {x} where it means the value."""
    return tuple(Fault(f"value-{name}-{x:g}", clause, text.format(x=f"{x:g}"), edits(f"{x!r}")) for x in values)


def _both(line: str) -> tuple[Edit, Edit]:
    """The same line before the recurrence of the forward and of the adjoint."""
    return _neuron(_BEFORE, f"    {line}\n{_BEFORE}"), _neuron(_START, f"    {line}\n{_START}")


def _slope(kind: str, line: str) -> Edit:
    """A line before the derivative of a surrogate with a slope."""
    follows = {"Sigmoid": "q", "Arctan": "return np.asarray((k", "FastSigmoid": "return np.asarray((k"}[kind]
    text = f"case {kind}(slope=k):\n                "
    return _surrogate(text + follows, f"{text}{line}\n                {follows}")


NEURON = (
    Fault(
        "value-decay-short", "LIF-1", "a constant decay is rounded to bfloat16",
        beside(_neuron, "def lif(", *_both("alpha = _short(alpha) if decay is None else alpha")),
    ),
    Fault(
        "value-threshold-short", "LIF-2", "a constant threshold is rounded to bfloat16",
        beside(_neuron, "def lif(", *_both("theta = _short(theta) if threshold is None else theta")),
    ),
    Fault(
        "value-v-reset-short", "LIF-3", "v_reset is rounded to bfloat16",
        beside(_neuron, "def lif(", _neuron("s[t] * neuron.v_reset", "s[t] * _short(neuron.v_reset)")),
    ),
    Fault("value-decay-or", "LIF-1", "a decay of 0 is taken for one that is not given",
          _both("alpha = (alpha or 0.25) if decay is None else alpha")),
    *at("decay-capped", "LIF-1", "a decay is {x} at most", (0.99, 0.9999),
        lambda x: _both(f"alpha = min(alpha, {x}) if decay is None else alpha")),
    *at("decay-least", "LIF-1", "a decay is {x} at least", (0.01, 0.0001),
        lambda x: _both(f"alpha = max(alpha, {x}) if decay is None else alpha")),
    *at("fire-ulps", "LIF-2", "fires from {x} units in the last place on, counted from the threshold", (-8, -2, 2, 8),
        lambda x: (_neuron(_FIRE, f"np.asarray(u >= threshold * (1.0 + {x} * {_EPS}))"),)),
    *at("fire-near", "LIF-2", "fires within {x} below the threshold", (1e-9, 1e-6),
        lambda x: (_neuron(_FIRE, f"np.asarray(u >= threshold - {x})"),)),
    *at("current-flushed", "LIF-1", "currents below {x} are taken for 0", (1e-10, 1e-5),
        lambda x: (_neuron(_CHARGE, f"({_CHARGE}) * (np.abs(x[t]) >= {x})"),)),
    *at("potential-clipped", "LIF-1", "potentials are clipped at {x}", (100, 65504),
        lambda x: (_neuron(_SPIKE, f"        u[t] = np.clip(u[t], -{x}, {x})\n{_SPIKE}"),)),
)  # fmt: skip

SURROGATE = (
    *at("window-ulps", "SUR-2", "the window reaches {x} units in the last place beyond its edges", (-8, -2, 2, 8),
        lambda x: (_surrogate("np.abs(z) < w / 2", f"np.abs(z) < w / 2 * (1.0 + {x} * np.finfo(z.dtype).eps)"),)),
    Fault("value-width-short", "SUR-2", "the rectangle's width is rounded to bfloat16",
          beside(_surrogate, "def derivative(", _surrogate("np.abs(z) < w / 2", "np.abs(z) < _short(w) / 2"))),
    *at("sigmoid-tail", "SUR-4", "the sigmoid's exponent is {x} at most", (10, 30, 80),
        lambda x: (_surrogate(_SIGMOID, _SIGMOID.replace("np.abs(k * z)", f"np.minimum(np.abs(k * z), {x})")),)),
    Fault("value-sigmoid-cancels", "SUR-4", "the sigmoid is q (1 - q), which cancels above the threshold",
          (_surrogate("np.asarray(k * q / (1.0 + q) ** 2)", "k * _logistic(k * z) * (1.0 - _logistic(k * z))"),)),
    *at("arctan-far", "SUR-5", "arctan ends at {x}", (10, 1000),
        lambda x: (_surrogate(_ARCTAN, f"{_ARCTAN} * (np.abs(z) < {x})"),)),
    *at("fast-sigmoid-far", "SUR-6", "fast_sigmoid ends at {x}", (10, 1000),
        lambda x: (_surrogate(_FAST, f"{_FAST} * (np.abs(z) < {x})"),)),
    *at("tanh-tail", "SUR-7", "tanh's exponent is {x} at most", (10, 30, 80),
        lambda x: (_surrogate(_TANH, f"q = np.exp(-np.minimum(2.0 * np.abs(k * z), {x}))"),)),
    Fault("value-tanh-cancels", "SUR-7", "tanh is 1 - tanh(y)^2, which cancels far from the threshold",
          (_surrogate("np.asarray(2.0 * k * q / (1.0 + q) ** 2)", "np.asarray(k / 2 * (1.0 - np.tanh(k * z) ** 2))"),)),
    *at("sigmoid-slope", "SUR-4", "the sigmoid's slope is {x} at most", (5, 20),
        lambda x: (_slope("Sigmoid", f"k = min(k, {x})"),)),
    *at("arctan-slope", "SUR-5", "arctan's slope is {x} at most", (5, 20),
        lambda x: (_slope("Arctan", f"k = min(k, {x})"),)),
    *at("fast-sigmoid-slope", "SUR-6", "fast_sigmoid's slope is {x} at most", (5, 20),
        lambda x: (_slope("FastSigmoid", f"k = min(k, {x})"),)),
    *(
        Fault(f"value-{kind.lower()}-short", clause, f"the slope of {kind.lower()} is rounded to bfloat16",
              beside(_surrogate, "def derivative(", _slope(kind, "k = _short(k)")))
        for kind, clause in (("Sigmoid", "SUR-4"), ("Arctan", "SUR-5"), ("FastSigmoid", "SUR-6"))
    ),
)  # fmt: skip

NORM = (
    Fault("value-momentum-short", "BN-4", "the momentum of running means is rounded to bfloat16",
          beside(_norm, "def batch_norm_train(", _norm(_MEAN, _MEAN.replace("norm.momentum", "_short(norm.momentum)")))),
    *at("momentum-capped", "BN-4", "the momentum of running variances is {x} at most", (0.99, 0.9999),
        lambda x: (_norm(_VAR, _VAR.replace("norm.momentum", f"min(norm.momentum, {x})")),)),
    *at("eps-least", "BN-1", "eps is {x} at least", (1e-7, 1e-5),
        lambda x: (_norm(_ROOT, _ROOT.replace("norm.eps", f"max(norm.eps, {x})")),)),
    *at("eps-most", "BN-1", "eps is {x} at most", (0.1,),
        lambda x: (_norm(_ROOT, _ROOT.replace("norm.eps", f"min(norm.eps, {x})")),)),
    *at("eval-eps-least", "BN-5", "evaluation's eps is {x} at least", (1e-7, 1e-5),
        lambda x: (_norm(_EVAL_ROOT, _EVAL_ROOT.replace("norm.eps", f"max(norm.eps, {x})")),)),
    *at("variance-least", "BN-1", "a variance is {x} at least", (1e-12, 1e-6),
        lambda x: (_norm(_ROOT, _ROOT.replace("_wide(v, x)", f"_wide(np.maximum(v, {x}), x)")),)),
    *at("eval-clipped", "BN-5", "evaluation clips values at {x}", (1000, 65504),
        lambda x: (_norm("(x - _wide(mean, x)) / " + _EVAL_ROOT, f"(np.clip(x, -{x}, {x}) - _wide(mean, x)) / " + _EVAL_ROOT),)),
)  # fmt: skip

LAYERS = (
    *at("relu-flushed", "LAY-4", "ReLU gives 0 up to {x}", (1e-12, 1e-5),
        lambda x: (_layers(_RELU, f"np.where(x > {x}, x, 0 * x)"),)),
    *at("relu-gradient", "LAY-4", "ReLU's gradient begins at {x}", (1e-12, -1e-12),
        lambda x: (_layers(_RELU_BACK, f"np.where(x > {x}, g"),)),
    *at("relu-clipped", "LAY-4", "ReLU is {x} at most", (1000, 65504),
        lambda x: (_layers(_RELU, f"np.clip(x, 0.0, {x})"),)),
    *at("linear-clipped", "LAY-3", "inputs of linear layers are clipped at {x}", (1000, 65504),
        lambda x: (_layers("x @ weight.T + bias", f"np.clip(x, -{x}, {x}) @ weight.T + bias"),)),
    *at("conv-clipped", "LAY-1", "maps are clipped at {x}", (1000, 65504),
        lambda x: (_layers("np.tensordot(windows, kernel,", f"np.tensordot(np.clip(windows, -{x}, {x}), kernel,"),)),
    *at("readout-clipped", "OUT-1", "a sum is clipped at {x}", (1000, 65504),
        lambda x: (_layers("x.sum(axis=0) if reduction", f"np.clip(x.sum(axis=0), -{x}, {x}) if reduction"),)),
)  # fmt: skip

FAULTS: tuple[Fault, ...] = NEURON + SURROGATE + NORM + LAYERS
