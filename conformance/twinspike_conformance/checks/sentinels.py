"""Precision and place: values that survive one format and not the next, and results that say where they are.

Bounds say how far a result may be off; sentinels say in which format it was computed. Where a sum has one
term that is not 0 and all but one operand are powers of two, the result is the digits of that operand, and
as many of them are right as the format of its product has: (1 + 2^-11) 1 survives float32 and not TF32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinspike.config import BatchNorm, Method, encode
from twinspike.errors import SpecError
from twinspike.network import Activation, Conv, Linear, Norm
from twinspike.operations import OPERATIONS, Composition, Convolution, Nothing, Pooling, Readout
from twinspike.precision import PRECISIONS, Precision
from twinspike_conformance.bounds.budget import SIGNIFICAND
from twinspike_conformance.bounds.finding import Finding, Rung, compare, holds
from twinspike_conformance.cases import CASES, Example, materialize
from twinspike_conformance.cases.families import rounded
from twinspike_conformance.cases.networks import BUCKETS, CONFIGS, PINNED
from twinspike_conformance.cases.structures import NARROW
from twinspike_conformance.checks.base import Bench, Check, Space, answer, space_of
from twinspike_conformance.checks.programs import opened, taps_of
from twinspike_conformance.judges.operations import reference

Values = NDArray[Any]
Named = dict[str, Values]

PREFIX = "sentinel "
"""Before an operation's name in examples, whose numbers are not those of the operation's own cases."""

TERMS = 256
"""Small terms of a long sum, between two large ones that cancel."""

# --- products ----------------------------------------------------------------------------------------


def _digits(rng: np.random.Generator, shape: tuple[int, ...], form: str) -> Values:
    """Numbers of either sign in [1, 2) whose last digit is set, so that no shorter format holds them."""
    bits = SIGNIFICAND[form] - 1
    whole = rng.integers(0, 2 ** (bits - 1), shape) * 2 + 1
    return np.asarray(rng.choice([-1.0, 1.0], shape) * (1.0 + whole * 2.0**-bits))


def _choice(rng: np.random.Generator, rows: int, columns: int) -> Values:
    """A matrix with one power of two in each row, no two in one column, rows <= columns."""
    matrix = np.zeros((rows, columns))
    matrix[np.arange(rows), rng.permutation(columns)[:rows]] = rng.choice([-0.5, 1.0, 2.0], rows)
    return matrix


def _conv2d(rng: np.random.Generator, carrier: str, form: str) -> tuple[Any, Named, Named]:
    """x (4, 16, 7, 7), kernel (16, 16, 3, 3): large enough for tensor cores; no transform, which mixes terms, has stride 2."""
    size, config = 16, Convolution(stride=2)
    plain = np.zeros((size, size, 3, 3))
    plain[:, :, 1, 2] = _choice(rng, size, size)
    pixel = np.zeros((4, size, 3, 3))
    pixel[2, :, 1, 2] = 1.0  # one sample and place, so that each sum over them has one term
    if carrier == "x":
        return config, {"x": _digits(rng, (4, size, 7, 7), form), "kernel": plain}, {"y": pixel}
    if carrier == "y":
        point = np.zeros((4, size, 7, 7))
        point[1, :, 2, 2] = 1.0
        return config, {"x": point, "kernel": plain}, {"y": _digits(rng, (4, size, 3, 3), form)}
    one = np.zeros((4, size, 7, 7))
    one[0, 5, 3, 3] = 1.0
    single = np.zeros((4, size, 3, 3))
    single[3, 7, 2, 1] = 1.0
    return config, {"x": one, "kernel": _digits(rng, (size, size, 3, 3), form)}, {"y": single}


def _linear(rng: np.random.Generator, carrier: str, form: str) -> tuple[Any, Named, Named]:
    """x (16, 32) and a weight (24, 32)."""
    plain: Named = {"x": _choice(rng, 16, 32), "weight": _choice(rng, 24, 32)}
    y = _choice(rng, 16, 24)
    shape = {"x": (16, 32), "weight": (24, 32), "y": (16, 24)}[carrier]
    carried = {carrier: _digits(rng, shape, form)}
    inputs = plain | {"bias": np.zeros(24)} | {k: v for k, v in carried.items() if k != "y"}
    if carrier == "y":  # the bias' gradient is a sum: one sample alone has digits
        carried["y"][1:] = 0.0
    return Nothing(), inputs, {"y": carried.get("y", y)}


def _compose(rng: np.random.Generator, carrier: str, form: str) -> tuple[Any, Named, Named]:
    """U (16, 16), sigma (16,) and V (16, 24), whose sums have one term each."""
    inputs: Named = {"U": _choice(rng, 16, 16), "sigma": rng.choice([0.5, 1.0, 2.0], 16), "V": _choice(rng, 16, 24)}
    shapes = {"U": (16, 16), "V": (16, 24)}
    inputs[carrier] = _digits(rng, shapes[carrier], form)
    kernel = np.zeros((16, 24))
    kernel[3, 4] = 1.0
    return Composition(kernel_shape=(16, 24)), inputs, {"kernel": kernel}


_PRODUCTS: dict[str, tuple[Callable[[np.random.Generator, str, str], tuple[Any, Named, Named]], tuple[str, ...]]] = {
    "conv2d": (_conv2d, ("x", "kernel", "y")),
    "linear": (_linear, ("x", "weight", "y")),
    "compose": (_compose, ("U", "V")),
}
"""Operation -> maker of examples, and the operands that may carry the digits."""


def _product(bench: Bench, example: Example) -> list[Finding]:
    """Products keep every digit that their profile's format has, and no convolution of bf16-mixed keeps more."""
    precision, row = PRECISIONS[bench.session.precision], OPERATIONS[example.operation.removeprefix(PREFIX)]
    rng = np.random.Generator(np.random.Philox(example.seed))
    config, inputs, cotangents = _PRODUCTS[row.name][0](rng, example.family, precision.storage)
    got = answer(bench.session, row, config, inputs, cotangents)
    if precision.activations == "bfloat16" and row.name == "conv2d":
        inputs, cotangents = ({k: rounded(v, "bfloat16") for k, v in part.items()} for part in (inputs, cotangents))
    want = reference(row, config, inputs, cotangents)
    return [
        _survives(name, got[name], value, precision, "PRE-2" if row.name == "conv2d" else "PRE-1") for name, value in want.items()
    ]


