"""Faults of sizes, in neurons, layers and norms: right in all that is small, wrong beyond a block, a tile or a byte.

Kernels work in blocks and accumulate in pieces; what goes wrong there shows at a length, a batch, a number of
channels or an exact multiple that no small example has.
"""

from __future__ import annotations

from collections.abc import Callable

from twinspike_conformance.faults.base import Fault, edits_of
from twinspike_conformance.judges.variant import Edit

_neuron, _layers, _norm = map(edits_of, ("neuron", "layers", "norm"))

_TAIL = (
    "def _tail(a: Array, n: int) -> Array:\n"
    "    found = np.array(a)\n"
    "    if found.size % n == 0:\n"
    "        found.reshape(-1)[-n:] = 0.0\n"
    "    return found\n\n\n"
)
"""Leaves the last block out where blocks of n fill an array."""

_CONV = "return np.tensordot(windows, kernel, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)"
_BETA = "np.where(np.arange(len(beta)) < {n}, beta, 0 * beta)"
_MEAN = "mean = (1.0 - norm.momentum) * mean + norm.momentum * m\n"
_VAR = "var = (1.0 - norm.momentum) * var + norm.momentum * (v * (n / (n - 1)))\n"


def each(
    name: str, clause: str, text: str, sizes: tuple[int, ...], edits: Callable[[int], tuple[Edit, ...]]
) -> tuple[Fault, ...]:
    """The same fault at several sizes, `size-NAME-N` each; `text` says {n} where it means the size."""
    return tuple(Fault(f"size-{name}-{n}", clause, text.format(n=f"{n:,}"), edits(n)) for n in sizes)


def _among(edit: Callable[[str, str], Edit], place: str, old: str, new: str) -> Callable[[int], tuple[Edit, ...]]:
    """`new`, which calls `_tail`, for `old`, with `_tail` in front of a definition."""
    return lambda n: (edit(place, _TAIL + place), edit(old, new.format(n=n)))


TIME = (
    *each(
        "lif-state", "LIF-5", "the state is lost every {n} steps", (8, 16, 32),
        lambda n: (_neuron("        before = after[t]\n", f"        before = after[t] * float((t + 1) % {n} != 0)\n"),),
    ),
    *each(
        "lif-currents", "LIF-1", "currents from step {n} on are not seen", (16, 64, 128),
        lambda n: (_neuron("(1.0 - alpha) * x[t] if neuron.decay_input else x[t]",
                           f"float(t < {n}) * ((1.0 - alpha) * x[t] if neuron.decay_input else x[t])"),),
    ),
    *each(
        "lif-adjoint", "LIF-6", "the state's adjoint is lost every {n} steps", (8, 16, 32),
        lambda n: (_neuron("e = alpha * d[t]", f"e = alpha * d[t] * float(t == 0 or t % {n} != 0)"),),
    ),
    *each(
        "lif-decay-steps", "LIF-9", "the decay's gradient sums over the first {n} steps", (16, 32),
        lambda n: (_neuron("d_decay += d[t] *", f"d_decay += float(t < {n}) * d[t] *"),),
    ),
    *each(
        "lif-threshold-steps", "LIF-10", "the threshold's gradient sums over the first {n} steps", (16, 32),
        lambda n: (_neuron("d_threshold -= through_spike if hard else through_spike + e * s",
                           f"d_threshold -= float(t < {n}) * (through_spike if hard else through_spike + e * s)"),),
    ),
    *each(
        "readout-sum", "OUT-1", "a sum is of the first {n} steps", (16, 32, 100),
        lambda n: (_layers("x.sum(axis=0) if reduction", f"x[:{n}].sum(axis=0) if reduction"),),
    ),
    *each(
        "readout-mean", "OUT-2", "a mean is of the first {n} steps", (16, 32, 100),
        lambda n: (_layers("else x.mean(axis=0)", f"else x[:{n}].mean(axis=0)"),),
    ),
    *each(
        "readout-gradient", "OUT-2", "a mean's gradient is divided by {n} at most", (16, 32),
        lambda n: (_layers("else g / len(x)", f"else g / min(len(x), {n})"),),
    ),
)  # fmt: skip

NEURONS = (
    *each(
        "fire-multiple", "LIF-2", "of a multiple of {n} neurons the last {n} don't fire", (64, 1024, 4096),
        _among(_neuron, "def fire(", "np.asarray(u >= threshold).astype(u.dtype)",
               "_tail(np.asarray(u >= threshold).astype(u.dtype), {n})"),
    ),
    *each(
        "lif-channels", "LIF-9", "of a decay or threshold per channel the first is used from channel {n} on", (16, 32, 64, 128),
        lambda n: (_neuron("return quantity.reshape(-1,",
                           f"return np.where(np.arange(len(quantity)) < {n}, quantity, quantity[0]).reshape(-1,"),),
    ),
    *each(
        "lif-channel-batch", "LIF-9", "gradients per channel sum over the first {n} samples", (8, 16, 32),
        lambda n: (_neuron("gradient.sum(axis=(0, *range(", f"gradient[:{n}].sum(axis=(0, *range("),),
    ),
    *each(
        "lif-layer-neurons", "LIF-10", "a gradient per layer sums over the first {n} neurons", (256, 1024, 4096),
        lambda n: (_neuron("np.asarray(gradient.sum())", f"np.asarray(gradient.reshape(-1)[:{n}].sum())"),),
    ),
)  # fmt: skip

