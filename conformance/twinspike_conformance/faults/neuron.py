"""Faults of the neuron (clauses LIF-*)."""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of
from twinspike_conformance.judges.variant import Edit

_neuron, _rows = edits_of("neuron"), edits_of("rows")

_CHARGE = "alpha * before + ((1.0 - alpha) * x[t] if neuron.decay_input else x[t])"
_BEFORE = "    before = np.zeros_like(x[0]) if v is None else v\n"
_START = "    start = np.zeros_like(x[0]) if v is None else v\n"
_HARD = "after[t] = (1.0 - s[t]) * u[t] + s[t] * neuron.v_reset"
_SOFT = "after[t] = u[t] - s[t] * theta"
_THROUGH = "through_spike = g[t] if neuron.detach_reset else g[t] + e * r"
_SLOPE = "derivative(neuron.surrogate, u - theta)"
_D = "d[t] = through_spike + e * k"
_D_DECAY = "d_decay += d[t] * (before - x[t] if neuron.decay_input else before)"


def _both(line: str) -> tuple[Edit, Edit]:
    """The same line before the recurrence of the forward and of the adjoint."""
    return _neuron(_BEFORE, f"    {line}\n{_BEFORE}"), _neuron(_START, f"    {line}\n{_START}")


CHARGE = (
    Fault(
        "lif-decay-exp",
        "LIF-1",
        "the decay is taken as a time constant tau: exp(-1/tau)",
        _both("alpha = np.exp(-1.0 / np.maximum(alpha, 1e-3))"),
    ),
    Fault("lif-decay-complement", "LIF-1", "1 - decay is used for decay", _both("alpha = 1.0 - alpha")),
    Fault("lif-input-unweighted", "LIF-1", "decay_input is ignored in the charge", (_neuron(_CHARGE, "alpha * before + x[t]"),)),
    Fault(
        "lif-input-by-decay",
        "LIF-1",
        "with decay_input the current is weighted by decay instead of 1 - decay",
        (_neuron("(1.0 - alpha) * x[t] if", "alpha * x[t] if"),),
    ),
    Fault(
        "lif-decay-after-input",
        "LIF-1",
        "the decay is applied after the current is added",
        (_neuron(_CHARGE, "alpha * (before + x[t])"),),
    ),
    Fault(
        "lif-current-of-previous-step",
        "LIF-1",
        "the current arrives one step late",
        (_neuron(_CHARGE, _CHARGE.replace("x[t]", "x[t - 1] * (t > 0)")),),
    ),
    Fault("lif-charge-rectified", "LIF-1", "potentials below 0 are cut off", (_neuron(_CHARGE, f"np.maximum(0.0, {_CHARGE})"),)),
    Fault(
        "lif-channel-first",
        "LIF-9",
        "of a decay or threshold per channel the first is used for all",
        (_neuron("return quantity.reshape(-1, *(1,) * (x.ndim - 3))", "return quantity[0]"),),
    ),
)

FIRE = (
    Fault(
        "lif-fire-strict",
        "LIF-2",
        "fires at u > threshold, so equality stays silent",
        (_neuron("np.asarray(u >= threshold)", "np.asarray(u > threshold)"),),
        origin="snnTorch (whose docstring says >=), Norse and NIR fire at >; SpikingJelly fires at >=",
    ),
    Fault(
        "lif-fire-rearranged",
        "LIF-2",
        "the current is compared with what the state leaves of the threshold, not the potential with the threshold",
        (
            _neuron(
                "s[t] = fire(neuron, u[t], theta, smooth=smooth)",
                "current = (1.0 - alpha) * x[t] if neuron.decay_input else x[t]\n"
                "        s[t] = fire(neuron, current, theta - alpha * before, smooth=smooth)",
            ),
        ),
        origin="a compiler that evaluates the potential twice and rounds it in two ways",
    ),
    Fault(
        "lif-fire-bfloat16",
        "LIF-2",
        "potential and threshold are rounded to bfloat16 before they are compared",
        (
            _neuron("np.asarray(u >= threshold)", "np.asarray(_bfloat16(u) >= _bfloat16(threshold))"),
            _neuron(
                "def fire(",
                "def _bfloat16(a: Array | float) -> Array:\n"
                "    bits = np.asarray(a, np.float32).view(np.uint32)\n"
                "    return (bits + 0x7FFF + ((bits >> 16) & 1) & np.uint32(0xFFFF0000)).view(np.float32)\n\n\ndef fire(",
            ),
        ),
    ),
    Fault(
        "lif-fire-before-charge",
        "LIF-2",
        "the potential of the step before decides",
        (_neuron("fire(neuron, u[t], theta, smooth=smooth)", "fire(neuron, before + 0.0 * u[t], theta, smooth=smooth)"),),
    ),
    Fault(
        "lif-spike-of-threshold",
        "LIF-2",
        "a spike has the height of the threshold",
        (_neuron("np.asarray(u >= threshold).astype(u.dtype)", "np.asarray(u >= threshold).astype(u.dtype) * threshold"),),
    ),
    Fault(
        "lif-fire-on-magnitude",
        "LIF-2",
        "fires at |u| >= threshold",
        (_neuron("np.asarray(u >= threshold)", "np.asarray(abs(u) >= threshold)"),),
    ),
)