def _survives(name: str, got: Values, want: Values, precision: Precision, clause: str) -> Finding:
    """Equal to the last digit; under tf32 a product's operand may have been rounded to 11 bits."""
    if precision.name == "tf32":
        return compare(name, got, want, 2.0**-11 * np.abs(want), rung="accept_set", clauses=("PRE-3",))
    clause = clause if precision.name == "bf16-mixed" else "PRE-1"
    return compare(name, got, want, 0.0, rung="exact", clauses=(clause,))


# --- sums and what is no product ----------------------------------------------------------------------


def _long(name: str, terms: Values) -> Iterator[tuple[str, Any, Named, Named]]:
    """Inputs and cotangents that make one answer, named first, the sum of the terms along each axis that is summed over."""
    n, ones = len(terms), np.ones
    column = terms[:, None]
    if name == "linear":
        zero = {"x": np.zeros((n, 3)), "weight": np.zeros((4, 3)), "bias": np.zeros(4)}
        yield "y", Nothing(), {"x": np.tile(terms, (3, 1)), "weight": ones((5, n)), "bias": np.zeros(5)}, {"y": ones((3, 5))}
        yield "gradient of weight", Nothing(), zero | {"x": np.tile(column, 3)}, {"y": ones((n, 4))}
        yield "gradient of bias", Nothing(), zero, {"y": np.tile(column, 4)}
        weight = {"x": np.zeros((2, 3)), "weight": np.tile(column, 3), "bias": np.zeros(n)}
        yield "gradient of x", Nothing(), weight, {"y": ones((2, n))}
        return
    maps, along = column[..., None, None], Convolution()
    yield "y", along, {"x": np.tile(maps[:, 0], (2, 1, 3, 3)), "kernel": ones((4, n, 1, 1))}, {"y": ones((2, 4, 3, 3))}
    samples = {"x": np.tile(maps, (1, 3, 2, 1)), "kernel": np.zeros((4, 3, 1, 1))}
    yield "gradient of kernel", along, samples, {"y": ones((n, 4, 2, 1)) * [[0.5], [0.5]]}
    pixels = {"x": np.tile(terms[:-2].reshape(16, 16), (2, 3, 1, 1)), "kernel": np.zeros((4, 3, 1, 1))}
    pixels["x"][:, :, -1, -1] = -1.0
    yield "gradient of kernel", along, pixels, {"y": ones((2, 4, 16, 16)) * [[[[1.0]]], [[[0.0]]]]}
    outputs = {"x": np.zeros((2, 3, 1, 1)), "kernel": np.tile(maps, (1, 3, 1, 1))}
    yield "gradient of x", along, outputs, {"y": ones((2, n, 1, 1))}
    taps = np.tile(np.array([*terms[:8], -1.0]).reshape(3, 3), (4, 3, 1, 1))
    point = np.zeros((2, 3, 5, 5)), ones((2, 4, 3, 3)) * np.array([1.0, 0.0, 0.0, 0.0])[:, None, None]
    yield "gradient of x", along, {"x": point[0], "kernel": taps}, {"y": point[1]}


