"""Faults of the surrogates (clauses SUR-*)."""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of

_surrogate = edits_of("surrogate")

_RECTANGLE = "np.asarray((np.abs(z) < w / 2).astype(z.dtype) / w)"
_TRIANGLE = "np.asarray(np.maximum(0.0, 1.0 - np.abs(z) / w) / w)"
_SIGMOID = "k * q / (1.0 + q) ** 2"
_ARCTAN = "np.asarray((k / 2) / (1.0 + (math.pi * k * z / 2) ** 2))"
_FAST = "np.asarray((k / 2) / (1.0 + k * np.abs(z)) ** 2)"
_TANH = "np.asarray(2.0 * k * q / (1.0 + q) ** 2)"

FAULTS: tuple[Fault, ...] = (
    Fault(
        "sur-triangle-negative",
        "SUR-1",
        "triangle is negative above the threshold",
        (_surrogate(_TRIANGLE, f"np.where(z > 0, -1.0, 1.0) * {_TRIANGLE}"),),
        origin="snnTorch's `triangular` returns negative gradients above threshold",
    ),
    Fault(
        "sur-window-one-sided",
        "SUR-1",
        "the rectangle begins at the threshold",
        (_surrogate(_RECTANGLE, "np.asarray(((z >= 0) & (z < w)).astype(z.dtype) / w)"),),
    ),
    Fault(
        "sur-not-normalized",
        "SUR-1",
        "every surrogate is scaled to a peak of 1",
        (
            _surrogate(_RECTANGLE, f"w * {_RECTANGLE}"),
            _surrogate(_TRIANGLE, f"w * {_TRIANGLE}"),
            _surrogate(f"np.asarray({_SIGMOID})", "np.asarray(4 * q / (1.0 + q) ** 2)"),
            _surrogate(_ARCTAN, f"2 / k * {_ARCTAN}"),
            _surrogate(_FAST, f"2 / k * {_FAST}"),
            _surrogate(_TANH, f"2 / k * {_TANH}"),
        ),
    ),
    Fault(
        "sur-window-closed",
        "SUR-2",
        "the rectangle's window includes its edges",
        (_surrogate("np.abs(z) < w / 2", "np.abs(z) <= w / 2"),),
    ),
    Fault(
        "sur-window-doubled",
        "SUR-2",
        "width is taken as half the rectangle's width",
        (_surrogate("np.abs(z) < w / 2", "np.abs(z) < w"),),
    ),
    Fault(
        "sur-rectangle-height",
        "SUR-2",
        "the rectangle has height 1 whatever its width",
        (_surrogate(_RECTANGLE, "(np.abs(z) < w / 2).astype(z.dtype)"),),
    ),
    Fault(
        "sur-width-captured",
        "SUR-2",
        "the width of the first call is used for ever, as if captured when traced",
        (
            _surrogate(_RECTANGLE, _RECTANGLE.replace("w", "_captured(w)")),
            _surrogate(
                "def derivative(",
                "_FIRST: list[float] = []\n\n\n"
                "def _captured(w: float) -> float:\n"
                "    _FIRST.append(w)\n"
                "    return _FIRST[0]\n\n\n"
                "def derivative(",
            ),
        ),
    ),
    Fault(
        "sur-triangle-derivative",
        "SUR-3",
        "the triangle's derivative is used for the triangle",
        (_surrogate(_TRIANGLE, "np.asarray(np.where(np.abs(z) < w, -np.sign(z), 0.0) / w**2)"),),
    ),
    Fault(
        "sur-triangle-unclipped",
        "SUR-3",
        "the triangle goes on below 0",
        (_surrogate("np.maximum(0.0, 1.0 - np.abs(z) / w)", "(1.0 - np.abs(z) / w)"),),
    ),
    Fault(
        "sur-triangle-half-width",
        "SUR-3",
        "width is taken as the triangle's base instead of half of it",
        (_surrogate(_TRIANGLE, _TRIANGLE.replace("w", "(w / 2)")),),
    ),
    Fault(
        "sur-sigmoid-slope",
        "SUR-4",
        "the sigmoid lacks its factor slope",
        (_surrogate(f"np.asarray({_SIGMOID})", "np.asarray(q / (1.0 + q) ** 2)"),),
    ),
    Fault(
        "sur-sigmoid-overflow",
        "SUR-4",
        "the sigmoid's exponential overflows far below the threshold",
        (_surrogate("q = np.exp(-np.abs(k * z))", "q = np.exp(-k * z)"),),
    ),
    Fault(
        "sur-sigmoid-value",
        "SUR-4",
        "the sigmoid stands in for its derivative",
        (_surrogate(f"np.asarray({_SIGMOID})", "_logistic(k * z)"),),
    ),
    Fault(
        "sur-sigmoid-cancels",
        "SUR-4",
        "the sigmoid's derivative is q (1 - q), which has no digits far above the threshold",
        (_surrogate(f"np.asarray({_SIGMOID})", "np.asarray(k * (1.0 / (1.0 + q)) * (1.0 - 1.0 / (1.0 + q)))"),),
        origin="what automatic differentiation makes of a sigmoid",
    ),
    Fault(
        "sur-sigmoid-tail",
        "SUR-4",
        "what fills no vector of 8 is computed by the formula that cancels",
        (
            _surrogate(
                f"np.asarray({_SIGMOID})",
                f"np.where((np.arange(z.size) < z.size // 8 * 8).reshape(z.shape), {_SIGMOID}, "
                "k * (1.0 / (1.0 + q)) * (1.0 - 1.0 / (1.0 + q)))",
            ),
        ),
        origin="loops of a kernel whose remainder is written by itself",
    ),
    Fault(
        "sur-arctan-zero",
        "SUR-5",
        "arctan has no gradient at all",
        (_surrogate(_ARCTAN, "np.zeros_like(z)"),),
        origin="five surrogates of SpikingJelly had zero gradient in its Triton backend",
    ),
    Fault("sur-arctan-pi", "SUR-5", "arctan lacks pi", (_surrogate("math.pi * k * z / 2) ** 2", "k * z / 2) ** 2"),)),
    Fault("sur-arctan-scale", "SUR-5", "arctan lacks its factor 1/2", (_surrogate(_ARCTAN, f"2.0 * {_ARCTAN}"),)),
    Fault(
        "sur-fast-sigmoid-scale",
        "SUR-6",
        "fast_sigmoid lacks its factor slope/2",
        (_surrogate(_FAST, _FAST.replace("(k / 2)", "1.0")),),
        origin="snnTorch's `fast_sigmoid` is 1/(1 + slope|z|)^2",
    ),
    Fault("sur-fast-sigmoid-power", "SUR-6", "fast_sigmoid is not squared", (_surrogate(_FAST, _FAST.replace(" ** 2", "")),)),
    Fault(
        "sur-tanh-scale",
        "SUR-7",
        "tanh lacks its factor slope/2",
        (_surrogate(_TANH, "np.asarray(4.0 * q / (1.0 + q) ** 2)"),),
        origin="Norse's tanh surrogate lacks the factor k/2 of its own formula",
    ),
    Fault(
        "sur-tanh-cancels",
        "SUR-7",
        "tanh's square is taken from 1, which leaves no digits far from the threshold",
        (_surrogate(_TANH, "np.asarray((k / 2) * (1.0 - np.tanh(k * z) ** 2))"),),
        origin="what automatic differentiation makes of tanh",
    ),
    Fault(
        "sur-tanh-slope",
        "SUR-7",
        "tanh is evaluated at half the slope",
        (_surrogate("np.exp(-2.0 * np.abs(k * z))", "np.exp(-np.abs(k * z))"),),
    ),
    Fault(
        "sur-tanh-overflow",
        "SUR-7",
        "tanh's exponential overflows far from the threshold",
        (_surrogate("np.exp(-2.0 * np.abs(k * z))", "np.exp(-2.0 * k * z)"),),
    ),
)
