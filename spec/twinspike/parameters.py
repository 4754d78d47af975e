"""Names, shapes and initial values of everything that training keeps: parameters, statistics, optimizer slots.

One flat mapping from name to float64 array is the state of a run in the specification's own terms;
backends load and dump it, checkpoints store it, and two backends can exchange it at any step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.config import SGD, TWINS, Factorization, Method, Optimizer, Twin
from twinspike.errors import SpecError, require
from twinspike.network import Activation, Conv, Layer, Linear, Network, Norm, infer_shapes
from twinspike.random import Stream
from twinspike.reference.factorization import factorize, rank_for_energy, singular_values

Array = NDArray[np.float64]
State = dict[str, NDArray[np.generic]]
"""Name -> array: float64 parameters, statistics and slots, int64 counter `optimizer/step`."""

Kind = Literal["weight", "factor", "sigma", "norm", "bias", "neuron", "statistic", "slot", "counter"]

STEP = "optimizer/step"
"""Name of the counter of optimizer steps taken, int64, shape ()."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One array of the state."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    layer: str
    """Name of the layer that it belongs to; empty for the counter."""

    @property
    def part(self) -> str:
        """What it is of its layer, such as `sigma_ann`; a slot is named after its parameter."""
        return layer_and_part(self.name)[1]

    @property
    def twin(self) -> Twin | None:
        """The twin that it belongs to alone; None: both, or neither."""
        if self.kind == "neuron":
            return "snn"
        return next((twin for twin in TWINS if self.part.endswith(f"_{twin}")), None)

    @property
    def trained(self) -> bool:
        """Whether it is a parameter, which gradients and the optimizer move."""
        return self.kind not in ("statistic", "slot", "counter")


def layer_and_part(name: str) -> tuple[str, str]:
    """The layer that an array belongs to and what it is of it, by the array's name (clause INI-5)."""
    layer, _, part = name.rpartition(".")
    return layer, part


def is_factored(layer: Layer, factorization: Factorization) -> bool:
    """Whether a layer's kernel is held as U, sigma_ann, sigma_snn and V (clause FAC-1)."""
    match layer, factorization.scope:
        case _, "none":
            return False
        case Conv(part="stem"), "no_stem":
            return False
        case Conv(part="branch"), "backbone":
            return False
        case Conv(), _:
            return True
        case Linear(), "with_heads":
            return True
        case _:
            return False


def kernel_shape(layer: Conv | Linear, source: tuple[int, ...]) -> tuple[int, ...]:
    """Canonical kernel shape, (out, in, kh, kw) or (out, in), for an input of shape `source`."""
    if isinstance(layer, Conv):
        return (layer.out_channels, source[0], layer.kernel, layer.kernel)
    return (layer.out_features, source[0])


def _matrix_shape(kernel: tuple[int, ...], matricize: str) -> tuple[tuple[int, ...], int, int]:
    """(positions, rows, columns) of the matrices that a kernel is factored as."""
    if len(kernel) == 2 or matricize == "out_by_rest":
        return (), kernel[0], math.prod(kernel[1:])
    return kernel[2:], kernel[0], kernel[1]


def _initial_kernel(layer: Conv | Linear, shape: tuple[int, ...], method: Method, seed: int, index: int) -> Array:
    """Clauses INI-2, INI-6: Kaiming normal (fan out, ReLU), or for linear layers, unless asked for, uniform +-1/sqrt(in)."""
    stream = Stream(seed, "init", index=2 * index)
    if isinstance(layer, Linear) and method.linear_init == "fan_out":
        return stream.normal(*shape) * math.sqrt(2.0 / shape[0])
    if isinstance(layer, Conv):
        return stream.normal(*shape) * math.sqrt(2.0 / (shape[0] * shape[2] * shape[3]))
    return (2.0 * stream.uniform(*shape) - 1.0) / math.sqrt(shape[1])