def _sums(bench: Bench, example: Example) -> list[Finding]:
    """Sums of products, forward and backward, are accumulated in float32, or float64, whatever the format of their terms."""
    precision, row = PRECISIONS[bench.session.precision], OPERATIONS[example.operation.removeprefix(PREFIX)]
    small = 2.0 ** (4 - SIGNIFICAND[precision.storage])
    terms = np.array([1.0, *[small] * TERMS, -1.0])
    found = []
    for name, config, inputs, cotangents in _long(row.name, terms):
        got = answer(bench.session, row, config, inputs, cotangents)[name]
        # dyadic, with room for every partial sum in any order
        want = reference(row, config, inputs, cotangents)
        decided = np.abs(want[name]) < 0.5  # the large terms cancel: what is left has few digits
        assert decided.any()
        found.append(
            compare(name, got[decided], want[name][decided], 0.0, rung="exact", clauses=("PRE-1", "PRE-2", "PRE-3", "PRE-7"))
        )
    return found


ACCURATE = 256
"""Roundings that a norm's statistics and gradients may be off by, of the sum of the terms' magnitudes (PRE-7)."""


def _many(bench: Bench, example: Example) -> list[Finding]:
    """Statistics of 131,072 values of one sign, and gradients' sums over them, are as accurate as those of few."""
    precision, row = PRECISIONS[bench.session.precision], OPERATIONS["batch_norm_train"]
    rng, shape, unit = np.random.Generator(np.random.Philox(example.seed)), (1, 128, 1, 32, 32), precision.roundoff
    # Of two values: what each sum that is a multiple of an ulp loses of either is the same, and adds up along a chain.
    x = rng.choice(rounded(np.array([0.65, 0.75]), precision.activations), shape)
    one, zero = np.ones(1), np.zeros(1)
    config, inputs = BatchNorm(momentum=1.0), {"x": x, "gamma": one, "beta": zero, "mean": zero, "var": one}
    got, want = (ask(row, config, inputs, {"y": x}) for ask in (partial(answer, bench.session), reference))
    deviation = np.sqrt(x.var() + config.eps)
    # z has the mean's error, over the deviation, and half the variance's; terms of its gradient are as far off as z
    along_z = np.abs(x * (x - x.mean())).sum() / deviation
    of_gamma = 1.5 * along_z + x.sum() * x.mean() / deviation
    sizes = {"mean": x.mean(), "var": x.var(), "gradient of gamma": of_gamma, "gradient of beta": x.sum()}
    return [
        compare(name, got[name], want[name], ACCURATE * unit * size, rung="bound", clauses=("PRE-7", "BN-1", "BN-4"))
        for name, size in sizes.items()
    ]