RESET = (
    Fault(
        "lif-reset-always-soft",
        "LIF-3",
        "a hard reset subtracts the threshold, as a soft one does",
        (_neuron('if neuron.reset == "hard":', "if False:"), _neuron('hard = neuron.reset == "hard"', "hard = False")),
    ),
    Fault(
        "lif-v-reset-ignored",
        "LIF-3",
        "a hard reset goes to 0 whatever v_reset",
        (_neuron(_HARD, "after[t] = (1.0 - s[t]) * u[t]"), _neuron("r = neuron.v_reset - u if hard", "r = -u if hard")),
    ),
    Fault(
        "lif-v-reset-added",
        "LIF-3",
        "v_reset is added at every step, spike or not",
        (_neuron(_HARD, "after[t] = (1.0 - s[t]) * u[t] + neuron.v_reset"),),
    ),
    Fault(
        "lif-reset-late",
        "LIF-3",
        "the reset acts one step after the spike",
        (
            _neuron(
                _HARD, "late = s[t - 1] if t > 0 else 0.0\n            after[t] = (1.0 - late) * u[t] + late * neuron.v_reset"
            ),
        ),
    ),
    Fault("lif-no-reset", "LIF-3", "a spike leaves the potential as it is", (_neuron(_HARD, "after[t] = u[t]"),)),
    Fault(
        "lif-soft-by-one", "LIF-4", "a soft reset subtracts 1 whatever the threshold", (_neuron(_SOFT, "after[t] = u[t] - s[t]"),)
    ),
    Fault("lif-soft-as-hard", "LIF-4", "a soft reset goes to 0", (_neuron(_SOFT, "after[t] = (1.0 - s[t]) * u[t]"),)),
    Fault(
        "lif-soft-rectified",
        "LIF-4",
        "a soft reset leaves no potential below 0",
        (_neuron(_SOFT, "after[t] = np.maximum(u[t] - s[t] * theta, 0.0)"),),
    ),
    Fault(
        "lif-soft-decays-threshold",
        "LIF-4",
        "a soft reset subtracts decay * threshold",
        (_neuron(_SOFT, "after[t] = u[t] - alpha * s[t] * theta"),),
    ),
)

