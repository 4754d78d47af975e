"""Faults of the layers and the readout in single operations (clauses LAY-1 to LAY-4, OUT-1, OUT-2)."""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of

_layers = edits_of("layers")

_CONV = "    windows = _windows(_pad(x, padding), kernel.shape[2], kernel.shape[3], stride)\n"
_CONV_BACK = "    padded = _pad(x, padding)\n"
_D_X = "return d_padded[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]], d_kernel"
_PAD = "return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))"
_LINEAR = "return np.asarray(x @ weight.T + bias)"
_LINEAR_BACK = "return np.asarray(g @ weight), np.asarray(g.T @ x), np.asarray(g.sum(axis=0))"
_READOUT = 'x.sum(axis=0) if reduction == "sum" else x.mean(axis=0)'
_READOUT_BACK = 'g if reduction == "sum" else g / len(x)'

LAYERS = (
    Fault(
        "lay-conv-flipped",
        "LAY-1",
        "the kernel is flipped: a convolution for a cross-correlation",
        (
            _layers(_CONV, f"    kernel = kernel[:, :, ::-1, ::-1]\n{_CONV}"),
            _layers(_CONV_BACK, f"    kernel = kernel[:, :, ::-1, ::-1]\n{_CONV_BACK}"),
            _layers(_D_X, _D_X + "[:, :, ::-1, ::-1]"),
        ),
        origin="scipy.signal.convolve2d and convolution in mathematics",
    ),
    Fault(
        "lay-pad-after",
        "LAY-1",
        "all of the padding comes after the map",
        (
            _layers(_PAD, "return np.pad(x, ((0, 0), (0, 0), (0, 2 * padding), (0, 2 * padding)))"),
            _layers(_D_X, "return d_padded[:, :, : x.shape[2], : x.shape[3]], d_kernel"),
        ),
        origin="'SAME' padding of TensorFlow and XLA, which at stride 2 pads even maps only after",
    ),
    Fault(
        "lay-pad-edge",
        "LAY-1",
        "the map is padded by repeating its edge",
        (_layers(_PAD, _PAD.replace(")))", ')), mode="edge")')),),
    ),
    Fault(
        "lay-conv-iohw",
        "LAY-1",
        "the kernel's memory is read as (in, out, kh, kw)",
        (
            _layers(
                _CONV, f"    kernel = kernel.reshape(kernel.shape[1], kernel.shape[0], *kernel.shape[2:]).swapaxes(0, 1)\n{_CONV}"
            ),
        ),
        origin="transposed convolutions, whose kernels are laid out so",
    ),
    Fault(
        "lay-conv-hwio",
        "LAY-1",
        "the kernel's memory is read as (kh, kw, in, out)",
        (
            _layers(
                _CONV,
                "    kernel = kernel.reshape(*kernel.shape[2:], kernel.shape[1], kernel.shape[0]).transpose(3, 2, 0, 1)\n"
                f"{_CONV}",
            ),
        ),
        origin="kernels of TensorFlow and Flax are HWIO",
    ),
    Fault(
        "lay-conv-transposed",
        "LAY-1",
        "rows and columns of the kernel are swapped",
        (_layers(_CONV, f"    kernel = kernel.swapaxes(2, 3)\n{_CONV}"),),
    ),
    Fault(
        "lay-conv-kernel-mean", "LAY-1", "the kernel's gradient is averaged over the batch", (_layers(_D_X, _D_X + " / len(x)"),)
    ),
    Fault(
        "lay-scatter-overwrites",
        "LAY-1",
        "where windows overlap the last one's gradient wins",
        (_layers("] += windows[..., i, j]", "] = windows[..., i, j]"),),
    ),
    Fault(
        "lay-stride-phase",
        "LAY-1",
        "strided windows begin one pixel late where there is room",
        (
            _layers(
                "[:, :, ::stride, ::stride]",
                "[:, :, (x.shape[2] - height) % stride :: stride, (x.shape[3] - width) % stride :: stride]",
            ),
        ),
    ),
    Fault(
        "lay-pool-sum",
        "LAY-2",
        "avg_pool sums its windows",
        (_layers(".mean(axis=(4, 5))", ".sum(axis=(4, 5))"), _layers("g / kernel**2", "g")),
    ),
    Fault(
        "lay-pool-max",
        "LAY-2",
        "avg_pool takes the largest of each window",
        (_layers(".mean(axis=(4, 5))", ".max(axis=(4, 5))"),),
    ),
    Fault(
        "lay-pool-gradient",
        "LAY-2",
        "avg_pool's gradient is divided by the kernel instead of its area",
        (_layers("g / kernel**2", "g / kernel"),),
    ),
    Fault(
        "lay-global-sum",
        "LAY-2",
        "global_pool sums",
        (_layers("x.mean(axis=(2, 3))", "x.sum(axis=(2, 3))"), _layers("(g / (x.shape[2] * x.shape[3]))", "g")),
    ),
    Fault(
        "lay-global-gradient",
        "LAY-2",
        "global_pool's gradient is divided by H alone",
        (_layers("(g / (x.shape[2] * x.shape[3]))", "(g / x.shape[2])"),),
    ),
    Fault(
        "lay-global-max", "LAY-2", "global_pool takes the largest value", (_layers("x.mean(axis=(2, 3))", "x.max(axis=(2, 3))"),)
    ),
    Fault("lay-bias-missing", "LAY-3", "linear forgets its bias", (_layers(_LINEAR, "return np.asarray(x @ weight.T)"),)),
    Fault(
        "lay-weight-in-out",
        "LAY-3",
        "the weight's memory is read as (in, out)",
        (_layers(_LINEAR, "return np.asarray(x @ weight.reshape(weight.shape[::-1]) + bias)"),),
        origin="dense layers of TensorFlow and Flax hold (in, out)",
    ),
    Fault(
        "lay-bias-gradient-mean",
        "LAY-3",
        "the bias' gradient is averaged over the batch",
        (_layers(_LINEAR_BACK, _LINEAR_BACK.replace("g.sum(axis=0)", "g.mean(axis=0)")),),
    ),
    Fault(
        "lay-bias-frozen",
        "LAY-3",
        "the bias gets no gradient",
        (_layers(_LINEAR_BACK, _LINEAR_BACK.replace("g.sum(axis=0)", "0.0 * g.sum(axis=0)")),),
    ),
    Fault("lay-relu-at-zero", "LAY-4", "the derivative of ReLU at 0 is 1", (_layers("np.where(x > 0, g", "np.where(x >= 0, g"),)),
    Fault(
        "lay-relu-half-at-zero",
        "LAY-4",
        "the derivative of ReLU at 0 is 1/2",
        (
            _layers(
                "return np.where(x > 0, g, np.zeros_like(g))",
                "return np.where(x > 0, g, np.where(x == 0, g / 2, np.zeros_like(g)))",
            ),
        ),
        origin="the derivative of a maximum at a tie is split evenly in jax.numpy.maximum and torch.maximum",
    ),
    Fault(
        "lay-relu-leaky",
        "LAY-4",
        "ReLU leaks one hundredth below 0",
        (_layers("np.asarray(np.maximum(x, 0.0))", "np.asarray(np.maximum(x, 0.01 * x))"),),
    ),
    Fault(
        "lay-relu-capped",
        "LAY-4",
        "ReLU is capped at 1, as spikes are",
        (_layers("np.asarray(np.maximum(x, 0.0))", "np.asarray(np.clip(x, 0.0, 1.0))"),),
    ),
    Fault(
        "lay-relu-gradient",
        "LAY-4",
        "ReLU passes every gradient",
        (_layers("np.where(x > 0, g, np.zeros_like(g))", "np.where(x > 0, g, g)"),),
    ),
)