_KEPT: dict[str, tuple[Any, tuple[int, ...]]] = {
    "relu": (Nothing(), (5, 7)),
    "avg_pool": (Pooling(kernel=1, stride=1), (2, 3, 4, 5)),
    "global_pool": (Nothing(), (6, 9, 1, 1)),
    "readout": (Readout(reduction="sum"), (1, 4, 6)),
}
"""Operations that hand on what they are given, at these shapes."""


def _kept(bench: Bench, example: Example) -> list[Finding]:
    """What is no product keeps every digit of the format that it is stored in, also under tf32 and bf16-mixed."""
    precision, row = PRECISIONS[bench.session.precision], OPERATIONS[example.operation.removeprefix(PREFIX)]
    config, shape = _KEPT[row.name]
    rng = np.random.Generator(np.random.Philox(example.seed))
    inputs = {"x": np.abs(_digits(rng, shape, precision.storage))}
    cotangents = {"y": _digits(rng, row.forward(config, inputs)["y"].shape, precision.storage)}
    got = answer(bench.session, row, config, inputs, cotangents)
    want = reference(row, config, inputs, cotangents)
    clauses = ({"tf32": "PRE-3", "bf16-mixed": "PRE-2"}.get(precision.name, "PRE-1"),)
    return [compare(k, got[k], v, 0.0, rung="exact", clauses=clauses) for k, v in want.items()]


# --- cast points of a network --------------------------------------------------------------------------


def _casts(bench: Bench, example: Example) -> list[Finding]:
    """In a network each value is in its format: bf16-mixed hands on bfloat16, all else has the digits of the storage format."""
    precision = PRECISIONS[bench.session.precision]
    s, program, state = opened(bench, example)
    t = taps_of(bench, s, program, state, training=True, labels=True)
    gradients, _ = program.gradients(state, s.images[0], s.labels[0])
    heads = {exit_.head for exit_ in s.network.exits}
    mixed, found = precision.activations == "bfloat16", []
    for layer in s.network.layers:
        for twin in ("ann", "snn"):
            value = t.trace[layer.name][twin]
            if mixed and layer.name not in heads:
                clauses = ("PRE-2",)
                found.append(
                    compare(f"{layer.name} ({twin})", value, rounded(value, "bfloat16"), 0.0, rung="exact", clauses=clauses)
                )
            elif isinstance(layer, Conv | Norm | Linear):
                found += _has_digits(f"{layer.name} ({twin})", value, precision)
        if isinstance(layer, Activation):
            found += _has_digits(f"{layer.name}: u", t.trace[layer.name]["u"], precision)
    for name, value in gradients.items():
        found += _has_digits(f"gradient of {name}", value, precision)
    return found


def _has_digits(name: str, value: Values, precision: Precision) -> Iterator[Finding]:
    """Some element needs more digits than the next shorter format has; of a few numbers, all may be short by chance."""
    shorter = {"f64": "float32", "f32-ieee": "tf32", "tf32": "tf32", "bf16-mixed": "bfloat16"}[precision.name]
    fraction = np.frexp(np.asarray(value, np.float64)[value != 0])[0] * 2.0 ** SIGNIFICAND[shorter]
    if fraction.size >= 8:
        clauses = ({"tf32": "PRE-3", "bf16-mixed": "PRE-2"}.get(precision.name, "PRE-1"),)
        full = bool(np.any(fraction != np.round(fraction)))
        got = "digits of " + (precision.storage if full else shorter)
        yield holds(f"format of {name}", full, got=got, want=f"digits of {precision.storage}", clauses=clauses)


# --- place ---------------------------------------------------------------------------------------------


