"""A network of the specification as pure functions: `init` gives its pytrees, `apply` runs both twins.

What is computed equals the step-by-step definition, but is arranged to be cheap: layer by layer with time
folded into the batch, each twin's kernels composed once, everything that a static image feeds up to the first
neurons computed once instead of T times, and heads applied after the sum over time. Maps are (..., H, W, C) here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from twinspike.config import TWINS, Method, Twin
from twinspike.errors import require
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
from twinspike.parameters import initial_state, kernel_shape, layout
from twinspike_jax import factorization, layers, neuron, norm
from twinspike_jax.convolution import conv, conv_mixed
from twinspike_jax.precision import DType, Policy, policy, policy_of
from twinspike_jax.segments import Segment, segments

Params = Mapping[str, Array]
"""Trained arrays by the specification's names."""
Statistics = Mapping[str, Array]
"""Running means and variances of norms by the specification's names."""

# Units of compilation: outside of `jit` a network runs layer by layer rather than primitive by primitive, each of
# which XLA would compile by itself; inside, layers of equal shapes are traced once.
_compose = jax.jit(factorization.compose, static_argnames=("factorization", "kernel_shape", "precision"))
_penalty = jax.jit(factorization.penalty)
_norm_train = jax.jit(norm.batch_norm_train, static_argnames=("config", "channel"))
_norm_train_constant = jax.jit(norm.batch_norm_train_constant, static_argnames=("config", "steps", "channel"))
_norm_eval = jax.jit(norm.batch_norm_eval, static_argnames=("eps", "space"))


@partial(jax.jit, static_argnames=("steps", "constant", "neuron", "potentials"))
def _fire(x: Array, *, decay: Array | None, threshold: Array | None, **options: Any) -> tuple[Array, Array | None]:
    """`neuron.fire` of maps with C last: it wants C behind B, which matters where something is learned per channel."""
    per_channel = any(quantity is not None and quantity.ndim == 1 for quantity in (decay, threshold))
    if not per_channel or x.ndim < 4:
        return neuron.fire(x, decay=decay, threshold=threshold, **options)
    s, u = neuron.fire(layers.channels_first(x), decay=decay, threshold=threshold, **options)
    return layers.channels_last(s), None if u is None else layers.channels_last(u)


class Outputs(NamedTuple):
    """What `apply` gives; N exits, S slices of time that the loss sees, B samples, K classes, L activation layers."""

    logits_ann: Array
    """(N, B, K)."""
    logits_snn: Array
    """(S, N, B, K): S is T with `loss.per_step`, where each step's logits are given, else 1 and they are reduced."""
    features_ann: Array
    """(N, B, F)."""
    features_snn: Array
    """(N, B, F), reduced over time."""
    spike_rates: Array
    """(L,) spikes per neuron and time step of each activation layer, in the network's order."""


class Twinned(NamedTuple):
    """One twin's run; values are without time, (B, ...), in the artificial twin and where nothing changes over time."""

    values: dict[str, Array]
    """Maps with C last."""
    potentials: dict[str, Array]
    """(T, B, ...) by activation layer, where asked for."""
    statistics: dict[str, Array]
    rates: dict[str, Array]
    """Spikes per neuron and time step, of the spiking twin."""


