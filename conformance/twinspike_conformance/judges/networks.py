"""Whole networks, layer by layer: each is checked from the backend's own inputs to it, forward and backward.

So a ResNet is judged as sharply as one layer, and the first layer that diverges is the one reported.
`Taps` holds what a program's trace says; every value expected here is made from its neighbours there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinspike.config import TWINS, Method, Twin
from twinspike.network import INPUT, Activation, Add, AvgPool, Conv, GlobalPool, Layer, Linear, Network, Norm, inputs_of
from twinspike.parameters import is_factored, kernel_shape
from twinspike.precision import Precision
from twinspike.replicas import share
from twinspike_conformance.bounds.finding import Finding, compare
from twinspike_conformance.bounds.tracked import Tracked, stack
from twinspike_conformance.cases.families import rounded
from twinspike_conformance.judges import certificates, factored
from twinspike_conformance.judges.operations import product_of
from twinspike_conformance.judges.variant import tracked

Values = NDArray[Any]
State = Mapping[str, NDArray[Any]]


class Taps(msgspec.Struct):
    """One traced batch of one program."""

    network: Network
    method: Method
    precision: Precision
    roundoff: float
    state: State
    images: Values
    training: bool
    trace: dict[str, dict[str, Values]]
    replicas: int = 1
    """Ranks that the batch was split among (DEV-4)."""

    def output(self, twin: Twin, name: str) -> Values:
        """A layer's output, (T, B, ...), float64; T is 1 for the artificial twin."""
        if name == INPUT:
            return self._input(twin)
        value = np.asarray(self.trace[name][twin], np.float64)
        return value[None] if twin == "ann" else value

    def _input(self, twin: Twin) -> Values:
        images = np.asarray(self.images, np.float64)
        if self.network.event:
            return images if twin == "snn" else images.mean(axis=0)[None]
        return np.stack([images] * (self.method.time_steps if twin == "snn" else 1))

    def gradient(self, twin: Twin, name: str) -> Values:
        """The gradient towards a layer's output, (T, B, ...), or (1, B, ...) where it is a sum over steps."""
        value = np.asarray(self.trace[name][f"g_{twin}"], np.float64)
        return value[None] if twin == "ann" else value

    def lift(self, value: Values) -> Tracked:
        """What the backend itself reported: exact."""
        return Tracked(value, roundoff=self.roundoff, product=product_of(self.precision))

    def operand(self, twin: Twin, name: str) -> Tracked:
        """A layer's output as its readers get it: the network's input is rounded to the format of activations."""
        value = self.output(twin, name)
        rounding = self.cast if name == INPUT else 0.0
        event_mean = 2 * self.roundoff if name == INPUT and self.network.event and twin == "ann" else 0.0
        lifted = self.lift(value)
        return lifted._view(value, (rounding + event_mean) * np.abs(value))

    @property
    def cast(self) -> float:
        """Roundoff of what layers hand to one another, 0 where it is the format of everything."""
        return self.precision.cast

    def operand_of(self, gradient: Values) -> Tracked:
        """A gradient as a convolution's gradients get it: rounded to the format of activations, where it is not of it (PRE-6)."""
        if not self.cast:
            return self.lift(gradient)
        error = np.where(rounded(gradient, self.precision.activations) == gradient, 0.0, self.cast * np.abs(gradient))
        return self.lift(gradient)._view(gradient, error)

    def clauses(self, layer: Layer, twin: Twin, *, backward: bool = False) -> tuple[str, ...]:
        """What a layer's output follows from, or with `backward` what it sends back."""
        match layer:
            case Conv() | Linear():
                own = "LAY-1" if isinstance(layer, Conv) else "LAY-3"
                kernel = "FAC-6" if is_factored(layer, self.method.factorization) else "FAC-8"
                coded = ("INP-1", "INP-2") if layer.input == INPUT and not backward else ()
                return (own, "FAC-1", kernel, *coded)
            case Norm():
                if not self.training:
                    return ("BN-5", "BN-6")
                time = "BN-3" if self.method.batch_norm.time == "folded" else "BN-2"
                return ("BN-1", "BN-6") if twin == "ann" else ("BN-1", time, "BN-6")
            case AvgPool() | GlobalPool():
                return ("LAY-2",)
            case Add():
                return ("LAY-5",)
            case Activation():
                if twin == "ann":
                    return ("LAY-4",)
                return ("LIF-6", "LIF-7", "LIF-8") if backward else ("LIF-1", "LIF-2", "LIF-3", "LIF-4", "LIF-5")

    def kernel(self, layer: Conv | Linear, twin: Twin) -> Tracked:
        """The kernel of one twin, composed where it is factored, rounded to the operands' format."""
        modules = tracked()
        lifted = {k: self.lift(np.asarray(v, np.float64)) for k, v in self.state.items() if k.startswith(f"{layer.name}.")}
        x = self.output(twin, layer.input)
        kernel: Tracked = modules["network"].kernel(layer, self.method, twin, lifted, x)
        if isinstance(layer, Linear) or not self.cast:
            return kernel
        return kernel._view(kernel.value, kernel.error + self.cast * np.abs(kernel.value))

    def factors(self, layer: Conv | Linear, twin: Twin) -> factored.Factors:
        """Of a kernel that is factored."""
        u, sigma, v = (self.lift(np.asarray(self.state[f"{layer.name}.{n}"], np.float64)) for n in ("U", f"sigma_{twin}", "V"))
        return factored.Factors(u, sigma, v)

    def apart(self, layer: Conv | Linear, twin: Twin) -> factored.Factors | None:
        """Those with which maps may meet one by one; None where the cast of the composed kernel is a cast point."""
        f = self.method.factorization
        if isinstance(layer, Linear) or not is_factored(layer, f) or self.cast:
            return None
        return self.factors(layer, twin) if f.matricize == "per_position" else None


