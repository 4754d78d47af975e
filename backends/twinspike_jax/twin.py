"""One twin's layers, from an input to values by layer, as a function of parameters and statistics.

Layer by layer with time folded into the batch, each kernel composed once, and everything that a static image
feeds up to the first neurons computed once instead of T times. Maps are (..., H, W, C) here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, lax

from twinspike.config import Method, Twin
from twinspike.network import (
    INPUT,
    Activation,
    Add,
    AvgPool,
    Conv,
    GlobalPool,
    Layer,
    Linear,
    Network,
    Norm,
    infer_shapes,
    inputs_of,
)
from twinspike.parameters import kernel_shape, layer_and_part
from twinspike_jax import layers, neuron, norm
from twinspike_jax.convolution import conv, conv_mixed
from twinspike_jax.precision import Policy
from twinspike_jax.residuals import KEPT, kept, restored
from twinspike_jax.segments import Segment, segments
from twinspike_jax.weights import Params, kernel_of, linear

Statistics = Mapping[str, Array]
"""Running means and variances of norms by the specification's names."""

# Units of compilation: outside of `jit` a network runs layer by layer rather than primitive by primitive, each of
# which XLA would compile by itself; inside, layers of equal shapes are traced once.
_norm_train = jax.jit(norm.batch_norm_train, static_argnames=("config", "channel", "ranks"))
_norm_train_constant = jax.jit(norm.batch_norm_train_constant, static_argnames=("config", "steps", "channel", "ranks"))
_norm_eval = jax.jit(norm.batch_norm_eval, static_argnames=("eps", "space"))
_fire = jax.jit(partial(neuron.fire, last=True), static_argnames=("steps", "constant", "neuron", "potentials", "booleans"))


class Twinned(NamedTuple):
    """One twin's run; values are without time, (B, ...), in the artificial twin and where nothing changes over time."""

    values: dict[str, Array]
    """Maps with C last."""
    potentials: dict[str, Array]
    """(T, B, ...) by activation layer, where asked for."""
    statistics: dict[str, Array]
    rates: dict[str, Array]
    """Spikes per neuron and time step, of the spiking twin."""
    fired: dict[str, Array]
    """The spiking twin's spikes as booleans, by activation layer, where a backward pass is to keep them."""


def constant_layers(network: Network) -> frozenset[str]:
    """Layers of the spiking twin whose output is the same at every step: fed by a static input, before any neuron."""
    found: set[str] = set() if network.event else {INPUT}
    for layer in network.layers:
        if not isinstance(layer, Activation) and found.issuperset(inputs_of(layer)):
            found.add(layer.name)
    return frozenset(found)


def run_twin(
    network: Network,
    method: Method,
    twin: Twin,
    params: Params,
    statistics: Statistics,
    images: Array,
    training: bool,
    casts: Policy,
    *,
    recompute: bool = False,
    spare: bool = False,
    trace: bool = False,
    probes: Mapping[str, Array] | None = None,
    ranks: str | None = None,
) -> Twinned:
    """One twin's layers in order.

    Args:
        network: the graph.
        method: as in `apply`.
        twin: which one.
        params: as in `apply`.
        statistics: likewise.
        images: likewise.
        training: likewise.
        casts: the precision profile.
        recompute: as in `apply`; of the values only those between blocks are returned.
        spare: as in `apply`, likewise.
        trace: also run the heads step by step and keep potentials.
        probes: zeros to be added to the layers' outputs, whose gradients are those towards the outputs.
        ranks: as in `apply`.
    """
    images = images.astype(casts.storage)
    if network.event and twin == "ann":
        images = images.mean(axis=0)
    thrifty = not trace and (recompute or spare)
    way = _Way(
        network, method, twin, training, casts, trace, thrifty, ranks if method.batch_norm.replicas == "synchronized" else None
    )
    total = Twinned({INPUT: layers.channels_last(images).astype(casts.activations)}, {}, {}, {}, {})
    if not way.thrifty:
        _run(way, network.layers, params, statistics, _kernels(way, network.layers, params), total, probes)
        return total
    for segment in segments(network):
        names = {layer.name for layer in segment.layers}
        own = {name: value for name, value in params.items() if layer_and_part(name)[0] in names}
        read = tuple({name: table[name] for name in segment.reads if name in table} for table in (total.values, total.fired))
        body = jax.checkpoint(partial(_run_segment, way, segment), policy=None if recompute else KEPT)
        for table, part in zip(total, body(own, statistics, _kernels(way, segment.layers, params), read), strict=True):
            table.update(part)
    return total


class _Way(NamedTuple):
    """What is fixed when a twin's layers are traced."""

    network: Network
    method: Method
    twin: Twin
    training: bool
    casts: Policy
    trace: bool
    thrifty: bool
    """Whether a backward pass computes again what it can, segment by segment."""
    ranks: str | None
    """Axis of the mesh over which norms share their statistics."""