def init(
    network: Network, method: Method, seed: int = 0, dtype: DType = jnp.float32
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Parameters and statistics that a run starts from (clauses INI-*).

    Args:
        network: the graph.
        method: decides factors and learned neuron quantities.
        seed: of the run, in [0, 2^64).
        dtype: float32, or float64 where JAX has it enabled.

    Returns:
        Two flat dicts by the specification's names.

    Raises:
        SpecError: another dtype, or float64 with x64 disabled.
    """
    policy_of(dtype)
    usable = jax.dtypes.canonicalize_dtype(jnp.dtype(dtype))
    require(usable == jnp.dtype(dtype), "dtype", expected="float64 only with jax_enable_x64", got=jnp.dtype(dtype).name)
    state = initial_state(network, method, seed=seed)
    params: dict[str, Array] = {}
    statistics: dict[str, Array] = {}
    for entry in layout(network, method):
        (params if entry.trained else statistics)[entry.name] = jnp.array(state[entry.name].astype(jnp.dtype(dtype)))
    return params, statistics


def apply(
    network: Network,
    method: Method,
    params: Params,
    statistics: Statistics,
    images: Array,
    training: bool,
    *,
    precision: str | None = None,
    recompute: bool = False,
) -> tuple[Outputs, dict[str, Array]]:
    """Run both twins on a batch.

    Args:
        network: the graph; static under `jit`, like `method`, `training` and `precision`.
        method: everything else that fixes what is computed.
        params: as `init` gives them.
        statistics: likewise.
        images: (B, C, H, W), or (T, B, C, H, W) for event networks.
        training: whether norms use the batch's statistics and move the running ones.
        precision: a profile's name; by default everything is computed in the format of the parameters, without TF32.
        recompute: whether a backward pass runs each block again instead of keeping its inner values; static too.

    Returns:
        Outputs, and the statistics after the batch (the given ones in evaluation).
    """
    casts = policy(precision) if precision else policy_of(next(iter(params.values())).dtype)
    given = params, statistics, images, training, casts
    ann, snn = (run_twin(network, method, twin, *given, recompute=recompute) for twin in TWINS)
    outputs = Outputs(
        *ends(network, method, params, ann, snn, casts),
        spike_rates=jnp.stack([snn.rates[name] for name in network.activations]),
    )
    return outputs, {**statistics, **ann.statistics, **snn.statistics}


def reduced_logits(method: Method, outputs: Outputs) -> Array:
    """The spiking twin's logits reduced over time, (N, B, K)."""
    if not method.loss.per_step:
        return outputs.logits_snn[0]
    return layers.readout(outputs.logits_snn, reduction=method.readout)


def total_penalty(params: Params) -> Array:
    """Sum of `penalty` over factored layers, shape (), unweighted (clause ORT-2)."""
    pairs = [(value, params[f"{name[:-2]}.V"]) for name, value in params.items() if name.endswith(".U")]
    first = next(iter(params.values()))
    return sum((_penalty(u, v) for u, v in pairs), jnp.zeros((), first.dtype))


def constant_layers(network: Network) -> frozenset[str]:
    """Layers of the spiking twin whose output is the same at every step: fed by a static input, before any neuron."""
    found: set[str] = set() if network.event else {INPUT}
    for layer in network.layers:
        if not isinstance(layer, Activation) and found.issuperset(inputs_of(layer)):
            found.add(layer.name)
    return frozenset(found)


def _kernel(name: str, twin: Twin, params: Params, shape: tuple[int, ...], method: Method, casts: Policy) -> Array:
    """A layer's kernel as one twin sees it; `isolate_ann` cuts the spiking twin's gradient into what is shared."""
    if f"{name}.U" not in params:
        return params[f"{name}.weight_{twin}"]
    kernel: Array = _compose(
        _shared(params[f"{name}.U"], twin, method),
        params[f"{name}.sigma_{twin}"],
        _shared(params[f"{name}.V"], twin, method),
        factorization=method.factorization,
        kernel_shape=shape,
        precision=casts.product,
    )
    return kernel


def _shared(value: Array, twin: Twin, method: Method) -> Array:
    return lax.stop_gradient(value) if twin == "snn" and method.loss.isolate_ann else value


def _linear(layer: Linear, twin: Twin, params: Params, x: Array, method: Method, casts: Policy, bias_times: int = 1) -> Array:
    """A linear layer in the storage format; after a sum over time its bias counts T times."""
    shape = (layer.out_features, x.shape[-1])
    weight = _kernel(layer.name, twin, params, shape, method, casts)
    bias = _shared(params[f"{layer.name}.bias"], twin, method)
    bias = bias_times * bias if bias_times != 1 else bias
    return layers.linear(x.astype(casts.storage), weight, bias, precision=casts.product)


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
    trace: bool = False,
    probes: Mapping[str, Array] | None = None,
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
        trace: also run the heads step by step and keep potentials.
        probes: zeros to be added to the layers' outputs, whose gradients are those towards the outputs.
    """
    images = images.astype(casts.storage)
    if network.event and twin == "ann":
        images = images.mean(axis=0)
    way = _Way(network, method, twin, training, casts, trace)
    total = Twinned({INPUT: layers.channels_last(images).astype(casts.activations)}, {}, {}, {})
    if not recompute:
        _run(way, network.layers, params, statistics, _kernels(way, network.layers, params), total, probes)
        return total
    for segment in segments(network):
        names = {layer.name for layer in segment.layers}
        own = {name: value for name, value in params.items() if name.rpartition(".")[0] in names}
        read = {name: total.values[name] for name in segment.reads}
        body = jax.checkpoint(partial(_run_segment, way, segment))
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


def _kernels(way: _Way, of: tuple[Layer, ...], params: Params) -> dict[str, Array]:
    """Kernels of convolutions, (kh, kw, in, out)."""
    shapes = infer_shapes(way.network)
    kernels = {}
    for layer in of:
        if isinstance(layer, Conv):
            shape = kernel_shape(layer, shapes[layer.input])
            kernels[layer.name] = _kernel(layer.name, way.twin, params, shape, way.method, way.casts).transpose(2, 3, 1, 0)
    return kernels


def _run_segment(way: _Way, segment: Segment, params: Params, statistics: Statistics, kernels: Any, read: Any) -> Twinned:
    run = Twinned(dict(read), {}, {}, {})
    _run(way, segment.layers, params, statistics, kernels, run, None)
    return run._replace(values={name: run.values[name] for name in segment.writes})


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
    network, method, twin, training, casts, trace = way
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
                y = _linear(layer, twin, params, x, method, casts)
                y = y if layer.name in heads else y.astype(casts.activations)
            case Conv():
                y = _per_sample(lambda m, c=layer: _conv(m, kernels[c.name], c, casts), x, timeless)
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
                y = _norm(layer, twin, params, statistics, x, timeless, training, method, run.statistics)
            case Activation() if twin == "ann":
                y = layers.relu(x)
            case Activation():
                y, u = _fire(
                    x,
                    steps=method.time_steps,
                    constant=timeless,
                    neuron=method.neuron,
                    decay=params.get(f"{layer.name}.decay"),
                    threshold=params.get(f"{layer.name}.threshold"),
                    potentials=trace,
                )
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
        y, mean, var = _norm_train_constant(x, gamma, beta, mean, var, config=config, steps=steps, channel=x.ndim - 1)
    else:
        y, mean, var = _norm_train(x, gamma, beta, mean, var, config=config, channel=x.ndim - 1)
    after.update(zip(names, map(lax.stop_gradient, (mean, var)), strict=True))
    return y


def ends(
    network: Network, method: Method, params: Params, ann: Twinned, snn: Twinned, casts: Policy
) -> tuple[Array, Array, Array, Array]:
    """Logits and features of both twins, shaped as in `Outputs`; readout before heads, unless the heads were run."""
    constant, steps = constant_layers(network), method.time_steps
    sums = method.readout == "sum"

    def over_time(name: str) -> Array:
        value = snn.values[name].astype(casts.storage)
        if name in constant:
            return steps * value if sums else value
        return layers.readout(value, reduction=method.readout)

    def at_each_step(name: str) -> Array:
        value = snn.values[name]
        return jnp.broadcast_to(value, (steps, *value.shape)) if name in constant else value

    logits: tuple[list[Array], list[Array]] = [], []
    for exit_ in network.exits:
        head = network.layer(exit_.head)
        if not isinstance(head, Linear):  # the description was validated; this tells the type checker
            raise TypeError(exit_.head)
        if exit_.head in snn.values:
            logits[0].append(ann.values[exit_.head])
            logits[1].append(at_each_step(exit_.head) if method.loss.per_step else over_time(exit_.head)[None])
            continue
        logits[0].append(_linear(head, "ann", params, ann.values[head.input], method, casts))
        if method.loss.per_step:
            logits[1].append(_linear(head, "snn", params, at_each_step(head.input), method, casts))
        else:
            z = _linear(head, "snn", params, over_time(head.input), method, casts, bias_times=steps if sums else 1)
            logits[1].append(z[None])
    features = [exit_.feature for exit_ in network.exits]
    return (
        jnp.stack(logits[0]),
        jnp.stack(logits[1], axis=1),
        jnp.stack([ann.values[name].astype(casts.storage) for name in features]),
        jnp.stack([over_time(name) for name in features]),
    )