def folded(x: Any) -> Any:
    """(T, B, ...) as (T B, ...)."""
    return x.reshape(-1, *x.shape[2:])


def forward(taps: Taps) -> Iterator[Finding]:
    """Every layer's output from the backend's own inputs to the layer, in the order of the data."""
    for layer in taps.network.layers:
        for twin in TWINS:
            yield from output_of(taps, layer, twin)


def output_of(taps: Taps, layer: Layer, twin: Twin) -> Iterator[Finding]:
    """One layer's output from the backend's own inputs to it."""
    if isinstance(layer, Activation) and twin == "snn":
        yield from _spiking(taps, layer)
        return
    want = _forward(taps, layer, twin)
    got = taps.output(twin, layer.name)
    bound = want.error + 2 * taps.cast * np.abs(want.value)
    yield compare(
        f"{layer.name} ({twin})", got, want.value.reshape(got.shape), bound.reshape(got.shape), rung="bound",
        clauses=taps.clauses(layer, twin),
    )  # fmt: skip


def _forward(taps: Taps, layer: Layer, twin: Twin) -> Tracked:
    modules = tracked()
    x = taps.operand(twin, layer.input)
    match layer:
        case Conv(stride=stride, padding=padding):
            y: Tracked = modules["layers"].conv2d(folded(x), taps.kernel(layer, twin), stride, padding)
            factors = taps.apart(layer, twin)
            return y if factors is None else factored.either(y, factored.forward(folded(x), factors, stride, padding))
        case Linear():
            bias = taps.lift(np.asarray(taps.state[f"{layer.name}.bias"], np.float64))
            return modules["layers"].linear(folded(x), taps.kernel(layer, twin), bias)  # type: ignore[no-any-return]
        case Norm():
            arrays = [
                taps.lift(np.asarray(taps.state[f"{layer.name}.{q}_{twin}"], np.float64))
                for q in ("gamma", "beta", "mean", "var")
            ]
            if taps.training:
                return modules["replicas"].batch_norm_train(taps.method.batch_norm, x, *arrays, replicas=taps.replicas).y  # type: ignore[no-any-return]
            return modules["norm"].batch_norm_eval(taps.method.batch_norm, x, *arrays)  # type: ignore[no-any-return]
        case Add(other=other):
            return x + taps.operand(twin, other)  # type: ignore[no-any-return]
        case AvgPool(kernel=size, stride=stride):
            return modules["layers"].avg_pool(folded(x), size, stride)  # type: ignore[no-any-return]
        case GlobalPool():
            return modules["layers"].global_pool(folded(x))  # type: ignore[no-any-return]
        case Activation():
            return modules["layers"].relu(x)  # type: ignore[no-any-return]