def _rank(layer: Conv | Linear, shape: tuple[int, ...], method: Method, index: int) -> int:
    """Rank of a layer's factors; for an energy fraction that of the kernel drawn with seed 0 (clause INI-4)."""
    f = method.factorization
    _, rows, columns = _matrix_shape(shape, f.matricize)
    full = min(rows, columns)
    if f.rank == "full":
        return full
    if isinstance(f.rank, int):
        return min(f.rank, full)
    return rank_for_energy(singular_values(f, _initial_kernel(layer, shape, method, 0, index)), f.rank)


def layout(network: Network, method: Method, optimizer: Optimizer | None = None) -> tuple[Entry, ...]:
    """Every array of the state, in a fixed order: per layer as listed, then slots, then the counter.

    Args:
        network: the graph.
        method: decides factors, twins' norms and learned neuron quantities.
        optimizer: adds its slots and counter if given.
    """
    shapes = infer_shapes(network)
    entries: list[Entry] = []

    def add(layer: Layer, suffix: str, shape: tuple[int, ...], kind: Kind) -> None:
        entries.append(Entry(name=f"{layer.name}.{suffix}", shape=shape, kind=kind, layer=layer.name))

    for index, layer in enumerate(network.layers):
        match layer:
            case Conv() | Linear():
                kernel = kernel_shape(layer, shapes[layer.input])
                if is_factored(layer, method.factorization):
                    positions, rows, columns = _matrix_shape(kernel, method.factorization.matricize)
                    rank = _rank(layer, kernel, method, index)
                    add(layer, "U", (*positions, rows, rank), "factor")
                    for twin in TWINS:
                        add(layer, f"sigma_{twin}", (*positions, rank), "sigma")
                    add(layer, "V", (*positions, rank, columns), "factor")
                else:
                    for twin in TWINS:
                        add(layer, f"weight_{twin}", kernel, "weight")
                if isinstance(layer, Linear):
                    add(layer, "bias", kernel[:1], "bias")
            case Norm():
                channels = shapes[layer.name][:1]
                for twin in TWINS:
                    add(layer, f"gamma_{twin}", channels, "norm")
                    add(layer, f"beta_{twin}", channels, "norm")
                    add(layer, f"mean_{twin}", channels, "statistic")
                    add(layer, f"var_{twin}", channels, "statistic")
            case Activation():
                for quantity in ("decay", "threshold"):
                    scope = getattr(method.neuron, f"{quantity}_scope")
                    if scope != "constant":
                        add(layer, quantity, shapes[layer.name][:1] if scope == "channel" else (), "neuron")
            case _:
                pass
    if optimizer is not None:
        trained = [entry for entry in entries if entry.trained]
        for slot in slots(optimizer):
            entries += [Entry(name=f"optimizer/{slot}/{e.name}", shape=e.shape, kind="slot", layer=e.layer) for e in trained]
        entries.append(Entry(name=STEP, shape=(), kind="counter", layer=""))
    return tuple(entries)


def slots(optimizer: Optimizer) -> tuple[str, ...]:
    """Names of the arrays that an optimizer keeps per parameter (clause OPT-1)."""
    if isinstance(optimizer, SGD):
        return ("momentum",) if optimizer.momentum > 0 else ()
    return ("m", "v")


def decays(entry: Entry, optimizer: Optimizer) -> bool:
    """Whether weight decay applies to a parameter (clause OPT-4)."""
    return optimizer.decay_scope == "all" or entry.kind in ("weight", "factor", "sigma")


def domain(entry: Entry, method: Method) -> tuple[float, float] | None:
    """The closed interval onto which a parameter is projected after every update; None is every number (clause OPT-8)."""
    if entry.kind != "neuron":
        return None
    if entry.part == "decay":
        return 0.0, 1.0
    floor = max(0.0, method.neuron.v_reset)
    return floor + (method.neuron.threshold - floor) / 1024, math.inf