STATE = (
    Fault(
        "lif-state-kept",
        "LIF-5",
        "the state of the last sequence is kept for the next",
        (
            _neuron(_BEFORE, "    before = _KEPT.get(x.shape[1:], np.zeros_like(x[0])) if v is None else v\n"),
            _neuron("    return Trace(u, s, after)", "    _KEPT[x.shape[1:]] = after[-1].copy()\n    return Trace(u, s, after)"),
            _neuron("class Trace(NamedTuple):", "_KEPT: dict[tuple[int, ...], Array] = {}\n\n\nclass Trace(NamedTuple):"),
        ),
        origin="stateful neurons of SpikingJelly, snnTorch and Norse, where reset must be called by hand",
    ),
    Fault("lif-state-ignored", "LIF-5", "a given state is ignored", (_neuron(_BEFORE, "    before = np.zeros_like(x[0])\n"),)),
    Fault(
        "lif-state-before-reset",
        "LIF-5",
        "the state that is returned is the potential before reset",
        (_rows("trace.v[-1].copy()", "trace.u[-1].copy()"),),
    ),
    Fault(
        "lif-starts-at-v-reset",
        "LIF-5",
        "the state before the first step is v_reset",
        (
            _neuron(_BEFORE, _BEFORE.replace("np.zeros_like(x[0])", "np.full_like(x[0], neuron.v_reset)")),
            _neuron(_START, _START.replace("np.zeros_like(x[0])", "np.full_like(x[0], neuron.v_reset)")),
        ),
        origin="SpikingJelly, whose neurons start at v_reset",
    ),
    Fault(
        "lif-time-batch-swapped",
        "LIF-5",
        "runs along the batch instead of time",
        (
            _neuron(
                _BEFORE,
                "    x = x.swapaxes(0, 1)\n    before = np.zeros_like(x[0]) if v is None or v.shape != x[0].shape else v\n",
            ),
            _neuron(
                "    return Trace(u, s, after)", "    return Trace(u.swapaxes(0, 1), s.swapaxes(0, 1), after.swapaxes(0, 1))"
            ),
        ),
    ),
    Fault(
        "lif-state-of-first-sample",
        "LIF-5",
        "all samples go on from the first one's state",
        (_neuron("before = after[t]\n", "before = np.broadcast_to(after[t][:1], after[t].shape)\n"),),
    ),
)

BACKWARD = (
    Fault(
        "lif-surrogate-at-u",
        "LIF-6",
        "the surrogate is evaluated at u instead of u - threshold",
        (_neuron(_SLOPE, "derivative(neuron.surrogate, u)"), _rows("u - config.threshold)", "u)")),
    ),
    Fault(
        "lif-surrogate-after-reset",
        "LIF-6",
        "the surrogate is evaluated at the potential after reset",
        (_neuron(_SLOPE, "derivative(neuron.surrogate, trace.v[t] - theta)"),),
    ),
    Fault(
        "lif-reset-detached",
        "LIF-6",
        "the reset is detached though detach_reset is off",
        (_neuron(_THROUGH, "through_spike = g[t]"),),
        origin="snnTorch detaches the reset by default",
    ),
    Fault("lif-state-detached", "LIF-6", "the state is detached at every step", (_neuron("e = alpha * d[t]", "e = 0.0 * d[t]"),)),
    Fault(
        "lif-spike-twice",
        "LIF-6",
        "the gradient passes the spike twice: surrogate plus straight through",
        (_neuron(_D, "d[t] = through_spike + g[t] + e * k"),),
    ),
    Fault(
        "lif-straight-through",
        "LIF-6",
        "the surrogate is left out: straight through",
        (
            _neuron(f"through_spike = through_spike * {_SLOPE}", "through_spike = through_spike * 1.0"),
            _rows("g * surrogate.derivative(config.surrogate, u - config.threshold)", "g"),
        ),
    ),
    Fault(
        "lif-keep-everywhere",
        "LIF-6",
        "the path through a hard reset stays open after a spike: k = 1",
        (_neuron("k = 1.0 - s if hard else 1.0", "k = 1.0"),),
    ),
    Fault(
        "lif-reset-sign",
        "LIF-6",
        "the reset's path has the wrong sign",
        (_neuron("r = neuron.v_reset - u if hard else -theta", "r = u - neuron.v_reset if hard else theta"),),
    ),
    Fault(
        "lif-v-reset-in-gradient",
        "LIF-6",
        "v_reset is forgotten in the reset's path",
        (_neuron("r = neuron.v_reset - u if hard", "r = -u if hard"),),
    ),
    Fault(
        "lif-final-state-cut",
        "LIF-6",
        "no gradient enters through the state after the last step",
        (_neuron("e = np.zeros_like(x[0]) if e is None else e", "e = np.zeros_like(x[0])"),),
    ),
    Fault(
        "lif-backward-undecayed",
        "LIF-6",
        "the decay is missing on the way back through time",
        (_neuron("e = alpha * d[t]", "e = 1.0 * d[t]"),),
    ),
    Fault("lif-detach-ignored", "LIF-7", "detach_reset is ignored", (_neuron(_THROUGH, "through_spike = g[t] + e * r"),)),
    Fault(
        "lif-detach-drops-keep",
        "LIF-7",
        "detach_reset cuts the way through the potential as well",
        (_neuron(_D, "d[t] = through_spike + (0.0 * e if neuron.detach_reset else e * k)"),),
    ),
    Fault(
        "lif-detach-inverted",
        "LIF-7",
        "detach_reset detaches when it is off",
        (_neuron(_THROUGH, _THROUGH.replace("if neuron", "if not neuron")),),
    ),
    Fault(
        "lif-input-gradient-unweighted",
        "LIF-8",
        "the current's gradient lacks 1 - decay",
        (_neuron("x=(1.0 - alpha) * d if neuron.decay_input else d", "x=d"),),
    ),
    Fault(
        "lif-state-gradient-undecayed",
        "LIF-8",
        "the initial state's gradient lacks decay",
        (_neuron("v=np.asarray(e)", "v=d[0].copy()"),),
    ),
    Fault(
        "lif-state-gradient-zero",
        "LIF-8",
        "the initial state gets no gradient",
        (_neuron("v=np.asarray(e)", "v=np.zeros_like(d[0])"),),
    ),
)