def place(tensor: Any) -> str | None:
    """Kind of the device that an array says it is on, such as `cpu` or `cuda`; None if it does not say."""
    device = getattr(tensor, "device", None)
    kind = getattr(device, "platform", None) or getattr(device, "type", None) or device
    name = str(kind).partition(":")[0]
    return None if device is None else {"gpu": "cuda"}.get(name, name)


def _placement(bench: Bench, example: Example) -> list[Finding]:
    """Outputs and gradients are on the device asked for, and a device that is not there answers nothing."""
    name = min(bench.backend.capabilities().operations)
    space = space_of(name, False)
    assert space is not None
    present = {device.partition(":")[0] for device in bench.backend.capabilities().devices}
    sessions: dict[str, Any] = {bench.session.device: bench.session}
    for device in sorted({"cpu", "cuda", "abacus"} - present):
        try:
            sessions[device] = bench.backend.session(device, bench.session.precision, bench.session.compiled)
        except SpecError:
            continue
    found = []
    for device, session in sessions.items():
        row = OPERATIONS[name]
        material = materialize(CASES[name], next(space.cover()), PRECISIONS[session.precision].activations)
        inputs, cotangents = (
            {k: session.from_numpy(v) for k, v in part.items()} for part in (material.inputs, material.cotangents)
        )
        parts = [session.forward(name, material.config, inputs)]
        parts += session.vjp(name, material.config, inputs, cotangents) if row.adjoint is not None else ()
        for what, tensors in zip(("output", "output beside gradients", "gradient"), parts, strict=False):
            for key, tensor in tensors.items():
                at, wanted = place(tensor), device.partition(":")[0]
                if at is not None:
                    found.append(
                        holds(f"device of {what} {key} on {device}", at == wanted, got=at, want=wanted, clauses=("PRE-4",))
                    )
    return found


_CASTS = tuple(i for i, c in enumerate(CONFIGS) if c["network"] in NARROW and c["method"] == encode(Method()))
"""Narrow networks with the paper's method, by index: with a single step a potential has no more digits than its current."""


def _checks() -> Iterator[Check]:
    def check(
        id_: str, run: Callable[[Bench, Example], list[Finding]], rung: Rung, needs: set[str], space: Space, clauses: str
    ) -> Check:
        sentence = " ".join(str(run.__doc__).split())
        return Check(
            id=id_,
            sentence=sentence,
            clauses=tuple(clauses.split()),
            rung=rung,
            needs=frozenset(needs),
            space=space,
            run=run,
        )

    for name, (_, carriers) in _PRODUCTS.items():
        space = Space(PREFIX + name, ({},), ({},), carriers, True)
        yield check(f"digits[{name}]", _product, "exact", {name}, space, "PRE-1 PRE-2 PRE-3")
    for name in ("conv2d", "linear"):
        yield check(
            f"sums[{name}]",
            _sums,
            "exact",
            {name},
            Space(PREFIX + name, ({},), ({},), ("long",), True),
            "PRE-1 PRE-2 PRE-3 PRE-7",
        )
    space = Space(f"{PREFIX}batch_norm_train", ({},), ({},), ("many",), False)
    yield check("sums[batch_norm_train]", _many, "bound", {"batch_norm_train"}, space, "PRE-7 BN-1 BN-4")
    for name, (config, _) in _KEPT.items():
        space = Space(PREFIX + name, (encode(config),), ({},), ("digits",), True)
        yield check(f"kept[{name}]", _kept, "exact", {name}, space, "PRE-1 PRE-2 PRE-3")
    yield check(
        "network[casts]",
        _casts,
        "exact",
        {"networks"},
        Space("network", tuple(CONFIGS[i] for i in _CASTS), BUCKETS, ("normal",), False, tuple(PINNED[i] for i in _CASTS)),
        "PRE-1 PRE-2 PRE-3",
    )
    yield check("placement", _placement, "property", set(), Space("claims", ({},), ({},), ("none",), False), "PRE-4")


CHECKS: tuple[Check, ...] = tuple(_checks())