def initial_state(network: Network, method: Method, optimizer: Optimizer | None = None, *, seed: int = 0) -> State:
    """Draw the state that a run starts from (clauses INI-*); names and order as in `layout`."""
    shapes = infer_shapes(network)
    values: State = {}
    for index, layer in enumerate(network.layers):
        if not isinstance(layer, Conv | Linear):
            continue
        shape = kernel_shape(layer, shapes[layer.input])
        kernel = _initial_kernel(layer, shape, method, seed, index)
        if is_factored(layer, method.factorization):
            rank = _rank(layer, shape, method, index)
            u, sigma, v = factorize(method.factorization, kernel, rank)
            values |= {f"{layer.name}.U": u, f"{layer.name}.V": v}
            values |= {f"{layer.name}.sigma_{twin}": sigma for twin in TWINS}
        else:
            values |= {f"{layer.name}.weight_{twin}": kernel for twin in TWINS}
        if isinstance(layer, Linear):
            bias = 2.0 * Stream(seed, "init", index=2 * index + 1).uniform(shape[0]) - 1.0
            values[f"{layer.name}.bias"] = bias / math.sqrt(shape[1])
    state: State = {}
    for entry in layout(network, method, optimizer):
        if entry.name in values:
            state[entry.name] = np.array(values[entry.name])
        elif entry.kind == "counter":
            state[entry.name] = np.zeros((), dtype=np.int64)
        else:
            state[entry.name] = np.full(entry.shape, _constant(entry, method))
    return state


def _constant(entry: Entry, method: Method) -> float:
    """Initial value of an array that starts at one constant (clause INI-3)."""
    if entry.kind == "neuron":
        return float(getattr(method.neuron, entry.part))
    if entry.kind in ("norm", "statistic"):
        if entry.part == "gamma_snn" and method.batch_norm.gamma_init == "threshold":
            return method.neuron.threshold
        return 1.0 if entry.part.startswith(("gamma", "var")) else 0.0
    return 0.0


def check_state(state: Mapping[str, NDArray[np.generic]], entries: tuple[Entry, ...], what: str = "state") -> None:
    """Refuse a state whose names or shapes differ from the layout, or that holds a NaN or infinity.

    Raises:
        SpecError: naming the first array that is missing, unknown, misshapen or not finite.
    """
    known = {entry.name for entry in entries}
    unknown = sorted(set(state) - known)
    require(not unknown, what, expected="the names of its network and optimizer", got=unknown)
    for entry in entries:
        require(entry.name in state, f"{what}[{entry.name}]", expected=f"an array of shape {entry.shape}", got="nothing")
        value = state[entry.name]
        require(value.shape == entry.shape, f"{what}[{entry.name}]", expected=f"shape {entry.shape}", got=value.shape)
        require(bool(np.isfinite(value).all()), f"{what}[{entry.name}]", expected="finite values", got="NaN or infinity")


_VARIANCES = tuple(f"var_{twin}" for twin in TWINS)


def check_values(
    state: Mapping[str, NDArray[np.generic]], entries: tuple[Entry, ...], method: Method, storage: str, what: str = "state"
) -> None:
    """Refuse a state that no training could have come to, or can go on from.

    Args:
        state: that `check_state` accepts.
        entries: of the layout.
        method: whose config says what a learned quantity of the neuron may be.
        storage: NumPy's name of the format that floats are stored in (`Precision.storage`).
        what: the name under which errors speak of it.

    Raises:
        SpecError: naming the first array of another dtype than the counter's int64 and `storage` elsewhere, with a negative
            variance, second moment or counter, or with a learned quantity that the config would refuse.
    """
    for entry in entries:
        where, value = f"{what}[{entry.name}]", state[entry.name]
        dtype = "int64" if entry.kind == "counter" else storage
        require(str(value.dtype) == dtype, where, expected=dtype, got=str(value.dtype))
        if entry.kind == "counter" or entry.name.startswith("optimizer/v/") or entry.part in _VARIANCES:
            require(bool(value.min() >= 0), where, expected="values >= 0", got=f"{value.min()}")
        if entry.kind == "neuron":
            for extreme in (value.min(), value.max()):
                try:
                    msgspec.structs.replace(method.neuron, **{entry.part: float(extreme)})
                except SpecError as error:
                    raise SpecError(f"{where}: {error}") from None