LEARNED = (
    Fault(
        "lif-decay-through-sigmoid",
        "LIF-9",
        "a learned decay goes through a logistic function",
        _both("alpha = alpha if decay is None else 1.0 / (1.0 + np.exp(-alpha))"),
        origin="Parametric LIF as in SpikingJelly stores its time constant before a sigmoid",
    ),
    Fault(
        "lif-decay-gradient-state",
        "LIF-9",
        "the decay's gradient takes v[t] for v[t-1]",
        (_neuron("before = trace.v[t - 1] if t > 0 else start", "before = trace.v[t]"),),
    ),
    Fault(
        "lif-decay-gradient-before-reset",
        "LIF-9",
        "the decay's gradient takes the potential before reset",
        (_neuron("before = trace.v[t - 1] if t > 0 else start", "before = trace.u[t - 1] if t > 0 else start"),),
    ),
    Fault(
        "lif-decay-gradient-input",
        "LIF-9",
        "the decay's gradient forgets that it weights the current",
        (_neuron(_D_DECAY, "d_decay += d[t] * before"),),
    ),
    Fault(
        "lif-decay-gradient-first-state",
        "LIF-9",
        "the decay's gradient forgets the initial state",
        (_neuron(_START, "    start = np.zeros_like(x[0])\n"),),
    ),
    Fault(
        "lif-learned-gradient-mean",
        "LIF-9",
        "gradients of quantities per channel are averaged instead of summed",
        (_neuron("gradient.sum(axis=(0, *range(2, gradient.ndim)))", "gradient.mean(axis=(0, *range(2, gradient.ndim)))"),),
    ),
    Fault(
        "lif-learned-gradient-mean-layer",
        "LIF-10",
        "gradients of quantities per layer are averaged instead of summed",
        (_neuron("np.asarray(gradient.sum())", "np.asarray(gradient.mean())"),),
    ),
    Fault(
        "lif-threshold-gradient-sign",
        "LIF-10",
        "the threshold's gradient has the wrong sign",
        (_neuron("d_threshold -= ", "d_threshold += "),),
    ),
    Fault(
        "lif-threshold-gradient-soft",
        "LIF-10",
        "the threshold's gradient forgets that a soft reset subtracts it",
        (_neuron("through_spike if hard else through_spike + e * s", "through_spike"),),
    ),
    Fault(
        "lif-threshold-gradient-reset",
        "LIF-10",
        "the threshold's gradient ignores the reset's path",
        (
            _neuron(
                "d_threshold -= through_spike if", f"through_spike = g[t] * {_SLOPE}\n        d_threshold -= through_spike if"
            ),
        ),
    ),
    Fault(
        "lif-threshold-not-learned",
        "LIF-10",
        "a learned threshold is ignored for the config's",
        _both("theta = neuron.threshold"),
    ),
)

FAULTS: tuple[Fault, ...] = CHARGE + FIRE + RESET + STATE + BACKWARD + LEARNED