LAYERS = (
    *each(
        "conv-wide", "LAY-1", "columns from {n} on are left out", (16, 31),
        lambda n: (_layers(_CONV, _CONV.replace("return", "y =") + f"\n    y[..., {n}:] = 0.0\n    return y"),),
    ),
    *each(
        "conv-in", "LAY-1", "channels from {n} on are not summed", (16, 32, 64),
        lambda n: (_layers("np.tensordot(windows, kernel,", f"np.tensordot(windows[:, :{n}], kernel[:, :{n}],"),),
    ),
    *each(
        "conv-out", "LAY-1", "channels from {n} on are left out", (16, 32, 64),
        lambda n: (_layers(_CONV, _CONV.replace("return", "y =") + f"\n    y[:, {n}:] = 0.0\n    return y"),),
    ),
    *each(
        "conv-back", "LAY-1", "the map's gradient sums over the first {n} channels", (16, 32, 64),
        lambda n: (_layers("np.tensordot(g, kernel,", f"np.tensordot(g[:, :{n}], kernel[:{n}],"),),
    ),
    *each(
        "conv-batch", "LAY-1", "the kernel's gradient sums over the first {n} samples", (8, 16, 32),
        lambda n: (_layers("np.tensordot(g, windows,", f"np.tensordot(g[:{n}], windows[:{n}],"),),
    ),
    *each(
        "pool-wide", "LAY-2", "avg_pool leaves out columns from {n} on", (8, 16),
        lambda n: (_layers("return np.asarray(_windows(x, kernel, kernel, stride).mean(axis=(4, 5)))",
                           "y = _windows(x, kernel, kernel, stride).mean(axis=(4, 5))\n"
                           f"    y[..., {n}:] = 0.0\n    return y"),),
    ),
    *each(
        "global-pixels", "LAY-2", "global_pool averages the first {n} pixels", (64, 256),
        lambda n: (_layers("x.mean(axis=(2, 3))", f"x.reshape(*x.shape[:2], -1)[..., :{n}].mean(axis=-1)"),),
    ),
    *each(
        "linear-in", "LAY-3", "inputs from {n} on are not summed", (32, 128, 512),
        lambda n: (_layers("x @ weight.T + bias", f"x[:, :{n}] @ weight[:, :{n}].T + bias"),),
    ),
    *each(
        "linear-out", "LAY-3", "the input's gradient sums over the first {n} outputs", (16, 64),
        lambda n: (_layers("np.asarray(g @ weight)", f"np.asarray(g[:, :{n}] @ weight[:{n}])"),),
    ),
    *each(
        "linear-batch", "LAY-3", "the weight's gradient sums over the first {n} samples", (8, 16, 32, 64),
        lambda n: (_layers("np.asarray(g.T @ x)", f"np.asarray(g[:{n}].T @ x[:{n}])"),),
    ),
    *each(
        "bias-batch", "LAY-3", "the bias' gradient sums over the first {n} samples", (16, 32),
        lambda n: (_layers("np.asarray(g.sum(axis=0))", f"np.asarray(g[:{n}].sum(axis=0))"),),
    ),
    *each(
        "relu-multiple", "LAY-4", "of a multiple of {n} elements the last {n} become 0", (64, 1024, 4096),
        _among(_layers, "def relu(", "np.asarray(np.maximum(x, 0.0))", "_tail(np.maximum(x, 0.0), {n})"),
    ),
)  # fmt: skip

NORMS = (
    *each(
        "bn-channels", "BN-1", "channels from {n} on are not shifted", (32, 64),
        lambda n: (_norm("/ np.sqrt(_wide(v, x) + norm.eps) + _wide(beta, x)",
                         f"/ np.sqrt(_wide(v, x) + norm.eps) + _wide({_BETA.format(n=n)}, x)"),),
    ),
    *each(
        "bn-moments", "BN-1", "mean and variance are those of the first {n} samples", (8, 16, 32),
        lambda n: (_norm("    m = x.mean(axis=_axes(x))\n", f"    x = x[:, :{n}]\n    m = x.mean(axis=_axes(x))\n"),),
    ),
    *each(
        "bn-gamma-batch", "BN-1", "gamma's gradient sums over the first {n} samples", (8, 16, 32),
        lambda n: (_norm("d_gamma += (g_part * z).sum(", f"d_gamma += (g_part * z)[:, :{n}].sum("),),
    ),
    *each(
        "bn-steps", "BN-3", "folded statistics are those of the first {n} steps", (8, 16),
        lambda n: (_norm("    m = x.mean(axis=_axes(x))\n", f"    x = x[:{n}]\n    m = x.mean(axis=_axes(x))\n"),),
    ),
    *each(
        "bn-running-steps", "BN-2", "running statistics see the first {n} steps", (8, 16),
        lambda n: (_norm(_MEAN, f"rate = norm.momentum if (steps.start or 0) < {n} else 0.0\n        "
                         + _MEAN.replace("norm.momentum", "rate")),
                   _norm(_VAR, _VAR.replace("norm.momentum", "rate"))),
    ),
    *each(
        "bn-count", "BN-4", "the running variance is unbiased for {n} values at most", (16, 256),
        lambda n: (_norm("v * (n / (n - 1))", f"v * (min(n, {n}) / (min(n, {n}) - 1))"),),
    ),
    *each(
        "bn-eval-channels", "BN-5", "evaluation does not shift channels from {n} on", (32, 64),
        lambda n: (_norm("np.sqrt(_wide(var, x) + norm.eps) + _wide(beta, x))",
                         f"np.sqrt(_wide(var, x) + norm.eps) + _wide({_BETA.format(n=n)}, x))"),),
    ),
    *each(
        "bn-eval-batch", "BN-5", "in evaluation beta's gradient sums over the first {n} samples", (16, 32),
        lambda n: (_norm("(g * z).sum(axis=_axes(x)), g.sum(", f"(g * z).sum(axis=_axes(x)), g[:, :{n}].sum("),),
    ),
)  # fmt: skip

FAULTS: tuple[Fault, ...] = TIME + NEURONS + LAYERS + NORMS