def _kernels(way: _Way, of: tuple[Layer, ...], params: Params) -> dict[str, Array]:
    """Kernels of convolutions, (kh, kw, in, out)."""
    shapes = infer_shapes(way.network)
    kernels = {}
    for layer in of:
        if isinstance(layer, Conv):
            shape = kernel_shape(layer, shapes[layer.input])
            kernels[layer.name] = kernel_of(layer.name, way.twin, params, shape, way.method, way.casts).transpose(2, 3, 1, 0)
    return kernels


def _run_segment(way: _Way, segment: Segment, params: Params, statistics: Statistics, kernels: Any, read: Any) -> Twinned:
    values, spikes = read
    run = Twinned({name: restored(y, spikes[name]) if name in spikes else y for name, y in values.items()}, {}, {}, {}, {})
    _run(way, segment.layers, params, statistics, kernels, run, None)
    written = ({name: table[name] for name in segment.writes if name in table} for table in (run.values, run.fired))
    return run._replace(**dict(zip(("values", "fired"), written, strict=True)))


def _run(
    way: _Way,
    of: tuple[Layer, ...],
    params: Params,
    statistics: Statistics,
    kernels: Mapping[str, Array],
    run: Twinned,
    probes: Mapping[str, Array] | None,
) -> None:
    """Run layers in order and add what they give to `run`, which has what they read."""
    network, method, twin, training, casts, trace, thrifty, ranks = way
    heads = {exit_.head for exit_ in network.exits}
    constant = constant_layers(network) if twin == "snn" else frozenset(infer_shapes(network))
    values = run.values
    for layer in of:
        x = values[layer.input]
        timeless = layer.input in constant
        match layer:
            case Linear() if layer.name in heads and not trace:
                continue
            case Linear():
                y = kept(linear(layer, twin, params, x, method, casts))
                y = y if layer.name in heads else y.astype(casts.activations)
            case Conv():
                y = kept(_per_sample(lambda m, c=layer: _conv(m, kernels[c.name], c, casts), x, timeless))
            case AvgPool():
                y = _per_sample(lambda m, p=layer: layers.avg_pool_last(m, kernel=p.kernel, stride=p.stride), x, timeless)
            case GlobalPool():
                y = x.mean(axis=(-3, -2))
            case Add():
                other = values[layer.other]
                if timeless != (layer.other in constant):  # a constant joins something that changes over time
                    x, other = (x[None], other) if timeless else (x, other[None])
                y = x + other
            case Norm():
                y = _norm(layer, twin, params, statistics, x, timeless, training, method, run.statistics, ranks)
            case Activation() if twin == "ann":
                y = layers.relu(x)
            case Activation():
                y, fired, u = _fire(
                    x,
                    steps=method.time_steps,
                    constant=timeless,
                    neuron=method.neuron,
                    decay=params.get(f"{layer.name}.decay"),
                    threshold=params.get(f"{layer.name}.threshold"),
                    potentials=trace,
                    booleans=thrifty,
                )
                if fired is not None:
                    run.fired[layer.name] = fired
                run.rates[layer.name] = lax.stop_gradient(y).mean(dtype=casts.storage)
                if u is not None:
                    run.potentials[layer.name] = u
        values[layer.name] = y if probes is None else y + probes[layer.name]


def _per_sample(function: Any, x: Array, timeless: bool) -> Array:
    """Apply a function of (B, ...) to (T, B, ...) with time folded into the batch."""
    if timeless:
        return function(x)  # type: ignore[no-any-return]  # functions of this module
    y = function(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])  # type: ignore[no-any-return]  # likewise


def _conv(x: Array, kernel: Array, layer: Conv, casts: Policy) -> Array:
    if casts.activations != casts.storage:
        return conv_mixed(x, kernel, layer.stride, layer.padding)
    return conv(x, kernel, layer.stride, layer.padding, casts.product)


def _norm(
    layer: Norm,
    twin: Twin,
    params: Params,
    statistics: Statistics,
    x: Array,
    timeless: bool,
    training: bool,
    method: Method,
    after: dict[str, Array],
    ranks: str | None,
) -> Array:
    """Normalize and note the statistics after the batch."""
    gamma, beta = (params[f"{layer.name}.{quantity}_{twin}"] for quantity in ("gamma", "beta"))
    names = [f"{layer.name}.{quantity}_{twin}" for quantity in ("mean", "var")]
    mean, var = (statistics[name] for name in names)
    config = method.batch_norm
    if not training:
        y: Array = _norm_eval(x, gamma, beta, mean, var, eps=config.eps, space=0)
        return y
    if timeless:
        steps = method.time_steps if twin == "snn" else 1
        y, mean, var = _norm_train_constant(
            x, gamma, beta, mean, var, config=config, steps=steps, channel=x.ndim - 1, ranks=ranks
        )
    else:
        y, mean, var = _norm_train(x, gamma, beta, mean, var, config=config, channel=x.ndim - 1, ranks=ranks)
    after.update(zip(names, map(lax.stop_gradient, (mean, var)), strict=True))
    return y
