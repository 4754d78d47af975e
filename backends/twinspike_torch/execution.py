"""One twin's way through consecutive layers, as a function of values and of the layers' tensors.

It reads no module and changes no statistics, so that it can be repeated for a backward pass. What an
activation needs then is recomputed from the output of the convolution before it, which is kept anyway;
spikes are kept as booleans.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from twinspike.config import Method, Twin
from twinspike_torch.convolution import convolve, convolve_factored, fold, unfold
from twinspike_torch.factorization import Factors
from twinspike_torch.lif_kernels import Kernel
from twinspike_torch.neuron import lif, lif_traced
from twinspike_torch.norm import batch_norm_again, batch_norm_eval, batch_norm_train
from twinspike_torch.norm_activation import Source, activated, fits
from twinspike_torch.plan import Node
from twinspike_torch.replicas import Ranks
from twinspike_torch.weights import project, readout

Tap = Callable[[str, Twin, Tensor, Tensor | None], None]
"""Receives a layer's name, the twin, its output, and potentials of neurons; the spiking twin's output is
(T, B, ...), or (B, ...) where it is the same at every step."""

Held = tuple[Tensor | None, ...]
"""A layer's tensors: (kernel,) or `Factors` of one, (weight, bias), (gamma, beta, mean, var) or (decay, threshold)."""

Again = Callable[[], Tensor]
"""Computes a value again, bit for bit, outside of the graph."""


class Way(NamedTuple):
    """How to go."""

    method: Method
    twin: Twin
    activations: torch.dtype | None
    """Format of what layers hand on, where it is not that of the parameters."""
    training: bool
    spike_rates: bool
    thrifty: bool
    """Whether activations' inputs are recomputed rather than kept."""
    kernel: Kernel
    """Who computes the neurons."""
    ranks: Ranks | None
    """Those with which norms share their statistics."""
    joined: bool
    """Whether activations compute the norms and sums that they alone read."""


class Found(NamedTuple):
    """What layers gave besides their values, by layer."""

    logits: dict[str, Tensor]
    features: dict[str, Tensor]
    rates: dict[str, Tensor]
    """Spikes per neuron and time step, of the spiking twin."""
    moved: dict[str, tuple[Tensor, Tensor]]
    """Running mean and variance after the step."""

    def update(self, other: Found) -> None:
        """Add what other layers gave."""
        self.logits.update(other.logits)
        self.features.update(other.features)
        self.rates.update(other.rates)
        self.moved.update(other.moved)