def neuron_inputs(taps: Taps, layer: Activation) -> dict[str, Values]:
    """Current and learned quantities of a layer of neurons."""
    inputs: dict[str, Values] = {"x": taps.output("snn", layer.input)}
    for quantity in ("decay", "threshold"):
        if f"{layer.name}.{quantity}" in taps.state:
            inputs[quantity] = np.asarray(taps.state[f"{layer.name}.{quantity}"], np.float64)
    return inputs


def _spiking(taps: Taps, layer: Activation) -> Iterator[Finding]:
    tap = taps.trace[layer.name]
    u, s = np.asarray(tap["u"], np.float64), np.asarray(tap["snn"], np.float64)
    inputs = neuron_inputs(taps, layer)
    for finding in certificates.lif_forward(taps.method.neuron, inputs, {"u": u, "s": s}, taps.roundoff):
        yield msgspec.structs.replace(finding, quantity=f"{layer.name} (snn): {finding.quantity}")


# --- backward ----------------------------------------------------------------------------------------


def backward(taps: Taps, seeds: Mapping[tuple[Twin, str], Tracked]) -> Iterator[Finding]:
    """Every gradient from the backend's own gradients behind it.

    Args:
        taps: of a batch traced in training, with labels.
        seeds: what the loss sends into each exit's feature and head, (T, B, ...).
    """
    readers = readers_of(taps.network)
    towards: dict[str, list[Tracked]] = {}
    for layer in reversed(taps.network.layers):
        for twin in TWINS:
            parts = [adjoint_of(taps, reader, twin, layer.name, towards) for reader in readers[layer.name]]
            if (twin, layer.name) in seeds:
                parts.append(seeds[twin, layer.name])
            yield gradient_towards(
                taps, layer, twin, parts, sent_by(taps, readers[layer.name], twin, (twin, layer.name) in seeds)
            )
    for layer in taps.network.layers:
        for twin in TWINS:
            note_parameters(taps, layer, twin, towards)
    yield from _totals(taps, towards)


def readers_of(network: Network) -> dict[str, list[Layer]]:
    """By layer, those that take its output."""
    readers: dict[str, list[Layer]] = {layer.name: [] for layer in network.layers}
    for layer in network.layers:
        for name in dict.fromkeys(inputs_of(layer)):
            if name != INPUT:
                readers[name].append(layer)
    return readers


def sent_by(taps: Taps, readers: list[Layer], twin: Twin, ends: bool) -> tuple[str, ...]:
    """Clauses of what readers send back, and the loss where it takes the output too."""
    clauses = [clause for reader in readers for clause in taps.clauses(reader, twin, backward=True)]
    if ends:
        clauses += _OF_THE_LOSS if twin == "ann" else (*_OF_THE_LOSS, *_OF_THE_READOUT)
    return tuple(dict.fromkeys(clauses))


_OF_THE_LOSS = ("DIS-1", "DIS-2", "DIS-3", "DIS-4", "DIS-5", "DIS-6", "DIS-8", "DIS-9", "DIS-10", "DIS-11", "DIS-12", "DIS-13")
"""What the loss sends into a feature or a head."""
_OF_THE_READOUT = ("OUT-1", "OUT-2")


def gradient_towards(taps: Taps, layer: Layer, twin: Twin, parts: list[Tracked], clauses: tuple[str, ...]) -> Finding:
    """A gradient against the sum of what the layer's readers send back: it is their matter, not the layer's."""
    got = taps.gradient(twin, layer.name)
    whole, size, terms = [], np.zeros_like(got), 1
    for part in parts:
        reduced = len(got) == 1 and len(part.value) > 1
        whole.append(part.sum(axis=0, keepdims=True) if reduced else part)
        size = size + (np.abs(part.value).sum(axis=0, keepdims=True) if reduced else np.abs(part.value))
        terms += len(part.value) if reduced else 1
    total = added(whole)
    bound = total.error + terms * taps.cast * size
    return compare(f"gradient towards {layer.name} ({twin})", got, total.value, bound, rung="bound", clauses=clauses)


