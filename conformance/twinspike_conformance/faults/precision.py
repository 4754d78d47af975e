"""Faults of formats and memory (clauses PRE-1, PRE-3, PRE-4, PRE-7)."""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of

_layers, _losses, _norm, _neuron, _optimizer, _fac = map(
    edits_of, ("layers", "losses", "norm", "neuron", "optimizer", "factorization")
)

_ROUND = (
    "def _rounded(a: Array) -> Array:\n    bits = np.asarray(a, np.float32).view(np.uint32)\n"
    "    return (bits + 0x1000 & np.uint32(0xFFFFE000)).view(np.float32).astype(a.dtype)\n\n\n"
)
"""Rounds to the 11 significant bits of TF32."""

_ROUND_8 = _ROUND.replace("0x1000", "0x8000").replace("0xFFFFE000", "0xFFFF0000")
"""Rounds to the 8 significant bits of bfloat16, ties away from 0."""

_TF32 = "torch.backends.cudnn.allow_tf32, on by default, and jax's default matmul precision on GPUs and TPUs"

FAULTS: tuple[Fault, ...] = (
    Fault(
        "pre-conv-tf32",
        "PRE-1",
        "operands of convolutions are rounded to 11 bits",
        (
            _layers("def conv2d(", f"{_ROUND}def conv2d("),
            _layers(
                "return np.tensordot(windows, kernel, axes=((1, 4, 5), (1, 2, 3)))",
                "return np.tensordot(_rounded(windows), _rounded(kernel), axes=((1, 4, 5), (1, 2, 3)))",
            ),
        ),
        origin=_TF32,
    ),
    Fault(
        "pre-conv-backward-tf32",
        "PRE-1",
        "operands of convolutions are rounded to 11 bits on the way back",
        (
            _layers("def conv2d(", f"{_ROUND}def conv2d("),
            _layers("d_kernel = np.tensordot(g, windows,", "d_kernel = np.tensordot(_rounded(g), _rounded(windows),"),
        ),
        origin=_TF32,
    ),
    Fault(
        "pre-linear-tf32",
        "PRE-1",
        "operands of linear layers are rounded to 11 bits",
        (
            _layers("def linear(", f"{_ROUND}def linear("),
            _layers("x @ weight.T + bias", "_rounded(x) @ _rounded(weight).T + bias"),
        ),
        origin=_TF32,
    ),
    Fault(
        "pre-compose-tf32",
        "PRE-1",
        "factors are rounded to 11 bits before they are composed",
        (
            _fac("def compose(", f"{_ROUND}def compose("),
            _fac("(u * sigma[..., None, :]) @ v", "_rounded(u * sigma[..., None, :]) @ _rounded(v)"),
        ),
        origin=_TF32,
    ),
    Fault(
        "pre-products-tf32",
        "PRE-1",
        "operands of all products are rounded to 11 bits, forward and backward, whatever the precision's name",
        (
            _layers("def conv2d(", f"{_ROUND}def conv2d("),
            _layers("np.tensordot(windows, kernel,", "np.tensordot(_rounded(windows), _rounded(kernel),"),
            _layers("np.tensordot(g, windows,", "np.tensordot(_rounded(g), _rounded(windows),"),
            _layers("np.tensordot(g, kernel,", "np.tensordot(_rounded(g), _rounded(kernel),"),
            _layers("np.asarray(x @ weight.T + bias)", "np.asarray(_rounded(x) @ _rounded(weight.T) + bias)"),
            _layers("np.asarray(g @ weight), np.asarray(g.T @ x)", "_rounded(g) @ _rounded(weight), _rounded(g.T) @ _rounded(x)"),
            _fac("def compose(", f"{_ROUND}def compose("),
            _fac("(u * sigma[..., None, :]) @ v", "_rounded(u * sigma[..., None, :]) @ _rounded(v)"),
            _fac("    left = g @ gv\n", "    left = _rounded(g) @ _rounded(gv)\n"),
            _fac("(np.swapaxes(u, -2, -1) @ g)", "(_rounded(np.swapaxes(u, -2, -1)) @ _rounded(g))"),
        ),
        origin=_TF32,
    ),
    Fault(
        "pre-products-bfloat16",
        "PRE-3",
        "operands of convolutions and linear layers are rounded to 8 bits",
        (
            _layers("def conv2d(", f"{_ROUND_8}def conv2d("),
            _layers("np.tensordot(windows, kernel,", "np.tensordot(_rounded(windows), _rounded(kernel),"),
            _layers("np.asarray(x @ weight.T + bias)", "np.asarray(_rounded(x) @ _rounded(weight.T) + bias)"),
        ),
        origin="jax's default matmul precision on TPUs",
    ),
    Fault(
        "pre-sums-tf32",
        "PRE-3",
        "what only adds up, pools and readouts, rounds its input to 11 bits as products may",
        (
            _layers("def avg_pool(", f"{_ROUND}def avg_pool("),
            _layers("_windows(x, kernel, kernel, stride).mean", "_windows(_rounded(x), kernel, kernel, stride).mean"),
            _layers("np.asarray(x.mean(axis=(2, 3)))", "np.asarray(_rounded(x).mean(axis=(2, 3)))"),
            _layers('x.sum(axis=0) if reduction == "sum"', '_rounded(x).sum(axis=0) if reduction == "sum"'),
        ),
        origin="reductions that a compiler turns into products with ones",
    ),
    Fault(
        "pre-softmax-half",
        "PRE-1",
        "log softmax is computed in half precision",
        (
            _losses(
                "return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))",
                "half = shifted.astype(np.float16)\n"
                "    return np.asarray(half - np.log(np.exp(half).sum(axis=-1, keepdims=True))).astype(logits.dtype)",
            ),
        ),
    ),
    Fault(
        "pre-statistics-half",
        "PRE-7",
        "batch statistics are accumulated in half precision",
        (_norm("    m = x.mean(axis=_axes(x))\n", "    m = x.astype(np.float16).mean(axis=_axes(x)).astype(x.dtype)\n"),),
    ),
    Fault(
        "pre-spikes-float32",
        "PRE-1",
        "spikes are float32 whatever the format",
        (
            _neuron("np.asarray(u >= threshold).astype(u.dtype)", "np.asarray(u >= threshold).astype(np.float32)"),
            _neuron(
                "u, s, after = np.empty_like(x), np.empty_like(x), np.empty_like(x)",
                "u, s, after = np.empty_like(x), np.empty_like(x, dtype=np.float32), np.empty_like(x)",
            ),
        ),
        origin="snnTorch cast spikes to float32 under float64",
        storage="float64",
    ),
    Fault(
        "pre-relu-in-place",
        "PRE-4",
        "ReLU writes into its input",
        (_layers("np.asarray(np.maximum(x, 0.0))", "np.maximum(x, 0.0, out=x)"),),
        origin="activations with inplace=True",
    ),
    Fault(
        "pre-state-in-place",
        "PRE-4",
        "the neuron moves the state that it was given",
        (
            _neuron(
                "    return Trace(u, s, after)",
                "    if v is not None:\n        v[...] = after[-1]\n    return Trace(u, s, after)",
            ),
        ),
    ),
    Fault(
        "pre-optimizer-in-place",
        "PRE-4",
        "the optimizer moves the parameter that it was given",
        (_optimizer("            return p - lr * g, {}", "            p -= lr * g\n            return p.copy(), {}"),),
        origin="optimizers of PyTorch",
    ),
    Fault(
        "pre-cotangent-in-place",
        "PRE-4",
        "the neuron's backward writes into the state's gradient that comes in",
        (_neuron("e = alpha * d[t]", "e[...] = alpha * d[t]"),),
    ),
)