class Values:
    """Values by layer, (T, B, ...), or (B, ...) in the artificial twin and where all steps are the same."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        self.values = values
        self.spikes: dict[str, Tensor] = {}
        self.again: dict[str, Again] = {}
        self.deferred: dict[str, Node] = {}

    def drop(self, names: tuple[str, ...]) -> None:
        """Forget what is known of values that nothing reads any more."""
        for table in (self.values, self.spikes, self.again):
            for name in names:
                table.pop(name, None)


def run(nodes: tuple[Node, ...], way: Way, held: dict[str, Held], values: Values, tap: Tap | None) -> Found:
    """Run layers in order; their outputs are added to `values`, and what none reads any more is dropped.

    Args:
        nodes: the layers.
        way: of which twin, in which mode.
        held: the layers' tensors by name.
        values: what the layers read.
        tap: sees every layer's output; None for none.
    """
    found = Found({}, {}, {}, {})
    for node in nodes:
        if way.joined and node.deferred:
            values.deferred[node.name] = node
            continue
        if node.kind == "activation" and node.inputs[0] in values.deferred:
            _joined(node, way, held, values, found)
            continue
        xs = [values.values[name] for name in node.inputs]
        tensors, u = held.get(node.name, ()), None
        if node.kind == "norm":
            y = _norm(node, way, tensors, xs[0], values, found)
        elif node.kind == "activation":
            y, u = _activation(node, way, tensors, xs[0], values, tap is not None)
            if way.spike_rates and way.twin == "snn":
                found.rates[node.name] = y.detach().mean(dtype=torch.promote_types(y.dtype, torch.float32))
        elif node.kind == "head":
            y, found.logits[node.name] = _head(node, way, tensors, xs[0], tap is not None)
        elif node.kind == "linear":
            y = project(xs[0], *tensors)  # type: ignore[arg-type]  # a weight and a bias
            y = y if way.activations is None else y.to(way.activations)
        elif node.kind == "conv":
            y = _convolution(node, way, tensors, xs[0], values.spikes.get(node.inputs[0]))
        elif node.kind == "add":
            y = xs[0] + xs[1]
            _recomputed_sum(node, values)
        elif node.kind == "avg_pool":
            with _recomputed(xs[0], values.again.get(node.inputs[0])):
                y = unfold(functional.avg_pool2d(fold(xs[0]), *node.window), xs[0].shape[:-3])
        else:
            y = xs[0].mean((-2, -1))
        if node.feature:
            found.features[node.name] = _over_time(y, node.static, way)
        if tap is not None:
            tap(node.name, way.twin, y, u)
        values.values[node.name] = y
        values.drop(node.last)
    return found


def _convolution(node: Node, way: Way, tensors: Held, x: Tensor, spikes: Tensor | None) -> Tensor:
    if isinstance(tensors, Factors):
        return convolve_factored(x, tensors, *node.window, spikes)
    (kernel,) = tensors
    assert kernel is not None
    return convolve(x, kernel, *node.window, way.activations, spikes)


def _norm(node: Node, way: Way, tensors: Held, x: Tensor, values: Values, found: Found) -> Tensor:
    gamma, beta, mean, var = (value for value in tensors if value is not None)
    config, single = way.method.batch_norm, way.twin == "ann" or node.static
    sequence = x.unsqueeze(0) if single else x
    if not way.training:
        y = batch_norm_eval(config, sequence, gamma, beta, mean, var)
        return y.squeeze(0) if single else y
    repeats = way.method.time_steps if single and way.twin == "snn" else 1
    y, *moved = batch_norm_train(config, sequence, gamma, beta, mean, var, repeats=repeats, ranks=way.ranks)
    found.moved[node.name] = moved[0], moved[1]
    if way.thrifty:
        given = sequence.detach(), gamma.detach(), beta.detach()

        def again() -> Tensor:
            y = batch_norm_again(config, *given)
            return y.squeeze(0) if single else y

        values.again[node.name] = again
    return y.squeeze(0) if single else y


def _recomputed_sum(node: Node, values: Values) -> None:
    one, other = (values.again.get(name) for name in node.inputs)
    if one is not None and other is not None:
        values.again[node.name] = lambda: one() + other()


def _activation(node: Node, way: Way, tensors: Held, x: Tensor, values: Values, traced: bool) -> tuple[Tensor, Tensor | None]:
    """Spikes, and potentials where asked for, or rectified values."""
    if way.twin == "ann":
        return functional.relu(x), None
    neuron, again = way.method.neuron, values.again.get(node.inputs[0])
    decay, threshold = tensors
    x = x.expand(way.method.time_steps, *x.shape) if node.static_inputs[0] else x
    if traced:
        s, u, _ = lif_traced(x, neuron=neuron, decay=decay, threshold=threshold, kernel=way.kernel)
        return s, u
    with _recomputed(x, again):
        s = lif(x, neuron=neuron, decay=decay, threshold=threshold, kernel=way.kernel).s
    if way.thrifty:
        spikes, dtype = s.detach().bool(), s.dtype
        values.spikes[node.name] = spikes
        values.again[node.name] = lambda: spikes.to(dtype)
    return s, None


def _joined(node: Node, way: Way, held: dict[str, Held], values: Values, found: Found) -> None:
    """An activation with the norms and the sum before it, in one where kernels can."""
    first = values.deferred.pop(node.inputs[0])
    ends = first.inputs if first.kind == "add" else (first.name,)
    norms = [first] if first.kind == "norm" else [values.deferred.pop(name) for name in ends if name in values.deferred]
    steps = way.method.time_steps if way.twin == "snn" else 1
    source, *rest = (_source(norm, way, held[norm.name], values.values[norm.inputs[0]]) for norm in norms)
    other: Source | Tensor | None = rest[0] if rest else None
    if len(norms) < len(ends):
        (place,) = (i for i, name in enumerate(ends) if name in values.values)
        x = values.values[ends[place]]
        other = x if way.twin == "snn" and not first.static_inputs[place] else x.unsqueeze(0)
    layers = (*norms, *([first] if first.kind == "add" else []), node)
    if not fits(source, other, steps):
        found.update(run(layers, way._replace(joined=False), held, values, None))
        return
    neurons = way.method if way.twin == "snn" else None
    spikes = source.gamma.new_zeros((), dtype=torch.float64) if way.spike_rates and way.twin == "snn" else None
    y, moved = activated(way.method.batch_norm, neurons, steps, source, other, spikes)
    found.moved.update(zip((norm.name for norm in norms), moved, strict=True))
    if spikes is not None:
        found.rates[node.name] = (spikes / y.numel()).to(torch.promote_types(y.dtype, torch.float32))
    y = y if way.twin == "snn" else y.squeeze(0)
    if node.feature:
        found.features[node.name] = _over_time(y, node.static, way)
    values.values[node.name] = y
    for layer in layers:
        values.drop(layer.last)


def _source(node: Node, way: Way, tensors: Held, x: Tensor) -> Source:
    """A norm that is left to its activation."""
    gamma, beta, mean, var = (value for value in tensors if value is not None)
    single = way.twin == "ann" or node.static
    repeats = way.method.time_steps if single and way.twin == "snn" else 1
    return Source(x.unsqueeze(0) if single else x, gamma, beta, mean, var, repeats)


def _recomputed(x: Tensor, again: Again | None) -> AbstractContextManager[object]:
    """Within it, no function keeps `x`, or a view of it, for its backward pass: it is computed again then."""
    if again is None:
        return nullcontext()
    address, dtype = x.untyped_storage().data_ptr(), x.dtype

    def pack(kept: Tensor) -> Any:
        if kept.dtype != dtype or kept.untyped_storage().data_ptr() != address:
            return kept
        return kept.size(), kept.stride(), kept.storage_offset()

    def unpack(packed: Any) -> Tensor:
        return packed if isinstance(packed, Tensor) else torch.as_strided(again(), *packed)

    return saved_tensors_hooks(pack, unpack)


def _head(node: Node, way: Way, tensors: Held, x: Tensor, every_step: bool) -> tuple[Tensor, Tensor]:
    """The head's output and its logits; readout first, since a head is linear, unless each step's are wanted."""
    weight, bias = tensors
    assert weight is not None
    assert bias is not None
    if way.twin == "ann":
        y = project(x, weight, bias)
        return y, wide(y)
    steps, per_step = way.method.time_steps, way.method.loss.per_step
    if not every_step and not per_step:
        y = project(_over_time(x, node.static, way), weight, bias, steps if way.method.readout == "sum" else 1)
        return y, wide(y)
    y = project(x, weight, bias)
    steps_y = wide(y.expand(steps, *y.shape) if node.static else y)
    return y, steps_y if per_step else readout(steps_y, way.method.readout)


def _over_time(y: Tensor, static: bool, way: Way) -> Tensor:
    """Reduced over time where there is any, in no less than float32."""
    if way.twin == "ann":
        return wide(y)
    if static:
        return wide(y) * way.method.time_steps if way.method.readout == "sum" else wide(y)
    return readout(wide(y), way.method.readout)


def wide(y: Tensor) -> Tensor:
    """Readout, logits and losses are never of less than float32."""
    return y.to(torch.promote_types(y.dtype, torch.float32))