def added(parts: Sequence[Tracked]) -> Tracked:
    """The sum of parts, one after another."""
    total: Any = parts[0]
    for part in parts[1:]:
        total = total + part
    return total  # type: ignore[no-any-return]  # a ufunc's answer


def step_input(taps: Taps, twin: Twin, name: str, g: Values) -> Tracked:
    """The input that belongs to a gradient: that of one step where the gradient is a sum over equal steps."""
    x = taps.operand(twin, name)
    return x[:1] if len(g) == 1 else x


def adjoint_of(taps: Taps, reader: Layer, twin: Twin, name: str, towards: dict[str, list[Tracked]]) -> Tracked:
    """What one reader sends back to the layer `name`."""
    modules = tracked()
    g = taps.gradient(twin, reader.name)
    lifted = taps.lift(g)
    x = step_input(taps, twin, reader.input, g)
    match reader:
        case Conv(stride=stride, padding=padding):
            operand = folded(taps.operand_of(g))
            d_x, _ = modules["layers"].conv2d_adjoint(folded(x), taps.kernel(reader, twin), operand, stride, padding)
            if (factors := taps.apart(reader, twin)) is not None:
                d_x = factored.either(d_x, factored.maps_adjoint(folded(x), factors, folded(lifted), stride, padding))
        case Linear():
            d_x, _, _ = modules["layers"].linear_adjoint(folded(x), taps.kernel(reader, twin), folded(lifted))
        case Norm():
            d_x = _norm_adjoint(taps, reader, twin, x, lifted)[0]
        case Add():
            return lifted + lifted if reader.input == reader.other else lifted
        case AvgPool(kernel=size, stride=stride):
            d_x = modules["layers"].avg_pool_adjoint(folded(x), folded(lifted), size, stride)
        case GlobalPool():
            d_x = modules["layers"].global_pool_adjoint(folded(x), folded(lifted))
        case Activation() if twin == "ann":
            d_x = modules["layers"].relu_adjoint(x, lifted)
        case Activation():
            return neurons_adjoint(taps, reader, g, towards)
    return d_x.reshape(len(g), -1, *taps.output(twin, name).shape[2:])  # type: ignore[no-any-return]


def _norm_adjoint(taps: Taps, layer: Norm, twin: Twin, x: Tracked, g: Tracked) -> tuple[Tracked, Tracked, Tracked]:
    gamma = taps.lift(np.asarray(taps.state[f"{layer.name}.gamma_{twin}"], np.float64))
    return tracked()["replicas"].batch_norm_train_adjoint(taps.method.batch_norm, x, gamma, g, replicas=taps.replicas)  # type: ignore[no-any-return]


def neurons_adjoint(taps: Taps, layer: Activation, g: Values, towards: dict[str, list[Tracked]]) -> Tracked:
    """The adjoint of the sequence from the backend's own potentials and spikes; notes learned quantities' gradients."""
    neuron, inputs = taps.method.neuron, neuron_inputs(taps, layer)
    u, s = (np.asarray(taps.trace[layer.name][k], np.float64) for k in ("u", "snn"))
    quantities = certificates.quantities_of(neuron, inputs, taps.roundoff)
    end = taps.lift(np.zeros_like(u[0]))
    trace = certificates.adjoint_trace(neuron, u, s, g, end, quantities)
    d = stack(trace.d)
    for quantity, terms in certificates.learned_terms(neuron, inputs, u, s, d, trace, quantities).items():
        towards[f"{layer.name}.{quantity}"] = [terms]
    return d * (1.0 - quantities[0]) if neuron.decay_input else d