READOUT = (
    Fault(
        "out-mean-for-sum",
        "OUT-1",
        "the readout is a mean though a sum is asked for",
        (_layers(_READOUT, "x.mean(axis=0)"), _layers(_READOUT_BACK, "g / len(x)")),
    ),
    Fault("out-last-step", "OUT-1", "the readout is the last step", (_layers(_READOUT, "x[-1]"),)),
    Fault(
        "out-first-step-dropped",
        "OUT-1",
        "a sum leaves the first step out",
        (_layers(_READOUT, _READOUT.replace("x.sum", "x[len(x) > 1 :].sum")),),
    ),
    Fault("out-sum-gradient", "OUT-1", "the gradient of a sum is divided by T", (_layers(_READOUT_BACK, "g / len(x)"),)),
    Fault(
        "out-sum-for-mean",
        "OUT-2",
        "the readout is a sum though a mean is asked for",
        (_layers(_READOUT, "x.sum(axis=0)"), _layers(_READOUT_BACK, "g")),
    ),
    Fault("out-mean-gradient", "OUT-2", "the gradient of a mean is not divided by T", (_layers(_READOUT_BACK, "g"),)),
    Fault(
        "out-mean-of-batch",
        "OUT-2",
        "a mean divides by B instead of T",
        (_layers(_READOUT, _READOUT.replace("x.mean(axis=0)", "x.sum(axis=0) / x.shape[1]")),),
    ),
)

FAULTS: tuple[Fault, ...] = LAYERS + READOUT