def note_parameters(taps: Taps, layer: Layer, twin: Twin, towards: dict[str, list[Tracked]]) -> None:
    """Note what one twin's use of a layer sends to its parameters."""
    if not isinstance(layer, Conv | Linear | Norm):
        return
    modules = tracked()
    g = taps.gradient(twin, layer.name)
    x = step_input(taps, twin, layer.input, g)

    def note(suffix: str, part: Tracked) -> None:
        isolated = taps.method.loss.isolate_ann and twin == "snn" and suffix in ("U", "V", "bias")
        if not isolated:
            towards.setdefault(f"{layer.name}.{suffix}", []).append(part)

    if isinstance(layer, Norm):
        _, d_gamma, d_beta = _norm_adjoint(taps, layer, twin, x, taps.lift(g))
        note(f"gamma_{twin}", d_gamma)
        note(f"beta_{twin}", d_beta)
        return
    if isinstance(layer, Conv):
        kernel = taps.kernel(layer, twin)
        operand = taps.operand_of(g)

        def of(part: slice) -> Tracked:
            given = folded(x[:, part]), kernel, folded(operand[:, part]), layer.stride, layer.padding
            found: Tracked = modules["layers"].conv2d_adjoint(*given)[1]
            return found

        d_kernel = of(slice(None))
        if taps.cast:  # it may be rounded where it leaves the convolution, that of each rank before they are added up
            alone, samples = taps.replicas == 1, operand.value.shape[1]
            ranks = [d_kernel] if alone else [of(share(samples, taps.replicas, r)) for r in range(taps.replicas)]
            size = sum(np.abs(part.value) for part in ranks)
            d_kernel = Tracked(d_kernel.value, d_kernel.error + 2 * taps.cast * size, roundoff=taps.roundoff)
    else:
        _, d_kernel, d_bias = modules["layers"].linear_adjoint(folded(x), taps.kernel(layer, twin), folded(taps.lift(g)))
        note("bias", d_bias)
    if not is_factored(layer, taps.method.factorization):
        note(f"weight_{twin}", d_kernel)
        return
    names = ("U", f"sigma_{twin}", "V")
    assert d_kernel.shape == kernel_shape(layer, taps.output(twin, layer.input).shape[2:])
    parts = modules["factorization"].compose_adjoint(taps.method.factorization, *taps.factors(layer, twin), d_kernel)
    if isinstance(layer, Conv) and (apart := taps.apart(layer, twin)) is not None:
        others = factored.factors_adjoint(folded(x), apart, folded(taps.lift(g)), layer.stride, layer.padding)
        parts = [factored.either(part, other) for part, other in zip(parts, others, strict=True)]
    for suffix, part in zip(names, parts, strict=True):
        note(suffix, part)


OF_PARAMETERS: dict[str, tuple[str, ...]] = {
    "U": ("FAC-7", "DIS-7"),
    "V": ("FAC-7", "DIS-7"),
    "bias": ("LAY-3", "DIS-7"),
    "decay": ("LIF-9",),
    "threshold": ("LIF-10",),
    **{f"{kind}_{twin}": clauses for kind, clauses in (
        ("sigma", ("FAC-6", "FAC-7")), ("weight", ("FAC-8",)), ("gamma", ("BN-1", "BN-6")), ("beta", ("BN-1", "BN-6")),
    ) for twin in TWINS},
}  # fmt: skip
"""By what a parameter's name ends in."""


def _totals(taps: Taps, towards: dict[str, list[Tracked]]) -> Iterator[Finding]:
    """Each parameter's gradient against the sum of what both twins send to it (FAC-7, LAY-3, DIS-7)."""
    for layer, tap in taps.trace.items():
        for suffix, got in ((key.removeprefix("d_"), value) for key, value in tap.items() if key.startswith("d_")):
            name = f"{layer}.{suffix}"
            if name not in towards:
                yield compare(f"gradient of {name}", got, np.zeros_like(got), 0.0, rung="exact", clauses=("DIS-7",))
                continue
            total = added(towards[name])
            yield compare(f"gradient of {name}", got, total.value, total.error, rung="bound", clauses=OF_PARAMETERS[suffix])
